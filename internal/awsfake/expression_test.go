package awsfake

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	exampleItem = Item{
		"A": Number(5), "B": String("hello"), "T": Bool(true), "Z": Value{Type: typeNull},
		"Bin": {Type: typeBinary, Text: "abc"},
		"Ls":  {Type: typeList, List: []Value{Number(1), String("x")}},
		"Mp":  {Type: typeMap, Map: Item{"k": Number(1)}},
		"SS":  {Type: typeStringSet, List: []Value{String("p"), String("q")}},
		"NS":  {Type: typeNumberSet, List: []Value{Number(1), Number(2)}},
	}
	exampleNames  = map[string]string{"#a": "A", "#odd": "a name.with [signs]", "#e": ""}
	exampleValues = Item{
		":n": Number(5), ":m": Number(6), ":neg": Number(-1), ":s": String("hello"), ":he": String("he"), ":x": String("x"),
		":t": Bool(true), ":z": {Type: typeNull}, ":S": String("S"), ":N": String("N"), ":bad": String("STRING"),
		":l": {Type: typeList, List: []Value{Number(9)}}, ":ss": {Type: typeStringSet, List: []Value{String("q"), String("p")}},
		":p": {Type: typeStringSet, List: []Value{String("p")}}, ":ns": {Type: typeNumberSet, List: []Value{Number(2), Number(3)}},
		":bin": {Type: typeBinary, Text: "ab"}, ":map": {Type: typeMap, Map: Item{"k": Number(1)}},
	}
)

func exampleScope() *scope {
	return &scope{names: exampleNames, values: exampleValues, used: map[string]bool{}}
}

func TestConditionsHoldAsDocumented(t *testing.T) {
	for expression, want := range map[string]bool{
		"A = :n":      true,
		"#a = :n":     true,
		":n = A":      true,
		"A = :m":      false,
		"A <> :m":     true,
		"A <> :n":     false,
		"A < :m":      true,
		"A < :n":      false,
		"A <= :n":     true,
		"A > :neg":    true,
		"A >= :m":     false,
		"B = :s":      true,
		"B < :x":      true,
		"A = :s":      false,
		"A <> :s":     true,
		"A < :s":      false,
		"A > :s":      false,
		"T = :t":      true,
		"Z = :z":      true,
		"SS = :ss":    true,
		"SS = :p":     false,
		"Mp = :map":   true,
		"Absent = :n": false,
		// An attribute that is absent differs from every value.
		"Absent <> :n":                     true,
		"NOT Absent = :n":                  true,
		"Absent < :n":                      false,
		"#odd = :n":                        false,
		"Absent = Gone":                    false,
		"attribute_exists(A)":              true,
		"attribute_exists(Absent)":         false,
		"attribute_not_exists(#odd)":       true,
		"attribute_not_exists(Z)":          false,
		"attribute_type(B, :S)":            true,
		"attribute_type(B, :N)":            false,
		"attribute_type(Absent, :S)":       false,
		"begins_with(B, :he)":              true,
		"begins_with(B, :x)":               false,
		"begins_with(A, :he)":              false,
		"begins_with(Bin, :bin)":           true,
		"contains(B, :he)":                 true,
		"contains(SS, :x)":                 false,
		"contains(Ls, :x)":                 true,
		"contains(NS, :n)":                 false,
		"contains(A, :n)":                  false,
		"size(B) = :n":                     true,
		"size(Ls) < :n":                    true,
		"size(A) = :n":                     false,
		"size(B) BETWEEN :n AND :m":        true,
		"A BETWEEN :n AND :m":              true,
		"A between :neg and :neg":          false,
		"A IN (:m, :n)":                    true,
		"A IN (:m)":                        false,
		"Absent IN (:m)":                   false,
		"A = :n AND B = :x":                false,
		"A = :n OR B = :x":                 true,
		"A = :m AND B = :x OR T = :t":      true,
		"A = :m AND (B = :x OR T = :t)":    false,
		"NOT A = :m AND T = :t":            true,
		"NOT (A = :m OR T = :t)":           false,
		"not not A = :n":                   true,
		"T = :t or A = :m and B = :x":      true,
		"(T = :t) AND (A = :n)":            true,
		"A=:n AND NOT(B=:x)":               true,
		"A BETWEEN :neg AND :m AND T = :t": true,
	} {
		c, err := parseCondition("ConditionExpression", expression, exampleScope())
		require.NoError(t, err, expression)
		require.Equal(t, want, c.holds(exampleItem), expression)
	}
}

func TestConditionsHoldForItemsThatAreNotThere(t *testing.T) {
	for expression, want := range map[string]bool{
		"attribute_not_exists(A)": true,
		"A = :n":                  false,
		"A <> :n":                 true,
	} {
		c, err := parseCondition("ConditionExpression", expression, exampleScope())
		require.NoError(t, err)
		require.Equal(t, want, c.holds(nil), expression)
	}
	var none *condition
	require.True(t, none.holds(nil))
}

func TestConditionsThatTheServiceRefuses(t *testing.T) {
	for expression, message := range map[string]string{
		"A = ":                           `Syntax error; token: "<EOF>"`,
		"A":                              "Syntax error",
		"A = :n )":                       "Syntax error",
		"(A = :n":                        "Syntax error",
		"A == :n":                        "Syntax error",
		"A = 5":                          "Syntax error",
		"A = 'x'":                        "Syntax error",
		"A = :":                          "Syntax error",
		"A = :n AND":                     "Syntax error",
		"AND":                            "reserved keyword",
		"A BETWEEN :n":                   "Syntax error",
		"A IN ()":                        "Syntax error",
		"A IN :n":                        "Syntax error",
		"A < :n < :m":                    "Syntax error",
		"((A = :n))":                     "redundant parentheses",
		"A = :undefined":                 "not defined; attribute value: :undefined",
		"#undefined = :n":                "not defined; attribute name: #undefined",
		"#e = :n":                        "must not be empty",
		"Timestamp = :n":                 "reserved keyword: Timestamp",
		"owner = :n":                     "reserved keyword: owner",
		"Mp.k = :n":                      "not supported",
		"Ls[0] = :n":                     "not supported",
		"unknown(A)":                     "Invalid function name; function: unknown",
		"attribute_exists(A, B)":         "Incorrect number of operands",
		"attribute_exists(:n)":           "requires a document path",
		"attribute_type(A, :bad)":        "Invalid attribute type name",
		"attribute_type(A, :n)":          "Incorrect operand type",
		"begins_with(A, :n)":             "Incorrect operand type",
		"A < :t":                         "Incorrect operand type",
		"A BETWEEN :m AND :n":            "upper bound",
		"A = A":                          "must be distinct",
		"size(size(A)) = :n":             "Incorrect number of operands",
		"A = :n\x00":                     "Syntax error",
		strings.Repeat("(", 5000) + "A":  "Expression size",
		strings.Repeat("NOT ", 900) + "": "Syntax error",
	} {
		_, err := parseCondition("ConditionExpression", expression, exampleScope())
		require.ErrorContains(t, err, message, expression)
		require.Equal(t, CodeValidation, asError(err).Code)
	}
}

func TestUpdatesApplyAsDocumented(t *testing.T) {
	for _, test := range []struct {
		expression string
		want       Item // what changes; a Value without type is removed
	}{
		{"SET A = :m", Item{"A": Number(6)}},
		{"SET #odd = :s", Item{"a name.with [signs]": String("hello")}},
		{"SET A = A + :n, B = A", Item{"A": Number(10), "B": Number(5)}}, // right sides see the old item
		{"SET A = A - :m", Item{"A": Number(-1)}},
		{"SET A = :n - :neg", Item{"A": Number(6)}},
		{"SET C = if_not_exists(C, :n)", Item{"C": Number(5)}},
		{"SET A = if_not_exists(A, :m)", Item{}},
		{"SET C = if_not_exists(C, :n) + :m", Item{"C": Number(11)}},
		{"SET A = if_not_exists(A, :m) + :m", Item{"A": Number(11)}},
		{"SET C = :m - if_not_exists(C, A)", Item{"C": Number(1)}},
		{"SET C = if_not_exists(C, :n) - if_not_exists(#odd, :m)", Item{"C": Number(-1)}},
		{"SET C = if_not_exists(C, if_not_exists(#odd, :n)) + #a", Item{"C": Number(10)}},
		{"SET A=A+:n", Item{"A": Number(10)}},
		{"SET Ls = list_append(Ls, :l)", Item{"Ls": {Type: typeList, List: []Value{Number(1), String("x"), Number(9)}}}},
		{"SET C = list_append(if_not_exists(C, :l), :l)", Item{"C": {Type: typeList, List: []Value{Number(9), Number(9)}}}},
		{"REMOVE A, Absent", Item{"A": {}}},
		{"ADD A :neg", Item{"A": Number(4)}},
		{"ADD C :n", Item{"C": Number(5)}},
		{"ADD NS :ns", Item{"NS": {Type: typeNumberSet, List: []Value{Number(1), Number(2), Number(3)}}}},
		{"DELETE SS :p", Item{"SS": {Type: typeStringSet, List: []Value{String("q")}}}},
		{"DELETE SS :ss", Item{"SS": {}}},
		{"DELETE Absent :ss", Item{}},
		{"set A = :m remove B add C :n delete SS :p", Item{
			"A": Number(6), "B": {}, "C": Number(5), "SS": {Type: typeStringSet, List: []Value{String("q")}},
		}},
	} {
		before := maps.Clone(exampleItem)
		actions, err := parseUpdate(test.expression, exampleScope())
		require.NoError(t, err, test.expression)
		got, err := apply(actions, exampleItem)
		require.NoError(t, err, test.expression)
		want := maps.Clone(exampleItem)
		maps.Copy(want, test.want)
		maps.DeleteFunc(want, func(_ string, v Value) bool { return v.Type == "" })
		require.True(t, want.equal(got), "%s: %s", test.expression, got)
		require.Equal(t, before, exampleItem, "the old item is shared and stays as it was")
	}
}

func TestUpdatesThatTheServiceRefuses(t *testing.T) {
	for expression, message := range map[string]string{
		"":                             "can not be empty",
		" ":                            "can not be empty",
		"SET":                          "Syntax error",
		"SET A":                        "Syntax error",
		"SET A = :n,":                  "Syntax error",
		"SET A = :n B = :n":            "Syntax error",
		"SET A = :n SET B = :n":        "can only be used once",
		"PUT A :n":                     "Syntax error",
		"SET A = :n, A = :m":           "overlap",
		"SET A = :n REMOVE #a":         "overlap",
		"SET Status = :n":              "reserved keyword",
		"SET A = :s + :n":              "Incorrect operand type for operator or function; operator or function: +, operand type: S",
		"SET A = A - :t":               "Incorrect operand type for operator or function; operator or function: -, operand type: BOOL",
		"SET A = A + :n + :m":          "Syntax error",
		"SET A = A +":                  "Syntax error",
		"SET A = + :n":                 "Syntax error",
		"SET A = A * :n":               "Syntax error",
		"SET A = size(B) + :n":         "Invalid function name",
		"SET A = size2(B)":             "Invalid function name",
		"SET A = if_not_exists(:n,:n)": "requires a document path",
		"SET A = if_not_exists(A)":     "Syntax error",
		"SET A = :undefined":           "not defined",
		"ADD A B":                      "Syntax error",
		"ADD A :s":                     "Incorrect operand type",
		"DELETE SS :n":                 "Incorrect operand type",
		"REMOVE Mp.k":                  "not supported",
	} {
		_, err := parseUpdate(expression, exampleScope())
		require.ErrorContains(t, err, message, expression)
	}
	for expression, want := range map[string]error{
		"SET C = Absent":                      errNoAttribute,
		"SET C = Absent + :n":                 errNoAttribute,
		"SET C = :n - Absent":                 errNoAttribute,
		"SET C = if_not_exists(C, #odd) + :n": errNoAttribute,
		"SET C = B + :n":                      errOperandType,
		"SET C = :n - Z":                      errOperandType,
		"SET C = Ls + :n":                     errOperandType,
		"SET C = NS - :n":                     errOperandType,
		"SET C = if_not_exists(B, :n) + :m":   errOperandType,
		"SET C = if_not_exists(C, :s) + :m":   errOperandType,
		"SET C = list_append(B, :l)":          errOperandType,
		"ADD B :n":                            errOperandType,
		"DELETE NS :p":                        errOperandType,
		"SET C = list_append(Absent,:l)":      errNoAttribute,
	} {
		actions, err := parseUpdate(expression, exampleScope())
		require.NoError(t, err, expression)
		_, err = apply(actions, exampleItem)
		require.ErrorIs(t, err, want, expression)
	}
}

func TestSumsKeepAllTheirDigits(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("0", n) }
	for _, test := range []struct{ a, op, b, want string }{
		{"0.1", "+", "0.2", "0.3"},
		{"1", "-", "1.0", "0"},
		{"-2.5", "-", "-0.25", "-2.25"},
		{"9007199254740993", "+", "1", "9007199254740994"}, // beyond a float's integers
		{"1e22", "+", "1", "10000000000000000000001"},
		{"1e22", "-", "1", "9999999999999999999999"},
		{"12345678901234567890123456789012345678", "+", "1", "12345678901234567890123456789012345679"},
		{"99999999999999999999999999999999999999", "+", "1", "1" + zeros(38)},
		{"-1234567890123456789.0123456789012345678", "+", "0.0000000000000000002", "-1234567890123456789.0123456789012345676"},
		{"1E-130", "+", "1E-130", "0." + zeros(129) + "2"},
		{"8E125", "+", "1E125", "9" + zeros(125)},
	} {
		got, err := calculate(t, test.a, test.op, test.b)
		require.NoError(t, err, test)
		require.Equal(t, Value{Type: typeNumber, Text: test.want}, got, test)
	}
	for _, test := range []struct{ a, op, b, message string }{
		{"9E125", "+", "1E125", "Number overflow"},
		{"-9E125", "-", "1E125", "Number overflow"},
		{"1.5E-130", "-", "1E-130", "Number underflow"},
		// The service says of digits that do not fit what it says of magnitudes.
		{"1E50", "+", "1", "Number overflow"},
		{"1E50", "-", "1", "Number overflow"},
		{"99999999999999999999999999999999999999", "+", "0.1", "Number overflow"},
	} {
		_, err := calculate(t, test.a, test.op, test.b)
		require.ErrorContains(t, err, test.message, test)
		require.Equal(t, CodeValidation, asError(err).Code)
	}
}

// calculate evaluates an operator on two numbers, which stand in any form.
func calculate(t *testing.T, a, op, b string) (Value, error) {
	t.Helper()
	values := Item{}
	for name, text := range map[string]string{":a": a, ":b": b} {
		normal, err := normalNumber(text)
		require.NoError(t, err)
		values[name] = Value{Type: typeNumber, Text: normal}
	}
	actions, err := parseUpdate("SET A = :a "+op+" :b", &scope{values: values, used: map[string]bool{}})
	require.NoError(t, err)
	item, err := apply(actions, Item{})
	return item["A"], err
}

func TestSumsAndDifferencesUndoEachOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		number := rapid.StringMatching(`-?[0-9]{1,18}(\.[0-9]{1,18})?`)
		a, b := number.Draw(rt, "a"), number.Draw(rt, "b")
		sum, err := calculate(t, a, "+", b)
		require.NoError(rt, err)
		back, err := calculate(t, sum.Text, "-", b)
		require.NoError(rt, err)
		want, err := normalNumber(a)
		require.NoError(rt, err)
		require.Equal(rt, want, back.Text)
	})
}

func TestPlaceholdersMustBeDefinedAndUsed(t *testing.T) {
	type names = map[string]string
	for _, test := range []struct {
		names      names
		values     Item
		expression string
		message    string
	}{
		{names{"#a": "A"}, Item{":n": Number(1)}, "#a = :n", ""},
		{nil, nil, "attribute_exists(A)", ""},
		{names{"#a": "A"}, nil, "", "can only be specified when using expressions"},
		{nil, Item{":n": Number(1)}, "", "can only be specified when using expressions"},
		{names{}, nil, "attribute_exists(A)", "ExpressionAttributeNames must not be empty"},
		{nil, Item{}, "attribute_exists(A)", "ExpressionAttributeValues must not be empty"},
		{names{"#a": "A", "#b": "B"}, nil, "attribute_exists(#a)", "unused in expressions: keys: {#b}"},
		{nil, Item{":n": Number(1), ":m": Number(2), ":o": Number(2)}, "A = :n", "unused in expressions: keys: {:m, :o}"},
		{names{"a": "A"}, nil, "attribute_exists(a)", "contains invalid key"},
		{nil, Item{"n": Number(1)}, "attribute_exists(a)", "contains invalid key"},
	} {
		s, err := newScope(test.names, test.values, test.expression)
		if err == nil {
			if _, err = parseCondition("ConditionExpression", test.expression, s); err == nil {
				err = s.unused()
			}
		}
		if test.message == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.message)
		}
	}
}

func TestProjectionsKeepWhatTheyName(t *testing.T) {
	paths, err := parseProjection("A, #odd,B", exampleScope())
	require.NoError(t, err)
	require.True(t, Item{"A": Number(5), "B": String("hello")}.equal(project(exampleItem, paths)))
	for _, expression := range []string{"A,", "A B", "A, A", "Name", "A.B", "attribute_exists(A)", ":n"} {
		_, err := parseProjection(expression, exampleScope())
		require.Error(t, err, expression)
	}
}

func TestNumbersKeepTheirValueInTheShortestForm(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "1.0": "1", "007": "7", "+5": "5", "1e3": "1000", "1.50E-2": "0.015", "-.5": "-0.5", "5.": "5",
		"12345678901234567890123456789012345678": "12345678901234567890123456789012345678",
		"1E-130":                                 "0." + strings.Repeat("0", 129) + "1",
		"9E125":                                  "9" + strings.Repeat("0", 125),
	} {
		got, err := normalNumber(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{
		"", "x", "1 ", "0x10", "1_000", "Inf", "NaN", "1/2", "--1", "e5", "1e", "1e99999", "1E126", "1E-131",
		"1" + strings.Repeat("0", 20) + "." + strings.Repeat("0", 20) + "1",
	} {
		_, err := normalNumber(in)
		require.Error(t, err, in)
	}
}

func TestValuesThatTheServiceRefuses(t *testing.T) {
	for _, in := range []string{
		`{}`, `{"S":"a","N":"1"}`, `{"X":"a"}`, `{"N":"one"}`, `{"N":1}`, `{"S":1}`, `{"NULL":false}`, `{"SS":[]}`,
		`{"SS":["a","a"]}`, `{"NS":["1","1.0"]}`, `{"B":"!"}`, `{"BOOL":"true"}`, `{"L":[{}]}`, `{"M":{"a":{}}}`, `5`,
	} {
		var v Value
		require.Error(t, json.Unmarshal([]byte(in), &v), in)
	}
}

func TestComparisonsAgreeWithTheirOpposites(t *testing.T) {
	value := rapid.Custom(func(t *rapid.T) Value {
		if rapid.Bool().Draw(t, "text") {
			return String(rapid.StringMatching("[ab]{0,2}").Draw(t, "s"))
		}
		return Number(int64(rapid.IntRange(-2, 2).Draw(t, "n")))
	})
	rapid.Check(t, func(t *rapid.T) {
		item := Item{"A": value.Draw(t, "a")}
		values := Item{":v": value.Draw(t, "v")}
		holds := func(expression string) bool {
			c, err := parseCondition("ConditionExpression", expression, &scope{values: values, used: map[string]bool{}})
			require.NoError(t, err)
			return c.holds(item)
		}
		require.Equal(t, holds("A = :v"), !holds("A <> :v"))
		require.Equal(t, holds("A < :v"), holds(":v > A"))
		require.Equal(t, holds("A <= :v"), holds("A < :v OR A = :v"))
		require.Equal(t, holds("A = :v"), holds("A BETWEEN :v AND :v"))
		if item["A"].Type == values[":v"].Type {
			require.Equal(t, holds("A < :v"), !holds("A >= :v"))
		} else {
			require.False(t, holds("A <= :v") || holds("A >= :v"))
		}
	})
}

func FuzzExpressions(f *testing.F) {
	for _, seed := range []string{
		"A = :n AND NOT (B <> :s OR size(B) IN (:n, :m))", "begins_with(#a, :s)", "A BETWEEN :n AND :m",
		"SET A = if_not_exists(A, :n) + :m REMOVE B ADD NS :ns DELETE SS :p", "A, #a, B", "((", "#", ":", "NOT NOT",
		"SET A = list_append(Ls, :l)", "size(", "attribute_type(A, :S",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		c, err := parseCondition("ConditionExpression", expression, exampleScope())
		requireValidation(t, err)
		if err == nil {
			negated := condition{op: "NOT", of: []condition{{op: "AND", of: []condition{}}}}
			if c != nil {
				negated.of[0] = *c
			}
			require.NotEqual(t, c.holds(exampleItem), negated.holds(exampleItem))
		}
		actions, err := parseUpdate(expression, exampleScope())
		requireValidation(t, err)
		if err == nil {
			_, err := apply(actions, exampleItem)
			requireValidation(t, err)
		}
		_, err = parseProjection(expression, exampleScope())
		requireValidation(t, err)
	})
}

func requireValidation(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		require.Equal(t, CodeValidation, asError(err).Code, err)
	}
}

func FuzzValue(f *testing.F) {
	for _, seed := range []string{
		`{"S":"a"}`, `{"N":"1e5"}`, `{"B":"AA=="}`, `{"L":[{"M":{"a":{"NULL":true}}}]}`, `{"NS":["1","2"]}`, `{"BS":["AA=="]}`, `{"N":"1E-9999"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, again Value
		if json.Unmarshal(b, &v) != nil || v.Type == "" {
			return
		}
		encoded, err := json.Marshal(v)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(encoded, &again), string(encoded))
		require.True(t, v.equal(again), "%s: %s", b, encoded)
	})
}

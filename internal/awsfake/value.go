package awsfake

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Types of attribute values, as the protocol names them.
const (
	typeString    = "S"
	typeNumber    = "N"
	typeBinary    = "B"
	typeBool      = "BOOL"
	typeNull      = "NULL"
	typeList      = "L"
	typeMap       = "M"
	typeStringSet = "SS"
	typeNumberSet = "NS"
	typeBinarySet = "BS"
)

// Item maps attribute names to values. Items that the server hands out are
// shared and must not be changed.
type Item map[string]Value

// Value is an attribute value. String, Number and their kin make one.
type Value struct {
	Type string // "S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS" or "BS"
	Text string // a string, a number in its shortest form, or binary bytes
	Bool bool
	List []Value // a list's elements, or a set's members of its base type
	Map  Item
}

// String is a value of type S.
func String(s string) Value { return Value{Type: typeString, Text: s} }

// Number is a value of type N.
func Number(n int64) Value { return Value{Type: typeNumber, Text: strconv.FormatInt(n, 10)} }

// Bool is a value of type BOOL.
func Bool(b bool) Value { return Value{Type: typeBool, Bool: b} }

// MarshalJSON writes the form of the protocol, such as {"S":"text"}.
func (v Value) MarshalJSON() ([]byte, error) {
	var content any
	switch v.Type {
	case typeString, typeNumber:
		content = v.Text
	case typeBinary:
		content = []byte(v.Text)
	case typeBool:
		content = v.Bool
	case typeNull:
		content = true
	case typeList:
		content = v.List
		if v.List == nil {
			content = []Value{}
		}
	case typeMap:
		content = v.Map
		if v.Map == nil {
			content = Item{}
		}
	case typeStringSet, typeNumberSet, typeBinarySet:
		members := make([]any, len(v.List))
		for i, m := range v.List {
			members[i] = m.Text
			if v.Type == typeBinarySet {
				members[i] = []byte(m.Text)
			}
		}
		content = members
	}
	return json.Marshal(map[string]any{v.Type: content})
}

// UnmarshalJSON reads the form of the protocol. Its errors are what the
// service answers.
func (v *Value) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	if len(fields) != 1 {
		return invalid("Supplied AttributeValue has %d datatypes set, must contain exactly one of the supported datatypes", len(fields))
	}
	for typ, raw := range fields {
		*v = Value{Type: typ}
		return v.unmarshal(raw)
	}
	return nil
}

func (v *Value) unmarshal(raw json.RawMessage) (err error) {
	switch v.Type {
	case typeString:
		return json.Unmarshal(raw, &v.Text)
	case typeNumber:
		if err := json.Unmarshal(raw, &v.Text); err != nil {
			return err
		}
		v.Text, err = normalNumber(v.Text)
		return err
	case typeBinary:
		var b []byte
		err := json.Unmarshal(raw, &b)
		v.Text = string(b)
		return err
	case typeBool:
		return json.Unmarshal(raw, &v.Bool)
	case typeNull:
		isNull := false
		if err := json.Unmarshal(raw, &isNull); err != nil {
			return err
		}
		if !isNull {
			return invalid("One or more parameter values were invalid: Null attribute value types must have the value of true")
		}
		return nil
	case typeList:
		return json.Unmarshal(raw, &v.List)
	case typeMap:
		return json.Unmarshal(raw, &v.Map)
	case typeStringSet, typeNumberSet, typeBinarySet:
		return v.unmarshalSet(raw)
	}
	return invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
}

func (v *Value) unmarshalSet(raw json.RawMessage) error {
	var members []json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	if len(members) == 0 {
		return invalid("One or more parameter values were invalid: An %s set may not be empty", v.Type)
	}
	for _, raw := range members {
		m := Value{Type: v.memberType()}
		if err := m.unmarshal(raw); err != nil {
			return err
		}
		if v.has(m) {
			return invalid("One or more parameter values were invalid: Input collection contains duplicates.")
		}
		v.List = append(v.List, m)
	}
	return nil
}

func (v Value) isSet() bool {
	return v.Type == typeStringSet || v.Type == typeNumberSet || v.Type == typeBinarySet
}

// memberType of a set: its name without the last letter.
func (v Value) memberType() string { return v.Type[:1] }

// has reports whether a list or set contains an equal value.
func (v Value) has(m Value) bool { return slices.ContainsFunc(v.List, m.equal) }

func (v Value) equal(o Value) bool {
	if v.Type != o.Type || v.Text != o.Text || v.Bool != o.Bool || len(v.List) != len(o.List) {
		return false
	}
	if v.isSet() {
		return !slices.ContainsFunc(v.List, func(m Value) bool { return !o.has(m) })
	}
	return slices.EqualFunc(v.List, o.List, Value.equal) && v.Map.equal(o.Map)
}

func (i Item) equal(o Item) bool { return maps.EqualFunc(i, o, Value.equal) }

// compare orders two values of one type among S, N and B; ok is false for any
// others.
func (v Value) compare(o Value) (order int, ok bool) {
	if v.Type != o.Type {
		return 0, false
	}
	switch v.Type {
	case typeString, typeBinary:
		return cmp.Compare(v.Text, o.Text), true
	case typeNumber:
		return v.rat().Cmp(o.rat()), true
	}
	return 0, false
}

func (v Value) rat() *big.Rat {
	r, ok := new(big.Rat).SetString(v.Text)
	if !ok {
		panic("awsfake: a number was stored that is none: " + strconv.Quote(v.Text))
	}
	return r
}

var numbers = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE]([+-]?[0-9]{1,4}))?$`)

// normalNumber checks a number and gives it its shortest decimal form. DynamoDB
// keeps 38 digits and magnitudes from 1E-130 to below 1E126.
func normalNumber(s string) (string, error) {
	match := numbers.FindStringSubmatch(s)
	if match == nil || len(s) > 1000 {
		return "", invalid("The parameter cannot be converted to a numeric value: %s", s)
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return "", invalid("The parameter cannot be converted to a numeric value: %s", s)
	}
	return formatNumber(r)
}

func formatNumber(r *big.Rat) (string, error) {
	if r.Sign() == 0 {
		return "0", nil
	}
	// All digits: 130 after the point reach every magnitude, 38 more the rest.
	text := r.FloatString(130 + 38)
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	digits := strings.Trim(strings.Replace(strings.TrimPrefix(text, "-"), ".", "", 1), "0")
	whole, _, _ := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	switch {
	case len(whole) > 126:
		return "", errOverflow
	case digits == "" || new(big.Rat).Abs(r).Cmp(smallest) < 0:
		return "", invalid("Number underflow. Attempting to store a number with magnitude smaller than supported range")
	case len(digits) > 38:
		return "", errTooManyDigits
	}
	return text, nil
}

var (
	smallest, _      = new(big.Rat).SetString("1E-130")
	errOverflow      = invalid("Number overflow. Attempting to store a number with magnitude larger than supported range")
	errTooManyDigits = invalid("Attempting to store more than 38 significant digits in a Number")
)

// size is what a value counts towards limits and capacity units, in bytes, from
// "DynamoDB item sizes and formats" of the developer guide. That of numbers is
// the approximation given there.
func (v Value) size() int {
	switch v.Type {
	case typeString, typeBinary:
		return len(v.Text)
	case typeNumber:
		return (significantDigits(v.Text)+1)/2 + 1
	case typeBool, typeNull:
		return 1
	}
	n := v.Map.size()
	for _, e := range v.List {
		n += e.size()
	}
	if v.isSet() {
		return n
	}
	return n + 3 + len(v.List) + len(v.Map)
}

// significantDigits of a number in its shortest form.
func significantDigits(number string) int {
	digits := strings.Replace(strings.TrimPrefix(number, "-"), ".", "", 1)
	return len(strings.Trim(digits, "0"))
}

// size is that of the names and values of all attributes.
func (i Item) size() int {
	n := 0
	for name, v := range i {
		n += len(name) + v.size()
	}
	return n
}

// length is what size() of an expression returns; ok is false for types that
// have none.
func (v Value) length() (n int, ok bool) {
	switch v.Type {
	case typeString:
		return len([]rune(v.Text)), true
	case typeBinary:
		return len(v.Text), true
	case typeMap:
		return len(v.Map), true
	case typeNumber, typeBool, typeNull:
		return 0, false
	}
	return len(v.List), true
}

// String is the item in the protocol's form, for messages of tests.
func (i Item) String() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]Value(i)); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}

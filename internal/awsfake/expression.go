package awsfake

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxExpression is the longest expression that DynamoDB takes, in bytes. It
// bounds the parser's recursion.
const maxExpression = 4096

// scope is what the placeholders of a request's expressions stand for, and
// which of them were used.
type scope struct {
	names  map[string]string
	values Item
	used   map[string]bool
}

func newScope(names map[string]string, values Item, expressions ...string) (*scope, error) {
	isUsed := strings.Join(expressions, "") != ""
	switch {
	case names != nil && !isUsed:
		return nil, invalid("ExpressionAttributeNames can only be specified when using expressions")
	case values != nil && !isUsed:
		return nil, invalid("ExpressionAttributeValues can only be specified when using expressions")
	case names != nil && len(names) == 0:
		return nil, invalid("ExpressionAttributeNames must not be empty")
	case values != nil && len(values) == 0:
		return nil, invalid("ExpressionAttributeValues must not be empty")
	}
	for name := range names {
		if len(name) < 2 || name[0] != '#' {
			return nil, invalid("ExpressionAttributeNames contains invalid key: Syntax error; key: %q", name)
		}
	}
	for name := range values {
		if len(name) < 2 || name[0] != ':' {
			return nil, invalid("ExpressionAttributeValues contains invalid key: Syntax error; key: %q", name)
		}
	}
	return &scope{names: names, values: values, used: map[string]bool{}}, nil
}

// unused is the error for placeholders that no expression uses. Callers parse
// all expressions first.
func (s *scope) unused() error {
	isUsed := func(name string) bool { return s.used[name] }
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(s.names)), isUsed)
	if len(names) > 0 {
		return invalid("Value provided in ExpressionAttributeNames unused in expressions: keys: {%s}", strings.Join(names, ", "))
	}
	values := slices.DeleteFunc(slices.Sorted(maps.Keys(s.values)), isUsed)
	if len(values) > 0 {
		return invalid("Value provided in ExpressionAttributeValues unused in expressions: keys: {%s}", strings.Join(values, ", "))
	}
	return nil
}

// condition is a parsed condition, filter or key condition.
type condition struct {
	op    string      // "AND", "OR", "NOT", a comparator, "BETWEEN", "IN" or a function
	of    []condition // operands of AND, OR and NOT
	args  []operand   // operands of everything else
	group bool        // stood in parentheses
}

// operand is an attribute, a value or the size of either.
type operand struct {
	path  string // empty for a value
	value Value
	size  bool
}

// term is the right side of a SET: an operand, a function of terms, or their
// sum or difference.
type term struct {
	op   string // "", "+", "-", "if_not_exists" or "list_append"
	args []term
	leaf operand // when op is empty
}

// action is one step of an update.
type action struct {
	verb string // "SET", "REMOVE", "ADD" or "DELETE"
	path string
	term term // for SET; a leaf for ADD and DELETE
}

type parser struct {
	kind   string // the parameter's name, for messages
	tokens []token
	scope  *scope
}

type token struct {
	text string
	end  int // in the expression, for messages
}

func parserOf(kind, expression string, s *scope) (*parser, error) {
	p := &parser{kind: kind, scope: s}
	if len(expression) > maxExpression {
		return nil, p.fail("Expression size has exceeded the maximum allowed size;")
	}
	if err := p.tokenize(expression); err != nil {
		return nil, err
	}
	if len(p.tokens) == 0 {
		return nil, p.fail("The expression can not be empty;")
	}
	return p, nil
}

func (p *parser) fail(format string, args ...any) error {
	return invalid("Invalid %s: %s", p.kind, fmt.Sprintf(format, args...))
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func (p *parser) tokenize(s string) error {
	for i := 0; i < len(s); {
		start := i
		switch c := s[i]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
			continue
		case isWord(c) || c == '#' || c == ':':
			i++
			for i < len(s) && isWord(s[i]) {
				i++
			}
			if word := s[start:i]; len(word) == 1 && !isWord(c) {
				return p.fail("Syntax error; token: %q, near: %q", word, near(s, start))
			}
		case strings.HasPrefix(s[i:], "<>") || strings.HasPrefix(s[i:], "<=") || strings.HasPrefix(s[i:], ">="):
			i += 2
		case strings.IndexByte("=<>(),+-.[]", c) >= 0:
			i++
		default:
			return p.fail("Syntax error; token: %q, near: %q", string(rune(c)), near(s, start))
		}
		p.tokens = append(p.tokens, token{s[start:i], i})
	}
	return nil
}

// near is the surrounding of a syntax error.
func near(s string, at int) string { return s[max(0, at-8):min(len(s), at+8)] }

// peek is the next token, or empty at the end.
func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0].text
}

func (p *parser) next() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

// keyword takes the next token if it is that word, in any case.
func (p *parser) keyword(word string) bool {
	if strings.EqualFold(p.peek(), word) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(text string) error {
	if t := p.next(); t != text {
		return p.unexpected(t)
	}
	return nil
}

func (p *parser) unexpected(t string) error {
	if t == "" {
		t = "<EOF>"
	}
	return p.fail("Syntax error; token: %q, near: %q", t, t+" "+p.peek())
}

func (p *parser) end() error {
	if t := p.peek(); t != "" {
		return p.unexpected(t)
	}
	return nil
}

// parseCondition returns nil for an empty expression.
func parseCondition(kind, expression string, s *scope) (*condition, error) {
	if expression == "" {
		return nil, nil
	}
	p, err := parserOf(kind, expression, s)
	if err != nil {
		return nil, err
	}
	c, err := p.disjunction()
	if err != nil {
		return nil, err
	}
	return &c, p.end()
}

func (p *parser) disjunction() (condition, error) {
	return p.chain("OR", func() (condition, error) { return p.chain("AND", p.negation) })
}

// chain parses operands between occurrences of a connective.
func (p *parser) chain(connective string, operand func() (condition, error)) (condition, error) {
	first, err := operand()
	if err != nil {
		return first, err
	}
	all := []condition{first}
	for p.keyword(connective) {
		next, err := operand()
		if err != nil {
			return next, err
		}
		all = append(all, next)
	}
	if len(all) == 1 {
		return first, nil
	}
	return condition{op: connective, of: all}, nil
}

func (p *parser) negation() (condition, error) {
	if p.keyword("NOT") {
		c, err := p.negation()
		return condition{op: "NOT", of: []condition{c}}, err
	}
	if p.peek() != "(" {
		return p.test()
	}
	p.next()
	c, err := p.disjunction()
	if err != nil {
		return c, err
	}
	if c.group {
		return c, p.fail("The expression has redundant parentheses;")
	}
	c.group = true
	return c, p.expect(")")
}

// signatures of the functions that are conditions by themselves.
var signatures = map[string]int{
	"attribute_exists":     1,
	"attribute_not_exists": 1,
	"attribute_type":       2,
	"begins_with":          2,
	"contains":             2,
}

// test parses a function or a comparison.
func (p *parser) test() (condition, error) {
	if len(p.tokens) > 1 && p.tokens[1].text == "(" && p.peek() != "size" {
		return p.function()
	}
	left, err := p.operand()
	if err != nil {
		return condition{}, err
	}
	switch op := p.next(); {
	case op == "=" || op == "<>" || op == "<" || op == "<=" || op == ">" || op == ">=":
		right, err := p.operand()
		if err != nil {
			return condition{}, err
		}
		return p.check(condition{op: op, args: []operand{left, right}})
	case strings.EqualFold(op, "BETWEEN"):
		low, err := p.operand()
		if err != nil {
			return condition{}, err
		}
		if !p.keyword("AND") {
			return condition{}, p.unexpected(p.peek())
		}
		high, err := p.operand()
		if err != nil {
			return condition{}, err
		}
		return p.check(condition{op: "BETWEEN", args: []operand{left, low, high}})
	case strings.EqualFold(op, "IN"):
		list, err := p.arguments()
		if err != nil {
			return condition{}, err
		}
		return p.check(condition{op: "IN", args: append([]operand{left}, list...)})
	default:
		return condition{}, p.unexpected(op)
	}
}

func (p *parser) function() (condition, error) {
	name := p.next()
	n, ok := signatures[name]
	if !ok {
		return condition{}, p.fail("Invalid function name; function: %s", name)
	}
	args, err := p.arguments()
	if err != nil {
		return condition{}, err
	}
	if len(args) != n {
		return condition{}, p.fail("Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(args))
	}
	if args[0].path == "" && strings.HasPrefix(name, "attribute_") {
		return condition{}, p.fail("Operator or function requires a document path; operator or function: %s", name)
	}
	return p.check(condition{op: name, args: args})
}

func (p *parser) arguments() ([]operand, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var args []operand
	for {
		arg, err := p.operand()
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
		if p.peek() != "," {
			return args, p.expect(")")
		}
		p.next()
	}
}

// check finds values of types that an operator never takes, and comparisons of
// an attribute with itself, which the service refuses before it reads the item.
func (p *parser) check(c condition) (condition, error) {
	ordered := slices.Contains([]string{"<", "<=", ">", ">=", "BETWEEN"}, c.op)
	for i, a := range c.args {
		if i > 0 && a.path != "" && a.path == c.args[0].path && a.size == c.args[0].size {
			return c, p.fail("The first operand must be distinct from the remaining operands for this operator or function; operator: %s, first operand: [%s]", c.op, a.path)
		}
		if a.path != "" || a.size {
			continue
		}
		allowed := true
		switch {
		case ordered:
			allowed = slices.Contains([]string{typeString, typeNumber, typeBinary}, a.value.Type)
		case c.op == "begins_with":
			allowed = a.value.Type == typeString || a.value.Type == typeBinary
		case c.op == "attribute_type" && i == 1:
			allowed = a.value.Type == typeString
			if allowed && !slices.Contains(valueTypes, a.value.Text) {
				return c, p.fail("Invalid attribute type name found; type: %s, valid types: {%s}", a.value.Text, strings.Join(valueTypes, ","))
			}
		}
		if !allowed {
			return c, p.fail("Incorrect operand type for operator or function; operator or function: %s, operand type: %s", c.op, a.value.Type)
		}
	}
	if c.op == "BETWEEN" && c.args[1].path == "" && c.args[2].path == "" {
		if order, ok := c.args[1].value.compare(c.args[2].value); !ok || order > 0 {
			return c, p.fail("The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: %v, upper bound operand: %v",
				c.args[1].value.Text, c.args[2].value.Text)
		}
	}
	return c, nil
}

var valueTypes = []string{
	typeBinary, typeNumber, typeBool, typeNull, typeString,
	typeList, typeMap, typeBinarySet, typeNumberSet, typeStringSet,
}

func (p *parser) operand() (operand, error) {
	if p.peek() == "size" && len(p.tokens) > 1 && p.tokens[1].text == "(" {
		p.next()
		args, err := p.arguments()
		if err != nil {
			return operand{}, err
		}
		if len(args) != 1 || args[0].size {
			return operand{}, p.fail("Incorrect number of operands for operator or function; operator or function: size, number of operands: %d", len(args))
		}
		args[0].size = true
		return args[0], nil
	}
	if name := p.peek(); strings.HasPrefix(name, ":") {
		p.next()
		v, ok := p.scope.values[name]
		if !ok {
			return operand{}, p.fail("An expression attribute value used in expression is not defined; attribute value: %s", name)
		}
		p.scope.used[name] = true
		return operand{value: v}, nil
	}
	path, err := p.path()
	return operand{path: path}, err
}

// path parses the name of a top-level attribute.
func (p *parser) path() (string, error) {
	name := p.next()
	switch {
	case strings.HasPrefix(name, "#"):
		attribute, ok := p.scope.names[name]
		if !ok {
			return "", p.fail("An expression attribute name used in the document path is not defined; attribute name: %s", name)
		}
		if attribute == "" {
			return "", invalid("ExpressionAttributeNames contains invalid value: Attribute names must not be empty; key: %s", name)
		}
		p.scope.used[name] = true
		name = attribute
	case name == "" || !isWord(name[0]) || isDigits(name[:1]):
		return "", p.unexpected(name)
	case reservedWords[strings.ToUpper(name)]:
		return "", p.fail("Attribute name is a reserved keyword; reserved keyword: %s", name)
	}
	if t := p.peek(); t == "." || t == "[" {
		return "", p.fail("Document paths below top-level attributes are not supported; path: %s%s", name, t)
	}
	return name, nil
}

// parseProjection returns nil for an empty expression, which selects all.
func parseProjection(expression string, s *scope) ([]string, error) {
	if expression == "" {
		return nil, nil
	}
	p, err := parserOf("ProjectionExpression", expression, s)
	if err != nil {
		return nil, err
	}
	var paths []string
	for {
		path, err := p.path()
		if err != nil {
			return nil, err
		}
		if slices.Contains(paths, path) {
			return nil, p.overlap(path)
		}
		paths = append(paths, path)
		if p.peek() != "," {
			return paths, p.end()
		}
		p.next()
	}
}

func (p *parser) overlap(path string) error {
	return p.fail("Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [%s], path two: [%s]", path, path)
}

func parseUpdate(expression string, s *scope) ([]action, error) {
	p, err := parserOf("UpdateExpression", expression, s)
	if err != nil {
		return nil, err
	}
	var actions []action
	var sections []string
	for p.peek() != "" {
		verb := strings.ToUpper(p.next())
		if !slices.Contains([]string{"SET", "REMOVE", "ADD", "DELETE"}, verb) {
			return nil, p.unexpected(verb)
		}
		if slices.Contains(sections, verb) {
			return nil, p.fail("The %q section can only be used once in an update expression;", verb)
		}
		sections = append(sections, verb)
		for {
			a, err := p.action(verb)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(actions, func(b action) bool { return a.path == b.path }) {
				return nil, p.overlap(a.path)
			}
			actions = append(actions, a)
			if p.peek() != "," {
				break
			}
			p.next()
		}
	}
	return actions, nil
}

func (p *parser) action(verb string) (a action, err error) {
	a.verb = verb
	if a.path, err = p.path(); err != nil {
		return a, err
	}
	switch verb {
	case "SET":
		if err := p.expect("="); err != nil {
			return a, err
		}
		a.term, err = p.sum()
	case "ADD", "DELETE":
		if !strings.HasPrefix(p.peek(), ":") {
			return a, p.unexpected(p.next())
		}
		if a.term.leaf, err = p.operand(); err != nil {
			return a, err
		}
		v := a.term.leaf.value
		if !v.isSet() && (verb == "DELETE" || v.Type != typeNumber) {
			return a, p.fail("Incorrect operand type for operator or function; operator: %s, operand type: %s", verb, v.Type)
		}
	}
	return a, err
}

func (p *parser) sum() (term, error) {
	left, err := p.term()
	if err != nil {
		return left, err
	}
	op := p.peek()
	if op != "+" && op != "-" {
		return left, nil
	}
	p.next()
	right, err := p.term()
	if err != nil {
		return right, err
	}
	for _, t := range []term{left, right} {
		if t.op == "" && t.leaf.path == "" && t.leaf.value.Type != typeNumber {
			return t, p.fail("Incorrect operand type for operator or function; operator or function: %s, operand type: %s", op, t.leaf.value.Type)
		}
	}
	return term{op: op, args: []term{left, right}}, nil
}

func (p *parser) term() (term, error) {
	if len(p.tokens) < 2 || p.tokens[1].text != "(" {
		leaf, err := p.operand()
		return term{leaf: leaf}, err
	}
	name := p.next()
	if name != "if_not_exists" && name != "list_append" {
		return term{}, p.fail("Invalid function name; function: %s", name)
	}
	p.next()
	first, err := p.term()
	if err != nil {
		return first, err
	}
	if name == "if_not_exists" && (first.op != "" || first.leaf.path == "") {
		return first, p.fail("Operator or function requires a document path; operator or function: %s", name)
	}
	if err := p.expect(","); err != nil {
		return first, err
	}
	second, err := p.term()
	if err != nil {
		return second, err
	}
	return term{op: name, args: []term{first, second}}, p.expect(")")
}

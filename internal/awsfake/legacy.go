package awsfake

import (
	"maps"
	"slices"
)

// expected is a condition in the form before expressions: what is asked of each
// attribute. The rules are those of "Legacy conditional parameters" in the developer
// guide of DynamoDB.
type expected map[string]expectation

type expectation struct {
	Value              *Value
	Exists             *bool
	ComparisonOperator string
	AttributeValueList []Value
}

// attributeUpdates is an update in the form before expressions.
type attributeUpdates map[string]attributeUpdate

type attributeUpdate struct {
	Value  *Value
	Action string
}

// comparisons are the operators of an expectation, with those of expressions and the
// number of values that they take; -1 for any from one.
var comparisons = map[string]struct {
	op     string
	values int
}{
	"EQ": {"=", 1}, "NE": {"<>", 1}, "LT": {"<", 1}, "LE": {"<=", 1}, "GT": {">", 1}, "GE": {">=", 1},
	"NULL": {"attribute_not_exists", 0}, "NOT_NULL": {"attribute_exists", 0}, "CONTAINS": {"contains", 1},
	"BEGINS_WITH": {"begins_with", 1}, "BETWEEN": {"BETWEEN", 2}, "IN": {"IN", -1},
}

// parse returns nil for no expectations.
func (e expected) parse(operator string) (*condition, error) {
	connective := operator
	switch {
	case operator == "":
		connective = "AND"
	case len(e) == 0:
		return nil, invalid("One or more parameter values were invalid: ConditionalOperator can only be used when Filter or Expected has two or more elements")
	case operator != "AND" && operator != "OR":
		return nil, invalid("1 validation error detected: Value '%s' at 'conditionalOperator' failed to satisfy constraint: Member must satisfy enum value set: [OR, AND]", operator)
	}
	if len(e) == 0 {
		return nil, nil
	}
	all := condition{op: connective}
	for _, name := range slices.Sorted(maps.Keys(e)) {
		c, err := e[name].parse(name)
		if err != nil {
			return nil, err
		}
		all.of = append(all.of, c)
	}
	return &all, nil
}

func (e expectation) parse(name string) (condition, error) {
	exists := e.Exists == nil || *e.Exists
	if e.ComparisonOperator != "" {
		return e.compare(name)
	}
	switch {
	case e.AttributeValueList != nil:
		return condition{}, invalid("One or more parameter values were invalid: AttributeValueList can only be used with a ComparisonOperator for Attribute: %s", name)
	case !exists && e.Value != nil:
		return condition{}, invalid("One or more parameter values were invalid: Value cannot be used when Exists is set to false for Attribute: %s", name)
	case !exists:
		return condition{op: "attribute_not_exists", args: []operand{{path: name}}}, nil
	case e.Value == nil:
		return condition{}, invalid("One or more parameter values were invalid: Value must be provided when Exists is set to true or is not specified for Attribute: %s", name)
	}
	return condition{op: "=", args: []operand{{path: name}, {value: *e.Value}}}, nil
}

func (e expectation) compare(name string) (condition, error) {
	if e.Value != nil || e.Exists != nil {
		return condition{}, invalid("One or more parameter values were invalid: Value or Exists cannot be used with ComparisonOperator for Attribute: %s", name)
	}
	c, ok := comparisons[e.ComparisonOperator]
	if !ok {
		return condition{}, invalid("%s is not supported here, or no operator: ComparisonOperator of Attribute %s", e.ComparisonOperator, name)
	}
	if n := len(e.AttributeValueList); n != c.values && (c.values >= 0 || n < 1) {
		return condition{}, invalid("One or more parameter values were invalid: Invalid number of argument(s) for the %s ComparisonOperator", e.ComparisonOperator)
	}
	args := []operand{{path: name}}
	for _, v := range e.AttributeValueList {
		args = append(args, operand{value: v})
	}
	return (&parser{kind: "Expected"}).check(condition{op: c.op, args: args})
}

// parse returns the steps of an update, in the order of their attributes.
func (u attributeUpdates) parse() (actions []action, err error) {
	for _, name := range slices.Sorted(maps.Keys(u)) {
		a := action{verb: u[name].Action, path: name}
		if v := u[name].Value; v != nil {
			a.term.leaf.value = *v
		}
		v := a.term.leaf.value
		switch {
		case a.verb == "DELETE" && v.Type == "":
			a.verb = "REMOVE"
		case v.Type == "":
			return nil, invalid("One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified")
		case a.verb == "" || a.verb == "PUT":
			a.verb = "SET"
		case a.verb == "DELETE" && v.isSet(), a.verb == "ADD" && (v.isSet() || v.Type == typeNumber):
		case a.verb == "DELETE":
			return nil, invalid("One or more parameter values were invalid: DELETE action with value is not supported for the type %s", v.Type)
		case a.verb == "ADD":
			return nil, invalid("One or more parameter values were invalid: ADD action is not supported for the type %s", v.Type)
		default:
			return nil, invalid("1 validation error detected: Value '%s' at 'attributeUpdates.%s.member.action' failed to satisfy constraint: Member must satisfy enum value set: [ADD, DELETE, PUT]", a.verb, name)
		}
		actions = append(actions, a)
	}
	return actions, nil
}

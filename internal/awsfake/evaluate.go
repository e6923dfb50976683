package awsfake

import (
	"errors"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// get is the operand's value in an item; ok is false when the item has no such
// attribute, or one without a size.
func (o operand) get(item Item) (v Value, ok bool) {
	v, ok = o.value, true
	if o.path != "" {
		v, ok = item[o.path]
	}
	if ok && o.size {
		var n int
		n, ok = v.length()
		v = Value{Type: typeNumber, Text: strconv.Itoa(n)}
	}
	return v, ok
}

// holds reports whether an item fulfils the condition; a nil condition always
// holds. A nil item has no attributes.
func (c *condition) holds(item Item) bool {
	if c == nil {
		return true
	}
	switch c.op {
	case "AND":
		return !slices.ContainsFunc(c.of, func(c condition) bool { return !c.holds(item) })
	case "OR":
		return slices.ContainsFunc(c.of, func(c condition) bool { return c.holds(item) })
	case "NOT":
		return !c.of[0].holds(item)
	}
	first, ok := c.args[0].get(item)
	switch c.op {
	case "attribute_exists":
		return ok
	case "attribute_not_exists":
		return !ok
	case "IN":
		return slices.ContainsFunc(c.args[1:], func(o operand) bool { return compares("=", first, ok, o, item) })
	case "BETWEEN":
		return compares(">=", first, ok, c.args[1], item) && compares("<=", first, ok, c.args[2], item)
	case "attribute_type", "begins_with", "contains":
		second, also := c.args[1].get(item)
		return ok && also && applies(c.op, first, second)
	}
	return compares(c.op, first, ok, c.args[1], item)
}

// compares evaluates a comparator. An attribute that is absent is unequal to
// everything and has no order.
func compares(op string, a Value, ok bool, right operand, item Item) bool {
	b, also := right.get(item)
	if !ok || !also {
		return op == "<>"
	}
	switch op {
	case "=":
		return a.equal(b)
	case "<>":
		return !a.equal(b)
	}
	order, ordered := a.compare(b)
	if !ordered {
		return false
	}
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func applies(function string, a, b Value) bool {
	switch function {
	case "attribute_type":
		return a.Type == b.Text
	case "begins_with":
		return a.Type == b.Type && (a.Type == typeString || a.Type == typeBinary) && strings.HasPrefix(a.Text, b.Text)
	}
	switch {
	case a.Type == typeString || a.Type == typeBinary:
		return a.Type == b.Type && strings.Contains(a.Text, b.Text)
	case a.Type == typeList, a.isSet():
		return a.has(b)
	}
	return false
}

// apply performs an update on a copy of old; every right side sees old.
func apply(actions []action, old Item) (Item, error) {
	item := maps.Clone(old)
	for _, a := range actions {
		switch a.verb {
		case "SET":
			v, err := a.term.eval(old)
			if err != nil {
				return nil, err
			}
			item[a.path] = v
		case "REMOVE":
			delete(item, a.path)
		default:
			if err := a.combine(item); err != nil {
				return nil, err
			}
		}
	}
	return item, nil
}

var (
	errNoAttribute = invalid("The provided expression refers to an attribute that does not exist in the item")
	errOperandType = invalid("An operand in the update expression has an incorrect data type")
)

func (t term) eval(item Item) (Value, error) {
	if t.op == "" {
		v, ok := t.leaf.get(item)
		if !ok {
			return v, errNoAttribute
		}
		return v, nil
	}
	if t.op == "if_not_exists" {
		if v, ok := t.args[0].leaf.get(item); ok {
			return v, nil
		}
		return t.args[1].eval(item)
	}
	a, err := t.args[0].eval(item)
	if err != nil {
		return a, err
	}
	b, err := t.args[1].eval(item)
	if err != nil {
		return b, err
	}
	if t.op == "list_append" {
		if a.Type != typeList || b.Type != typeList {
			return a, errOperandType
		}
		return Value{Type: typeList, List: slices.Concat(a.List, b.List)}, nil
	}
	if a.Type != typeNumber || b.Type != typeNumber {
		return a, errOperandType
	}
	if t.op == "-" {
		return calculated(new(big.Rat).Sub(a.rat(), b.rat()))
	}
	return calculated(new(big.Rat).Add(a.rat(), b.rat()))
}

// calculated is a sum or a difference as an attribute. One that needs more than
// 38 digits is never rounded: the service refuses it, with the message for a
// magnitude that is too large.
func calculated(r *big.Rat) (Value, error) {
	text, err := formatNumber(r)
	if errors.Is(err, errTooManyDigits) {
		err = errOverflow
	}
	return Value{Type: typeNumber, Text: text}, err
}

// combine performs an ADD or DELETE on item.
func (a action) combine(item Item) error {
	v := a.term.leaf.value
	old, ok := item[a.path]
	switch {
	case !ok && a.verb == "ADD":
		item[a.path] = v
		return nil
	case !ok:
		return nil
	case old.Type != v.Type:
		return errOperandType
	case v.Type == typeNumber:
		sum, err := calculated(new(big.Rat).Add(old.rat(), v.rat()))
		item[a.path] = sum
		return err
	}
	members := slices.DeleteFunc(slices.Clone(old.List), v.has)
	if a.verb == "ADD" {
		members = append(members, v.List...)
	}
	if len(members) == 0 {
		delete(item, a.path) // a set is never empty
		return nil
	}
	item[a.path] = Value{Type: old.Type, List: members}
	return nil
}

// project keeps the named attributes; all of them when paths is nil.
func project(item Item, paths []string) Item {
	if paths == nil || item == nil {
		return item
	}
	kept := Item{}
	for _, path := range paths {
		if v, ok := item[path]; ok {
			kept[path] = v
		}
	}
	return kept
}

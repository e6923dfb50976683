package awsfake

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
)

func TestExpectationsAreConditions(t *testing.T) {
	yes, no := aws.Bool(true), aws.Bool(false)
	is := func(v Value) types.ExpectedAttributeValue { return types.ExpectedAttributeValue{Value: sdkValue(v)} }
	compares := func(op types.ComparisonOperator, values ...Value) types.ExpectedAttributeValue {
		e := types.ExpectedAttributeValue{ComparisonOperator: op}
		for _, v := range values {
			e.AttributeValueList = append(e.AttributeValueList, sdkValue(v))
		}
		return e
	}
	type expected = map[string]types.ExpectedAttributeValue
	for _, c := range []struct {
		expected expected
		or       bool
		code     string // empty when it holds
	}{
		{expected{"Term": is(Number(7))}, false, ""},
		{expected{"Term": is(Number(8))}, false, CodeConditionalCheckFailed},
		{expected{"None": is(Number(7))}, false, CodeConditionalCheckFailed},
		{expected{"Term": {Exists: yes, Value: sdkValue(Number(7))}}, false, ""},
		{expected{"None": {Exists: no}}, false, ""},
		{expected{"Term": {Exists: no}}, false, CodeConditionalCheckFailed},
		{expected{"Term": is(Number(7)), "None": {Exists: no}}, false, ""},
		{expected{"Term": is(Number(8)), "None": {Exists: no}}, false, CodeConditionalCheckFailed},
		{expected{"Term": is(Number(8)), "None": {Exists: no}}, true, ""},
		{expected{"Term": compares("NE", Number(8))}, false, ""},
		{expected{"Term": compares("LT", Number(7))}, false, CodeConditionalCheckFailed},
		{expected{"Term": compares("BETWEEN", Number(7), Number(9))}, false, ""},
		{expected{"Term": compares("IN", Number(6), Number(7))}, false, ""},
		{expected{"Term": compares("NOT_NULL")}, false, ""},
		{expected{"Term": compares("NULL")}, false, CodeConditionalCheckFailed},
		{expected{"SequenceNumber": compares("BEGINS_WITH", String("1"))}, false, ""},
		{expected{"Ids": compares("CONTAINS", String("a"))}, false, ""},

		{expected{"Term": {Exists: yes}}, false, CodeValidation},
		{expected{"Term": {Exists: no, Value: sdkValue(Number(7))}}, false, CodeValidation},
		{expected{"Term": {}}, false, CodeValidation},
		{expected{"Term": compares("EQ")}, false, CodeValidation},
		{expected{"Term": compares("LT", Bool(true))}, false, CodeValidation},
		{expected{"Term": {Value: sdkValue(Number(7)), ComparisonOperator: "EQ"}}, false, CodeValidation},
		{nil, true, CodeValidation},
	} {
		s := newServer(t, Options{})
		leaseTable(t, s)
		require.NoError(t, s.PutItem(*leases, stored))
		in := &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), Expected: c.expected}
		if c.or {
			in.ConditionalOperator = types.ConditionalOperatorOr
		}
		_, err := dynamodb.NewFromConfig(once(s.AWSConfig())).DeleteItem(t.Context(), in)
		if c.code == "" {
			require.NoError(t, err, c.expected)
			continue
		}
		requireCode(t, c.code, err)
	}
}

func TestAttributeUpdatesAreUpdates(t *testing.T) {
	update := func(action types.AttributeAction, values ...Value) types.AttributeValueUpdate {
		u := types.AttributeValueUpdate{Action: action}
		for _, v := range values {
			u.Value = sdkValue(v)
		}
		return u
	}
	set := func(members ...string) Value {
		v := Value{Type: typeStringSet}
		for _, m := range members {
			v.List = append(v.List, String(m))
		}
		return v
	}
	for _, c := range []struct {
		name   string
		update types.AttributeValueUpdate
		want   Value // zero for none
		code   string
	}{
		{"Term", update("PUT", String("x")), String("x"), ""},
		{"Term", update("", Number(9)), Number(9), ""},
		{"None", update("PUT", Number(9)), Number(9), ""},
		{"Term", update("ADD", Number(2)), Number(9), ""},
		{"None", update("ADD", Number(2)), Number(2), ""},
		{"Term", update("DELETE"), Value{}, ""},
		{"None", update("DELETE"), Value{}, ""},
		{"Ids", update("ADD", set("c")), set("a", "b", "c"), ""},
		{"Ids", update("DELETE", set("a")), set("b"), ""},
		{"Term", update("PUT"), Value{}, CodeValidation},
		{"Term", update("ADD", String("x")), Value{}, CodeValidation},
		{"Term", update("DELETE", Number(7)), Value{}, CodeValidation},
		{"Term", update("ADD", set("c")), Value{}, CodeValidation},
		{"ShardID", update("PUT", String("x")), Value{}, CodeValidation},
	} {
		s := newServer(t, Options{})
		leaseTable(t, s)
		require.NoError(t, s.PutItem(*leases, stored))
		out, err := dynamodb.NewFromConfig(once(s.AWSConfig())).UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: leases, Key: leaseKey("0"), ReturnValues: types.ReturnValueAllNew,
			AttributeUpdates: map[string]types.AttributeValueUpdate{c.name: c.update},
		})
		if c.code != "" {
			requireCode(t, c.code, err)
			continue
		}
		require.NoError(t, err)
		want := sdkItem(stored)
		delete(want, c.name)
		if c.want.Type != "" {
			want[c.name] = sdkValue(c.want)
		}
		require.Equal(t, want, out.Attributes)
	}
}

func TestAttributeUpdatesMakeAnItemUnlessTheyDelete(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := s.DynamoDB()
	for action, want := range map[types.AttributeAction]int{"DELETE": 0, "ADD": 1} {
		u := types.AttributeValueUpdate{Action: action}
		if action == "ADD" {
			u.Value = sdkValue(Number(1))
		}
		_, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: leases, Key: leaseKey(string(action)), AttributeUpdates: map[string]types.AttributeValueUpdate{"Term": u},
		})
		require.NoError(t, err)
		item, err := s.Item(*leases, "stream", string(action))
		require.NoError(t, err)
		require.Equal(t, want == 1, item != nil, action)
	}
}

func TestTheTwoFormsAreNotMixed(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	expected := map[string]types.ExpectedAttributeValue{"Term": {Exists: aws.Bool(false)}}
	updates := map[string]types.AttributeValueUpdate{"Term": {Value: sdkValue(Number(1))}}
	_, err := d.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
		TableName: leases, Key: leaseKey("0"), Expected: expected, ConditionExpression: aws.String("attribute_exists(Term)"),
	})
	requireCode(t, CodeValidation, err)
	for _, in := range []dynamodb.UpdateItemInput{
		{Expected: expected, UpdateExpression: aws.String("REMOVE Term")},
		{AttributeUpdates: updates, UpdateExpression: aws.String("REMOVE Term")},
		{AttributeUpdates: updates, ConditionExpression: aws.String("attribute_exists(Term)")},
	} {
		in.TableName, in.Key = leases, leaseKey("0")
		_, err = d.UpdateItem(t.Context(), &in)
		requireCode(t, CodeValidation, err)
	}
}

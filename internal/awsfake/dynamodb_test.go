package awsfake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	leases = aws.String("leases")
	stored = Item{
		"StreamID": String("stream"), "ShardID": String("0"), "SequenceNumber": String("12"), "Term": Number(7),
		"Bin": {Type: typeBinary, Text: "\x00\xff"}, "Yes": Bool(true), "Nothing": {Type: typeNull},
		"Ids":     {Type: typeStringSet, List: []Value{String("a"), String("b")}},
		"Numbers": {Type: typeNumberSet, List: []Value{Number(1), Number(2)}},
		"Blobs":   {Type: typeBinarySet, List: []Value{{Type: typeBinary, Text: "x"}}},
		"History": {Type: typeList, List: []Value{String("a"), Number(1)}},
		"Nested":  {Type: typeMap, Map: Item{"in": String("side")}},
		"Empty":   String(""),
	}
)

func leaseKey(shard string) map[string]types.AttributeValue {
	return sdkItem(Item{"StreamID": String("stream"), "ShardID": String(shard)})
}

func leaseTable(t *testing.T, s *Server) {
	t.Helper()
	require.NoError(t, s.CreateTable(*leases, "StreamID", "ShardID"))
}

func TestEveryDynamoDBOperationWorksThroughTheSDK(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		ctx, d := t.Context(), dynamodb.NewFromConfig(cfg)
		made, err := d.CreateTable(ctx, &dynamodb.CreateTableInput{
			TableName:   leases,
			BillingMode: types.BillingModeProvisioned,
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String("StreamID"), KeyType: types.KeyTypeHash},
				{AttributeName: aws.String("ShardID"), KeyType: types.KeyTypeRange},
			},
			AttributeDefinitions: []types.AttributeDefinition{
				{AttributeName: aws.String("ShardID"), AttributeType: types.ScalarAttributeTypeS},
				{AttributeName: aws.String("StreamID"), AttributeType: types.ScalarAttributeTypeS},
			},
			ProvisionedThroughput: &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(5), WriteCapacityUnits: aws.Int64(6)},
		})
		require.NoError(t, err)
		require.EqualValues(t, 6, *made.TableDescription.ProvisionedThroughput.WriteCapacityUnits)
		tables, err := d.ListTables(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, []string{"leases"}, tables.TableNames)

		_, err = d.PutItem(ctx, &dynamodb.PutItemInput{TableName: leases, Item: sdkItem(stored)})
		require.NoError(t, err)
		got, err := d.GetItem(ctx, &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0"), ConsistentRead: aws.Bool(true)})
		require.NoError(t, err)
		require.Equal(t, sdkItem(stored), got.Item, "every type comes back as it went")
		direct, err := s.Item("leases", "stream", "0")
		require.NoError(t, err)
		require.True(t, stored.equal(direct), direct)

		updated, err := d.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName:                 made.TableDescription.TableArn,
			Key:                       leaseKey("0"),
			ConditionExpression:       aws.String("#t = :old"),
			UpdateExpression:          aws.String("SET #t = #t + :one REMOVE Nested"),
			ExpressionAttributeNames:  map[string]string{"#t": "Term"},
			ExpressionAttributeValues: sdkItem(Item{":old": Number(7), ":one": Number(1)}),
			ReturnValues:              types.ReturnValueUpdatedNew,
		})
		require.NoError(t, err)
		require.Equal(t, sdkItem(Item{"Term": Number(8)}), updated.Attributes)

		query, err := d.Query(ctx, &dynamodb.QueryInput{
			TableName:                 leases,
			KeyConditionExpression:    aws.String("StreamID = :s"),
			ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}),
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, query.Count)
		scan, err := d.Scan(ctx, &dynamodb.ScanInput{TableName: leases, ProjectionExpression: aws.String("ShardID, Yes")})
		require.NoError(t, err)
		require.Equal(t, []map[string]types.AttributeValue{sdkItem(Item{"ShardID": String("0"), "Yes": Bool(true)})}, scan.Items)

		deleted, err := d.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), ReturnValues: types.ReturnValueAllOld})
		require.NoError(t, err)
		require.Equal(t, sdkValue(Number(8)), deleted.Attributes["Term"])

		batch, err := d.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"leases": {
			{PutRequest: &types.PutRequest{Item: leaseKey("1")}},
			{DeleteRequest: &types.DeleteRequest{Key: leaseKey("2")}},
		}}})
		require.NoError(t, err)
		require.Empty(t, batch.UnprocessedItems)
		gets, err := d.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
			"leases": {Keys: []map[string]types.AttributeValue{leaseKey("1"), leaseKey("2")}},
		}})
		require.NoError(t, err)
		require.Len(t, gets.Responses["leases"], 1)

		d1, err := d.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: leases})
		require.NoError(t, err)
		require.Equal(t, types.TableStatusActive, d1.Table.TableStatus)
		require.EqualValues(t, 1, *d1.Table.ItemCount)
		_, err = d.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: leases})
		require.NoError(t, err)
		_, err = d.GetItem(ctx, &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("1")})
		requireCode(t, CodeResourceNotFound, err)
	})
}

func TestTablesAreCreatedUnderTheRulesOfTheirBillingMode(t *testing.T) {
	s := newServer(t, Options{})
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	units := func(r, w int64) *types.ProvisionedThroughput {
		return &types.ProvisionedThroughput{ReadCapacityUnits: &r, WriteCapacityUnits: &w}
	}
	for _, test := range []struct {
		mode  types.BillingMode
		units *types.ProvisionedThroughput
		ok    bool
	}{
		{types.BillingModePayPerRequest, nil, true},
		{types.BillingModePayPerRequest, units(1, 1), false},
		{types.BillingModeProvisioned, nil, false},
		{"", nil, false},
		{types.BillingModeProvisioned, units(0, 1), false},
		{types.BillingModeProvisioned, units(1, 1), true},
		{"", units(1, 1), true},
		{"FREE", nil, false},
	} {
		in := &dynamodb.CreateTableInput{
			TableName: leases, BillingMode: test.mode, ProvisionedThroughput: test.units,
			KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: types.KeyTypeHash}},
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("k"), AttributeType: types.ScalarAttributeTypeS}},
		}
		_, err := d.CreateTable(t.Context(), in)
		if !test.ok {
			requireCode(t, CodeValidation, err)
			continue
		}
		require.NoError(t, err)
		_, err = d.CreateTable(t.Context(), in)
		requireCode(t, CodeResourceInUse, err)
		_, err = d.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: leases})
		require.NoError(t, err)
	}
	in := &dynamodb.CreateTableInput{
		TableName: leases, BillingMode: types.BillingModePayPerRequest,
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("other"), AttributeType: types.ScalarAttributeTypeS}},
	}
	_, err := d.CreateTable(t.Context(), in)
	requireCode(t, CodeValidation, err)
	in.TableName, in.AttributeDefinitions[0].AttributeName = aws.String("t"), aws.String("k")
	_, err = d.CreateTable(t.Context(), in)
	requireCode(t, CodeValidation, err)
}

func TestATableThatIsBeingCreatedTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{TableDelay: 10 * time.Second})
		cfg := once(s.AWSConfig())
		d := dynamodb.NewFromConfig(cfg)
		require.NoError(t, createsTable(t.Context(), cfg, "table"))
		out, err := d.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("table")})
		require.NoError(t, err)
		require.Equal(t, types.TableStatusCreating, out.Table.TableStatus)
		_, err = d.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("table")})
		requireCode(t, CodeResourceNotFound, err)
		_, err = d.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String("table")})
		requireCode(t, CodeResourceInUse, err)
		start := time.Now()
		require.NoError(t, dynamodb.NewTableExistsWaiter(d).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("table")}, time.Minute))
		require.GreaterOrEqual(t, time.Since(start), 10*time.Second)
		_, err = d.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("table")})
		require.NoError(t, err)
	})
}

func TestKeysMustMatchTheSchema(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	for _, key := range []Item{
		{},
		{"StreamID": String("s")},
		{"StreamID": String("s"), "Other": String("o")},
		{"StreamID": String("s"), "ShardID": Number(1)},
		{"StreamID": String("s"), "ShardID": String("")},
		{"StreamID": String("s"), "ShardID": String("0"), "Other": String("o")},
	} {
		_, err := d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: leases, Key: sdkItem(key)})
		requireCode(t, CodeValidation, err)
		_, err = d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: leases, Key: sdkItem(key)})
		requireCode(t, CodeValidation, err)
		_, err = d.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: leases, Key: sdkItem(key)})
		requireCode(t, CodeValidation, err)
		if len(key) < 3 {
			_, err = d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: sdkItem(key)})
			requireCode(t, CodeValidation, err)
		}
	}
	_, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: leases, Key: leaseKey("0"),
		UpdateExpression:          aws.String("SET ShardID = :x"),
		ExpressionAttributeValues: sdkItem(Item{":x": String("1")}),
	})
	requireCode(t, CodeValidation, err)
	items, err := s.Items("leases")
	require.NoError(t, err)
	require.Empty(t, items)
}

func TestAFailedConditionChangesNothingAndShowsTheItem(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		leaseTable(t, s)
		require.NoError(t, s.PutItem("leases", stored))
		ctx, d := t.Context(), dynamodb.NewFromConfig(cfg)
		condition, shown := aws.String("attribute_not_exists(SequenceNumber)"), types.ReturnValuesOnConditionCheckFailureAllOld
		_, put := d.PutItem(ctx, &dynamodb.PutItemInput{TableName: leases, Item: leaseKey("0"), ConditionExpression: condition, ReturnValuesOnConditionCheckFailure: shown})
		_, update := d.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: leases, Key: leaseKey("0"), UpdateExpression: aws.String("REMOVE Term"), ConditionExpression: condition, ReturnValuesOnConditionCheckFailure: shown})
		_, del := d.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), ConditionExpression: condition, ReturnValuesOnConditionCheckFailure: shown})
		for _, err := range []error{put, update, del} {
			failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
			require.True(t, ok, err)
			require.Equal(t, sdkItem(stored), failed.Item)
		}
		_, err := d.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), ConditionExpression: condition})
		failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
		require.True(t, ok, err)
		require.Empty(t, failed.Item, "only shown when asked for")
		got, err := s.Item("leases", "stream", "0")
		require.NoError(t, err)
		require.True(t, stored.equal(got))

		_, err = d.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: leases, Key: leaseKey("1"), UpdateExpression: aws.String("REMOVE Term"), ConditionExpression: condition})
		require.NoError(t, err)
		got, err = s.Item("leases", "stream", "1")
		require.NoError(t, err)
		require.True(t, Item{"StreamID": String("stream"), "ShardID": String("1")}.equal(got), "an update makes an item that was not there")
	})
}

func TestACounterStartsWithItsItem(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		leaseTable(t, s)
		d := dynamodb.NewFromConfig(cfg)
		update := func(shard, expression string, values Item) (map[string]types.AttributeValue, error) {
			out, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
				TableName: leases, Key: leaseKey(shard), ReturnValues: types.ReturnValueUpdatedNew,
				UpdateExpression: &expression, ExpressionAttributeValues: sdkItem(values),
			})
			if err != nil {
				return nil, err
			}
			return out.Attributes, nil
		}
		for want := range int64(3) {
			got, err := update("0", "SET TermNumber = if_not_exists(TermNumber, :zero) + :one", Item{":zero": Number(0), ":one": Number(1)})
			require.NoError(t, err)
			require.Equal(t, sdkItem(Item{"TermNumber": Number(want + 1)}), got)
		}

		require.NoError(t, s.PutItem("leases", Item{"StreamID": String("stream"), "ShardID": String("1"), "TermNumber": String("1")}))
		_, err := update("1", "SET TermNumber = if_not_exists(TermNumber, :zero) + :one", Item{":zero": Number(0), ":one": Number(1)})
		requireCode(t, CodeValidation, err)
		require.ErrorContains(t, err, "An operand in the update expression has an incorrect data type")
		for _, shard := range []string{"1", "2"} {
			_, err = update(shard, "SET N = N - :one", Item{":one": Number(1)})
			requireCode(t, CodeValidation, err)
			require.ErrorContains(t, err, "The provided expression refers to an attribute that does not exist in the item")
		}
		item, err := s.Item("leases", "stream", "2")
		require.NoError(t, err)
		require.Nil(t, item, "an update that is refused makes no item")
	})
}

func TestReturnValuesAreWhatWasAskedFor(t *testing.T) {
	before := Item{"StreamID": String("stream"), "ShardID": String("0"), "A": Number(1), "B": Number(2)}
	after := Item{"StreamID": String("stream"), "ShardID": String("0"), "A": Number(9), "B": Number(2)}
	for value, want := range map[types.ReturnValue]Item{
		"":                           nil,
		types.ReturnValueNone:        nil,
		types.ReturnValueAllOld:      before,
		types.ReturnValueAllNew:      after,
		types.ReturnValueUpdatedOld:  {"A": Number(1)},
		types.ReturnValueUpdatedNew:  {"A": Number(9)},
		types.ReturnValue("BAD_ONE"): nil,
	} {
		s := newServer(t, Options{})
		leaseTable(t, s)
		require.NoError(t, s.PutItem("leases", before))
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		out, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: leases, Key: leaseKey("0"), ReturnValues: value,
			UpdateExpression: aws.String("SET A = :x"), ExpressionAttributeValues: sdkItem(Item{":x": Number(9)}),
		})
		if value == "BAD_ONE" {
			requireCode(t, CodeValidation, err)
			continue
		}
		require.NoError(t, err)
		if want == nil {
			require.Empty(t, out.Attributes)
		} else {
			require.Equal(t, sdkItem(want), out.Attributes, value)
		}
		_, err = d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: leaseKey("0"), ReturnValues: types.ReturnValueAllNew})
		requireCode(t, CodeValidation, err)
		put, err := d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: leaseKey("0"), ReturnValues: types.ReturnValueAllOld})
		require.NoError(t, err)
		require.Equal(t, sdkItem(after), put.Attributes)
	}
}

func TestQueriesFollowTheirKeysInPages(t *testing.T) {
	s := newServer(t, Options{ItemsPerPage: 3})
	leaseTable(t, s)
	for _, stream := range []string{"other", "stream"} {
		for _, shard := range []string{"b1", "a", "b3", "c", "b2", "d", "b"} {
			require.NoError(t, s.PutItem("leases", Item{"StreamID": String(stream), "ShardID": String(shard), "N": Number(int64(len(shard)))}))
		}
	}
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	query := func(condition string, values Item, edit func(*dynamodb.QueryInput)) (shards []string, pages int, err error) {
		values = maps.Clone(values)
		if values == nil {
			values = Item{}
		}
		values[":s"] = String("stream")
		in := &dynamodb.QueryInput{
			TableName: leases, ConsistentRead: aws.Bool(true),
			KeyConditionExpression:    aws.String(condition),
			ExpressionAttributeValues: sdkItem(values),
		}
		if edit != nil {
			edit(in)
		}
		p := dynamodb.NewQueryPaginator(d, in)
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			if err != nil {
				return nil, pages, err
			}
			pages++
			for _, item := range out.Items {
				shards = append(shards, item["ShardID"].(*types.AttributeValueMemberS).Value)
			}
		}
		return shards, pages, nil
	}
	all := "a b b1 b2 b3 c d"
	for _, test := range []struct {
		condition string
		values    Item
		want      string
	}{
		{"StreamID = :s", nil, all},
		{"StreamID = :s AND ShardID = :x", Item{":x": String("b2")}, "b2"},
		{"ShardID < :x AND StreamID = :s", Item{":x": String("b2")}, "a b b1"},
		{"StreamID = :s AND ShardID >= :x", Item{":x": String("b3")}, "b3 c d"},
		{"(StreamID = :s) AND (begins_with(ShardID, :x))", Item{":x": String("b")}, "b b1 b2 b3"},
		{"StreamID = :s AND ShardID BETWEEN :x AND :y", Item{":x": String("b1"), ":y": String("c")}, "b1 b2 b3 c"},
	} {
		got, pages, err := query(test.condition, test.values, nil)
		require.NoError(t, err, test.condition)
		require.Equal(t, test.want, strings.Join(got, " "), test.condition)
		require.Equal(t, len(got)/3+1, pages)
	}
	got, _, err := query("StreamID = :s", nil, func(in *dynamodb.QueryInput) { in.ScanIndexForward = aws.Bool(false) })
	require.NoError(t, err)
	require.Equal(t, "d c b3 b2 b1 b a", strings.Join(got, " "))
	got, pages, err := query("StreamID = :s", Item{":two": Number(2)}, func(in *dynamodb.QueryInput) {
		in.Limit, in.FilterExpression = aws.Int32(2), aws.String("N = :two")
	})
	require.NoError(t, err)
	require.Equal(t, "b1 b2 b3", strings.Join(got, " "))
	require.Equal(t, 4, pages, "a limit counts what is evaluated, not what passes the filter")

	for _, condition := range []string{
		"ShardID = :s",
		"StreamID > :s",
		"StreamID = :s OR ShardID = :s",
		"NOT StreamID = :s",
		"StreamID = :s AND Other = :s",
		"StreamID = :s AND ShardID <> :s",
		"StreamID = :s AND ShardID = :s AND ShardID = :s",
		"StreamID = ShardID AND ShardID = :s",
	} {
		_, _, err := query(condition, nil, nil)
		requireCode(t, CodeValidation, err)
	}
	out, err := d.Query(t.Context(), &dynamodb.QueryInput{
		TableName: leases, Select: types.SelectCount, KeyConditionExpression: aws.String("StreamID = :s"),
		ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}), ExclusiveStartKey: leaseKey("c"),
	})
	require.NoError(t, err)
	require.EqualValues(t, 1, out.Count)
	require.Empty(t, out.Items)
}

func TestScansPassEveryItemOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Options{ItemsPerPage: rapid.IntRange(0, 4).Draw(t, "page")})
		defer s.Close()
		require.NoError(t, s.CreateTable(*leases, "StreamID", "ShardID"))
		want := map[string]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "items") {
			stream, shard := rapid.StringMatching("[a-c]").Draw(t, "stream"), rapid.StringMatching("[0-9]{1,2}").Draw(t, "shard")
			want[stream+"/"+shard] = true
			require.NoError(t, s.PutItem("leases", Item{"StreamID": String(stream), "ShardID": String(shard)}))
		}
		got := map[string]bool{}
		p := dynamodb.NewScanPaginator(dynamodb.NewFromConfig(once(s.AWSConfig())), &dynamodb.ScanInput{TableName: leases})
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			require.NoError(t, err)
			for _, item := range out.Items {
				name := item["StreamID"].(*types.AttributeValueMemberS).Value + "/" + item["ShardID"].(*types.AttributeValueMemberS).Value
				require.False(t, got[name], "%s twice", name)
				got[name] = true
			}
		}
		require.Equal(t, want, got)
	})
}

func TestPagesEndAtOneMegabyte(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	for i := range 5 {
		require.NoError(t, s.PutItem("leases", Item{"StreamID": String("stream"), "ShardID": String(strconv.Itoa(i)), "Fill": String(strings.Repeat("x", 300<<10))}))
	}
	out, err := dynamodb.NewFromConfig(once(s.AWSConfig())).Query(t.Context(), &dynamodb.QueryInput{
		TableName: leases, KeyConditionExpression: aws.String("StreamID = :s"), ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}),
	})
	require.NoError(t, err)
	require.EqualValues(t, 4, out.Count)
	require.Equal(t, leaseKey("3"), out.LastEvaluatedKey)
	requireCode(t, CodeValidation, func() error {
		_, err := dynamodb.NewFromConfig(once(s.AWSConfig())).PutItem(t.Context(), &dynamodb.PutItemInput{
			TableName: leases, Item: sdkItem(Item{"StreamID": String("s"), "ShardID": String("0"), "Fill": String(strings.Repeat("x", 400<<10))}),
		})
		return err
	}())
}

func TestReadsThatAreNotConsistentAreStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{StaleReads: time.Second})
		leaseTable(t, s)
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		read := func(consistent bool) string {
			got, err := d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0"), ConsistentRead: &consistent})
			require.NoError(t, err)
			q, err := d.Query(t.Context(), &dynamodb.QueryInput{
				TableName: leases, ConsistentRead: &consistent,
				KeyConditionExpression: aws.String("StreamID = :s"), ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}),
			})
			require.NoError(t, err)
			if got.Item == nil {
				require.Empty(t, q.Items)
				return ""
			}
			require.Equal(t, got.Item, q.Items[0])
			return got.Item["V"].(*types.AttributeValueMemberS).Value
		}
		write := func(v string) {
			require.NoError(t, s.PutItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0"), "V": String(v)}))
		}
		write("1")
		require.Equal(t, "1", read(true))
		require.Empty(t, read(false))
		pass(t, time.Second)
		require.Equal(t, "1", read(false))
		write("2")
		pass(t, 600*time.Millisecond)
		write("3")
		require.Equal(t, "1", read(false))
		pass(t, 400*time.Millisecond)
		require.Equal(t, "2", read(false))
		require.Equal(t, "3", read(true))
		require.NoError(t, s.DeleteItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0")}))
		require.Empty(t, read(true))
		require.Equal(t, "2", read(false))
		pass(t, time.Second)
		require.Empty(t, read(false))
		items, err := s.Items("leases")
		require.NoError(t, err)
		require.Empty(t, items)
	})
}

// shardsRead are the values of V by shard, as each operation that reads finds
// them; the operations must agree.
func shardsRead(t require.TestingT, d *dynamodb.Client, consistent bool, shards ...string) map[string]string {
	ctx := context.Background()
	byShard := func(items []map[string]types.AttributeValue) map[string]string {
		found := map[string]string{}
		for _, item := range items {
			found[item["ShardID"].(*types.AttributeValueMemberS).Value] = item["V"].(*types.AttributeValueMemberS).Value
		}
		return found
	}
	queryIn := &dynamodb.QueryInput{
		TableName: leases, ConsistentRead: &consistent,
		KeyConditionExpression: aws.String("StreamID = :s"), ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}),
	}
	var pages []map[string]types.AttributeValue
	for p := dynamodb.NewQueryPaginator(d, queryIn); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		require.NoError(t, err)
		require.EqualValues(t, len(out.Items), out.ScannedCount, "what is not seen is not counted")
		pages = append(pages, out.Items...)
	}
	queried := byShard(pages)
	pages = nil
	for p := dynamodb.NewScanPaginator(d, &dynamodb.ScanInput{TableName: leases, ConsistentRead: &consistent}); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		require.NoError(t, err)
		pages = append(pages, out.Items...)
	}
	require.Equal(t, queried, byShard(pages), "Scan")

	var keys, got []map[string]types.AttributeValue
	for _, shard := range shards {
		keys = append(keys, leaseKey(shard))
		out, err := d.GetItem(ctx, &dynamodb.GetItemInput{TableName: leases, Key: leaseKey(shard), ConsistentRead: &consistent})
		require.NoError(t, err)
		if out.Item != nil {
			got = append(got, out.Item)
		}
	}
	require.Equal(t, queried, byShard(got), "GetItem")
	batch, err := d.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
		*leases: {Keys: keys, ConsistentRead: &consistent},
	}})
	require.NoError(t, err)
	require.Equal(t, queried, byShard(batch.Responses[*leases]), "BatchGetItem")
	return queried
}

func TestStaleReadsSeeTheTableOfThatTime(t *testing.T) {
	shards := []string{"0", "1"}
	rapid.Check(t, func(t *rapid.T) {
		clock := NewManualClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
		stale := time.Duration(rapid.IntRange(0, 3).Draw(t, "stale")) * time.Second
		s := New(Options{Clock: clock, StaleReads: stale, ItemsPerPage: rapid.IntRange(0, 2).Draw(t, "page")})
		defer s.Close()
		require.NoError(t, s.CreateTable(*leases, "StreamID", "ShardID"))
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		// The model keeps the whole table as it was from each time on.
		type snapshot struct {
			from time.Time
			rows map[string]string
		}
		history := []snapshot{{rows: map[string]string{}}}
		for i := range rapid.IntRange(4, 10).Draw(t, "steps") {
			now := maps.Clone(history[len(history)-1].rows)
			shard := rapid.SampledFrom(shards).Draw(t, "shard")
			if rapid.Bool().Draw(t, "delete") {
				require.NoError(t, s.DeleteItem(*leases, Item{"StreamID": String("stream"), "ShardID": String(shard)}))
				delete(now, shard)
			} else {
				now[shard] = strconv.Itoa(i)
				require.NoError(t, s.PutItem(*leases, Item{"StreamID": String("stream"), "ShardID": String(shard), "V": String(now[shard])}))
			}
			history = append(history, snapshot{clock.Now(), now})
			clock.Advance(time.Duration(rapid.IntRange(0, 2).Draw(t, "pause")) * time.Second)

			seen := history[0].rows
			for _, h := range history {
				if !h.from.After(clock.Now().Add(-stale)) {
					seen = h.rows
				}
			}
			require.Equal(t, now, shardsRead(t, d, true, shards...), "consistent")
			require.Equal(t, seen, shardsRead(t, d, false, shards...), "stale")
		}
	})
}

func TestEveryReadIsConsistentByDefault(t *testing.T) {
	s := newServer(t, Options{Clock: NewManualClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	put := func(v string) {
		require.NoError(t, s.PutItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0"), "V": String(v)}))
	}
	put("1")
	require.Equal(t, map[string]string{"0": "1"}, shardsRead(t, d, false, "0"), "no time has passed since")
	put("2")
	require.Equal(t, map[string]string{"0": "2"}, shardsRead(t, d, false, "0"))
	require.NoError(t, s.DeleteItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0")}))
	require.Empty(t, shardsRead(t, d, false, "0"))
}

func TestWatchersSeeEveryWriteInItsOrder(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	var seen []Write
	remove := s.OnWrite(func(w Write) { seen = append(seen, w) }) // the table's lock orders them
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	const writers, each = 4, 50
	var wg sync.WaitGroup
	errs := make(chan error, writers*each)
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
					TableName: leases, Key: leaseKey("0"),
					UpdateExpression: aws.String("ADD N :one"), ExpressionAttributeValues: sdkItem(Item{":one": Number(1)}),
				})
				errs <- err
			}
		})
	}
	wg.Wait()
	for range writers * each {
		require.NoError(t, <-errs)
	}
	_, err := d.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), ConditionExpression: aws.String("attribute_not_exists(N)")})
	requireCode(t, CodeConditionalCheckFailed, err)
	require.NoError(t, s.DeleteItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0")}))
	require.NoError(t, s.DeleteItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0")}), "which changes nothing")
	remove()
	require.NoError(t, s.PutItem("leases", stored))

	require.Len(t, seen, writers*each+1)
	require.Nil(t, seen[0].Before)
	for i, w := range seen[:writers*each] {
		require.Equal(t, "UpdateItem", w.Operation)
		require.Equal(t, Number(int64(i+1)), w.After["N"])
		require.Equal(t, String("0"), w.Key["ShardID"])
		if i > 0 {
			require.True(t, w.Before.equal(seen[i-1].After))
		}
	}
	last := seen[writers*each]
	require.Equal(t, "DeleteItem", last.Operation)
	require.Equal(t, "leases", last.Table)
	require.Nil(t, last.After)
}

func TestBatchesCheckAllBeforeTheFirst(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	put := func(shards ...string) error {
		var requests []types.WriteRequest
		for _, shard := range shards {
			requests = append(requests, types.WriteRequest{PutRequest: &types.PutRequest{Item: leaseKey(shard)}})
		}
		_, err := d.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"leases": requests}})
		return err
	}
	many := make([]string, 26)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	requireCode(t, CodeValidation, put(many...))
	requireCode(t, CodeValidation, put("0", "0"))
	requireCode(t, CodeValidation, put("0", ""))
	items, err := s.Items("leases")
	require.NoError(t, err)
	require.Empty(t, items)
	require.NoError(t, put(many[:25]...))
	get := func(shards ...string) error {
		var keys []map[string]types.AttributeValue
		for _, shard := range shards {
			keys = append(keys, leaseKey(shard))
		}
		_, err := d.BatchGetItem(t.Context(), &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{"leases": {Keys: keys}}})
		return err
	}
	require.NoError(t, get(many...))
	requireCode(t, CodeValidation, get("0", "0"))
	requireCode(t, CodeValidation, get(slices.Repeat(many, 4)...))
}

func TestAPartitionTakesWritesWithinItsQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{EnforceLimits: true})
		leaseTable(t, s)
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		write := func(stream string) error {
			_, err := d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: sdkItem(Item{"StreamID": String(stream), "ShardID": String("0")})})
			return err
		}
		for range partitionWritesSeconds {
			require.NoError(t, write("stream"))
		}
		requireCode(t, CodeThrottling, write("stream"))
		require.NoError(t, write("other"))
		_, err := d.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"leases": {{PutRequest: &types.PutRequest{Item: leaseKey("1")}}}}})
		requireCode(t, CodeThrottling, err)
		out, err := d.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"leases": {
			{PutRequest: &types.PutRequest{Item: leaseKey("1")}},
			{PutRequest: &types.PutRequest{Item: sdkItem(Item{"StreamID": String("other"), "ShardID": String("1")})}},
		}}})
		require.NoError(t, err)
		require.Len(t, out.UnprocessedItems["leases"], 1)
		pass(t, time.Second)
		require.NoError(t, write("stream"))
	})
}

func TestSetupSpendsNoQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{EnforceLimits: true})
		leaseTable(t, s)
		for range partitionWritesSeconds + 1 {
			require.NoError(t, s.PutItem("leases", stored))
			require.NoError(t, s.DeleteItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0")}))
		}
		_, err := dynamodb.NewFromConfig(once(s.AWSConfig())).PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: leaseKey("0")})
		require.NoError(t, err)
	})
}

func TestTablesAreListedInPages(t *testing.T) {
	s := newServer(t, Options{})
	want := []string{"aaa", "bbb", "ccc"}
	for _, name := range want {
		require.NoError(t, s.CreateTable(name, "k", ""))
	}
	var got []string
	p := dynamodb.NewListTablesPaginator(s.DynamoDB(), &dynamodb.ListTablesInput{Limit: aws.Int32(2)})
	for p.HasMorePages() {
		out, err := p.NextPage(t.Context())
		require.NoError(t, err)
		got = append(got, out.TableNames...)
	}
	require.Equal(t, want, got)
}

func TestParametersThatAreNotSupportedAreRefused(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	_, err := d.Scan(t.Context(), &dynamodb.ScanInput{TableName: leases, IndexName: aws.String("index")})
	requireCode(t, CodeValidation, err)
	_, err = d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0"), AttributesToGet: []string{"A"}})
	requireCode(t, CodeValidation, err)
}

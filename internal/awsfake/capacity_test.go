package awsfake

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
)

func TestSizesCountAsDocumented(t *testing.T) {
	number := func(s string) Value { return Value{Type: typeNumber, Text: s} }
	for _, test := range []struct {
		value Value
		want  int
	}{
		{String(""), 0},
		{String("abc"), 3},
		{String("\u00e9\u20ac"), 5}, // bytes of UTF-8, not characters
		{Value{Type: typeBinary, Text: "\x00\xff"}, 2},
		{Bool(false), 1},
		{Value{Type: typeNull}, 1},
		{Number(0), 1},
		{Number(7), 2},
		{Number(42), 2},
		{Number(-427), 3},
		{Number(5_000_000), 2}, // zeros at the ends do not count
		{number("0.00015"), 2},
		{number("1.05"), 3},
		{number("12345678901234567890123456789012345678"), 20},
		{Value{Type: typeStringSet, List: []Value{String("a"), String("bc")}}, 3},
		{Value{Type: typeNumberSet, List: []Value{Number(1), Number(100)}}, 4},
		{Value{Type: typeList}, 3},
		{Value{Type: typeList, List: []Value{String("ab"), Bool(true)}}, 3 + 2 + 2 + 1},
		{Value{Type: typeMap}, 3},
		{Value{Type: typeMap, Map: Item{"key": String("ab")}}, 3 + 1 + 3 + 2},
		{Value{Type: typeList, List: []Value{{Type: typeMap}}}, 3 + 1 + 3},
	} {
		require.Equal(t, test.want, test.value.size(), "%+v", test.value)
	}
	require.Zero(t, Item(nil).size())
	require.Equal(t, 1+3+4+2, Item{"A": String("abc"), "N\u20ac": Number(12)}.size(), "names count too")
}

func TestUnitsAreRoundedUp(t *testing.T) {
	of := func(bytes int) Item { return Item{"A": String(strings.Repeat("x", bytes-1))} }
	for _, test := range []struct {
		before, after Item
		want          int
	}{
		{nil, nil, 1},
		{nil, of(1), 1},
		{nil, of(1024), 1},
		{nil, of(1025), 2},
		{of(3000), of(10), 3},
		{of(10), of(3000), 3},
		{of(4096), nil, 4},
	} {
		require.Equal(t, test.want, writeUnits(test.before, test.after))
	}
}

// sized is an item of so many bytes under a key of leases.
func sized(shard string, bytes int) Item {
	item := Item{"StreamID": String("stream"), "ShardID": String(shard), "Fill": String("")}
	item["Fill"] = String(strings.Repeat("x", bytes-item.size()))
	return item
}

// spent is what requests consume of the table of leases.
func spent(t *testing.T, s *Server, requests func()) Capacity {
	t.Helper()
	before, err := s.Capacity("leases")
	require.NoError(t, err)
	requests()
	after, err := s.Capacity("leases")
	require.NoError(t, err)
	after.ReadUnits -= before.ReadUnits
	after.WriteUnits -= before.WriteUnits
	for name, units := range before.Operations {
		after.Operations[name] -= units
		if after.Operations[name] == 0 {
			delete(after.Operations, name)
		}
	}
	return after
}

func reads(operation string, units float64) Capacity {
	return Capacity{ReadUnits: units, Operations: map[string]float64{operation: units}}
}

func writes(operation string, units float64) Capacity {
	return Capacity{WriteUnits: units, Operations: map[string]float64{operation: units}}
}

func TestGetItemConsumesItsItemRoundedUp(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	for shard, bytes := range map[string]int{"small": 100, "full": 4096, "over": 4097, "ten": 10 << 10} {
		require.NoError(t, s.PutItem("leases", sized(shard, bytes)))
	}
	for shard, units := range map[string]float64{"small": 1, "full": 1, "over": 2, "ten": 3, "absent": 1} {
		get := func(consistent bool, projection *string) func() {
			return func() {
				_, err := d.GetItem(t.Context(), &dynamodb.GetItemInput{
					TableName: leases, Key: leaseKey(shard), ConsistentRead: &consistent, ProjectionExpression: projection,
				})
				require.NoError(t, err)
			}
		}
		require.Equal(t, reads("GetItem", units), spent(t, s, get(true, nil)), shard)
		require.Equal(t, reads("GetItem", units/2), spent(t, s, get(false, nil)), shard)
		require.Equal(t, reads("GetItem", units), spent(t, s, get(true, aws.String("ShardID"))), "a projection saves nothing")
	}
}

func TestAPageConsumesTheSumOfItsItems(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	for i := range 10 {
		require.NoError(t, s.PutItem("leases", sized(strconv.Itoa(i), 1000)))
	}
	query := func(edit func(*dynamodb.QueryInput)) func() {
		return func() {
			in := &dynamodb.QueryInput{
				TableName: leases, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("StreamID = :s"),
				ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}),
			}
			edit(in)
			_, err := d.Query(t.Context(), in)
			require.NoError(t, err)
		}
	}
	for name, test := range map[string]struct {
		units float64
		edit  func(*dynamodb.QueryInput)
	}{
		"10,000 bytes":        {3, func(*dynamodb.QueryInput) {}},
		"eventually":          {1.5, func(in *dynamodb.QueryInput) { in.ConsistentRead = nil }},
		"a limit":             {2, func(in *dynamodb.QueryInput) { in.Limit = aws.Int32(5) }},
		"a count":             {3, func(in *dynamodb.QueryInput) { in.Select = types.SelectCount }},
		"a filter":            {3, func(in *dynamodb.QueryInput) { in.FilterExpression = aws.String("attribute_not_exists(Fill)") }},
		"nothing":             {1, func(in *dynamodb.QueryInput) { in.ExclusiveStartKey = leaseKey("9") }},
		"nothing, eventually": {0.5, func(in *dynamodb.QueryInput) { in.ExclusiveStartKey, in.ConsistentRead = leaseKey("9"), nil }},
		"another hash key":    {1, func(in *dynamodb.QueryInput) { in.ExpressionAttributeValues = sdkItem(Item{":s": String("other")}) }},
	} {
		require.Equal(t, reads("Query", test.units), spent(t, s, query(test.edit)), name)
	}
	require.Equal(t, reads("Query", 3+1), spent(t, s, func() { // 9,000 and 1,000 bytes
		p := dynamodb.NewQueryPaginator(d, &dynamodb.QueryInput{
			TableName: leases, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("StreamID = :s"),
			ExpressionAttributeValues: sdkItem(Item{":s": String("stream")}), Limit: aws.Int32(9),
		})
		for p.HasMorePages() {
			_, err := p.NextPage(t.Context())
			require.NoError(t, err)
		}
	}))
	require.Equal(t, reads("Scan", 1.5), spent(t, s, func() {
		_, err := d.Scan(t.Context(), &dynamodb.ScanInput{TableName: leases})
		require.NoError(t, err)
	}))
}

func TestAWriteConsumesTheLargerOfBeforeAndAfter(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	put := func(bytes int) func() {
		return func() {
			_, err := d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: sdkItem(sized("0", bytes))})
			require.NoError(t, err)
		}
	}
	update := func(fill string) func() {
		return func() {
			_, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
				TableName: leases, Key: leaseKey("0"), UpdateExpression: aws.String("SET Fill = :f"),
				ExpressionAttributeValues: sdkItem(Item{":f": String(fill)}),
			})
			require.NoError(t, err)
		}
	}
	remove := func() {
		_, err := d.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0")})
		require.NoError(t, err)
	}
	require.Equal(t, writes("PutItem", 1), spent(t, s, put(1024)))
	require.Equal(t, writes("PutItem", 2), spent(t, s, put(1025)))
	require.Equal(t, writes("PutItem", 4), spent(t, s, put(4000)))
	require.Equal(t, writes("PutItem", 4), spent(t, s, put(50)))
	require.Equal(t, writes("PutItem", 1), spent(t, s, put(50)))
	require.Equal(t, writes("UpdateItem", 3), spent(t, s, update(strings.Repeat("x", 3000))))
	require.Equal(t, writes("UpdateItem", 3), spent(t, s, update("")))
	require.Equal(t, writes("UpdateItem", 1), spent(t, s, update("y")))
	put(2000)()
	require.Equal(t, writes("DeleteItem", 2), spent(t, s, remove))
	require.Equal(t, writes("DeleteItem", 1), spent(t, s, remove), "there is none")
	require.Equal(t, writes("UpdateItem", 1), spent(t, s, update("")), "there was none")
}

func TestAFailedConditionConsumesWhatTheWriteWouldHave(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	require.NoError(t, s.PutItem("leases", sized("0", 2500)))
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	refused, missing := aws.String("attribute_not_exists(Fill)"), aws.String("attribute_exists(Fill)")
	put := func(bytes int) error {
		_, err := d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: sdkItem(sized("0", bytes)), ConditionExpression: refused})
		return err
	}
	update := func(shard string, condition *string) error {
		_, err := d.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: leases, Key: leaseKey(shard), ConditionExpression: condition, UpdateExpression: aws.String("SET N = Absent"),
		})
		return err
	}
	remove := func() error {
		_, err := d.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), ConditionExpression: refused})
		return err
	}
	for _, test := range []struct {
		want    Capacity
		request func() error
	}{
		{writes("PutItem", 3), func() error { return put(100) }},
		{writes("PutItem", 5), func() error { return put(5000) }},
		{writes("UpdateItem", 3), func() error { return update("0", refused) }},
		{writes("UpdateItem", 1), func() error { return update("1", missing) }},
		{writes("DeleteItem", 3), remove},
	} {
		require.Equal(t, test.want, spent(t, s, func() { requireCode(t, CodeConditionalCheckFailed, test.request()) }))
	}
	require.Empty(t, spent(t, s, func() { requireCode(t, CodeValidation, update("0", missing)) }).Operations, "any other error is free")
}

func TestItemsOfABatchAreRoundedUpOneByOne(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	require.Equal(t, writes("BatchWriteItem", 1+4+1), spent(t, s, func() {
		_, err := d.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"leases": {
			{PutRequest: &types.PutRequest{Item: sdkItem(sized("0", 500))}},
			{PutRequest: &types.PutRequest{Item: sdkItem(sized("1", 3500))}},
			{DeleteRequest: &types.DeleteRequest{Key: leaseKey("2")}},
		}}})
		require.NoError(t, err)
	}))
	for consistent, units := range map[bool]float64{true: 3, false: 1.5} {
		require.Equal(t, reads("BatchGetItem", units), spent(t, s, func() {
			_, err := d.BatchGetItem(t.Context(), &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
				"leases": {ConsistentRead: &consistent, Keys: []map[string]types.AttributeValue{leaseKey("0"), leaseKey("1"), leaseKey("2")}},
			}})
			require.NoError(t, err)
		}))
	}
}

func TestOnlyRequestsThatTakeEffectConsumeCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{EnforceLimits: true})
		leaseTable(t, s)
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		put := func() error {
			_, err := d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: leaseKey("0")})
			return err
		}
		setup := spent(t, s, func() {
			require.NoError(t, s.PutItem("leases", stored))
			_, err := s.Item("leases", "stream", "0")
			require.NoError(t, err)
			require.NoError(t, s.DeleteItem("leases", Item{"StreamID": String("stream"), "ShardID": String("0")}))
		})
		require.Equal(t, Capacity{}, setup)
		for _, test := range []struct {
			fault Fault
			units float64
		}{
			{Fault{Refuse: NewError(CodeInternalServerError, "down")}, 0},
			{Fault{Lose: true}, 0},
			{Fault{LoseAnswer: true}, 1},
			{Fault{Late: time.Second}, 1},
		} {
			got := spent(t, s, func() {
				remove := s.Inject(test.fault)
				defer remove()
				require.Error(t, put())
				pass(t, 2*time.Second)
			})
			require.InDelta(t, test.units, got.WriteUnits, 0)
		}
		got := spent(t, s, func() {
			for range partitionWritesSeconds {
				require.NoError(t, put())
			}
			requireCode(t, CodeThrottling, put())
		})
		require.Equal(t, writes("PutItem", partitionWritesSeconds), got)
	})
}

func TestCapacityIsCountedByTableSinceItsCreation(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	require.NoError(t, s.CreateTable("others", "k", ""))
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	_, err := d.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("others")})
	require.NoError(t, err)
	_, err = d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: leases, Item: leaseKey("0")})
	require.NoError(t, err)
	_, err = d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0")})
	require.NoError(t, err)
	got, err := s.Capacity("leases")
	require.NoError(t, err)
	require.Equal(t, Capacity{ReadUnits: 0.5, WriteUnits: 1, Operations: map[string]float64{"GetItem": 0.5, "PutItem": 1}}, got)
	got.Operations["GetItem"] = 7
	again, err := s.Capacity("leases")
	require.NoError(t, err)
	require.InDelta(t, 0.5, again.Operations["GetItem"], 0, "the answer is a copy")

	_, err = d.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: leases})
	require.NoError(t, err)
	_, err = s.Capacity("leases")
	require.ErrorContains(t, err, CodeResourceNotFound)
	leaseTable(t, s)
	got, err = s.Capacity("leases")
	require.NoError(t, err)
	require.Equal(t, Capacity{}, got)
}

func TestAnswersTellWhatWasConsumedWhereItIsAskedFor(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		leaseTable(t, s)
		ctx, d := t.Context(), dynamodb.NewFromConfig(cfg)
		ask := func(how types.ReturnConsumedCapacity) (got []*types.ConsumedCapacity) {
			put, err := d.PutItem(ctx, &dynamodb.PutItemInput{TableName: leases, Item: sdkItem(sized("0", 5000)), ReturnConsumedCapacity: how})
			require.NoError(t, err)
			update, err := d.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: leases, Key: leaseKey("0"), ReturnConsumedCapacity: how})
			require.NoError(t, err)
			get, err := d.GetItem(ctx, &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0"), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: how})
			require.NoError(t, err)
			query, err := d.Query(ctx, &dynamodb.QueryInput{
				TableName: leases, KeyConditionExpression: aws.String("StreamID = :s"), ReturnConsumedCapacity: how,
				ExpressionAttributeValues: sdkItem(Item{":s": String("other")}),
			})
			require.NoError(t, err)
			scan, err := d.Scan(ctx, &dynamodb.ScanInput{TableName: leases, ReturnConsumedCapacity: how})
			require.NoError(t, err)
			remove, err := d.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: leases, Key: leaseKey("0"), ReturnConsumedCapacity: how})
			require.NoError(t, err)
			writes, err := d.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{ReturnConsumedCapacity: how, RequestItems: map[string][]types.WriteRequest{
				"leases": {{PutRequest: &types.PutRequest{Item: leaseKey("1")}}, {DeleteRequest: &types.DeleteRequest{Key: leaseKey("2")}}},
			}})
			require.NoError(t, err)
			reads, err := d.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{ReturnConsumedCapacity: how, RequestItems: map[string]types.KeysAndAttributes{
				"leases": {Keys: []map[string]types.AttributeValue{leaseKey("0"), leaseKey("1"), leaseKey("2")}},
			}})
			require.NoError(t, err)
			got = append(got, put.ConsumedCapacity, update.ConsumedCapacity, get.ConsumedCapacity, query.ConsumedCapacity, scan.ConsumedCapacity, remove.ConsumedCapacity)
			for _, all := range [][]types.ConsumedCapacity{writes.ConsumedCapacity, reads.ConsumedCapacity} {
				if len(all) == 0 {
					got = append(got, nil)
				}
				for _, c := range all {
					got = append(got, &c)
				}
			}
			return got
		}
		units := []float64{5, 5, 2, 0.5, 1, 5, 2, 1.5}
		var total, indexes []*types.ConsumedCapacity
		for _, u := range units {
			total = append(total, &types.ConsumedCapacity{TableName: leases, CapacityUnits: &u})
			indexes = append(indexes, &types.ConsumedCapacity{TableName: leases, CapacityUnits: &u, Table: &types.Capacity{CapacityUnits: &u}})
		}
		require.Equal(t, total, ask(types.ReturnConsumedCapacityTotal))
		require.Equal(t, indexes, ask(types.ReturnConsumedCapacityIndexes))
		require.Equal(t, make([]*types.ConsumedCapacity, len(units)), ask(types.ReturnConsumedCapacityNone))
		require.Equal(t, make([]*types.ConsumedCapacity, len(units)), ask(""))
		_, err := d.GetItem(ctx, &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0"), ReturnConsumedCapacity: "SOME"})
		requireCode(t, CodeValidation, err)
	})
}

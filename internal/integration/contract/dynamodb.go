package contract

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
)

func runDynamoDB(t *testing.T, client *dynamodb.Client, deviations Deviations) {
	for name, test := range map[string]func(*testing.T, database){
		"TableByRequestIsCreated":                tableByRequestIsCreated,
		"TableWithCapacityIsCreated":             tableWithCapacityIsCreated,
		"MissingTableIsNotFound":                 missingTableIsNotFound,
		"EveryTypeIsStored":                      everyTypeIsStored,
		"ClaimOfAFreeItemHappensOnce":            claimOfAFreeItemHappensOnce,
		"OneRenewalDefeatsATakeOver":             oneRenewalDefeatsATakeOver,
		"UpdateSetsAndRemovesAtOnce":             updateSetsAndRemovesAtOnce,
		"TermIsCountedUp":                        termIsCountedUp,
		"ConditionsAreEvaluated":                 conditionsAreEvaluated,
		"PutReplacesTheWholeItem":                putReplacesTheWholeItem,
		"DeleteIsConditional":                    deleteIsConditional,
		"QueryPagesHoldOneStreamInOrder":         queryPagesHoldOneStreamInOrder,
		"QueryPageEndsAtOneMegabyte":             queryPageEndsAtOneMegabyte,
		"QueryFiltersAfterItHasCounted":          queryFiltersAfterItHasCounted,
		"QueryFiltersByNoKeyAttribute":           queryFiltersByNoKeyAttribute,
		"FailedConditionLeavesNothingBehind":     failedConditionLeavesNothingBehind,
		"UndefinedValueOfAnExpressionIsRejected": undefinedValueOfAnExpressionIsRejected,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, database{client, deviations})
		})
	}
}

func tableByRequestIsCreated(t *testing.T, d database) {
	ctx := bounded(t)
	tb := d.create(ctx, t, types.BillingModePayPerRequest, nil)
	out, err := d.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &tb})
	require.NoError(t, err)
	require.Equal(t, tb, *out.Table.TableName)
	require.Equal(t, types.BillingModePayPerRequest, out.Table.BillingModeSummary.BillingMode)
	require.Equal(t, keySchema, out.Table.KeySchema)
	require.ElementsMatch(t, keyTypes, out.Table.AttributeDefinitions)

	_, err = d.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &tb, BillingMode: types.BillingModePayPerRequest, KeySchema: keySchema, AttributeDefinitions: keyTypes,
	})
	refused[*types.ResourceInUseException](t, err)
}

func tableWithCapacityIsCreated(t *testing.T, d database) {
	ctx := bounded(t)
	tb := d.create(ctx, t, types.BillingModeProvisioned, &types.ProvisionedThroughput{
		ReadCapacityUnits: aws.Int64(3), WriteCapacityUnits: aws.Int64(4),
	})
	out, err := d.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &tb})
	require.NoError(t, err)
	require.EqualValues(t, 3, *out.Table.ProvisionedThroughput.ReadCapacityUnits)
	require.EqualValues(t, 4, *out.Table.ProvisionedThroughput.WriteCapacityUnits)
}

func missingTableIsNotFound(t *testing.T, d database) {
	ctx, name := bounded(t), aws.String(unique())
	for op, call := range map[string]func() error{
		"DescribeTable": func() error {
			_, err := d.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
			return err
		},
		"GetItem": func() error {
			_, err := d.GetItem(ctx, &dynamodb.GetItemInput{TableName: name, Key: key("0")})
			return err
		},
		"PutItem": func() error {
			_, err := d.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: key("0")})
			return err
		},
		"UpdateItem": func() error {
			_, err := d.UpdateItem(ctx, &dynamodb.UpdateItemInput{
				TableName: name, Key: key("0"), UpdateExpression: aws.String("REMOVE ClientID"),
			})
			return err
		},
		"Query": func() error {
			_, err := d.Query(ctx, &dynamodb.QueryInput{
				TableName: name, KeyConditionExpression: aws.String("StreamID = :s"), ExpressionAttributeValues: item{":s": text("s")},
			})
			return err
		},
	} {
		t.Run(op, func(t *testing.T) {
			refused[*types.ResourceNotFoundException](t, call())
		})
	}
}

func everyTypeIsStored(t *testing.T, d database) {
	ctx, tb := d.table(t)
	want := key("0")
	want["Text"] = text("é \"quoted\" \u2028")
	want["Empty"] = text("")
	want["Number"] = number(-1234567890123)
	want["Bytes"] = &types.AttributeValueMemberB{Value: []byte{0, 0xff}}
	want["True"] = &types.AttributeValueMemberBOOL{Value: true}
	want["Null"] = &types.AttributeValueMemberNULL{Value: true}
	want["List"] = &types.AttributeValueMemberL{Value: []types.AttributeValue{text("a"), number(1)}}
	want["Map"] = &types.AttributeValueMemberM{Value: item{"a": text("b")}}
	want["Texts"] = &types.AttributeValueMemberSS{Value: []string{"a", "b"}}
	_, err := d.PutItem(ctx, &dynamodb.PutItemInput{TableName: &tb, Item: want})
	require.NoError(t, err)
	require.Equal(t, want, d.get(ctx, t, tb, "0"))
	require.Empty(t, d.get(ctx, t, tb, "1"), "an absent item is no error")
}

func claimOfAFreeItemHappensOnce(t *testing.T, d database) {
	ctx, tb := d.table(t)
	claim := func(client string) error {
		_, err := d.update(ctx, tb,
			"SET ClientID = :c, LeaseTimeout = :t, SequenceNumber = if_not_exists(SequenceNumber, :none)",
			"attribute_not_exists(ClientID)",
			item{":c": text(client), ":t": text("t-" + client), ":none": text("")})
		return err
	}
	require.NoError(t, claim("a")) // the item does not exist
	refused[*types.ConditionalCheckFailedException](t, claim("b"))
	require.Equal(t, with(key("0"), "ClientID", "a", "LeaseTimeout", "t-a", "SequenceNumber", ""), d.get(ctx, t, tb, "0"))

	// Released with a sequence number: the next claim keeps it.
	_, err := d.update(ctx, tb, "SET SequenceNumber = :s REMOVE ClientID, LeaseTimeout", "ClientID = :c",
		item{":c": text("a"), ":s": text("42")})
	require.NoError(t, err)
	require.NoError(t, claim("b"))
	require.Equal(t, with(key("0"), "ClientID", "b", "LeaseTimeout", "t-b", "SequenceNumber", "42"), d.get(ctx, t, tb, "0"))
}

func oneRenewalDefeatsATakeOver(t *testing.T, d database) {
	ctx, tb := d.table(t)
	d.put(ctx, t, tb, with(key("0"), "ClientID", "a", "LeaseTimeout", "t1"))
	take := func(owner, token string) error {
		_, err := d.update(ctx, tb, "SET ClientID = :me, LeaseTimeout = :now", "ClientID = :a AND LeaseTimeout = :t",
			item{":me": text("b"), ":now": text("t9"), ":a": text(owner), ":t": text(token)})
		return err
	}
	_, err := d.update(ctx, tb, "SET LeaseTimeout = :t", "ClientID = :a", item{":a": text("a"), ":t": text("t2")})
	require.NoError(t, err)

	refused[*types.ConditionalCheckFailedException](t, take("a", "t1"))
	refused[*types.ConditionalCheckFailedException](t, take("c", "t2"))
	require.Equal(t, with(key("0"), "ClientID", "a", "LeaseTimeout", "t2"), d.get(ctx, t, tb, "0"))
	require.NoError(t, take("a", "t2"))
	require.Equal(t, with(key("0"), "ClientID", "b", "LeaseTimeout", "t9"), d.get(ctx, t, tb, "0"))

	_, err = d.update(ctx, tb, "SET SequenceNumber = :s", "ClientID = :a", item{":a": text("a"), ":s": text("1")})
	refused[*types.ConditionalCheckFailedException](t, err) // the late write of the old owner
}

func updateSetsAndRemovesAtOnce(t *testing.T, d database) {
	ctx, tb := d.table(t)
	d.put(ctx, t, tb, with(key("0"), "ClientID", "a", "LeaseTimeout", "t1", "Wanted", "b", "Other", "kept"))
	got, err := d.update(ctx, tb, "SET SequenceNumber = :s, LeaseTimeout = :t REMOVE Wanted, Absent", "ClientID = :c",
		item{":s": text("7"), ":t": text("t2"), ":c": text("a")})
	require.NoError(t, err)
	want := with(key("0"), "ClientID", "a", "LeaseTimeout", "t2", "SequenceNumber", "7", "Other", "kept")
	require.Equal(t, want, got, "ALL_NEW answers the whole item")
	require.Equal(t, want, d.get(ctx, t, tb, "0"))
}

func termIsCountedUp(t *testing.T, d database) {
	ctx, tb := d.table(t)
	for i := range 3 {
		got, err := d.update(ctx, tb, "SET Term = if_not_exists(Term, :zero) + :one", "",
			item{":zero": number(0), ":one": number(1)})
		require.NoError(t, err)
		require.Equal(t, number(i+1), got["Term"])
	}
}

func conditionsAreEvaluated(t *testing.T, d database) {
	ctx, tb := d.table(t)
	it := with(key("0"), "ClientID", "a", "LeaseTimeout", "t1", "SequenceNumber", "100")
	it["Term"] = number(10)
	d.put(ctx, t, tb, it)
	for condition, holds := range map[string]bool{
		"attribute_exists(ClientID)":                                     true,
		"attribute_exists(Nothing)":                                      false,
		"attribute_not_exists(ClientID) OR ClientID = :a":                true,
		"attribute_not_exists(ClientID) OR ClientID = :b":                false,
		"NOT ClientID = :b":                                              true,
		"ClientID <> :a":                                                 false,
		"Term = :ten":                                                    true,
		"Term < :nine":                                                   false, // as numbers: 10 is more than 9
		"Term >= :nine AND Term <= :ten":                                 true,
		"Term = :a":                                                      false, // of another type
		"ClientID = :b OR ClientID = :a AND Term = :nine":                false,
		"(ClientID = :b OR ClientID = :a) AND Term = :ten":               true,
		"ClientID = :b AND Term = :ten OR attribute_not_exists(Nothing)": true,
		"Nothing = :a":                                                   false,
		"Nothing <> :a":                                                  true,
		"NOT (attribute_exists(LeaseTimeout) AND begins_with(ClientID,:a))": false,
		"ClientID IN (:a, :b)":         true,
		"size(SequenceNumber) > :nine": false,
		"#c = :a":                      true,
	} {
		in := &dynamodb.UpdateItemInput{
			TableName: &tb, Key: key("0"), ConditionExpression: &condition, UpdateExpression: aws.String("REMOVE Nothing"),
			ExpressionAttributeValues: item{},
		}
		// Only what is used may be defined.
		for name, v := range (item{":a": text("a"), ":b": text("b"), ":nine": number(9), ":ten": number(10)}) {
			if strings.Contains(condition, name) {
				in.ExpressionAttributeValues[name] = v
			}
		}
		if len(in.ExpressionAttributeValues) == 0 {
			in.ExpressionAttributeValues = nil
		}
		if strings.Contains(condition, "#c") {
			in.ExpressionAttributeNames = map[string]string{"#c": "ClientID"}
		}
		t.Run(condition, func(t *testing.T) {
			_, err := d.UpdateItem(ctx, in)
			if holds {
				require.NoError(t, err)
			} else {
				refused[*types.ConditionalCheckFailedException](t, err)
			}
		})
	}
}

func putReplacesTheWholeItem(t *testing.T, d database) {
	ctx, tb := d.table(t)
	d.put(ctx, t, tb, with(key("0"), "ClientID", "a", "LeaseTimeout", "t1", "SequenceNumber", "1", "Extra", "x"))
	put := func(client string) error {
		_, err := d.PutItem(ctx, &dynamodb.PutItemInput{
			TableName: &tb, Item: with(key("0"), "ClientID", client, "LeaseTimeout", "t2", "SequenceNumber", "2"),
			ConditionExpression: aws.String("ClientID = :c"), ExpressionAttributeValues: item{":c": text(client)},
		})
		return err
	}
	refused[*types.ConditionalCheckFailedException](t, put("b"))
	require.NoError(t, put("a"))
	require.Equal(t, with(key("0"), "ClientID", "a", "LeaseTimeout", "t2", "SequenceNumber", "2"), d.get(ctx, t, tb, "0"))
}

func deleteIsConditional(t *testing.T, d database) {
	ctx, tb := d.table(t)
	d.put(ctx, t, tb, with(key("0"), "ClientID", "a"))
	remove := func(client string) error {
		_, err := d.DeleteItem(ctx, &dynamodb.DeleteItemInput{
			TableName: &tb, Key: key("0"),
			ConditionExpression: aws.String("ClientID = :c"), ExpressionAttributeValues: item{":c": text(client)},
		})
		return err
	}
	refused[*types.ConditionalCheckFailedException](t, remove("b"))
	require.NotEmpty(t, d.get(ctx, t, tb, "0"))
	require.NoError(t, remove("a"))
	require.Empty(t, d.get(ctx, t, tb, "0"))
	refused[*types.ConditionalCheckFailedException](t, remove("a")) // an absent item has no owner
}

func queryPagesHoldOneStreamInOrder(t *testing.T, d database) {
	ctx, tb := d.table(t)
	var want []item
	for i := range 7 {
		it := with(key(fmt.Sprintf("shardId-%012d", i)), "SequenceNumber", strconv.Itoa(i))
		want = append(want, it)
		d.put(ctx, t, tb, it)
	}
	d.put(ctx, t, tb, item{"StreamID": text("other"), "ShardID": text("0")})

	got, sizes := d.query(ctx, t, &dynamodb.QueryInput{
		TableName: &tb, Limit: aws.Int32(3), ConsistentRead: aws.Bool(true),
		KeyConditionExpression: aws.String("StreamID = :s"), ExpressionAttributeValues: item{":s": text("s")},
	})
	require.Equal(t, want, got)
	require.Equal(t, []int{3, 3, 1}, sizes)
}

func queryPageEndsAtOneMegabyte(t *testing.T, d database) {
	ctx, tb := d.table(t)
	const count, size = 5, 300 << 10
	for i := range count {
		d.put(ctx, t, tb, with(key(strconv.Itoa(i)), "Padding", strings.Repeat("x", size)))
	}
	got, sizes := d.query(ctx, t, &dynamodb.QueryInput{
		TableName: &tb, ConsistentRead: aws.Bool(true),
		KeyConditionExpression: aws.String("StreamID = :s"), ExpressionAttributeValues: item{":s": text("s")},
	})
	require.Len(t, got, count)
	require.Greater(t, len(sizes), 1)
	require.LessOrEqual(t, sizes[0], 4)
}

func queryFiltersAfterItHasCounted(t *testing.T, d database) {
	ctx, tb := d.table(t)
	for i := range 4 {
		d.put(ctx, t, tb, with(key(strconv.Itoa(i)), "ClientID", string(rune('a'+i))))
	}
	page, err := d.Query(ctx, &dynamodb.QueryInput{
		TableName: &tb, Limit: aws.Int32(3), ConsistentRead: aws.Bool(true),
		KeyConditionExpression: aws.String("StreamID = :s"), FilterExpression: aws.String("ClientID = :c"),
		ExpressionAttributeValues: item{":s": text("s"), ":c": text("d")},
	})
	require.NoError(t, err)
	require.Empty(t, page.Items)
	require.NotEmpty(t, page.LastEvaluatedKey, "an empty page is not the last")
}

func queryFiltersByNoKeyAttribute(t *testing.T, d database) {
	ctx, tb := d.table(t)
	_, err := d.Query(ctx, &dynamodb.QueryInput{
		TableName: &tb, KeyConditionExpression: aws.String("StreamID = :s"),
		FilterExpression:          aws.String("attribute_exists(ClientID) AND NOT ShardID = :k"),
		ExpressionAttributeValues: item{":s": text("s"), ":k": text("0")},
	})
	if d.deviations.KeysFiltered {
		require.NoError(t, err)
	} else {
		requireInvalid(t, err)
	}
}

func failedConditionLeavesNothingBehind(t *testing.T, d database) {
	ctx, tb := d.table(t)
	_, err := d.update(ctx, tb, "SET SequenceNumber = :s", "ClientID = :c", item{":s": text("1"), ":c": text("a")})
	refused[*types.ConditionalCheckFailedException](t, err)
	require.Empty(t, d.get(ctx, t, tb, "0"), "no phantom of a deleted item")
}

func undefinedValueOfAnExpressionIsRejected(t *testing.T, d database) {
	ctx, tb := d.table(t)
	for _, values := range []item{
		{":s": text("1")}, // :c is missing
		{":s": text("1"), ":c": text("a"), ":unused": text("u")}, // one too many
	} {
		_, err := d.update(ctx, tb, "SET SequenceNumber = :s", "ClientID = :c", values)
		if _, defined := values[":c"]; !defined && d.deviations.UndefinedValueFails {
			require.Error(t, err)
			require.NotContains(t, err.Error(), "ValidationException")
			continue
		}
		requireInvalid(t, err)
	}
}

// database is the DynamoDB under test.
type database struct {
	*dynamodb.Client
	deviations Deviations
}

type item = map[string]types.AttributeValue

var (
	keySchema = []types.KeySchemaElement{
		{AttributeName: aws.String("StreamID"), KeyType: types.KeyTypeHash},
		{AttributeName: aws.String("ShardID"), KeyType: types.KeyTypeRange},
	}
	keyTypes = []types.AttributeDefinition{
		{AttributeName: aws.String("StreamID"), AttributeType: types.ScalarAttributeTypeS},
		{AttributeName: aws.String("ShardID"), AttributeType: types.ScalarAttributeTypeS},
	}
)

// table creates one with the keys of the lease table, and the test's context.
func (d database) table(t *testing.T) (context.Context, string) {
	t.Helper()
	ctx := bounded(t)
	return ctx, d.create(ctx, t, types.BillingModePayPerRequest, nil)
}

// create creates a table and waits until it is active.
func (d database) create(
	ctx context.Context, t *testing.T, mode types.BillingMode, capacity *types.ProvisionedThroughput,
) string {
	t.Helper()
	name := unique()
	_, err := d.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: mode, ProvisionedThroughput: capacity,
		KeySchema: keySchema, AttributeDefinitions: keyTypes,
	})
	require.NoError(t, err)
	await(ctx, t, "the table is active", func() bool {
		out, err := d.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
		require.NoError(t, err)
		return out.Table.TableStatus == types.TableStatusActive
	})
	return name
}

func (d database) put(ctx context.Context, t *testing.T, table string, it item) {
	t.Helper()
	_, err := d.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: it})
	require.NoError(t, err)
}

func (d database) get(ctx context.Context, t *testing.T, table, shard string) item {
	t.Helper()
	out, err := d.GetItem(ctx, &dynamodb.GetItemInput{TableName: &table, Key: key(shard), ConsistentRead: aws.Bool(true)})
	require.NoError(t, err)
	return out.Item
}

// requireInvalid requires that err is a ValidationException, which the SDK has no
// type for.
func requireInvalid(t *testing.T, err error) {
	t.Helper()
	var api interface{ ErrorCode() string }
	require.ErrorAs(t, err, &api)
	require.Equal(t, "ValidationException", api.ErrorCode())
}

// update changes the item of shard 0 under a condition, if any, and returns what
// it is then.
func (d database) update(ctx context.Context, table, change, condition string, values item) (item, error) {
	in := &dynamodb.UpdateItemInput{
		TableName: &table, Key: key("0"), UpdateExpression: &change,
		ExpressionAttributeValues: values, ReturnValues: types.ReturnValueAllNew,
	}
	if condition != "" {
		in.ConditionExpression = &condition
	}
	out, err := d.UpdateItem(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// query reads all pages, and returns their items and how many each had.
func (d database) query(ctx context.Context, t *testing.T, in *dynamodb.QueryInput) (items []item, sizes []int) {
	t.Helper()
	for pages := dynamodb.NewQueryPaginator(d, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		require.NoError(t, err)
		items = append(items, page.Items...)
		sizes = append(sizes, len(page.Items))
	}
	return items, sizes
}

func key(shard string) item { return item{"StreamID": text("s"), "ShardID": text(shard)} }

// with adds text attributes to an item.
func with(it item, namesAndTexts ...string) item {
	for i := 0; i < len(namesAndTexts); i += 2 {
		it[namesAndTexts[i]] = text(namesAndTexts[i+1])
	}
	return it
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.Itoa(n)}
}

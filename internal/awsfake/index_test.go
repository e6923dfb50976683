package awsfake

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var byOwner = aws.String("ByOwner")

// ownerIndex is an index by Owner, and Term within it.
func ownerIndex(projection *types.Projection) *dynamodb.UpdateTableInput {
	return &dynamodb.UpdateTableInput{
		TableName: leases,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("Owner"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("Term"), AttributeType: types.ScalarAttributeTypeN},
		},
		GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{
			IndexName: byOwner, Projection: projection,
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String("Owner"), KeyType: types.KeyTypeHash},
				{AttributeName: aws.String("Term"), KeyType: types.KeyTypeRange},
			},
		}}},
	}
}

var keysOnly = &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}

func ofOwner(owner string) *dynamodb.QueryInput {
	return &dynamodb.QueryInput{
		TableName: leases, IndexName: byOwner, KeyConditionExpression: aws.String("#o = :o"),
		ExpressionAttributeNames:  map[string]string{"#o": "Owner"},
		ExpressionAttributeValues: sdkItem(Item{":o": String(owner)}),
	}
}

func TestAnIndexHasTheItemsWithItsKeysInTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Options{ItemsPerPage: rapid.IntRange(0, 3).Draw(t, "page")})
		defer func() { require.NoError(t, s.Close()) }()
		require.NoError(t, s.CreateTable(*leases, "StreamID", "ShardID"))
		d := s.DynamoDB()
		_, err := d.UpdateTable(t.Context(), ownerIndex(keysOnly))
		require.NoError(t, err)
		var model []Item
		for shard := range rapid.IntRange(0, 12).Draw(t, "items") {
			item := Item{"StreamID": String("stream"), "ShardID": String(fmt.Sprintf("%02d", shard)), "Other": Bool(true)}
			if owner := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "owner"); owner != "" {
				item["Owner"] = String(owner)
			}
			if term := rapid.Int64Range(0, 9).Draw(t, "term"); term > 0 {
				item["Term"] = Number(term)
			}
			require.NoError(t, s.PutItem(*leases, item))
			if item["Owner"].Text == "a" && item["Term"].Text != "" {
				delete(item, "Other")
				model = append(model, item)
			}
		}
		slices.SortStableFunc(model, func(a, b Item) int { return cmp.Compare(a["Term"].Text, b["Term"].Text) })
		backward := rapid.Bool().Draw(t, "backward")
		if backward {
			slices.Reverse(model)
		}
		in := ofOwner("a")
		in.ScanIndexForward = aws.Bool(!backward)
		var got, want []map[string]types.AttributeValue
		for pages := dynamodb.NewQueryPaginator(d, in); pages.HasMorePages(); {
			page, err := pages.NextPage(t.Context())
			require.NoError(t, err)
			got = append(got, page.Items...)
		}
		for _, item := range model {
			want = append(want, sdkItem(item))
		}
		require.Equal(t, want, got)
	})
}

func TestAnIndexIsMadeWhileItsTableIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{TableDelay: time.Second})
		leaseTable(t, s)
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		require.NoError(t, s.PutItem(*leases, Item{"StreamID": String("s"), "ShardID": String("0"), "Owner": String("a"), "Term": Number(1)}))
		_, err := d.Query(t.Context(), ofOwner("a"))
		requireCode(t, CodeValidation, err) // there is none
		made, err := d.UpdateTable(t.Context(), ownerIndex(keysOnly))
		require.NoError(t, err)
		require.Equal(t, types.TableStatusUpdating, made.TableDescription.TableStatus)
		require.Equal(t, types.IndexStatusCreating, made.TableDescription.GlobalSecondaryIndexes[0].IndexStatus)
		_, err = d.Query(t.Context(), ofOwner("a"))
		requireCode(t, CodeValidation, err) // not yet
		_, err = d.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: leases, DeletionProtectionEnabled: aws.Bool(true)})
		requireCode(t, CodeResourceInUse, err)
		_, err = d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: leases, Key: leaseKey("0")})
		require.NoError(t, err)

		pass(t, time.Second)
		table, err := d.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: leases})
		require.NoError(t, err)
		require.Equal(t, types.TableStatusActive, table.Table.TableStatus)
		x := table.Table.GlobalSecondaryIndexes[0]
		require.Equal(t, types.IndexStatusActive, x.IndexStatus)
		require.Equal(t, int64(1), *x.ItemCount)
		require.Len(t, table.Table.AttributeDefinitions, 4)
		page, err := d.Query(t.Context(), ofOwner("a"))
		require.NoError(t, err)
		require.Len(t, page.Items, 1)

		_, err = d.UpdateTable(t.Context(), ownerIndex(keysOnly))
		requireCode(t, CodeValidation, err) // it is there
		_, err = d.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: leases, GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{
			{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: byOwner}},
		}})
		require.NoError(t, err)
		_, err = d.Query(t.Context(), ofOwner("a"))
		requireCode(t, CodeValidation, err)
	})
}

func TestAnIndexHasWhatItsProjectionNames(t *testing.T) {
	all := Item{"StreamID": String("stream"), "ShardID": String("0"), "Owner": String("a"), "Term": Number(1), "Kept": Bool(true), "Left": Bool(true)}
	for _, c := range []struct {
		projection *types.Projection
		left       []string // out
	}{
		{keysOnly, []string{"Kept", "Left"}},
		{&types.Projection{ProjectionType: types.ProjectionTypeInclude, NonKeyAttributes: []string{"Kept"}}, []string{"Left"}},
		{&types.Projection{ProjectionType: types.ProjectionTypeAll}, nil},
	} {
		s := newServer(t, Options{})
		leaseTable(t, s)
		d := dynamodb.NewFromConfig(once(s.AWSConfig()))
		_, err := d.UpdateTable(t.Context(), ownerIndex(c.projection))
		require.NoError(t, err)
		require.NoError(t, s.PutItem(*leases, all))
		page, err := d.Query(t.Context(), ofOwner("a"))
		require.NoError(t, err)
		want := sdkItem(all)
		for _, name := range c.left {
			delete(want, name)
		}
		require.Equal(t, []map[string]types.AttributeValue{want}, page.Items)
	}
}

func TestAnIndexRefusesWhatTheServiceRefuses(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	_, err := d.UpdateTable(t.Context(), ownerIndex(&types.Projection{ProjectionType: types.ProjectionTypeInclude}))
	requireCode(t, CodeValidation, err)
	_, err = d.UpdateTable(t.Context(), ownerIndex(keysOnly))
	require.NoError(t, err)

	for _, owner := range []Value{Number(1), String("")} {
		err := s.PutItem(*leases, Item{"StreamID": String("s"), "ShardID": String("0"), "Owner": owner})
		require.Equal(t, CodeValidation, asError(err).Code)
	}
	in := ofOwner("a")
	in.ConsistentRead = aws.Bool(true)
	_, err = d.Query(t.Context(), in)
	requireCode(t, CodeValidation, err)
	in = ofOwner("a")
	in.Select = types.SelectAllAttributes
	_, err = d.Query(t.Context(), in)
	requireCode(t, CodeValidation, err)
	in = ofOwner("a")
	in.ExclusiveStartKey = leaseKey("0") // without the index's key
	_, err = d.Query(t.Context(), in)
	requireCode(t, CodeValidation, err)
}

func TestAProtectedTableIsNotDeleted(t *testing.T) {
	s := newServer(t, Options{})
	leaseTable(t, s)
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	protect := func(yes bool) {
		out, err := d.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: leases, DeletionProtectionEnabled: &yes})
		require.NoError(t, err)
		require.Equal(t, yes, *out.TableDescription.DeletionProtectionEnabled)
	}
	protect(true)
	_, err := d.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: leases})
	requireCode(t, CodeValidation, err)
	protect(false)
	_, err = d.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: leases})
	require.NoError(t, err)
}

func TestSegmentsOfAScanHaveEveryItemOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Options{ItemsPerPage: rapid.IntRange(0, 3).Draw(t, "page")})
		defer func() { require.NoError(t, s.Close()) }()
		require.NoError(t, s.CreateTable("table", "Key", ""))
		want := map[string]int{}
		for n := range rapid.IntRange(0, 30).Draw(t, "items") {
			key := fmt.Sprint("key ", n)
			want[key] = 1
			require.NoError(t, s.PutItem("table", Item{"Key": String(key)}))
		}
		got := map[string]int{}
		segments := rapid.Int32Range(1, 8).Draw(t, "segments")
		for segment := range segments {
			in := &dynamodb.ScanInput{TableName: aws.String("table"), Segment: &segment, TotalSegments: &segments}
			for pages := dynamodb.NewScanPaginator(s.DynamoDB(), in); pages.HasMorePages(); {
				page, err := pages.NextPage(t.Context())
				require.NoError(t, err)
				for _, item := range page.Items {
					got[item["Key"].(*types.AttributeValueMemberS).Value]++
				}
			}
		}
		require.Equal(t, want, got)
	})
}

func TestSegmentsOfAScanAreChecked(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateTable("table", "Key", ""))
	d := dynamodb.NewFromConfig(once(s.AWSConfig()))
	other := sdkItem(Item{"Key": String("key")})
	wrong := int32(1 - segmentOf("key", 2))
	for _, in := range []dynamodb.ScanInput{
		{Segment: aws.Int32(0)},
		{TotalSegments: aws.Int32(1)},
		{Segment: aws.Int32(1), TotalSegments: aws.Int32(1)},
		{Segment: aws.Int32(-1), TotalSegments: aws.Int32(1)},
		{Segment: aws.Int32(0), TotalSegments: aws.Int32(1_000_001)},
		{Segment: &wrong, TotalSegments: aws.Int32(2), ExclusiveStartKey: other},
	} {
		in.TableName = aws.String("table")
		_, err := d.Scan(t.Context(), &in)
		requireCode(t, CodeValidation, err)
	}
}

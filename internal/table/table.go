// Package table holds the format of the DynamoDB table of leases, and its rules: every
// attribute, every expression and every error of DynamoDB, and no decision. Whoever reads
// or writes the table does so here, so that each condition stands beside the others.
//
// # Files
//
// attributes.go names what stands in the table, table.go has the calls, item.go and
// member.go the reads and writes of shards and of members, conditions.go on what a write
// depends, decode.go what is read of what others may have written, and end.go the moment
// at which a group ends.
package table

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// API is what a Table uses of the DynamoDB client.
type API interface {
	dynamodb.QueryAPIClient
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
}

// Table is the lease store of one group in a DynamoDB table. It is safe for concurrent use.
type Table struct {
	api   API
	name  string
	group string // its name; empty for the group that is the table itself
}

var (
	_ lease.Store   = (*Table)(nil)
	_ lease.Members = (*Table)(nil)
)

// New returns the items of a group in the table of a name. An empty group is the one that
// is the table itself.
func New(api API, name, group string) *Table { return &Table{api: api, name: name, group: group} }

// Name returns the table's name.
func (t *Table) Name() string { return t.name }

// Group returns the group's name.
func (t *Table) Group() string { return t.group }

// HashKey is the hash key of a stream, or of the members. Keys leave the Table
// and come to it by the stream's own name.
func (t *Table) HashKey(stream string) string { return t.prefix() + stream }

func (t *Table) prefix() string {
	if t.group == "" {
		return ""
	}
	return GroupPrefix + t.group + "/"
}

func (t *Table) keyOf(key lease.Key) values {
	return values{AttrStream: text(t.HashKey(key.Stream)), AttrShard: text(key.Shard)}
}

func (t *Table) decode(attributes map[string]types.AttributeValue) lease.Item {
	item := decodeItem(attributes)
	item.Stream = strings.TrimPrefix(item.Stream, t.prefix())
	return item
}

// List returns the items of a stream. An eventually consistent list costs half and may
// be a moment old: enough to plan from, since each write is conditional.
func (t *Table) List(ctx context.Context, stream string, consistent bool) (ItemList, error) {
	all, size, err := t.query(ctx, stream, consistent)
	if err != nil {
		return ItemList{}, fmt.Errorf("reading the leases of stream %s: %w", stream, err)
	}
	l := ItemList{Items: make([]lease.Item, 0, len(all)), Size: size}
	for _, attributes := range all {
		l.Items = append(l.Items, t.decode(attributes))
	}
	return l, nil
}

// ItemList is what one reading of a stream's items brought.
type ItemList struct {
	Items []lease.Item
	Size  int // bytes in the table, by which reading is paid for
}

// query returns all items of a stream, or of the members, all pages of them, and their
// size in bytes.
func (t *Table) query(ctx context.Context, stream string, consistent bool) (items []map[string]types.AttributeValue, size int, err error) {
	pages := dynamodb.NewQueryPaginator(t.api, &dynamodb.QueryInput{
		TableName:                 &t.name,
		ConsistentRead:            &consistent,
		KeyConditionExpression:    aws.String(AttrStream + " = :stream"),
		ExpressionAttributeValues: values{":stream": text(t.HashKey(stream))},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, 0, err
		}
		if page.Items == nil {
			// An answer that broke on its way must not pass for an empty table, in
			// which a stream would start anew.
			return nil, 0, errors.New("the answer has no list of items")
		}
		items = append(items, page.Items...)
	}
	for _, item := range items {
		size += sizeOf(item)
	}
	return items, size, nil
}

// sizeOf is the size of an item in bytes, roughly: that of its names and texts.
func sizeOf(item map[string]types.AttributeValue) (size int) {
	for name, value := range item {
		size += len(name)
		switch value := value.(type) {
		case *types.AttributeValueMemberS:
			size += len(value.Value)
		case *types.AttributeValueMemberN:
			size += len(value.Value)/2 + 1
		}
	}
	return size
}

// Get implements lease.Store.
func (t *Table) Get(ctx context.Context, key lease.Key) (lease.Item, error) {
	attributes, err := t.get(ctx, key)
	if err != nil || attributes == nil {
		return lease.Item{Key: key}, err
	}
	return t.decode(attributes), nil
}

// get reads one item, consistently; nil when there is none.
func (t *Table) get(ctx context.Context, key lease.Key) (map[string]types.AttributeValue, error) {
	out, err := t.api.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:      &t.name,
		Key:            t.keyOf(key),
		ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return nil, err
	}
	if out.Item == nil && !isDynamoDBs(out.ResultMetadata) {
		// It would pass for a member that is gone, or for a lease that is lost.
		return nil, errors.New("the answer has no item, and nothing that shows it to be one of DynamoDB")
	}
	return out.Item, nil
}

// isDynamoDBs tells whether an answer has one of the headers that DynamoDB's answers have.
// One of something on the way, such as a proxy's 200 with nothing, has neither; to the SDK
// it is as good as an answer without an item, or to a delete.
func isDynamoDBs(metadata middleware.Metadata) bool {
	answer, ok := awsmiddleware.GetRawResponse(metadata).(*smithyhttp.Response)
	return ok && (answer.Header.Get("X-Amzn-Requestid") != "" || answer.Header.Get("X-Amz-Crc32") != "")
}

func (t *Table) update(
	ctx context.Context, key lease.Key, expression, condition string, v values, opts ...func(*dynamodb.Options),
) (lease.Item, error) {
	out, err := t.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &t.name,
		Key:                       t.keyOf(key),
		UpdateExpression:          &expression,
		ConditionExpression:       &condition,
		ExpressionAttributeValues: v,
		ReturnValues:              types.ReturnValueAllNew,
	}, opts...)
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); conflict {
		return lease.Item{}, lease.ErrConflict
	}
	if err != nil {
		return lease.Item{}, err
	}
	if len(out.Attributes) == 0 {
		// To be resolved by reading, as an answer that was lost.
		return lease.Item{}, errors.New("the answer has no item")
	}
	return t.decode(out.Attributes), nil
}

func (t *Table) delete(ctx context.Context, key lease.Key, condition string, v values) error {
	out, err := t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:                 &t.name,
		Key:                       t.keyOf(key),
		ConditionExpression:       &condition,
		ExpressionAttributeValues: v,
	})
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); conflict {
		return lease.ErrConflict
	}
	if err == nil && !isDynamoDBs(out.ResultMetadata) {
		return errors.New("the answer has nothing that shows it to be one of DynamoDB")
	}
	return err
}

type values = map[string]types.AttributeValue

// integer reads a number; one that is none counts as 0.
func integer(n *types.AttributeValueMemberN) int64 {
	value, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return 0
	}
	return value
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

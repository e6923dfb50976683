package awskinesis

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// measured is a client of the table that counts and times its calls.
type measured struct {
	tableAPI
	metrics *inputMetrics
}

// measure makes a call.
func measure[In, Out any](
	ctx context.Context, m *inputMetrics, operation string, in *In, opts []func(*dynamodb.Options),
	call func(context.Context, *In, ...func(*dynamodb.Options)) (*Out, error),
) (*Out, error) {
	begun := time.Now()
	out, err := call(ctx, in, opts...)
	if errors.Is(err, context.Canceled) { // by ourselves
		return out, err
	}
	result := err
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); conflict {
		result = lease.ErrConflict
	}
	m.add("kinesis_table_calls", 1, operation, resultOf(result))
	m.time("kinesis_table_latency", time.Since(begun).Nanoseconds(), operation)
	return out, err
}

func (c measured) GetItem(ctx context.Context, in *dynamodb.GetItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	return measure(ctx, c.metrics, "GetItem", in, opts, c.tableAPI.GetItem)
}

func (c measured) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	return measure(ctx, c.metrics, "DeleteItem", in, opts, c.tableAPI.DeleteItem)
}

func (c measured) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	return measure(ctx, c.metrics, "UpdateItem", in, opts, c.tableAPI.UpdateItem)
}

func (c measured) Query(ctx context.Context, in *dynamodb.QueryInput, opts ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	return measure(ctx, c.metrics, "Query", in, opts, c.tableAPI.Query)
}

func (c measured) CreateTable(ctx context.Context, in *dynamodb.CreateTableInput, opts ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error) {
	return measure(ctx, c.metrics, "CreateTable", in, opts, c.tableAPI.CreateTable)
}

func (c measured) DescribeTable(ctx context.Context, in *dynamodb.DescribeTableInput, opts ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	return measure(ctx, c.metrics, "DescribeTable", in, opts, c.tableAPI.DescribeTable)
}

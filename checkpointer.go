package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// tableWait bounds the wait for a table that is being created. DynamoDB takes
// seconds for it.
const tableWait = 2 * time.Minute

// tableAPI is what the checkpointer uses of the DynamoDB client.
type tableAPI interface {
	table.API
	dynamodb.DescribeTableAPIClient
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
}

// checkpointer is the lease store of an input: the group's items, and the table itself,
// which the input alone makes and awaits. It is safe for concurrent use.
type checkpointer struct {
	*table.Table
	api  tableAPI
	conf tableConfig
}

func newCheckpointer(api tableAPI, conf tableConfig, group string) *checkpointer {
	return &checkpointer{Table: table.New(api, conf.name, group), api: api, conf: conf}
}

// ensureTable returns once the table is there, of the right shape and usable, and
// reports whether it has created it first, as the configuration may have it.
func (c *checkpointer) ensureTable(ctx context.Context) (created bool, err error) {
	described, err := c.api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &c.conf.name})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		if !c.conf.create {
			return false, fmt.Errorf("table %q does not exist: create it with the string keys %s (HASH) and %s (RANGE), or set `dynamodb.create: true`",
				c.conf.name, table.AttrStream, table.AttrShard)
		}
		if created, err = c.createTable(ctx); err != nil {
			return false, err
		}
		return created, c.awaitTable(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("describing table %q: %w", c.conf.name, err)
	}
	if err := checkKeys(described.Table); err != nil {
		return false, fmt.Errorf("table %q: %w", c.conf.name, err)
	}
	switch described.Table.TableStatus {
	case types.TableStatusActive, types.TableStatusUpdating:
		return false, nil
	default:
		return false, c.awaitTable(ctx)
	}
}

// createTable reports whether it was this process that has created the table.
func (c *checkpointer) createTable(ctx context.Context) (created bool, err error) {
	in := &dynamodb.CreateTableInput{
		TableName:   &c.conf.name,
		BillingMode: c.conf.billingMode,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(table.AttrStream), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(table.AttrShard), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(table.AttrStream), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(table.AttrShard), KeyType: types.KeyTypeRange},
		},
	}
	if c.conf.billingMode == types.BillingModeProvisioned {
		in.ProvisionedThroughput = &types.ProvisionedThroughput{
			ReadCapacityUnits:  &c.conf.readCapacity,
			WriteCapacityUnits: &c.conf.writeCapacity,
		}
	}
	_, err = c.api.CreateTable(ctx, in)
	if _, raced := errors.AsType[*types.ResourceInUseException](err); raced {
		return false, nil // another process creates it at this moment
	}
	if err != nil {
		return false, fmt.Errorf("creating table %q: %w", c.conf.name, err)
	}
	return true, nil
}

func (c *checkpointer) awaitTable(ctx context.Context) error {
	waiter := dynamodb.NewTableExistsWaiter(c.api, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, 2*time.Second
	})
	described, err := waiter.WaitForOutput(ctx, &dynamodb.DescribeTableInput{TableName: &c.conf.name}, tableWait)
	if err != nil {
		return fmt.Errorf("waiting for table %q to become active: %w", c.conf.name, err)
	}
	if err := checkKeys(described.Table); err != nil {
		return fmt.Errorf("table %q: %w", c.conf.name, err)
	}
	return nil
}

// checkKeys finds a table that was made for something else before the first
// query fails with a message about key conditions.
func checkKeys(described *types.TableDescription) error {
	if described == nil {
		return errors.New("the answer describes no table")
	}
	keys := map[string]types.KeyType{}
	for _, key := range described.KeySchema {
		keys[aws.ToString(key.AttributeName)] = key.KeyType
	}
	attributes := map[string]types.ScalarAttributeType{}
	for _, attribute := range described.AttributeDefinitions {
		attributes[aws.ToString(attribute.AttributeName)] = attribute.AttributeType
	}
	if keys[table.AttrStream] != types.KeyTypeHash || keys[table.AttrShard] != types.KeyTypeRange ||
		attributes[table.AttrStream] != types.ScalarAttributeTypeS || attributes[table.AttrShard] != types.ScalarAttributeTypeS {
		return fmt.Errorf("its keys are not the strings %s (HASH) and %s (RANGE): use another table for `dynamodb.table`", table.AttrStream, table.AttrShard)
	}
	return nil
}

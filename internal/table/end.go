package table

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// AgreeOnEnd returns the moment at which the group ends that ends at its first start: the
// one that stands in the table, or else the one that is given, which stands there from
// now on. first is whether it is that one. Whoever tries again after an answer that was
// lost gets the same.
func (t *Table) AgreeOnEnd(ctx context.Context, now time.Time) (end time.Time, first bool, err error) {
	proposed, by := now.UTC().Format(time.RFC3339Nano), rand.Text()[:10]
	key := lease.Key{Stream: endStream, Shard: endShard}
	out, err := t.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &t.name,
		Key:       t.keyOf(key),
		UpdateExpression: aws.String("SET " + AttrEnd + " = if_not_exists(" + AttrEnd + ", :end), " +
			AttrEndBy + " = if_not_exists(" + AttrEndBy + ", :by)"),
		ExpressionAttributeValues: values{":end": text(proposed), ":by": text(by)},
		ReturnValues:              types.ReturnValueAllNew,
	})
	if err != nil {
		return time.Time{}, false, fmt.Errorf("agreeing on the end of the group: %w", err)
	}
	if len(out.Attributes) == 0 {
		return time.Time{}, false, errors.New("agreeing on the end of the group: the answer has no item")
	}
	stored, _ := out.Attributes[AttrEnd].(*types.AttributeValueMemberS)
	if stored == nil {
		return time.Time{}, false, fmt.Errorf("the item %q of %q in table %s has %s that is no text: delete it, and the group ends at the next start", endShard, t.HashKey(endStream), t.name, AttrEnd)
	}
	if end, err = time.Parse(time.RFC3339Nano, stored.Value); err != nil {
		return time.Time{}, false, fmt.Errorf("the item %q of %q in table %s has %s that is no time: delete it, and the group ends at the next start: %w", endShard, t.HashKey(endStream), t.name, AttrEnd, err)
	}
	writer, _ := out.Attributes[AttrEndBy].(*types.AttributeValueMemberS)
	return end, stored.Value == proposed && writer != nil && writer.Value == by, nil
}

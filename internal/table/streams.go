package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Streams returns the streams of which the group has items, sorted. The table has no list
// of them, so it reads the whole table, of all groups, and needs the right to Scan, which
// the input does not.
func (t *Table) Streams(ctx context.Context, api dynamodb.ScanAPIClient) ([]string, error) {
	names := map[string]bool{}
	pages := dynamodb.NewScanPaginator(api, &dynamodb.ScanInput{
		TableName: &t.name, ConsistentRead: aws.Bool(true), ProjectionExpression: aws.String(AttrStream),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err == nil && page.Items == nil {
			err = errors.New("the answer has no list of items")
		}
		if err != nil {
			return nil, fmt.Errorf("looking for streams in table %s: %w", t.name, err)
		}
		for _, item := range page.Items {
			key, _ := item[AttrStream].(*types.AttributeValueMemberS)
			if key == nil {
				continue
			}
			if stream, ours := strings.CutPrefix(key.Value, t.prefix()); ours && !strings.HasPrefix(stream, "/") {
				names[stream] = true
			}
		}
	}
	all := make([]string, 0, len(names))
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all, nil
}

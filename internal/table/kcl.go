package table

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// KCLLease is a lease of Amazon's Kinesis Client Library, of its versions 1, 2 and 3,
// which name what they share alike.
type KCLLease struct {
	// Stream and Account are those of a table of several streams; empty in one of a single
	// stream, which does not say of which. Created is when the stream was, as the application
	// was told.
	Stream, Account string
	Created         time.Time
	Shard           string
	// Checkpoint is the sequence number of the last record that is done, or one of the words
	// below, and Sub the user record in it that is: the first one of a record is 0.
	Checkpoint string
	Sub        int
	// Owner is who processes the shard; empty when nobody does. Counter grows with each
	// renewal.
	Owner   string
	Counter string
}

// The checkpoints that are no sequence numbers.
const (
	KCLTrimHorizon = "TRIM_HORIZON"
	KCLLatest      = "LATEST"
	KCLAtTimestamp = "AT_TIMESTAMP"
	KCLShardEnd    = "SHARD_END"
)

// kclKey is the key of a lease in a table of several streams.
var kclKey = regexp.MustCompile(`^([0-9]+):([^:]+):([0-9]+):([^:]+)$`)

// KCLLeases returns the leases in a table of the Kinesis Client Library, sorted as they
// are stored. What else stands there, such as its leader, is left out.
func KCLLeases(ctx context.Context, api dynamodb.ScanAPIClient, name string) (all []KCLLease, err error) {
	pages := dynamodb.NewScanPaginator(api, &dynamodb.ScanInput{TableName: &name, ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err == nil && page.Items == nil {
			err = errors.New("the answer has no list of items")
		}
		if err != nil {
			return nil, fmt.Errorf("reading table %s of the Kinesis Client Library: %w", name, err)
		}
		for _, attributes := range page.Items {
			l, ok, err := decodeKCLLease(attributes)
			if err != nil {
				return nil, fmt.Errorf("table %s of the Kinesis Client Library: %w", name, err)
			}
			if ok {
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// decodeKCLLease reads an item of such a table; ok is false for one that is no lease.
func decodeKCLLease(attributes map[string]types.AttributeValue) (l KCLLease, ok bool, err error) {
	str := func(name string) string {
		s, _ := attributes[name].(*types.AttributeValueMemberS)
		if s == nil {
			return ""
		}
		return s.Value
	}
	if kind := str("entityType"); kind != "" && kind != "LEASE" {
		return KCLLease{}, false, nil
	}
	key := str("leaseKey")
	l = KCLLease{Shard: key, Checkpoint: str("checkpoint"), Owner: str("leaseOwner")}
	if l.Checkpoint == "" || key == "" {
		return KCLLease{}, false, nil
	}
	// While the shard is passed on, the owner that stands there is the next one.
	if owner := str("checkpointOwner"); owner != "" {
		l.Owner = owner
	}
	if counter, is := attributes["leaseCounter"].(*types.AttributeValueMemberN); is {
		l.Counter = counter.Value
	}
	if sub, is := attributes["checkpointSubSequenceNumber"].(*types.AttributeValueMemberN); is {
		if l.Sub, err = strconv.Atoi(sub.Value); err != nil || l.Sub < 0 {
			return KCLLease{}, false, fmt.Errorf("the lease %q has the sub-sequence number %s, which is none", key, sub.Value)
		}
	}
	if parts := kclKey.FindStringSubmatch(key); parts != nil {
		created, err := strconv.ParseInt(parts[3], 10, 64)
		if err != nil {
			return KCLLease{}, false, fmt.Errorf("the lease %q is of a stream that was created at no time: %w", key, err)
		}
		l.Account, l.Stream, l.Created, l.Shard = parts[1], parts[2], time.Unix(created, 0).UTC(), parts[4]
	}
	return l, true, nil
}

package wire

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// Record is one record of a shard as it was put.
type Record struct {
	// Data is the payload. The record owns it.
	Data []byte
	// SequenceNumber is unique in the shard, and higher than those before it.
	SequenceNumber string
	// PartitionKey is empty when the service sent none.
	PartitionKey string
	// Arrived is when the stream took the record, by the service's clock; zero
	// when the service sent none.
	Arrived time.Time
}

// Page is what an answer of GetRecords brings, or an event of a subscription. In the SDK's
// types each field of a record is a pointer, which the garbage collector follows: with
// these a record takes less than half of the memory beside its payload.
type Page struct {
	// Records is nil where the service sent no list of them.
	Records []Record
	// Next is where reading goes on: an iterator, or the sequence number that a subscription
	// is to continue after. It is empty where nothing leads on.
	Next string
	// Behind is how many milliseconds the page lies behind the tip of the shard; nil where
	// the service does not tell.
	Behind *int64
	// Children are the shards that follow a closed one.
	Children []types.ChildShard
}

// Client is what reads pages: [Direct], or the SDK's client.
type Client interface {
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
}

// GetRecords makes a call of a client, and returns its page. One whose protocol is [Protocol]
// decodes it as such; what other clients return is converted.
func GetRecords(ctx context.Context, c Client, in *kinesis.GetRecordsInput) (*Page, error) {
	var asked answer
	out, err := c.GetRecords(context.WithValue(ctx, answerKey{}, &asked), in)
	if err != nil {
		return nil, err
	}
	if asked.page == nil {
		asked.page = pageOf(out)
	}
	return asked.page, nil
}

// answer is what a call of GetRecords has brought. All attempts of the call share it.
type answer struct {
	page *Page // nil when it is in the SDK's types
}

// answerKey is the key of an *answer in the context of a call.
type answerKey struct{}

// decodedFor decodes a body for a call of [GetRecords], and says whether it has. It has not
// where the call is another one, and where decode met what it does not know.
func decodedFor(ctx context.Context, body []byte, decode func(body []byte, page *Page) bool) bool {
	asked, ok := ctx.Value(answerKey{}).(*answer)
	if !ok {
		return false
	}
	asked.page = nil // that of an attempt before
	var page Page
	if !decode(body, &page) {
		return false
	}
	asked.page = &page
	return true
}

// pageOf is an answer of the SDK's. It shares the memory of the payloads.
func pageOf(out *kinesis.GetRecordsOutput) *Page {
	return &Page{
		Records: recordsOf(out.Records), Next: aws.ToString(out.NextShardIterator),
		Behind: out.MillisBehindLatest, Children: out.ChildShards,
	}
}

// pageOfEvent is an event of the SDK's.
func pageOfEvent(e *types.SubscribeToShardEvent) *Page {
	return &Page{
		Records: recordsOf(e.Records), Next: aws.ToString(e.ContinuationSequenceNumber),
		Behind: e.MillisBehindLatest, Children: e.ChildShards,
	}
}

func recordsOf(all []types.Record) []Record {
	if all == nil {
		return nil
	}
	records := make([]Record, len(all))
	for i, r := range all {
		records[i] = Record{
			Data:           r.Data,
			SequenceNumber: aws.ToString(r.SequenceNumber),
			PartitionKey:   aws.ToString(r.PartitionKey),
			Arrived:        aws.ToTime(r.ApproximateArrivalTimestamp),
		}
	}
	return records
}

// withRoom returns the records of a page with room for one more, when so many bytes of
// them are decoded and so many are left.
func withRoom(records []Record, decoded, left int) []Record {
	n := len(records)
	if n < cap(records) {
		return records
	}
	more := 1
	if n > 0 { // as many as there are to come, if they are like those before
		more += left * n / decoded
	}
	return slices.Grow(records, min(more, maxRecords))
}

// fitted returns the records of a page without the room for many more: they stay until the
// last one is done with, and those that come first may be much smaller than the others.
func fitted(records []Record) []Record {
	if len(records) < cap(records)/2 {
		return slices.Clone(records)
	}
	return records
}

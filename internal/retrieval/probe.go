package retrieval

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// ProbeAPI is what a Probe uses of the Kinesis client.
type ProbeAPI interface {
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
}

// Probe looks at single records of a shard, for whoever is to know what stands at a place.
// It shares the shard's five calls a second with all its readers, and takes half of them at
// most. It is safe for concurrent use.
type Probe struct {
	api ProbeAPI

	mu   sync.Mutex
	next map[string]time.Time // when a shard may be called again
}

// NewProbe returns a probe.
func NewProbe(api ProbeAPI) *Probe { return &Probe{api: api, next: map[string]time.Time{}} }

// Bounds of a probe.
const (
	probePause = 400 * time.Millisecond // between two calls
	// emptyPages is how many pages without records a place is looked for in.
	emptyPages = 20
	// pagesBefore is how many pages are read at most to find the record before another.
	pagesBefore = 50
)

// At returns the first record from a sequence number on; ok is false when there is none.
// It is not the one that was asked for where that has left the stream.
func (p *Probe) At(ctx context.Context, stream, shard, number string) (r Record, ok bool, err error) {
	return p.first(ctx, stream, shard, &kinesis.GetShardIteratorInput{
		ShardIteratorType: types.ShardIteratorTypeAtSequenceNumber, StartingSequenceNumber: &number,
	})
}

// Oldest returns the oldest record of a shard; ok is false when it has none.
func (p *Probe) Oldest(ctx context.Context, stream, shard string) (r Record, ok bool, err error) {
	return p.first(ctx, stream, shard, &kinesis.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
}

func (p *Probe) first(ctx context.Context, stream, shard string, from *kinesis.GetShardIteratorInput) (r Record, ok bool, err error) {
	whole, err := p.pages(ctx, stream, shard, from, 1, emptyPages, func(records []Record) (more bool) {
		if ok = len(records) > 0; ok {
			r = records[0]
		}
		return !ok
	})
	if err == nil && !whole {
		err = fmt.Errorf("reading shard %s: %w", shard, ErrManyEmpty)
	}
	return r, ok, err
}

// ErrManyEmpty means that as many pages without records came as may be read, before the tip
// of the shard: nobody knows whether there is one.
var ErrManyEmpty = fmt.Errorf("%d pages came without records", emptyPages)

// ErrFarBefore means that the record before another was not found in as many pages as may
// be read for it.
var ErrFarBefore = errors.New("the record before it is too far to be looked for")

// Before returns the sequence number of the record before one that is in the shard; empty
// when that is the oldest one. It looks at what arrived in a second before it, then in four,
// and so on.
func (p *Probe) Before(ctx context.Context, stream, shard string, of Record) (number string, err error) {
	if of.Arrived.IsZero() {
		return p.before(ctx, stream, shard, of, &kinesis.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
	}
	const longest = 366 * 24 * time.Hour // no stream keeps records for longer
	for back := time.Second; back < longest; back *= 4 {
		at := of.Arrived.Add(-back)
		number, err = p.before(ctx, stream, shard, of, &kinesis.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: &at})
		if err != nil || number != "" {
			return number, err
		}
	}
	return p.before(ctx, stream, shard, of, &kinesis.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
}

func (p *Probe) before(ctx context.Context, stream, shard string, of Record, from *kinesis.GetShardIteratorInput) (number string, err error) {
	found := false
	_, err = p.pages(ctx, stream, shard, from, 10_000, pagesBefore, func(records []Record) (more bool) {
		for i := range records {
			if found = sequence.Compare(records[i].SequenceNumber, of.SequenceNumber) >= 0; found {
				return false
			}
			number = records[i].SequenceNumber
		}
		return true
	})
	if err == nil && !found {
		err = ErrFarBefore
	}
	return number, err
}

// pages hands out page after page from a place on, until one is enough, the shard ends or
// its tip is reached, or there were as many as may be: whole is false then.
func (p *Probe) pages(ctx context.Context, stream, shard string, from *kinesis.GetShardIteratorInput, limit int32, most int, page func([]Record) (more bool)) (whole bool, err error) {
	from.ShardId = &shard
	from.StreamName, from.StreamARN = StreamParameters(stream)
	out, err := p.api.GetShardIterator(ctx, from)
	if err != nil {
		return false, fmt.Errorf("making an iterator of shard %s: %w", shard, err)
	}
	_, arn := StreamParameters(stream)
	iterator := out.ShardIterator
	for n := 0; aws.ToString(iterator) != "" && n < most; n++ {
		if err := p.turn(ctx, stream+":"+shard); err != nil {
			return false, err
		}
		got, err := p.api.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator, StreamARN: arn, Limit: &limit})
		if err != nil {
			return false, fmt.Errorf("reading shard %s: %w", shard, err)
		}
		records := make([]Record, len(got.Records))
		for i, r := range got.Records {
			records[i] = Record{Data: r.Data, SequenceNumber: aws.ToString(r.SequenceNumber), PartitionKey: aws.ToString(r.PartitionKey), Arrived: aws.ToTime(r.ApproximateArrivalTimestamp)}
		}
		if !page(records) || len(records) == 0 && aws.ToInt64(got.MillisBehindLatest) == 0 {
			return true, nil
		}
		iterator = got.NextShardIterator
	}
	return aws.ToString(iterator) == "", nil
}

// turn waits until a shard may be called.
func (p *Probe) turn(ctx context.Context, shard string) error {
	p.mu.Lock()
	at := p.next[shard]
	if now := time.Now(); at.Before(now) {
		at = now
	}
	p.next[shard] = at.Add(probePause)
	p.mu.Unlock()
	return waitUntil(ctx, at)
}

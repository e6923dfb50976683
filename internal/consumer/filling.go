package consumer

import (
	"context"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// filling is the batch of a shard that is being filled. The consumer makes one, and
// its pump alone uses it.
type filling struct {
	batcher Batcher
	entry
}

// passed is records that follow one another, from one sequence number to another.
type passed struct {
	from, to string
	behind   int // how many messages of the batch they are behind
}

// entry is what is known of a batch beside its messages.
type entry struct {
	messages int            // as they were read, before any processor
	last     lease.Position // after the newest of them
	cost     int64          // of them all, to the budget
	// passed are the records between its messages of which nothing is delivered.
	passed []passed
}

// add takes a message in and reports whether the batch is full.
func (f *filling) add(m *service.Message, after lease.Position, cost int64) (full bool) {
	f.messages++
	f.last = after
	f.cost += cost
	return f.batcher.Add(m)
}

// pass moves past a record of which nothing is delivered, behind a message of the batch.
func (f *filling) pass(sequence string) {
	f.last = lease.After(sequence)
	if n := len(f.passed); n > 0 && f.passed[n-1].behind == f.messages {
		f.passed[n-1].to = sequence
		return
	}
	f.passed = append(f.passed, passed{from: sequence, to: sequence, behind: f.messages})
}

// flush empties the batch. After an error the batcher may hold messages still.
func (f *filling) flush(ctx context.Context) (service.MessageBatch, entry, error) {
	batch, err := f.batcher.Flush(ctx)
	if err != nil {
		return nil, entry{}, err
	}
	flushed := f.entry
	f.entry = entry{}
	return batch, flushed, nil
}

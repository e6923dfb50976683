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

// entry is what the window and the budget know of a batch.
type entry struct {
	messages int            // as they were read, before any processor
	last     lease.Position // after the newest of them
	cost     int64          // of them all, to the budget
}

// add takes a message in and reports whether the batch is full.
func (f *filling) add(m *service.Message, after lease.Position, cost int64) (full bool) {
	f.messages++
	f.last = after
	f.cost += cost
	return f.batcher.Add(m)
}

// flush empties the batch. After an error the batcher may hold messages still, and
// so may discard.
func (f *filling) flush(ctx context.Context) (service.MessageBatch, entry, error) {
	batch, err := f.batcher.Flush(ctx)
	if err != nil {
		return nil, entry{}, err
	}
	flushed := f.entry
	f.entry = entry{}
	return batch, flushed, nil
}

// discard empties the batch of messages that are to be read again, and returns what
// they cost.
func (f *filling) discard(ctx context.Context) (cost int64, err error) {
	if _, err := f.batcher.Flush(ctx); err != nil {
		return 0, err
	}
	cost = f.cost
	f.entry = entry{}
	return cost, nil
}

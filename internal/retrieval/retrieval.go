// Package retrieval is where the records of a shard come from.
//
// A source reads one shard from a position onwards and hands out its pages in
// order, each record once. It deals with everything that may go wrong between
// the service and a page: expired iterators, throttling, time-outs, answers that
// were lost. What it returns as an error its caller must act on.
package retrieval

import (
	"errors"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// Record is one record of a shard, in the memory that it was decoded into.
type Record = wire.Record

// Page is what one read brought.
type Page struct {
	Records []Record
	// Cost is what the page holds of the budget. Whoever takes the page gives it
	// back as its records are done with.
	Cost int64
	// Behind is how far the end of the page lies behind the tip of the shard.
	Behind time.Duration
	// ReadTo is the moment up to which all that had arrived has been read with this page,
	// by our own clock; zero where the service does not tell how far it is behind.
	ReadTo time.Time
	// End is set on the last page of a closed shard, and of a Bounded source.
	End bool
	// Cut is set with End where the shard goes on, beyond the moment at which its source
	// ends. It has no Children then.
	Cut bool
	// Children are the shards that follow a closed one, on its last page.
	Children []Child
}

// Child is a shard that a split or a merge made.
type Child struct {
	ID string
	// Parents are the ids of one shard (split) or of two (merge).
	Parents []string
}

// Position is where reading begins.
type Position struct {
	// After is the sequence number of the last record before it.
	After string
	// At is the arrival time of the first record, if After is empty. If it is
	// zero too, reading begins at the oldest record of the shard.
	At time.Time
}

// ErrShardGone means that the shard, or its stream, does not exist, or that its
// last page has been handed out.
var ErrShardGone = errors.New("the shard does not exist")

package retrieval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// listPage is the number of shards asked for at once, the most there is.
const listPage = 10_000

// listTimeout bounds a list that several wait for.
const listTimeout = 10 * time.Second

// Lister is what listing shards takes of the Kinesis client.
type Lister interface {
	ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error)
}

// ListShards returns every shard of a stream, name or ARN, of all pages, and the
// service's own time. A stream has one shard at least: an answer without any is
// an error.
func ListShards(ctx context.Context, api Lister, stream string) (shards []lineage.Shard, at time.Time, err error) {
	in := &kinesis.ListShardsInput{MaxResults: new(int32(listPage))}
	in.StreamName, in.StreamARN = StreamParameters(stream)
	for {
		out, err := api.ListShards(ctx, in)
		if err == nil && len(out.Shards) == 0 && out.NextToken == nil {
			err = errors.New("the answer has none") // not even the last page is empty
		}
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("listing the shards of stream %s: %w", stream, err)
		}
		for _, s := range out.Shards {
			shards = append(shards, shardOf(s))
		}
		if out.NextToken == nil {
			at, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
			return shards, at, nil
		}
		// A next token goes alone.
		in = &kinesis.ListShardsInput{NextToken: out.NextToken, MaxResults: in.MaxResults}
	}
}

// Lists tells shards as their streams list them after they were asked for, and makes
// one call for all who ask at about the same time. It is safe for concurrent use.
type Lists struct {
	api   Lister
	life  context.Context //nolint:containedctx // of the calls, which are nobody's own
	calls sync.WaitGroup

	mu    sync.Mutex
	turns map[string]chan struct{} // of a stream, cap 1: its calls are made one after the other
	next  map[string]*list         // of a stream: the call that has yet to begin
}

type list struct {
	done   chan struct{} // closed when the rest is there
	shards []lineage.Shard
	at     time.Time // by the service's clock
	err    error
}

// NewLists returns a Lists that asks api for as long as life lasts.
func NewLists(life context.Context, api Lister) *Lists {
	return &Lists{api: api, life: life, turns: map[string]chan struct{}{}, next: map[string]*list{}}
}

// Wait returns when no call is under way, after the end of life and of all who ask.
func (l *Lists) Wait() { l.calls.Wait() }

// Find returns a shard of a stream; ok is false when the stream does not list it.
func (l *Lists) Find(ctx context.Context, stream, id string) (shard lineage.Shard, ok bool, err error) {
	shard, _, ok, err = l.FindAt(ctx, stream, id)
	return shard, ok, err
}

// FindAt is Find, and tells when the stream was listed by the service's clock, in whole
// seconds; zero where the service does not tell.
func (l *Lists) FindAt(ctx context.Context, stream, id string) (shard lineage.Shard, at time.Time, ok bool, err error) {
	call := l.join(stream)
	select {
	case <-call.done:
	case <-ctx.Done():
		return lineage.Shard{}, time.Time{}, false, ctx.Err()
	}
	if call.err != nil {
		return lineage.Shard{}, time.Time{}, false, call.err
	}
	i := slices.IndexFunc(call.shards, func(s lineage.Shard) bool { return s.ID == id })
	if i < 0 {
		return lineage.Shard{}, call.at, false, nil
	}
	return call.shards[i], call.at, true, nil
}

// join returns the next call to begin.
func (l *Lists) join(stream string) *list {
	l.mu.Lock()
	defer l.mu.Unlock()
	if call, ok := l.next[stream]; ok {
		return call
	}
	call := &list{done: make(chan struct{})}
	l.next[stream] = call
	if l.turns[stream] == nil {
		l.turns[stream] = make(chan struct{}, 1)
	}
	turn := l.turns[stream]
	l.calls.Go(func() {
		defer close(call.done)
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-l.life.Done():
			call.err = l.life.Err()
			return
		}
		l.mu.Lock()
		delete(l.next, stream) // who comes from now on wants a younger one
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(l.life, listTimeout)
		defer cancel()
		call.shards, call.at, call.err = ListShards(ctx, l.api, stream)
	})
	return call
}

func shardOf(s types.Shard) lineage.Shard {
	shard := lineage.Shard{ID: aws.ToString(s.ShardId)}
	for _, parent := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
		if parent != nil {
			shard.Parents = append(shard.Parents, *parent)
		}
	}
	if r := s.SequenceNumberRange; r != nil {
		shard.FirstSequence = aws.ToString(r.StartingSequenceNumber)
		// Some services write "null" for an open shard.
		if last := aws.ToString(r.EndingSequenceNumber); sequence.Valid(last) {
			shard.Closed, shard.LastSequence = true, last
		}
	}
	if s.HashKeyRange != nil {
		shard.FirstKey, shard.LastKey = aws.ToString(s.HashKeyRange.StartingHashKey), aws.ToString(s.HashKeyRange.EndingHashKey)
	}
	return shard
}

// find asks for a shard as the stream lists it now, and for its children.
func find(ctx context.Context, api Lister, shard Shard) (found lineage.Shard, children []Child, err error) {
	shards, _, err := ListShards(ctx, api, shard.Stream)
	if err != nil {
		return lineage.Shard{}, nil, classify(err)
	}
	i := slices.IndexFunc(shards, func(s lineage.Shard) bool { return s.ID == shard.ID })
	if i < 0 {
		return lineage.Shard{}, nil, ErrShardGone
	}
	for _, s := range shards {
		if slices.Contains(s.Parents, shard.ID) {
			children = append(children, Child{ID: s.ID, Parents: s.Parents})
		}
	}
	return shards[i], children, nil
}

package retrieval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// cursor is where a source stands in its shard. It makes pages of what was read, and
// finds out whether the shard has ended, or is gone, before either is believed. Sources
// that take turns in one shard share a cursor, so that each record is read once. Whoever
// calls the source owns it.
type cursor struct {
	api   Lister
	lists *Lists
	shard Shard

	// position is behind the last record handed out, whatever has been
	// acknowledged: reading on from it brings no record twice.
	position Position
	behind   bool // the last page was, or there was none yet
	ended    bool // the last page was handed out
	// ends counts, in a row, the empty pages from which nothing leads on and that
	// name no children either.
	ends    int
	refused int // lists in a row
}

func newCursor(api Lister, lists *Lists, shard Shard, from Position) *cursor {
	return &cursor{api: api, lists: lists, shard: shard, position: from, behind: true}
}

// advance makes a page of what was read, whose records it takes over, and moves the
// position behind it.
func (c *cursor) advance(ctx context.Context, read *wire.Page) (Page, error) {
	// Some services repeat what an iterator was to begin after.
	fresh := slices.IndexFunc(read.Records, func(r Record) bool {
		return sequence.Compare(r.SequenceNumber, c.position.After) > 0
	})
	if fresh < 0 {
		fresh = len(read.Records)
	}
	page := Page{
		Records: read.Records[fresh:],
		Behind:  time.Duration(aws.ToInt64(read.Behind)) * time.Millisecond,
	}
	for i := range page.Records {
		page.Cost += Cost(&page.Records[i])
	}
	if err := c.endOf(ctx, read, &page); err != nil {
		return Page{}, err
	}
	if n := len(page.Records); n > 0 {
		c.position = Position{After: page.Records[n-1].SequenceNumber}
	}
	c.behind, c.ended = page.Behind > 0, page.End
	return page, nil
}

// endsNeeded is how many times in a row a shard must end without children for that
// to be believed. The pauses between them are of a second and more, so that it takes
// more than a bad moment of whatever stands between.
const endsNeeded = 4

// endOf finds out whether a page is the last one of its shard. A page from which
// nothing leads on is so when it names the children of the shard. Those of a
// stream that is being deleted do not, and there are services that never do. But
// an answer that broke on its way can look the same, and to believe it would lose
// the rest of the shard. So such a shard has to end several times, each time from
// a fresh start, and to be closed in the list of shards.
func (c *cursor) endOf(ctx context.Context, read *wire.Page, page *Page) error {
	switch {
	case read.Next != "":
		c.ends = 0
		return nil
	case len(read.Children) > 0:
		for _, child := range read.Children {
			page.Children = append(page.Children, Child{ID: aws.ToString(child.ShardId), Parents: slices.Clone(child.ParentShards)})
		}
		page.End = true
		return nil
	case len(page.Records) > 0:
		c.ends = 0
		return nil // these are handed out, and reading goes on behind them
	}
	if read.Behind == nil || *read.Behind > 0 {
		return fmt.Errorf("reading shard %s: the service says that it has ended, and that there is more", c.shard.ID)
	}
	if c.ends++; c.ends < endsNeeded {
		return errEndUnconfirmed
	}
	c.ends = 0
	listed, children, err := find(ctx, c.api, c.shard)
	if err != nil {
		return err
	}
	if !listed.Closed {
		return fmt.Errorf("reading shard %s: the service says that it has ended, and lists it as open", c.shard.ID)
	}
	page.End, page.Children = true, children
	return nil
}

// confirmGone returns the error of a call that says that the shard is gone, or one
// that says so no more where the stream still lists the same shard. To take a shard
// for gone has it read anew beside what is under way.
func (c *cursor) confirmGone(ctx context.Context, gone error) error {
	// A thousand shards may be told so at once.
	listed, ok, err := c.lists.Find(ctx, c.shard.Stream, c.shard.ID)
	if err != nil {
		if err = classify(err); !errors.Is(err, ErrShardGone) {
			return err
		}
		return gone
	}
	if ok && c.shard.FirstSequence != "" && listed.FirstSequence == c.shard.FirstSequence {
		return fmt.Errorf("reading shard %s: the stream lists it, while: %v", c.shard.ID, gone) //nolint:errorlint // it is not what it says
	}
	return gone
}

// enoughRefusals is after how many refusals of its list a shard is read all the same,
// for those who may not list shards.
const enoughRefusals = 3

// identify makes sure that the stream lists the shard that is meant. A sequence number
// tells the shard. Without one the shard of the same id in a stream that was made anew
// would be read, before its parents perhaps.
func (c *cursor) identify(ctx context.Context) error {
	if c.position.After != "" {
		return nil
	}
	listed, ok, err := c.lists.Find(ctx, c.shard.Stream, c.shard.ID)
	if err != nil {
		if isDenied(err) {
			if c.refused++; c.refused > enoughRefusals {
				return nil
			}
		}
		return classify(err)
	}
	c.refused = 0
	if ok && c.shard.FirstSequence != "" && listed.FirstSequence != c.shard.FirstSequence {
		return fmt.Errorf("%w any more: its stream was made anew", ErrShardGone)
	}
	return nil
}

// checkPosition finds out whether a position that the service has refused can be
// one of this shard. If it cannot, the stream was deleted and made anew: the shard
// that was to be read is gone, and who reads the one that took its id, and from
// where, is to be decided afresh. A refusal alone proves nothing.
func (c *cursor) checkPosition(ctx context.Context) error {
	listed, _, err := find(ctx, c.api, c.shard)
	if err != nil {
		return err
	}
	if !listed.Holds(c.position.After) {
		return fmt.Errorf("%w any more: sequence number %s is of an earlier stream of the same name", ErrShardGone, c.position.After)
	}
	if listed.LastSequence != "" && sequence.Compare(c.position.After, listed.LastSequence) > 0 {
		return fmt.Errorf("shard %s ends with sequence number %s, and the table has %s for it: remove its item to read the shard from its start",
			c.shard.ID, listed.LastSequence, c.position.After)
	}
	return nil
}

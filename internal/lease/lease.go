package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// ErrLost is what the context of a lost lease ends with.
var ErrLost = errors.New("lease lost")

// ErrDeleted is why a lease was lost whose item is not in the table any more. Nobody
// else has it.
var ErrDeleted = errors.New("its item was deleted")

// Options say how a client keeps its leases.
type Options struct {
	// Client is the owner as it stands in the table, unique for each instance
	// of the component: two that share it would take each other's shards.
	Client string
	// Period after which a lease that was not renewed may be claimed.
	Period time.Duration
	// CommitPeriod is the time between two looks for something to commit.
	CommitPeriod time.Duration
	// Rand is a source in [0, 1) that spreads renewals; nil for a random one.
	Rand func() float64
	// OnWanted is told when a renewal shows that another client has asked for the
	// shard; nil to ignore it.
	OnWanted func()
	// OnTrouble is told of each failed attempt to renew; nil to ignore them.
	// The lease goes on, and is lost only when the table says so.
	OnTrouble func(error)
}

// margin is the part of the period by which trust ends early: room for clocks
// that tick at different rates and for what is on its way between the check and
// the output.
func (o Options) margin() time.Duration { return o.Period / 10 }

// Limits of the pauses and attempts, whatever the period: with one of an hour, a
// shard should not go without a commit for minutes because of one failure.
const (
	longestAttempt = 30 * time.Second
	longestPause   = 30 * time.Second
	firstPause     = time.Second

	// The last write of a lease has a few seconds before its process is gone, and
	// then the shard stands still for the whole period. So it has a pace of its own.
	lastAttempt    = 2 * time.Second
	firstLastPause = 100 * time.Millisecond
	mostLastPause  = time.Second
)

// attemptTimeout bounds one request, so that several fit into one period.
func (o Options) attemptTimeout() time.Duration { return min(o.Period/5, longestAttempt) }

// renewAfter returns how long the next renewal may wait: a third of the period,
// so that two of them may fail, and up to a fifteenth more, so that shards that
// were claimed together do not renew together for ever.
func (o Options) renewAfter() time.Duration {
	return o.Period/3 + time.Duration(o.random()*float64(o.Period/15))
}

// retryAfter returns the pause after the nth failure in a row, n from 1: it
// doubles from a sixtieth of the period to a tenth, or from a second to half a
// minute if these are shorter, less up to half at random.
func (o Options) retryAfter(n int) time.Duration {
	return o.pause(n, min(o.Period/60, firstPause), min(o.Period/10, longestPause))
}

// retryLastAfter is retryAfter for the last write of a lease.
func (o Options) retryLastAfter(n int) time.Duration {
	return o.pause(n, firstLastPause, mostLastPause)
}

func (o Options) pause(n int, first, most time.Duration) time.Duration {
	pause := min(first<<min(n-1, 10), most)
	return pause - time.Duration(o.random()*float64(pause/2))
}

func (o Options) random() float64 {
	if o.Rand == nil {
		return mathrand.Float64() //nolint:gosec // spreads load, guards nothing
	}
	return o.Rand()
}

func (o Options) newToken(now time.Time) string {
	return now.Add(o.Period).UTC().Format(time.RFC3339Nano)
}

// Lease is the right to read one shard, from Take until Release, Finish or its
// loss. Keep, Release and Finish are called one after the other, from whichever
// goroutine holds the lease; all else is safe for concurrent use.
type Lease struct {
	store Store
	opts  Options
	key   Key

	ctx  context.Context //nolint:containedctx // it is the lease's life, which ends when the lease is lost
	lose context.CancelCauseFunc

	// Owned by the holder, as are the methods that use them.
	link      Link
	committed string
	renewedAt time.Time
	wanted    string // who has asked for the shard

	urge chan struct{} // cap 1: somebody waits for trust, renew now

	mu          sync.Mutex
	trustedFrom time.Time     // start of the last attempt that succeeded
	renewed     chan struct{} // closed at the next success
}

// Origin is what a claim tells of the shard, for those who find the item later.
type Origin struct {
	// StartAt is stored for a shard that has no sequence.
	StartAt time.Time
	// ShardStart and Pinned are those of the Item, Anew is that of the Grant.
	ShardStart   string
	Pinned, Anew bool
}

// Take claims the shard whose item was seen, and returns the lease with the item
// as it stands now. seen has no owner, or one that is dead, or was this client's
// own and has no reader any more. The lease's context descends from holder.
//
// The error is ErrConflict when the item is not as seen any more.
func Take(ctx, holder context.Context, store Store, seen Item, origin Origin, opts Options) (*Lease, Item, error) {
	start := time.Now()
	grant := Grant{
		Link:       Link{Owner: opts.Client, Term: rand.Text(), Token: opts.newToken(start)},
		Period:     opts.Period,
		StartAt:    origin.StartAt,
		ShardStart: origin.ShardStart,
		Pinned:     origin.Pinned,
		Anew:       origin.Anew,
	}
	item, err := claim(ctx, store, seen, grant, opts.attemptTimeout())
	if err != nil {
		return nil, Item{}, fmt.Errorf("claiming shard %s: %w", seen.Key, err)
	}

	l := &Lease{
		store: store, opts: opts, key: seen.Key,
		urge:    make(chan struct{}, 1),
		renewed: make(chan struct{}),
	}
	l.ctx, l.lose = context.WithCancelCause(holder)
	l.succeed(item, start)
	return l, item, nil
}

func claim(ctx context.Context, store Store, seen Item, grant Grant, timeout time.Duration) (Item, error) {
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	item, err := store.Claim(attempt, seen, grant)
	if err == nil || errors.Is(err, ErrConflict) {
		return item, err
	}
	look, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if item, getErr := store.Get(look, seen.Key); getErr == nil && item.Link() == grant.Link {
		return item, nil // the answer was lost, not the claim
	}
	return Item{}, err
}

// Key returns the shard's key.
func (l *Lease) Key() Key { return l.key }

// Context ends when the lease is lost, with a cause that wraps ErrLost, and when
// the holder's context does.
func (l *Lease) Context() context.Context { return l.ctx }

// Trusted reports whether nobody else may hold the lease at this moment.
func (l *Lease) Trusted() bool { return l.TrustedFor() > 0 }

// TrustedFor returns how long that is certain without another renewal; zero or
// less when it is not certain now.
func (l *Lease) TrustedFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return 0
	}
	return l.opts.Period - l.opts.margin() - elapsed(l.trustedFrom, time.Now())
}

// elapsed is the larger of the monotonic clock's opinion and the wall clock's.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// Await returns nil once the lease is trusted, which it mostly is at once, and
// an error when ctx ends or the lease is lost before that.
func (l *Lease) Await(ctx context.Context) error {
	for {
		l.mu.Lock()
		renewed := l.renewed
		l.mu.Unlock()
		if l.Trusted() {
			return nil
		}
		// A jump of the wall clock ends trust before the timer of Keep is due.
		select {
		case l.urge <- struct{}{}:
		default:
		}
		select {
		case <-renewed:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Keep renews the lease and commits what acked returns, in one request, until
// ctx ends (nil) or the lease is lost (an error that wraps ErrLost). A request
// is made when something new was acknowledged, looked at every CommitPeriod, or
// when the lease is no longer young.
func (l *Lease) Keep(ctx context.Context, acked func() string) error {
	failures := 0
	renewAfter := l.opts.renewAfter()
	timer := time.NewTimer(min(l.opts.CommitPeriod, renewAfter))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.urge:
		case <-ctx.Done():
			return nil
		}

		sequence := acked()
		age := time.Since(l.renewedAt)
		if failures == 0 && !l.moves(sequence) && age < renewAfter && l.Trusted() {
			timer.Reset(min(l.opts.CommitPeriod, renewAfter-age))
			continue
		}
		switch err := l.renew(ctx, sequence); {
		case err == nil:
			failures = 0
			renewAfter = l.opts.renewAfter()
			timer.Reset(min(l.opts.CommitPeriod, renewAfter))
		case errors.Is(err, ErrLost):
			return err
		case ctx.Err() != nil:
			return nil
		default:
			failures++
			if l.opts.OnTrouble != nil {
				l.opts.OnTrouble(err)
			}
			timer.Reset(l.opts.retryAfter(failures))
		}
	}
}

// renew makes one attempt.
func (l *Lease) renew(ctx context.Context, sequence string) error {
	start := time.Now()
	token := l.opts.newToken(start)
	attempt, cancel := context.WithTimeout(ctx, l.opts.attemptTimeout())
	defer cancel()
	item, err := l.store.Renew(attempt, l.key, l.link, token, l.move(sequence))
	if err == nil {
		l.succeed(item, start)
		return nil
	}
	err = fmt.Errorf("renewing lease of shard %s: %w", l.key, err)
	item, owned := l.look(ctx)
	switch {
	case !owned.known:
		return err
	case !owned.ours:
		return l.lost(ctx, item, sequence)
	case item.Token == token:
		l.succeed(item, start) // the answer was lost, not the write
		return nil
	}
	return err
}

// moves reports whether a sequence is worth a write: it is later than the one that
// is stored. The client that the shard was taken from may have had its last word
// further on than where this one began.
func (l *Lease) moves(next string) bool { return sequence.Compare(next, l.committed) > 0 }

// move is the step to a sequence, or none when that is not later.
func (l *Lease) move(sequence string) Move {
	if !l.moves(sequence) {
		sequence = l.committed
	}
	return Move{From: l.committed, To: sequence}
}

// ownership is what a look at the item tells of the lease.
type ownership struct{ known, ours bool }

// look reads the item to learn what became of an attempt. If the lease still
// stands, the next attempt continues the chain from what is stored: an earlier
// attempt may have taken effect after it was given up.
func (l *Lease) look(ctx context.Context) (Item, ownership) {
	return l.lookWithin(ctx, l.opts.attemptTimeout())
}

func (l *Lease) lookWithin(ctx context.Context, timeout time.Duration) (Item, ownership) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	item, err := l.store.Get(ctx, l.key)
	if err != nil {
		return Item{}, ownership{}
	}
	if item.Owner != l.link.Owner || item.Term != l.link.Term {
		return item, ownership{known: true}
	}
	l.link, l.committed = item.Link(), item.Sequence
	return item, ownership{known: true, ours: true}
}

func (l *Lease) succeed(item Item, start time.Time) {
	l.link, l.committed, l.renewedAt = item.Link(), item.Sequence, start
	if item.Wanted != "" && item.Wanted != l.wanted && l.opts.OnWanted != nil {
		l.opts.OnWanted()
	}
	l.wanted = item.Wanted

	l.mu.Lock()
	defer l.mu.Unlock()
	l.trustedFrom = start
	close(l.renewed)
	l.renewed = make(chan struct{})
}

// lost ends the lease. An owner without a term, as the built-in input is, took
// the shard from a living client and begins after that client's last word. One
// with a term reads already: its checkpoint would go back behind such a word.
func (l *Lease) lost(ctx context.Context, item Item, sequence string) error {
	if item.Owner != "" && item.foreign() && item.Sequence == l.committed && l.moves(sequence) {
		ctx, cancel := context.WithTimeout(ctx, l.opts.attemptTimeout())
		defer cancel()
		if err := l.store.Leave(ctx, item, sequence); err != nil && !errors.Is(err, ErrConflict) && l.opts.OnTrouble != nil {
			l.opts.OnTrouble(fmt.Errorf("leaving the last sequence of shard %s: %w", l.key, err))
		}
	}
	var err error
	switch {
	case !item.Exists:
		err = fmt.Errorf("%w: shard %s: %w", ErrLost, l.key, ErrDeleted)
	case item.Owner == "":
		err = fmt.Errorf("%w: shard %s now belongs to nobody", ErrLost, l.key)
	default:
		err = fmt.Errorf("%w: shard %s now belongs to %s", ErrLost, l.key, item.Owner)
	}
	l.lose(err)
	return err
}

// Release commits the sequence and gives the shard up. It is tried until it
// succeeded, the lease proves lost (an error that wraps ErrLost), or ctx ends.
func (l *Lease) Release(ctx context.Context, sequence string) error {
	return l.end(ctx, "releasing", sequence, l.store.Release, func(now Item) bool {
		return now.Owner == ""
	})
}

// Finish commits the last sequence of a shard that was read to its end and marks
// it finished, and is otherwise like Release.
func (l *Lease) Finish(ctx context.Context, sequence string) error {
	return l.end(ctx, "finishing", sequence, l.store.Finish, func(now Item) bool {
		return now.Finished
	})
}

// HandOver commits the last sequence and passes the shard to the client that
// asked for it, and is otherwise like Release.
func (l *Lease) HandOver(ctx context.Context, sequence, to string) error {
	next := Link{Owner: to, Token: l.opts.newToken(time.Now())}
	write := func(ctx context.Context, key Key, at Link, sequence Move) error {
		return l.store.HandOver(ctx, key, at, sequence, next)
	}
	return l.end(ctx, "handing over", sequence, write, func(now Item) bool { return now.Owner == to })
}

// LastWord gives the client that the shard was taken from time to store its last
// sequence: until that has come, or for as long as wait. It returns the sequence
// to begin after. The shard must not be read before.
func (l *Lease) LastWord(ctx context.Context, wait time.Duration) (string, error) {
	before := l.committed
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(max(wait/20, 50*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-deadline.C:
			return l.committed, nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if time.Since(l.renewedAt) > l.opts.Period/3 {
			if err := l.renew(ctx, l.committed); errors.Is(err, ErrLost) {
				return "", err
			} else if err != nil && l.opts.OnTrouble != nil {
				l.opts.OnTrouble(err)
			}
		} else if item, owned := l.look(ctx); owned.known && !owned.ours {
			return "", l.lost(ctx, item, before)
		}
		if l.committed != before {
			return l.committed, nil
		}
	}
}

// end makes the last write of a lease, which is trusted no more from here on: the
// next owner may begin before the answer has come. done tells from the item
// whether a write whose answer was lost took effect.
func (l *Lease) end(
	ctx context.Context, doing, sequence string,
	write func(ctx context.Context, key Key, at Link, sequence Move) error,
	done func(now Item) bool,
) error {
	l.mu.Lock()
	l.trustedFrom = time.Time{}
	l.mu.Unlock()
	for failures := 1; ; failures++ {
		err := l.endOnce(ctx, sequence, write)
		if err == nil {
			l.lose(fmt.Errorf("%w: given up by its holder", ErrLost))
			return nil
		}
		item, owned := l.lookWithin(ctx, min(l.opts.attemptTimeout(), lastAttempt))
		switch {
		case owned.known && !owned.ours && done(item):
			l.lose(fmt.Errorf("%w: given up by its holder", ErrLost))
			return nil
		case owned.known && !owned.ours:
			return l.lost(ctx, item, sequence)
		}

		pause := time.NewTimer(l.opts.retryLastAfter(failures))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			err = fmt.Errorf("%s shard %s: %w", doing, l.key, err)
			l.lose(fmt.Errorf("%w: %w", ErrLost, err))
			return err
		}
	}
}

func (l *Lease) endOnce(
	ctx context.Context, sequence string,
	write func(ctx context.Context, key Key, at Link, sequence Move) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, min(l.opts.attemptTimeout(), lastAttempt))
	defer cancel()
	return write(ctx, l.key, l.link, l.move(sequence))
}

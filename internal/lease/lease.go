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

// Options say how a member keeps its session and its leases.
type Options struct {
	// Client is the member's id, the owner as it stands in the table, unique for each
	// session: two that share it would claim each other's shards.
	Client string
	// Period after which a member that sent no heartbeat may be evicted.
	Period time.Duration
	// CommitPeriod is the time after which it is looked again for something to commit.
	CommitPeriod time.Duration
	// Rand is a source in [0, 1) that spreads renewals; nil for a random one.
	Rand func() float64
	// Foreign reports whether a built-in input shares the stream; nil where none does.
	// Leases are then renewed as often as that input renews its own.
	Foreign func() bool
	// OnWrite is told what came of each heartbeat, renewal and last write: nil after one that
	// took effect. A join, a claim and a write that finds the lease lost are told by what they
	// return. It may be nil itself. After an error the session or lease goes on, and is lost
	// only when the table says so.
	OnWrite func(error)
	// UpTo returns the moment before which everything that arrived in the shard is
	// acknowledged, for whoever reads it next; zero where that is not known. It may be nil.
	UpTo func() time.Time
}

// Horizons is how many lease periods ahead an item says that its lease ends, where no
// built-in input shares the stream. It is the longest time for which an owner may
// trust a lease of which it reads nothing.
const Horizons = 4

// horizon is how far ahead of a write the item says that the lease ends: for the
// built-in input, which steals or claims a lease by that time alone.
func (o Options) horizon() time.Duration {
	if o.Foreign != nil && o.Foreign() {
		return o.Period
	}
	return Horizons * o.Period
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

// lastAttemptTimeout bounds one request of the last ones.
func (o Options) lastAttemptTimeout() time.Duration { return min(o.attemptTimeout(), lastAttempt) }

// beatAfter returns how long the next heartbeat may wait: a third of the period, so
// that two of them may fail, and up to a fifteenth more, so that members that came
// together do not write together for ever.
func (o Options) beatAfter() time.Duration {
	return o.Period/3 + time.Duration(o.random()*float64(o.Period/15))
}

// renewAfter returns how long an item may stand as it is: half of its horizon less a
// tenth at random, and where a built-in input shares the stream a third of the period
// and a little more, as that renews its own.
func (o Options) renewAfter() time.Duration {
	horizon := o.horizon()
	if horizon == o.Period {
		return o.beatAfter()
	}
	return horizon/2 - time.Duration(o.random()*float64(horizon/20))
}

// retryAfter returns the pause after the nth failure in a row, n from 1: it
// doubles from a sixtieth of the period to a tenth, or from a second to half a
// minute if these are shorter, less up to half at random.
func (o Options) retryAfter(n int) time.Duration {
	return o.pause(n, min(o.Period/60, firstPause), min(o.Period/10, longestPause))
}

// retryRenewalAfter is retryAfter for the item of a shard. A thousand of them fail
// together, mostly, and each attempt takes a write and a read: so it doubles up to the
// whole period, or a minute if that is shorter. The item stands for the horizon.
func (o Options) retryRenewalAfter(n int) time.Duration {
	return o.pause(n, min(o.Period/30, firstPause), min(o.Period, 2*longestPause))
}

// catchUpWithin is the time over which the items are renewed, at random, that waited for
// the session.
func (o Options) catchUpWithin() time.Duration { return min(o.CommitPeriod, o.Period/10) }

// retryLastAfter is retryAfter for the last write of a lease.
func (o Options) retryLastAfter(n int) time.Duration {
	return o.pause(n, firstLastPause, mostLastPause)
}

func (o Options) pause(n int, first, most time.Duration) time.Duration {
	pause := min(first<<min(n-1, 10), most)
	return pause - time.Duration(o.random()*float64(pause/2))
}

func (o Options) told(err error) {
	if o.OnWrite != nil {
		o.OnWrite(err)
	}
}

func (o Options) random() float64 {
	if o.Rand == nil {
		return mathrand.Float64() //nolint:gosec // spreads load, guards nothing
	}
	return o.Rand()
}

func (o Options) newToken(now time.Time, ahead time.Duration) string {
	return now.Add(ahead).UTC().Format(time.RFC3339Nano)
}

// Lease is the right to read one shard, from Take until Release, Finish or its
// loss. Keep, Release and Finish are called one after the other, from whichever
// goroutine holds the lease; all else is safe for concurrent use.
type Lease struct {
	store   Store
	session *Session
	opts    Options
	key     Key
	term    string
	number  int64

	ctx  context.Context //nolint:containedctx // it is the lease's life, which ends when the lease is lost
	lose context.CancelCauseFunc

	// Owned by the holder, as are the methods that use them.
	link      Link
	committed Position
	renewedAt time.Time

	urge chan struct{} // cap 1: renew now

	mu          sync.Mutex
	trustedFrom time.Time     // start of the last write that succeeded
	horizon     time.Duration // what that write said from then on
	renewed     chan struct{} // closed at the next success
}

// Origin is what a claim tells of the shard, for those who find the item later.
type Origin struct {
	// StartAt is stored for a shard that has no sequence.
	StartAt time.Time
	// ShardStart and Pinned are those of the Item, Position and Anew those of the Grant.
	ShardStart   string
	Position     Position
	Pinned, Anew bool
}

// Take claims the shard whose item was seen, and returns the lease with the item
// as it stands now. seen has no owner, or one that is dead, or the member itself,
// which does not read it. The lease stands on the session, and its context ends with
// holder too.
//
// The error is ErrConflict when the item is not as seen any more, and wraps ErrLost when
// the session has ended.
func Take(ctx, holder context.Context, session *Session, store Store, seen Item, origin Origin, opts Options) (*Lease, Item, error) {
	if session.Context().Err() != nil {
		return nil, Item{}, fmt.Errorf("claiming shard %s: %w", seen.Key, context.Cause(session.Context()))
	}
	start, horizon := time.Now(), opts.horizon()
	grant := Grant{
		Link:       Link{Owner: session.ID(), Term: newTerm(), Token: opts.newToken(start, horizon)},
		StartAt:    origin.StartAt,
		ShardStart: origin.ShardStart,
		Pinned:     origin.Pinned,
		Position:   origin.Position,
		Anew:       origin.Anew,
	}
	item, err := claim(ctx, store, seen, grant, opts.attemptTimeout())
	if err != nil {
		return nil, Item{}, fmt.Errorf("claiming shard %s: %w", seen.Key, err)
	}

	l := &Lease{
		store: store, session: session, opts: opts, key: seen.Key, term: item.Term, number: item.Number,
		urge:    make(chan struct{}, 1),
		renewed: make(chan struct{}),
	}
	l.ctx, l.lose = context.WithCancelCause(session.Context())
	forget := context.AfterFunc(holder, func() { l.lose(context.Cause(holder)) })
	context.AfterFunc(l.ctx, func() { forget() }) // the holder outlives many leases
	l.succeed(item, start, horizon)
	return l, item, nil
}

// newTerm names an ownership. Of two that are made for one item none is like another:
// 50 random bits do for the few that an item sees in its life.
func newTerm() string { return rand.Text()[:10] }

func claim(ctx context.Context, store Store, seen Item, grant Grant, timeout time.Duration) (Item, error) {
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	item, err := store.Claim(attempt, seen, grant)
	if err == nil || errors.Is(err, ErrConflict) {
		return item, err
	}
	read, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if item, getErr := store.Get(read, seen.Key); getErr == nil && item.Link() == grant.Link {
		return item, nil // the answer was lost, not the claim
	}
	return Item{}, err
}

// Key returns the shard's key.
func (l *Lease) Key() Key { return l.key }

// Term returns what names this ownership in the table.
func (l *Lease) Term() string { return l.term }

// Number returns the number of the lease's term, which is higher than that of each
// earlier one, unless a built-in input has erased it in between.
func (l *Lease) Number() int64 { return l.number }

// Context ends when the lease is lost, with a cause that wraps ErrLost, and when
// the holder's context does.
func (l *Lease) Context() context.Context { return l.ctx }

// Trusted reports whether nobody else may hold the lease at this moment.
func (l *Lease) Trusted() bool { return l.TrustedFor() > 0 }

// TrustedFor returns how long that is certain without another heartbeat or write;
// zero or less when it is not certain now.
func (l *Lease) TrustedFor() time.Duration {
	return min(l.session.TrustedFor(), l.standsFor())
}

// standsFor returns how long the item alone is certain to be left alone, by a built-in
// input too.
func (l *Lease) standsFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return 0
	}
	return l.horizon - l.opts.margin() - elapsed(l.trustedFrom, time.Now())
}

// Check has the item renewed now, which shows whether it still is as this member has
// written it.
func (l *Lease) Check() {
	select {
	case l.urge <- struct{}{}:
	default:
	}
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
		session := l.session.renewal()
		if l.Trusted() {
			return nil
		}
		if l.standsFor() <= 0 {
			// A jump of the wall clock ends trust before the timer of Keep is due.
			l.Check()
		}
		select {
		case <-renewed:
		case <-session:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Keep commits what acked returns, and renews the item, in one request, until ctx
// ends (nil) or the lease is lost (an error that wraps ErrLost). A request is made
// when something new was acknowledged, looked at every CommitPeriod, when the item
// has stood for half of its horizon, and when Check asks for it.
func (l *Lease) Keep(ctx context.Context, acked func() Position) error {
	failures := 0
	renewAfter := l.opts.renewAfter()
	timer := time.NewTimer(min(l.opts.CommitPeriod, renewAfter))
	defer timer.Stop()
	for {
		checked := false
		select {
		case <-timer.C:
		case <-l.urge:
			if failures > 0 {
				continue // the retry is due anyway
			}
			checked = true
		case <-l.session.Context().Done():
			return l.abandon()
		case <-ctx.Done():
			return nil
		}

		position := acked()
		age := time.Since(l.renewedAt)
		// A built-in input may have come since the last renewal.
		due := age >= min(renewAfter, l.opts.renewAfter()) || l.standsFor() <= 0
		if failures == 0 && !checked && !due && !l.moves(position) {
			timer.Reset(min(l.opts.CommitPeriod, renewAfter-age))
			continue
		}
		switch err := l.renew(ctx, position); {
		case err == nil:
			failures = 0
			renewAfter = l.opts.renewAfter()
			timer.Reset(min(l.opts.CommitPeriod, renewAfter))
			l.opts.told(nil)
		case errors.Is(err, ErrLost):
			return err
		case ctx.Err() != nil:
			return nil
		default:
			failures++
			l.opts.told(err)
			waited, err := l.awaitSession(ctx)
			switch {
			case err != nil:
				return l.abandon()
			case waited:
				failures = 1
				timer.Reset(time.Duration(l.opts.random() * float64(l.opts.catchUpWithin())))
			default:
				timer.Reset(l.opts.retryRenewalAfter(failures))
			}
		}
	}
}

// awaitSession waits while the heartbeats fail, for a lease period at most, and reports
// whether it did. In an outage of the table the heartbeat finds out whether it is over,
// instead of a request for each shard. The error says that the session has ended; when ctx ends there is none.
func (l *Lease) awaitSession(ctx context.Context) (waited bool, err error) {
	longest := time.NewTimer(min(l.opts.Period, 2*longestPause) * 4 / 5) // it may be heartbeats alone that fail
	defer longest.Stop()
	for {
		renewed, failing := l.session.outage()
		if !failing {
			return waited, nil
		}
		waited = true
		select {
		case <-renewed:
		case <-longest.C:
			return waited, nil
		case <-l.session.Context().Done():
			return waited, context.Cause(l.session.Context())
		case <-ctx.Done():
			return waited, nil
		}
	}
}

// abandon ends the lease with its session, without a write: another may read the shard
// by now.
func (l *Lease) abandon() error {
	err := context.Cause(l.session.Context())
	l.lose(err)
	return err
}

// renew makes one attempt, and a further one each time that it finds the item changed
// since.
func (l *Lease) renew(ctx context.Context, position Position) error {
	for {
		if overtaken, err := l.renewOnce(ctx, position); !overtaken {
			return err
		}
	}
}

func (l *Lease) renewOnce(ctx context.Context, position Position) (overtaken bool, err error) {
	if l.session.Context().Err() != nil {
		return false, l.abandon()
	}
	start, horizon := time.Now(), l.opts.horizon()
	token := l.opts.newToken(start, horizon)
	attempt, cancel := context.WithTimeout(ctx, l.opts.attemptTimeout())
	defer cancel()
	link, committed := l.link, l.committed
	item, err := l.store.Renew(attempt, l.key, link, token, l.move(position))
	if err == nil {
		l.succeed(item, start, horizon)
		return false, nil
	}
	err = fmt.Errorf("renewing lease of shard %s: %w", l.key, err)
	item, owned := l.resolve(ctx)
	switch {
	case !owned.known:
		return false, err
	case !owned.ours:
		return false, l.lost(ctx, item, position)
	case item.Token == token:
		l.succeed(item, start, horizon) // the answer was lost, not the write
		return false, nil
	}
	return l.overtaken(err, link, committed), err
}

// overtaken reports whether an attempt was refused since the item had changed from what
// this member took it for, and still is its own: an earlier attempt has taken effect
// whose answer nobody waited for, as at each end of Keep, or the built-in input has stored
// its final checkpoint. That is no fault of the table. The next attempt continues from what
// was read, so that it is refused again only if the item has changed once more.
func (l *Lease) overtaken(err error, link Link, committed Position) bool {
	return errors.Is(err, ErrConflict) && (l.link != link || l.committed.Sequence != committed.Sequence)
}

// moves reports whether a position is worth a write: it is later than the one that
// is stored. The built-in input that the shard was stolen from may have stored its
// final checkpoint further on than where this member began.
func (l *Lease) moves(next Position) bool { return next.Compare(l.committed) > 0 }

// move is the step to a position, or none when that is not later.
func (l *Lease) move(position Position) Move {
	if !l.moves(position) {
		position = l.committed
	}
	m := Move{From: l.committed, To: position}
	if l.opts.UpTo != nil {
		m.UpTo = l.opts.UpTo()
	}
	return m
}

// ownership is what the item tells of the lease.
type ownership struct{ known, ours bool }

// resolve reads the item to learn what became of an attempt. If the lease still
// stands, the next attempt continues the chain from what is stored: an earlier
// attempt may have taken effect after it was given up.
func (l *Lease) resolve(ctx context.Context) (Item, ownership) {
	return l.resolveWithin(ctx, l.opts.attemptTimeout())
}

func (l *Lease) resolveWithin(ctx context.Context, timeout time.Duration) (Item, ownership) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	item, err := l.store.Get(ctx, l.key)
	if err != nil {
		return Item{}, ownership{}
	}
	if item.Owner != l.link.Owner || item.Term != l.link.Term {
		return item, ownership{known: true}
	}
	l.link, l.committed = item.Link(), item.Position()
	return item, ownership{known: true, ours: true}
}

func (l *Lease) succeed(item Item, start time.Time, horizon time.Duration) {
	l.link, l.committed, l.renewedAt = item.Link(), item.Position(), start

	l.mu.Lock()
	defer l.mu.Unlock()
	l.trustedFrom, l.horizon = start, horizon
	close(l.renewed)
	l.renewed = make(chan struct{})
}

// lost ends the lease. An owner without a term, as the built-in input is, stole the
// shard from a living member and begins after the final checkpoint of that. One with a
// term reads already: its checkpoint would go back behind such a late one. Nor is
// anything written by a member whose session is lost: another may read the shard that
// has been evicted since.
func (l *Lease) lost(ctx context.Context, item Item, position Position) error {
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
	further := sequence.Compare(position.Sequence, l.committed.Sequence) > 0
	if item.Foreign() && item.Sequence == l.committed.Sequence && further && l.session.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(l.opts.attemptTimeout(), lastAttempt))
		defer cancel()
		if err := l.store.Yield(ctx, item, position.Sequence); err != nil && !errors.Is(err, ErrConflict) {
			l.opts.told(fmt.Errorf("yielding shard %s with its final checkpoint: %w", l.key, err))
		}
	}
	return err
}

// Release commits the position and gives the shard up. It is tried until it
// succeeded, the lease proves lost (an error that wraps ErrLost), or ctx ends.
func (l *Lease) Release(ctx context.Context, position Position) error {
	return l.end(ctx, "releasing", position, l.store.Release, func(now Item) bool {
		return now.Owner == ""
	})
}

// Finish commits the last position of a shard that was read to its end and marks
// it finished, and is otherwise like Release.
func (l *Lease) Finish(ctx context.Context, position Position) error {
	return l.end(ctx, "finishing", position, l.store.Finish, func(now Item) bool {
		return now.Finished
	})
}

// Cut commits the last position of a shard that was read up to the moment at which its
// reader ends, notes that moment, and is otherwise like Release.
func (l *Lease) Cut(ctx context.Context, position Position, end time.Time) error {
	write := func(ctx context.Context, key Key, at Link, position Move) error {
		return l.store.Cut(ctx, key, at, position, end)
	}
	return l.end(ctx, "cutting", position, write, func(now Item) bool { return now.CutAt.Equal(end) })
}

// HandOver commits the last position and passes the shard to the member that
// requested it, and is otherwise like Release.
func (l *Lease) HandOver(ctx context.Context, position Position, to string) error {
	next := Link{Owner: to, Term: HandOverMark + newTerm(), Token: l.opts.newToken(time.Now(), l.opts.horizon())}
	write := func(ctx context.Context, key Key, at Link, position Move) error {
		return l.store.HandOver(ctx, key, at, position, next)
	}
	return l.end(ctx, "handing over", position, write, func(now Item) bool { return now.Owner == to })
}

// AwaitFinalCheckpoint gives the built-in input that the shard was stolen from time to
// store its last sequence: until that has come, or for as long as wait. It returns the
// position to begin after. The shard must not be read before.
func (l *Lease) AwaitFinalCheckpoint(ctx context.Context, wait time.Duration) (Position, error) {
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
		case <-l.session.Context().Done():
			return Position{}, l.abandon()
		case <-ctx.Done():
			return Position{}, context.Cause(ctx)
		}
		if time.Since(l.renewedAt) > l.opts.renewAfter() {
			err := l.renew(ctx, l.committed)
			if errors.Is(err, ErrLost) {
				return Position{}, err
			}
			l.opts.told(err)
		} else if item, owned := l.resolve(ctx); owned.known && !owned.ours {
			return Position{}, l.lost(ctx, item, before)
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
	ctx context.Context, doing string, position Position,
	write func(ctx context.Context, key Key, at Link, position Move) error,
	done func(now Item) bool,
) error {
	l.mu.Lock()
	l.trustedFrom = time.Time{}
	l.mu.Unlock()
	for failures := 1; ; failures++ {
		if l.session.Context().Err() != nil {
			return l.abandon()
		}
		link, committed := l.link, l.committed
		err := l.endOnce(ctx, position, write)
		if err == nil {
			l.opts.told(nil)
			l.lose(fmt.Errorf("%w: given up by its holder", ErrLost))
			return nil
		}
		item, owned := l.resolveWithin(ctx, l.opts.lastAttemptTimeout())
		switch {
		case owned.known && !owned.ours && done(item):
			l.opts.told(nil)
			l.lose(fmt.Errorf("%w: given up by its holder", ErrLost))
			return nil
		case owned.known && !owned.ours:
			return l.lost(ctx, item, position)
		case l.overtaken(err, link, committed):
			continue
		}
		l.opts.told(fmt.Errorf("%s shard %s: %w", doing, l.key, err))

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
	ctx context.Context, position Position,
	write func(ctx context.Context, key Key, at Link, position Move) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, l.opts.lastAttemptTimeout())
	defer cancel()
	return write(ctx, l.key, l.link, l.move(position))
}

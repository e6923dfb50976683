package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrEvicted is why the leases of a member were lost whose own item is not in the
// table any more, or is not what the member has written: the others took it for dead.
var ErrEvicted = errors.New("the others took this member for dead")

// ErrLeft is how the context of a session ends whose member has left.
var ErrLeft = errors.New("the member has left the group")

// Session is a member's presence in its group, on which all its leases stand. Join
// makes it; Leave, its loss, or the process ends it. Keep and Leave are called one
// after the other, by the goroutine that keeps the session; all else is safe for
// concurrent use.
type Session struct {
	store Members
	opts  Options

	ctx  context.Context //nolint:containedctx // it is the session's life, which ends when the session is lost
	lose context.CancelCauseFunc

	// Owned by the goroutine that keeps the session. Of all attempts since the last
	// token that is known to have been stored at most one has taken effect, since each
	// is conditional on that token.
	known    string
	attempts []attempt
	newest   time.Time // which the newest token reads as
	said     Report    // what stands in the table
	beatAt   time.Time

	urge chan struct{} // cap 1: beat now

	mu          sync.Mutex
	report      Report        // what is to stand there
	often       time.Duration // between heartbeats; 0 for the usual time
	trustedFrom time.Time     // start of the attempt whose token stands
	soundSince  time.Time     // since when trust has not run out
	renewed     chan struct{} // closed at the next success
	failing     bool          // whether the last heartbeat has failed
}

// attempt is a heartbeat whose outcome is not known.
type attempt struct {
	token  string
	start  time.Time
	report Report
}

// mostAttempts bounds the attempts that are remembered. One that took effect and was
// forgotten costs the session, and nothing else.
const mostAttempts = 100

// Join makes a member known to its group. It makes one attempt to create the item,
// since a second one under the same id could bring an item back that was evicted in
// between: after an error the caller tries again under another id.
func Join(ctx context.Context, store Members, report Report, opts Options) (*Session, error) {
	s := &Session{
		store: store, opts: opts, report: report,
		urge:    make(chan struct{}, 1),
		renewed: make(chan struct{}),
	}
	s.ctx, s.lose = context.WithCancelCause(context.WithoutCancel(ctx))
	start := time.Now()
	m := s.member(s.freshToken(start))
	create, cancel := context.WithTimeout(ctx, opts.attemptTimeout())
	err := store.Join(create, m)
	cancel()
	if err != nil {
		read, cancel := context.WithTimeout(ctx, opts.attemptTimeout())
		defer cancel()
		if now, ok, readErr := store.Member(read, m.ID); readErr != nil || !ok || now.Token != m.Token {
			s.lose(ErrLeft)
			return nil, fmt.Errorf("joining the group as %s: %w", m.ID, err)
		}
	}
	s.confirm(attempt{m.Token, start, m.Report})
	return s, nil
}

func (s *Session) member(token string) Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Member{ID: s.opts.Client, Token: token, Period: s.opts.Period, Report: s.report}
}

// freshToken returns a token for one attempt, later than all before it. A coarse clock,
// or one that was set back, shows the same time twice, and what was written must be told
// from what was not.
func (s *Session) freshToken(now time.Time) string {
	next := now.Round(0).Add(s.opts.Period)
	if !next.After(s.newest) {
		next = s.newest.Add(1)
	}
	s.newest = next
	return s.opts.newToken(next, 0)
}

// attempted returns the attempt that wrote a token, if it took effect.
func (s *Session) attempted(token string) (attempt, bool) {
	i := slices.IndexFunc(s.attempts, func(a attempt) bool { return a.token == token })
	if i < 0 {
		return attempt{}, false
	}
	return s.attempts[i], true
}

// ID returns the id of the member, the owner of its leases.
func (s *Session) ID() string { return s.opts.Client }

// Context ends when the session does, with a cause that wraps ErrLost. It outlives the
// context that the session was made with.
func (s *Session) Context() context.Context { return s.ctx }

// Report has the others told something, at once if it is new to them. The caller does
// not change it afterwards.
func (s *Session) Report(report Report) {
	s.mu.Lock()
	same := s.report.equal(report)
	s.report = report
	s.mu.Unlock()
	if !same {
		s.hurry()
	}
}

// Often has heartbeats follow one another after the given time, as long as that is
// shorter than the usual one; 0 ends it. Others know from two of them that a member
// lives which has nothing yet.
func (s *Session) Often(every time.Duration) {
	s.mu.Lock()
	same := s.often == every
	s.often = every
	s.mu.Unlock()
	if !same {
		s.hurry()
	}
}

func (s *Session) hurry() {
	select {
	case s.urge <- struct{}{}:
	default:
	}
}

// Trusted reports whether nobody may have evicted the member at this moment.
func (s *Session) Trusted() bool { return s.TrustedFor() > 0 }

// TrustedFor returns how long that is certain without another heartbeat; zero or less
// when it is not certain now.
func (s *Session) TrustedFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return 0
	}
	return s.trustLeft(time.Now())
}

func (s *Session) trustLeft(now time.Time) time.Duration {
	return s.opts.Period - s.opts.margin() - elapsed(s.trustedFrom, now)
}

// SoundSince returns since when the session has been trusted without a gap; zero when
// it is not trusted now. Whoever could not write for a while knows nothing of whether
// others could.
func (s *Session) SoundSince() time.Time {
	if !s.Trusted() {
		return time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.soundSince
}

// renewal returns what is closed at the next heartbeat that succeeds, and asks for one
// now unless the session is trusted: a jump of the wall clock ends trust before the
// next one is due.
func (s *Session) renewal() <-chan struct{} {
	s.mu.Lock()
	renewed := s.renewed
	s.mu.Unlock()
	if !s.Trusted() {
		s.hurry()
	}
	return renewed
}

func (s *Session) failed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = true
}

// outage reports whether the last heartbeat has failed, and returns what is closed when
// one succeeds.
func (s *Session) outage() (over <-chan struct{}, failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed, s.failing
}

// Keep sends heartbeats until ctx ends (nil) or the session is lost (an error that
// wraps ErrLost).
func (s *Session) Keep(ctx context.Context) error {
	failures := 0
	usual := s.opts.beatAfter()
	timer := time.NewTimer(s.wait(usual))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.urge:
			if failures > 0 {
				continue // all leases may ask in an outage, and the retry is due anyway
			}
		case <-ctx.Done():
			return nil
		}
		if wait := s.wait(usual); failures == 0 && wait > 0 {
			timer.Reset(wait)
			continue
		}
		switch err := s.beat(ctx); {
		case err == nil:
			failures, usual = 0, s.opts.beatAfter()
			timer.Reset(s.wait(usual))
			s.opts.told(nil)
		case errors.Is(err, ErrLost):
			return err
		case ctx.Err() != nil:
			return nil
		default:
			failures++
			s.failed()
			s.opts.told(err)
			timer.Reset(s.opts.retryAfter(failures))
		}
	}
}

// wait returns how long the next heartbeat may wait.
func (s *Session) wait(usual time.Duration) time.Duration {
	s.mu.Lock()
	news, often := !s.report.equal(s.said), s.often
	s.mu.Unlock()
	if news || !s.Trusted() {
		return 0
	}
	if often > 0 {
		usual = min(usual, often)
	}
	return max(0, usual-time.Since(s.beatAt))
}

// beat makes one attempt.
func (s *Session) beat(ctx context.Context) error {
	start := time.Now()
	m := s.member(s.freshToken(start))
	made := attempt{m.Token, start, m.Report}
	s.attempts = append(s.attempts, made)
	if len(s.attempts) > mostAttempts {
		s.attempts = slices.Delete(s.attempts, 0, 1)
	}
	limited, cancel := context.WithTimeout(ctx, s.opts.attemptTimeout())
	err := s.store.Beat(limited, m, s.known)
	cancel()
	if err == nil {
		s.confirm(made)
		return nil
	}
	return s.resolve(ctx, fmt.Errorf("renewing the session of member %s: %w", m.ID, err))
}

// resolve reads the member's item to learn what became of the attempts. Trust counts
// from the start of the one whose token stands, which need not be the last. A token
// that this process has not attempted, as that of a copy of its machine, is not its
// own.
func (s *Session) resolve(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.attemptTimeout())
	defer cancel()
	now, ok, err := s.store.Member(ctx, s.opts.Client)
	if err != nil {
		return cause
	}
	stands, own := s.attempted(now.Token)
	switch {
	case ok && own:
		s.confirm(stands)
		return nil
	case ok && now.Token == s.known:
		return cause
	}
	lost := fmt.Errorf("%w: member %s: %w", ErrLost, s.opts.Client, ErrEvicted)
	s.lose(lost)
	return lost
}

func (s *Session) confirm(a attempt) {
	s.known, s.attempts, s.said, s.beatAt = a.token, nil, a.report, a.start
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.trustLeft(now) <= 0 {
		s.soundSince = now
	}
	s.trustedFrom, s.failing = a.start, false
	close(s.renewed)
	s.renewed = make(chan struct{})
}

// Leave removes the member from its group, after which nobody hands it a shard. All
// its leases have to have ended. It makes three requests at most, of two seconds each:
// what is left behind is evicted.
func (s *Session) Leave(ctx context.Context) error {
	if errors.Is(context.Cause(s.ctx), ErrEvicted) {
		return nil
	}
	defer s.lose(fmt.Errorf("%w: %w", ErrLost, ErrLeft))
	err := s.remove(ctx, s.member(s.known))
	if err == nil {
		return nil
	}
	// A heartbeat may have been cut short, with or without effect, and so may this.
	read, cancel := s.brief(ctx)
	defer cancel()
	now, ok, readErr := s.store.Member(read, s.opts.Client)
	if readErr == nil && !ok {
		return nil
	}
	if _, own := s.attempted(now.Token); readErr == nil && (own || now.Token == s.known) {
		err = s.remove(ctx, now)
	}
	if err != nil {
		return fmt.Errorf("leaving the group as %s: %w", s.opts.Client, err)
	}
	return nil
}

func (s *Session) remove(ctx context.Context, m Member) error {
	ctx, cancel := s.brief(ctx)
	defer cancel()
	return s.store.Remove(ctx, m)
}

// brief bounds one of the last requests of a session.
func (s *Session) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.opts.lastAttemptTimeout())
}

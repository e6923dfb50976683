package retrieval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// This is what a Subscriber does when a subscription has ended, or could not be opened.

// rereads reports whether what was read already is read again, since its end was refused as
// a place to begin at. It may take more than one subscription, so that it counts how far
// they come.
func (s *Subscriber) rereads() bool { return s.refused != "" && s.refused == s.position.After }

// waitingTime is how long a page waited to be read since the service said how far it is behind.
// What has records is no older than the last one of these, whatever it may be at most.
func waitingTime(page Page, age time.Duration, now time.Time) time.Duration {
	if n := len(page.Records); n > 0 {
		age = min(age, max(0, now.Sub(page.Records[n-1].Arrived)))
	}
	return age
}

// recover prepares for the next attempt after an error. It returns one that is the end.
func (s *Subscriber) recover(ctx context.Context, call Call, err error) error {
	lost := s.sub
	if lost != nil {
		s.after = endingOf(err)
		s.unsubscribe()
	}
	err = s.judge(ctx, lost != nil, err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	pace, now, random := &s.slot.pace, time.Now(), rand.Float64() //nolint:gosec // spreads load, guards nothing
	_, inUse := errors.AsType[*types.ResourceInUseException](err)
	usual := false
	switch {
	case errors.Is(err, ErrShardGone):
	case errors.Is(err, errPassedOver):
		pace.ended(now)
		usual = true
	case inUse && lost == nil:
		pace.inUse(now, random)
		if usual = now.Sub(pace.refused) < inUseFor; !usual {
			s.fan.forget(s.arn) // it may be that consumer which is not ready, or not any more
			err = s.inUseElsewhere(err)
		}
	case lost != nil && lost.heard && errors.Is(err, io.EOF):
		pace.ended(now)
		usual = true
	case errors.Is(err, errConsumerGone) && pace.failures == 0:
		pace.gone(now)
		usual = true // that it is registered is told
	case lost != nil && lost.heard && s.after == EndedTaken:
		pace.failed(now, random)
		if usual = !pace.takenOver(now); !usual {
			err = s.inUseElsewhere(err)
		}
	case lost != nil && lost.heard && !errors.Is(err, errEndUnconfirmed):
		pace.failed(now, random)
		// A subscription that has worked may break once. When it can be opened again
		// there is nothing to tell, but that it had said nothing for long.
		again := pace.broke(now)
		usual = !again && !errors.Is(err, errSilent)
	default:
		pace.failed(now, random)
		// A call may be refused once that comes within a second of the former owner's.
		early := lost == nil && pace.failures == 1 && errors.Is(err, ErrThrottled)
		usual = early || errors.Is(err, errEndUnconfirmed)
	}
	switch {
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("reading shard %s: the subscription ended before anything had come", s.shard.ID)
	case lost != nil && s.after == EndedBroken:
		err = fmt.Errorf("%w: the connection of the subscription broke, or what came of it is no event. Look at the network, and at what stands between", err)
	}
	if s.resumes = s.slot.pace.when(); s.resumes.Sub(now) > takeOverAfter {
		s.giveBack() // others need it meanwhile
	}
	// While it cannot be read the shard waits for nothing, and what it has in a batch that
	// does not fill up may be what others wait for.
	if s.hooks.OnBudgetWait != nil && s.budget.Wanted() {
		s.hooks.OnBudgetWait()
	}
	if !usual {
		call.Err = err
		s.hooks.tell(call)
	}
	if errors.Is(err, ErrShardGone) {
		return err
	}
	return nil
}

// inUseElsewhere says what it means that somebody else subscribes as the same consumer. The service
// has the same error for a consumer that is being registered or removed.
func (s *Subscriber) inUseElsewhere(err error) error {
	if strings.Contains(err.Error(), "not in ACTIVE status") {
		return err
	}
	return fmt.Errorf("%w. Somebody else subscribes as consumer %s again and again: give each group a consumer of its own, in `enhanced_fan_out.consumer_name`", err, s.fan.name())
}

// judge finds out what an error means, of a subscription that was open or was to be.
func (s *Subscriber) judge(ctx context.Context, wasOpen bool, err error) error {
	if _, invalid := errors.AsType[*types.InvalidArgumentException](err); invalid && !wasOpen && s.from().SequenceNumber != nil {
		return s.passOver(ctx, err)
	}
	original := err
	if err = classify(err); !errors.Is(err, ErrShardGone) {
		return err
	}
	err = s.confirmGone(ctx, err)
	s.fan.forget(s.arn) // with its stream, where that is gone
	if errors.Is(err, ErrShardGone) && !s.listed(ctx) {
		return err
	}
	if s.arn == "" {
		return fmt.Errorf("reading shard %s, which the stream lists: %v", s.shard.ID, original) //nolint:errorlint // it is not what it says
	}
	// The stream lists the shard: so it is the consumer that is gone.
	return fmt.Errorf("%w: consumer %s is looked for anew, and registered if need be: %v", errConsumerGone, s.fan.name(), original) //nolint:errorlint // it is not what it says
}

// listed reports whether the stream lists a shard of which no first sequence number is
// known. It may be that of another stream of the same name; then its position shows that,
// as soon as there is a consumer to subscribe as.
func (s *Subscriber) listed(ctx context.Context) bool {
	if s.shard.FirstSequence != "" {
		return false // confirmGone has seen to it
	}
	_, ok, err := s.lists.Find(ctx, s.shard.Stream, s.shard.ID)
	return ok && err == nil
}

// passOver deals with a place to begin at that the service does not take, though the shard
// may have it: what is before the oldest record is not known any more. It comes to no such
// place twice, for where nothing new is read a subscription would begin there again.
func (s *Subscriber) passOver(ctx context.Context, refusal error) error {
	if s.position.After != "" {
		if foreign := s.checkPosition(ctx); foreign != nil {
			return foreign
		}
	}
	if s.continuation != "" {
		s.continuation = ""
	} else {
		s.refused = s.position.After
		if s.hooks.OnExpire != nil {
			s.hooks.OnExpire(s.position.After)
		}
	}
	return fmt.Errorf("%w: %w", errPassedOver, refusal)
}

var (
	errNoAnswer     = fmt.Errorf("the subscription was not answered within %s", subscribeTimeout)
	errSilent       = fmt.Errorf("nothing came of the subscription for %s", silentFor)
	errConsumerGone = errors.New("the consumer does not exist any more")
	// errPassedOver is a place that was refused, where another one is tried next.
	errPassedOver = errors.New("the place to begin at was refused")
)

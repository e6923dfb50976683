package awskinesis

import (
	"context"
	"fmt"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
)

// Benthos answers /ready with 200 while its input and its output are connected, and a
// component has one way to say that it is not: ReadBatch returns ErrNotConnected, after
// which Benthos calls Connect until that succeeds. So ReadBatch says so while the input is
// not ready and has nothing to hand out, and Connect waits until it is, or has. Benthos
// counts input_connection_lost each time. Nothing is held back: a page that takes the room
// of others may be what an input needs to hand out before it can read again.

// health is what readiness is decided from.
type health struct {
	period   time.Duration // of a lease
	held     int           // shards
	noReads  int           // of these, could not be read for a period
	noWrites int           // of these, could not be committed, and can be read
	// Whether these have failed for a period: the session, without which no lease can be
	// proved; any claim; the readings of the table from which shards are claimed; and
	// whether every stream has been missing for one.
	session, claims, table, missing bool
}

// verdict says why nothing that is eligible can be read or committed; empty when something
// can, or when nothing is eligible. An idle stream and a slow output are no reason: neither
// makes a call fail.
func (h health) verdict() string {
	switch {
	case h.session:
		return "its session in the group could not be renewed"
	case h.missing:
		return "no stream that it is to read could be found"
	case h.held > 0 && h.noReads == h.held:
		return fmt.Sprintf("none of its %d shards could be read", h.held)
	case h.held > 0 && h.noWrites == h.held:
		return fmt.Sprintf("none of its %d shards could be committed", h.held)
	case h.held > 0 && h.noReads+h.noWrites == h.held:
		return fmt.Sprintf("of its %d shards %d could not be read, and the others not be committed", h.held, h.noReads)
	case h.held == 0 && h.claims:
		return "it had no shard, and could not claim one"
	case h.held == 0 && h.table:
		return "it had no shard, and the table could not be read"
	}
	return ""
}

// health returns what is known now. The caller holds the lock.
func (s *signals) health(now time.Time) health {
	period := s.conf.leasePeriod
	h := health{
		period:  period,
		held:    len(s.shards),
		session: s.failing[attempted{journal.Joining, ""}].lasts(period, now),
	}
	items := true // of no stream can be read
	for name := range s.streams {
		items = items && s.failing[attempted{journal.TableReads, name}].lasts(period, now)
	}
	h.table = items || s.failing[attempted{journal.TableReads, ""}].lasts(period, now)
	// Where nothing is tried for long, all wait for room that a slow output has.
	pause := period
	if s.conf.fanOut.enabled {
		pause = max(period, s.conf.fanOut.resubscribe)
	}
	tried := s.tried.Load()
	trying := tried != nil && now.Sub(*tried) < 2*pause
	for key, shard := range s.shards {
		searching := s.searching != nil && s.searching(key.Stream)
		switch reads, writes := shard.stuck(now); {
		case reads && (trying || searching), searching && shard.waits(now):
			h.noReads++
		case writes:
			h.noWrites++
		}
	}
	for _, claim := range s.claims {
		h.claims = h.claims || claim.lasts(period, now)
	}
	h.missing = true
	for _, stream := range s.streams {
		h.missing = h.missing && stream.missing.lasts(period, now)
	}
	return h
}

// readiness is whether the input is ready, as it was told.
type readiness struct {
	why   string // it is not; empty when it is
	since time.Time
	// turned is closed when the input becomes ready or not.
	turned chan struct{}
}

func newReadiness() readiness { return readiness{turned: make(chan struct{})} }

// be takes in a verdict, and returns what is to be logged.
func (r *readiness) be(why string, now time.Time) *journal.Line {
	was, since := r.why, r.since
	r.why = why
	if (was == "") == (why == "") {
		return nil
	}
	r.since = now
	close(r.turned)
	r.turned = make(chan struct{})
	if why == "" {
		return &journal.Line{Level: journal.Info, Text: fmt.Sprintf("The input is ready again after %s", now.Sub(since).Round(time.Second))}
	}
	return &journal.Line{Level: journal.Error, Text: "The input is not ready: for a lease period " + why + ". Until that changes, `/ready` answers 503; the lines before this one say what fails"}
}

// ready reports whether the input is ready, and returns what is closed when that changes.
func (s *signals) ready() (ready bool, turned <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.why == "", s.state.turned
}

// awaitReady returns when the input is ready, or has a batch to hand out all the same, and
// with an error when it has ended.
func (in *input) awaitReady(ctx context.Context, running *balancing) error {
	answered := in.asked(ctx)
	defer answered()
	in.judge()
	for {
		ready, turned := in.signals.ready()
		if ready || in.outbox.Due() || in.hasConnected() {
			return nil
		}
		select {
		case d := <-running.out:
			in.keepConnected(d)
			return nil
		case <-turned:
		case <-in.outbox.Ready():
		case <-running.finished:
			return service.ErrEndOfInput
		case <-running.done:
			return service.ErrEndOfInput
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keepConnected keeps a delivery for the next ReadBatch.
func (in *input) keepConnected(d *consumer.Delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		d.Drop()
		return
	}
	in.connected = d
}

func (in *input) hasConnected() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.connected != nil
}

func (in *input) takeConnected() *consumer.Delivery {
	in.mu.Lock()
	defer in.mu.Unlock()
	d := in.connected
	in.connected = nil
	return d
}

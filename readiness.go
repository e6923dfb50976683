package awskinesis

import (
	"context"
	"fmt"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/journal"
)

// Benthos answers /ready with 200 while its input and its output are connected, and a
// component has one way to say that it is not: ReadBatch returns ErrNotConnected, after
// which Benthos calls Connect until that succeeds. So ReadBatch says so while the input is
// not ready, and Connect waits until it is, or until a batch is to be handed out again.
// Benthos counts input_connection_lost each time.

// health is what readiness is decided from.
type health struct {
	period   time.Duration // of a lease
	held     int           // shards
	noReads  int           // of these, could not be read for a period
	noWrites int           // of these, could not be committed, and can be read
	// Whether these have failed for a period: the session, without which no lease can be
	// proved; all claims; the readings of the table from which shards are claimed; and
	// whether every stream has been missing for one.
	session, claims, table, missing bool
}

// verdict says why nothing that is eligible can be read or committed; empty when something
// can, or when nothing is eligible. An idle stream and a slow output are no reason: neither
// makes a call fail.
func (h health) verdict() string {
	switch {
	case h.session:
		return "its session in the group cannot be renewed"
	case h.missing:
		return "no stream that it is to read can be found"
	case h.held > 0 && h.noReads == h.held:
		return fmt.Sprintf("none of its %d shards can be read", h.held)
	case h.held > 0 && h.noWrites == h.held:
		return fmt.Sprintf("none of its %d shards can be committed", h.held)
	case h.held > 0 && h.noReads+h.noWrites == h.held:
		return fmt.Sprintf("of its %d shards %d cannot be read, and the others not be committed", h.held, h.noReads)
	case h.held == 0 && h.claims:
		return "it has no shard, and none can be claimed"
	case h.held == 0 && h.table:
		return "it has no shard, and the table cannot be read"
	}
	return ""
}

// health returns what is known now. The caller holds the lock.
func (s *signals) health(now time.Time) health {
	period := s.conf.leasePeriod
	h := health{
		period:  period,
		held:    len(s.shards),
		session: s.failing[journal.Joining].lasts(period, now),
		table:   s.failing[journal.TableReads].lasts(period, now),
	}
	for _, shard := range s.shards {
		switch reads, writes := shard.stuck(now); {
		case reads:
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

// awaitReady returns when the input is ready, or has a batch to hand out again, and with
// an error when it has ended.
func (in *input) awaitReady(ctx context.Context, running *balancing) error {
	for {
		ready, turned := in.signals.ready()
		if ready || in.outbox.Due() {
			return nil
		}
		select {
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

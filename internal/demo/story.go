package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// steps is how many the story has.
const steps = 7

// story is what is shown. Each step changes something, and lasts until the
// processes that live read all open shards again, in equal shares.
func (s *stage) story(ctx context.Context) error {
	s.feeding = true
	a, err := s.join(ctx, "A", nil)
	if err != nil {
		return err
	}
	if err := s.servePage(ctx); err != nil {
		return err
	}
	b, err := s.join(ctx, "B", a)
	if err != nil {
		return err
	}
	if err := s.split(ctx, b); err != nil {
		return err
	}
	if err := s.kill(ctx, b, a); err != nil {
		return err
	}
	c, err := s.join(ctx, "C", a)
	if err != nil {
		return err
	}
	if err := s.stop(ctx, a, c); err != nil {
		return err
	}
	return s.finish(ctx, c)
}

// join starts a process, which gets its share from owner; nil: all that there is.
func (s *stage) join(ctx context.Context, name string, owner *process) (*process, error) {
	s.begin()
	s.say(plain, "%s starts", name)
	p, err := s.start(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := s.until(ctx, name+" reads its share", s.shared); err != nil {
		return nil, err
	}
	if owner == nil {
		s.say(good, "%s reads %s", name, shardWords(s.readBy(p)))
	} else {
		s.say(good, "%s has handed %s over to %s, %s", owner.name, shardWords(s.readBy(p)), name, s.repeatWords())
	}
	return p, s.linger(ctx)
}

// split splits a shard of p.
func (s *stage) split(ctx context.Context, p *process) error {
	s.begin()
	parent := s.readBy(p)[0]
	low, high, err := s.aws.Split(stream, parent)
	if err != nil {
		return fmt.Errorf("splitting %s: %w", parent, err)
	}
	s.say(plain, "%s is split into %s", shardWords([]string{parent}), shardWords([]string{low, high}))
	if err := s.until(ctx, "the children of "+parent+" are read", s.shared); err != nil {
		return err
	}
	s.say(good, "%s are read, after the last record of %s", shardWords([]string{low, high}), shardWords([]string{parent}))
	return s.linger(ctx)
}

// kill ends p without notice, and heir takes over.
func (s *stage) kill(ctx context.Context, p, heir *process) error {
	s.begin()
	orphans := s.readBy(p)
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	killed := time.Now()
	if err := s.until(ctx, p.name+" is gone", p.ended); err != nil {
		return err
	}
	s.say(bad, "%s is killed by SIGKILL, with %d records printed and not committed", p.name, s.excuse("kill of "+p.name, p))
	if err := s.until(ctx, heir.name+" takes over", s.shared); err != nil {
		return err
	}
	s.say(good, "%s has taken over %s, %.1f s after the kill", heir.name, shardWords(orphans), time.Since(killed).Seconds())
	return s.linger(ctx)
}

// stop ends p in order, and heir reads on.
func (s *stage) stop(ctx context.Context, p, heir *process) error {
	s.begin()
	left := s.readBy(p)
	told := time.Now()
	s.say(plain, "%s is told to stop, by SIGTERM", p.name)
	if err := s.end(ctx, p); err != nil {
		return err
	}
	if err := s.until(ctx, heir.name+" reads on", s.shared); err != nil {
		return err
	}
	s.say(good, "%s has ended; %s reads %s too, %.1f s later, %s", p.name, heir.name, shardWords(left), time.Since(told).Seconds(), s.repeatWords())
	return s.linger(ctx)
}

// finish waits for what is still on its way, and ends the last process. What is
// acknowledged in the table and did not come out never will.
func (s *stage) finish(ctx context.Context, last *process) error {
	s.begin()
	s.feeding = false
	s.say(plain, "nothing more is put; %d records are on their way", s.ledger.Outstanding())
	if err := s.until(ctx, "the last record comes out", func() bool { return s.ledger.Outstanding() == 0 || s.committed() }); err != nil {
		return err
	}
	if err := s.end(ctx, last); err != nil {
		return err
	}
	s.say(good, "%s has ended too", last.name)
	return nil
}

// begin begins the next step.
func (s *stage) begin() {
	s.step++
	s.repeats = s.ledger.Report().Repeats
}

// linger leaves a person the time to see what has changed.
func (s *stage) linger(ctx context.Context) error {
	over := time.Now().Add(pause)
	return s.until(ctx, "a pause", func() bool { return time.Now().After(over) })
}

// repeatWords say how many records have come again in this step.
func (s *stage) repeatWords() string {
	if n := s.ledger.Report().Repeats - s.repeats; n > 0 {
		return fmt.Sprintf("with %d repeats", n)
	}
	return "without repeats"
}

// end tells p to end and waits for it.
func (s *stage) end(ctx context.Context, p *process) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.until(ctx, p.name+" ends", p.ended); err != nil {
		return err
	}
	if p.err != nil {
		return fmt.Errorf("%s did not stop cleanly: %w", p.name, p.err)
	}
	return nil
}

// shardWords name shards by their numbers: "shards 0, 1 and 4".
func shardWords(ids []string) string {
	if len(ids) == 0 {
		return "no shard"
	}
	numbers := make([]string, len(ids))
	for i, id := range ids {
		digits := strings.TrimPrefix(id, "shardId-")
		numbers[i] = strings.TrimLeft(digits[:len(digits)-1], "0") + digits[len(digits)-1:]
	}
	last := len(numbers) - 1
	if last == 0 {
		return "shard " + numbers[0]
	}
	return "shards " + strings.Join(numbers[:last], ", ") + " and " + numbers[last]
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

const (
	stream = "demo"
	table  = "demo-checkpoints"

	shards = 4
	keys   = 60
	// One record every 8 ms.
	period = 8 * time.Millisecond
	// pulse is how often records are put and the table is looked at, frame how
	// often the screen is drawn.
	pulse = 20 * time.Millisecond
	frame = 100 * time.Millisecond

	// With the default, half a minute, the survivor of a kill would be waited
	// for as long as the whole demonstration lasts.
	leasePeriod  = 2 * time.Second
	commitPeriod = time.Second

	// pause is how long a step is looked at, with the load going on.
	pause = 800 * time.Millisecond
	// patience is how long each step may take: longer than on a busy machine.
	patience = 30 * time.Second
	// lastMessages is how many lines without a record are kept of a process.
	lastMessages = 20
	// reportsAhead bounds what the processes have printed and nobody has looked at.
	reportsAhead = 1024
)

// stage is a local AWS and the processes that read it. newStage makes it and
// close ends it. The goroutine of the story owns all of it, and takes what the
// processes print while it waits in until.
type stage struct {
	options  options
	screen   *screen
	began    time.Time
	aws      *awsfake.Server
	endpoint string
	leases   *leases
	ledger   *verify.Ledger

	page      *page // nil until it is started
	processes []*process
	tellers   sync.WaitGroup
	reports   chan report
	closing   chan struct{} // closed when nobody takes reports any more

	feeding bool
	fed     int // records put

	shards  map[string]*trial.Shard // that have records
	readers map[string][]*process   // by shard, in the order in which they printed its records

	step    int
	repeats int // before this step
}

// process is one benthos-kinesis.
type process struct {
	name    string
	child   *child.Process
	id      string // of its member in the table; empty until it has joined
	told    syscall.Signal
	gone    bool
	err     error // how it ended
	records int   // printed
	// late is set when it was evicted although it lives: it may still print what
	// it had read before.
	late bool
	// messages are its last lines without a record.
	messages []string
}

// report is what a process' goroutine hands over.
type report struct {
	from *process
	line string
	gone bool // after the last line
	err  error
}

func newStage(o options, screen *screen) (_ *stage, err error) {
	s := &stage{
		options: o,
		screen:  screen,
		began:   time.Now(),
		aws:     awsfake.New(awsfake.Options{EnforceLimits: true}),
		leases:  newLeases(),
		ledger:  verify.New("start"),
		reports: make(chan report, reportsAhead),
		closing: make(chan struct{}),
		shards:  map[string]*trial.Shard{},
		readers: map[string][]*process{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.aws.Close())
		}
	}()
	s.aws.OnWrite(s.leases.write)
	if s.endpoint, err = s.aws.Listen(); err != nil {
		return nil, err
	}
	return s, s.aws.CreateStream(stream, shards)
}

// close ends all processes, and waits for them and for the local AWS: they
// still store their checkpoints.
func (s *stage) close() error {
	close(s.closing)
	var ending sync.WaitGroup
	for _, p := range s.processes {
		ending.Go(p.child.Close)
	}
	ending.Go(s.page.close)
	ending.Wait()
	s.tellers.Wait()
	return s.aws.Close()
}

// start starts another process. The first one begins to be fed with it.
func (s *stage) start(ctx context.Context, name string) (*process, error) {
	args := []string{
		"-c", s.options.config,
		"--set", "input.aws_kinesis.lease_period=" + leasePeriod.String(),
		"--set", "input.aws_kinesis.commit_period=" + commitPeriod.String(),
	}
	c, err := child.Start(ctx, s.options.benthos, args, trial.Environment(stream, table, s.endpoint))
	if err != nil {
		return nil, err
	}
	p := &process{name: name, child: c}
	s.processes = append(s.processes, p)
	s.tellers.Go(func() { p.tell(s.closing, s.reports) })
	return p, nil
}

// tell hands the process' lines over until it has ended.
func (p *process) tell(closing <-chan struct{}, reports chan<- report) {
	send := func(r report) {
		r.from = p
		select {
		case reports <- r:
		case <-closing:
		}
	}
	for line := range p.child.Lines() {
		send(report{line: line})
	}
	send(report{gone: true, err: p.child.Wait()})
}

func (p *process) signal(sig syscall.Signal) error {
	p.told = sig
	return p.child.Signal(sig)
}

func (p *process) ended() bool { return p.gone }

// until goes on with everything else until done holds.
func (s *stage) until(ctx context.Context, what string, done func() bool) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	draw := time.NewTicker(frame)
	defer draw.Stop()
	for !done() {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return fmt.Errorf("%s: that did not happen in %s", what, patience)
		case r := <-s.reports:
			err = s.take(ctx, r)
		case <-tick.C:
			s.follow()
			err = s.feed()
		case <-draw.C:
			s.draw()
		}
		if err := cmp.Or(err, s.screen.err); err != nil {
			return err
		}
	}
	return nil
}

// take notes what a process told.
func (s *stage) take(ctx context.Context, r report) error {
	p := r.from
	if r.gone {
		p.gone, p.err = true, r.err
		if p.told == 0 && ctx.Err() == nil {
			return fmt.Errorf("%s ended by itself: %w", p.name, cmp.Or(r.err, errors.New("exit status 0")))
		}
		return nil
	}
	id, ok := parse(r.line)
	if !ok {
		p.messages = append(p.messages, r.line)
		p.messages = p.messages[max(0, len(p.messages)-lastMessages):]
		return nil
	}
	// Whoever reads its shards now prints after it was evicted.
	s.follow()
	p.records++
	if p.late && s.leases.all()[id.Shard].owner != p.id {
		s.ledger.Excuse(id)
	}
	s.ledger.See(id)
	if all := s.readers[id.Shard]; len(all) == 0 || all[len(all)-1] != p {
		s.readers[id.Shard] = append(all, p)
	}
	return nil
}

// parse finds a record's name at the begin of a line of the output.
func parse(line string) (verify.ID, bool) {
	shard, rest, _ := strings.Cut(line, " ")
	sequence, _, _ := strings.Cut(rest, " ")
	return verify.ID{Shard: shard, Sequence: sequence}, strings.HasPrefix(shard, "shardId-") && sequence != ""
}

// feed puts what is due by now, for the keys in turn.
func (s *stage) feed() error {
	if !s.feeding {
		return nil
	}
	for due := int(time.Since(s.began) / period); s.fed < due; s.fed++ {
		key := fmt.Sprintf("key-%03d", s.fed%keys)
		shard, sequence, err := s.aws.Put(stream, key, fmt.Appendf(nil, `{"record":%d,"key":%q}`, s.fed+1, key))
		if err != nil {
			return fmt.Errorf("putting record %d: %w", s.fed+1, err)
		}
		s.ledger.Put(key, verify.ID{Shard: shard, Sequence: sequence})
		if s.shards[shard] == nil {
			s.shards[shard] = &trial.Shard{ID: shard}
		}
		s.shards[shard].Records++
		s.shards[shard].Last = sequence
	}
	return nil
}

// follow notes who has joined and who was evicted although it lives: a process
// that a busy machine lets stand still for a lease period. What it had not
// committed may then come again, and it joins anew.
func (s *stage) follow() {
	joined, evicted := s.leases.news()
	for _, id := range evicted {
		for _, p := range s.processes {
			if p.id == id && p.told != syscall.SIGKILL {
				s.say(bad, "%s stood still for so long that it counts as dead", p.name)
				s.excuse("standstill of "+p.name, p)
				p.id, p.late = "", true
			}
		}
	}
	for _, id := range joined {
		for _, p := range s.living() {
			if p.id == "" {
				p.id = id
				break
			}
		}
	}
}

// excuse tells the ledger that p is gone, and returns how many records it
// printed that are not committed: they may come again.
func (s *stage) excuse(name string, p *process) int {
	s.ledger.BeginWithout(name, s.leases.of(p.id))
	phases := s.ledger.Report().Phases
	return phases[len(phases)-1].Allowed
}

// living are the processes that nobody has told to end.
func (s *stage) living() []*process {
	return slices.DeleteFunc(slices.Clone(s.processes), func(p *process) bool { return p.told != 0 || p.gone })
}

// readBy returns the shards that p has a lease on and has printed the last
// records of, in order.
func (s *stage) readBy(p *process) []string {
	var ids []string
	for shard, l := range s.leases.all() {
		if all := s.readers[shard]; l.owner == p.id && p.id != "" && len(all) > 0 && all[len(all)-1] == p {
			ids = append(ids, shard)
		}
	}
	slices.Sort(ids)
	return ids
}

// shared reports whether the living processes read all open shards, in shares
// that differ by one at most.
func (s *stage) shared() bool {
	all, err := s.aws.Shards(stream)
	if err != nil {
		return false
	}
	open := slices.DeleteFunc(all, awsfake.Shard.Closed)
	living, read := s.living(), 0
	for _, p := range living {
		n := 0
		for _, shard := range open {
			if slices.Contains(s.readBy(p), shard.ID) {
				n++
			}
		}
		if n < len(open)/len(living) {
			return false
		}
		read += n
	}
	return read == len(open)
}

// committed reports whether everything that was put counts as acknowledged.
func (s *stage) committed() bool {
	stored := s.leases.all()
	for id, shard := range s.shards {
		if stored[id].sequence != shard.Last {
			return false
		}
	}
	return true
}

// result is what the story has come to.
func (s *stage) result() trial.Result {
	r := trial.Result{Report: s.ledger.Report()}
	stored := s.leases.all()
	for _, id := range slices.Sorted(maps.Keys(s.shards)) {
		shard := *s.shards[id]
		shard.Stored, shard.Owner = stored[id].sequence, stored[id].owner
		r.Shards = append(r.Shards, shard)
	}
	return r
}

// readerWords name those that have read a shard, in order.
func (s *stage) readerWords(shard string) string {
	var names []string
	for _, p := range s.readers[shard] {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// withMessages adds to an error what the processes said last.
func (s *stage) withMessages(err error) error {
	for _, p := range s.processes {
		for _, line := range append(p.messages, p.child.Log()...) {
			err = fmt.Errorf("%w\n  %s | %s", err, p.name, line)
		}
	}
	return err
}

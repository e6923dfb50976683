//go:build linux

package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

var (
	//go:embed fleet.yaml
	pipeline []byte
	// aggregatesPipeline is for streams of aggregates.
	//go:embed aggregates.yaml
	aggregatesPipeline []byte
)

const (
	stream = "fleet"
	table  = "fleet-checkpoints"

	ours    = "ours"
	builtin = "builtin"

	// pulse is how often records are put and conditions looked at: the
	// resolution of all times that are measured.
	pulse = 5 * time.Millisecond
	// keysPerShard is how many keys a shard's records have in turn.
	keysPerShard = 10
	// reportsAhead bounds what the processes' goroutines have handed over and
	// the harness has not looked at.
	reportsAhead = 1024
	// settle is how long everything that was put may take to come out, or a
	// process to end, before a scenario fails.
	settle = 60 * time.Second
)

// setup of a fleet.
type setup struct {
	shards                   int
	rate                     int // records or user records, put a second and shard, by the number of shards at first; 0: none
	keys                     int // of the stream, whatever their shard; 0: some for each shard
	size                     int // bytes of a record
	lease, rebalance, commit time.Duration
	// poll is the least time between two reads of a shard; 0 for that of the input. The
	// built-in input has no such field.
	poll   time.Duration
	fanOut string // mode of enhanced fan-out; empty: polling
	// aggregated is the ordering with which aggregates of at most mostUserRecords are
	// read; empty: the records are none.
	aggregated string
	// relayed has the processes reach the local AWS over TLS, as they do the real
	// one, through a network that can fall silent.
	relayed bool
}

// The periods that a configuration has without saying any.
const (
	defaultLease     = 30 * time.Second
	defaultRebalance = 30 * time.Second
	defaultCommit    = 5 * time.Second
)

// fleet is several processes that read one stream of a local AWS. newFleet
// makes it and close ends it. The goroutine of the scenario owns all of it, and
// takes what the processes tell while it waits in until.
type fleet struct {
	setup
	programs map[string]string // by kind
	dir      string
	aws      *awsfake.Server
	relay    *relay.Relay // nil unless relayed
	endpoint string
	journal  *journal
	logs     *logbook
	ledger   *verify.Ledger

	ctx     context.Context //nolint:containedctx // the life of the members' goroutines, which close ends
	cancel  context.CancelFunc
	tellers sync.WaitGroup
	reports chan report
	members []*member

	// producer puts the aggregates of a stream that has some; nil for others.
	producer *producer

	ids     []string // of the shards
	body    []byte
	feeding time.Time // since when the present rate is kept; zero: not at all
	fed     int       // records put since then

	last    map[string]string        // sequence number of the last record put, by shard
	newest  map[string]string        // the highest sequence number that came out
	active  map[string]time.Time     // when a shard's last new record came out
	silence map[string]time.Duration // the longest time without one since mark
	// The first and the last new record of each shard that came out.
	firsts, lasts map[string]sighting
}

func newFleet(ctx context.Context, programs map[string]string, s setup) (_ *fleet, err error) {
	f := &fleet{
		setup:    s,
		programs: programs,
		aws:      awsfake.New(awsfake.Options{EnforceLimits: true}),
		journal:  newJournal(),
		logs:     newLogbook(),
		ledger:   verify.New("start"),
		reports:  make(chan report, reportsAhead),
		body:     []byte(strings.Repeat("x", s.size)),
		last:     map[string]string{},
		newest:   map[string]string{},
		active:   map[string]time.Time{},
		firsts:   map[string]sighting{},
		lasts:    map[string]sighting{},
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	f.aws.OnWrite(f.journal.write)
	f.aws.OnCall(f.journal.call)
	if f.dir, err = os.MkdirTemp("", "fleet-"); err != nil {
		return nil, err
	}
	if err := f.listen(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(f.aws.CreateStream(stream, s.shards), f.aws.CreateTable(table, "StreamID", "ShardID")); err != nil {
		return nil, err
	}
	shards, err := f.aws.Shards(stream)
	if err != nil {
		return nil, err
	}
	for _, shard := range shards {
		f.ids = append(f.ids, shard.ID)
	}
	config := pipeline
	if s.aggregated != "" {
		config, f.producer = aggregatesPipeline, newProducer(f.aws, s.keys, s.size)
	}
	if err := os.WriteFile(f.config(), config, 0o600); err != nil {
		return nil, err
	}
	f.mark()
	return f, nil
}

// listen makes the local AWS reachable.
func (f *fleet) listen(ctx context.Context) (err error) {
	if !f.relayed {
		f.endpoint, err = f.aws.Listen()
		return err
	}
	address, ca, err := f.aws.ListenTLS()
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.bundle(), ca, 0o600); err != nil {
		return err
	}
	// When ctx ends, the processes still have to release their shards.
	f.relay, err = relay.New(context.WithoutCancel(ctx), strings.TrimPrefix(address, "https://"))
	if err != nil {
		return err
	}
	f.endpoint = "https://" + f.relay.Addr()
	return nil
}

func (f *fleet) config() string { return filepath.Join(f.dir, "fleet.yaml") }
func (f *fleet) bundle() string { return filepath.Join(f.dir, "ca.pem") }

// close ends all processes, and waits for them and for the local AWS.
func (f *fleet) close() error {
	f.cancel()
	var err error
	var closing sync.WaitGroup
	for _, m := range f.members {
		m.unblock()
		// One that stands still hears of nothing else.
		err = errors.Join(err, m.signal(syscall.SIGCONT))
		closing.Go(m.process.Close)
	}
	closing.Wait()
	f.tellers.Wait()
	if f.relay != nil {
		f.relay.Close()
	}
	err = errors.Join(err, f.aws.Close())
	if f.dir != "" {
		err = errors.Join(err, os.RemoveAll(f.dir))
	}
	return err
}

// join starts another process.
func (f *fleet) join(kind string) (*member, error) {
	env := append(trial.Environment(stream, table, f.endpoint),
		"LEASE_PERIOD="+f.lease.String(),
		"REBALANCE_PERIOD="+f.rebalance.String(),
		"COMMIT_PERIOD="+f.commit.String(),
	)
	if f.relayed {
		env = append(env, "AWS_CA_BUNDLE="+f.bundle())
	}
	if f.aggregated != "" {
		threads := "1" // several may overtake one another, which keys alone forbid
		if f.aggregated == byKey {
			threads = "4"
		}
		env = append(env, "ORDERING="+f.aggregated, "THREADS="+threads)
	}
	m := &member{kind: kind, started: time.Now(), seen: map[string]time.Time{}}
	m.active = m.started
	var err error
	args := []string{"-c", f.config()}
	if f.poll > 0 {
		args = append(args, "--set", "input.aws_kinesis.poll_period="+f.poll.String())
	}
	if f.fanOut != "" && kind == ours {
		args = append(args, "--set", "input.aws_kinesis.enhanced_fan_out.enabled=true", "--set", "input.aws_kinesis.enhanced_fan_out.mode="+f.fanOut)
	}
	m.process, err = child.StartLogged(f.ctx, f.programs[kind], args, env, f.logs.of(kind))
	if err != nil {
		return nil, err
	}
	f.members = append(f.members, m)
	f.tellers.Go(func() { m.tell(f.ctx, f.reports) })
	return m, nil
}

// feed puts what is due by now, the shards or the keys in turn.
func (f *fleet) feed(now time.Time) error {
	if f.feeding.IsZero() {
		return nil
	}
	due := int(now.Sub(f.feeding).Seconds() * float64(f.rate*f.shards))
	for f.producer != nil && f.fed < due {
		if err := f.putAggregate(now); err != nil {
			return err
		}
	}
	for ; f.fed < due; f.fed++ {
		if f.keys > 0 {
			if err := f.putKey(fmt.Sprintf("key-%d", f.fed%f.keys)); err != nil {
				return err
			}
			continue
		}
		shard, turn := f.ids[f.fed%f.shards], f.fed/f.shards
		if err := f.put(shard, fmt.Sprintf("%s/%d", shard, turn%keysPerShard)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) put(shard, key string) error {
	sequence, err := f.aws.PutTo(stream, shard, key, f.body)
	if err != nil {
		return fmt.Errorf("putting a record to %s: %w", shard, err)
	}
	f.stored(key, shard, sequence)
	return nil
}

// putKey leaves the shard to the key.
func (f *fleet) putKey(key string) error {
	shard, sequence, err := f.aws.Put(stream, key, f.body)
	if err != nil {
		return fmt.Errorf("putting a record of %s: %w", key, err)
	}
	f.stored(key, shard, sequence)
	return nil
}

func (f *fleet) putAggregate(now time.Time) error {
	ids, keys, err := f.producer.put(now, mostUserRecords)
	if err != nil {
		return err
	}
	for i, id := range ids {
		f.ledger.Put(keys[i], id)
	}
	f.last[ids[0].Shard] = ids[0].Sequence
	f.fed += len(ids)
	return nil
}

func (f *fleet) stored(key, shard, sequence string) {
	f.ledger.Put(key, verify.ID{Shard: shard, Sequence: sequence})
	f.last[shard] = sequence
}

// start begins to put records, stop ends it.
func (f *fleet) start() { f.feeding, f.fed = time.Now(), 0 }
func (f *fleet) stop()  { f.feeding = time.Time{} }

// take notes what a process told.
func (f *fleet) take(r report) error {
	m := r.from
	if r.ended {
		m.ended, m.err = r.at, r.err
		if !m.told {
			return fmt.Errorf("a process (%s) ended by itself: %w", m.kind, cmp.Or(r.err, errors.New("exit status 0")))
		}
		return nil
	}
	if f.producer != nil {
		if at, ok := strings.CutPrefix(r.line, "at "); ok {
			return m.tick(at)
		}
	}
	id, ok := f.parse(r.line)
	shard, sequence := id.Shard, id.Sequence
	if _, known := f.active[shard]; !ok || !known {
		return fmt.Errorf("a process (%s) printed %q, which names no record", m.kind, r.line)
	}
	m.idle(r.at)
	m.active = r.at
	if !f.see(id, m) {
		return nil
	}
	if verify.Compare(sequence, f.newest[shard]) > 0 {
		f.newest[shard] = sequence
	}
	f.silence[shard] = max(f.silence[shard], r.at.Sub(f.active[shard]))
	f.active[shard] = r.at
	f.noteBirth(shard, sighting{r.at, m})
	if _, ok := m.seen[shard]; !ok {
		m.seen[shard] = r.at
	}
	return nil
}

// see takes note of a record that a process let out, and reports whether it is new.
func (f *fleet) see(id verify.ID, by *member) bool {
	if f.producer == nil {
		return f.ledger.See(id)
	}
	by.clock++
	f.judge(id, by)
	if !f.ledger.SeeAt(id, by.clock) {
		return false
	}
	f.producer.reached[id.Shard] = id
	return true
}

// parse reads a line that a process printed.
func (f *fleet) parse(line string) (id verify.ID, ok bool) {
	if f.producer != nil {
		return f.producer.parse(line)
	}
	shard, sequence, ok := strings.Cut(line, " ")
	return verify.ID{Shard: shard, Sequence: sequence}, ok
}

// mark begins the time for which silences and first records are told.
func (f *fleet) mark() {
	now := time.Now()
	f.silence = map[string]time.Duration{}
	for _, shard := range f.ids {
		f.active[shard] = now
	}
	for _, m := range f.members {
		m.seen = map[string]time.Time{}
	}
}

// longestSilence is the longest time since mark that a shard had no new record
// out.
func (f *fleet) longestSilence() time.Duration {
	now := time.Now()
	var longest time.Duration
	for _, shard := range f.ids {
		longest = max(longest, f.silence[shard], now.Sub(f.active[shard]))
	}
	return longest
}

// errLate is what until returns when its limit is over.
var errLate = errors.New("not within the limit")

// until takes what the processes tell, and feeds the stream, until done holds,
// and returns how long that took. It ends with ctx, with errLate after limit,
// and when a process ends that was not told to.
func (f *fleet) until(ctx context.Context, limit time.Duration, done func() bool) (time.Duration, error) {
	start := time.Now()
	ticker := time.NewTicker(pulse)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case r := <-f.reports:
			if err := f.take(r); err != nil {
				return 0, err
			}
		case now := <-ticker.C:
			if err := errors.Join(f.feed(now), f.takeReady()); err != nil {
				return 0, err
			}
			took := time.Since(start)
			if done() {
				return took, nil
			}
			if took > limit {
				return took, errLate
			}
		}
	}
}

// takeReady takes what the processes have told up to now. Where putting records takes a
// pulse, it is always time for the next ones, and each would see to one line.
func (f *fleet) takeReady() error {
	for range len(f.reports) {
		if err := f.take(<-f.reports); err != nil {
			return err
		}
	}
	return nil
}

// pass lets time go by.
func (f *fleet) pass(ctx context.Context, d time.Duration) error {
	if _, err := f.until(ctx, d, func() bool { return false }); !errors.Is(err, errLate) {
		return err
	}
	return nil
}

// out reports whether everything that was put has come out.
func (f *fleet) out() bool { return f.ledger.Outstanding() == 0 }

// shared returns a condition: all shards are owned, by that many processes with
// equal loads but for one shard.
func (f *fleet) shared(processes int) func() bool {
	return func() bool {
		sum, least, most := 0, f.shards, 0
		loads := f.journal.loads()
		for _, n := range loads {
			sum, least, most = sum+n, min(least, n), max(most, n)
		}
		return sum == f.shards && len(loads) == processes && most-least <= 1
	}
}

// gone returns a condition: the process has ended.
func gone(m *member) func() bool { return func() bool { return !m.running() } }

func (f *fleet) running() []*member {
	var running []*member
	for _, m := range f.members {
		if m.running() && !m.told {
			running = append(running, m)
		}
	}
	return running
}

// windUp puts no more records, waits until those that were put are out, and
// stops all processes by SIGTERM.
func (f *fleet) windUp(ctx context.Context) error {
	f.stop()
	if _, err := f.until(ctx, settle, f.out); err != nil && !errors.Is(err, errLate) {
		return err // what is late is lost, as the ledger tells
	}
	stopped := f.running()
	for _, m := range stopped {
		if err := m.signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	for _, m := range f.members {
		if _, err := f.until(ctx, settle, gone(m)); err != nil {
			return fmt.Errorf("waiting for a process (%s) to end: %w", m.kind, err)
		}
	}
	for _, m := range stopped {
		if m.err != nil {
			return fmt.Errorf("a process (%s) did not stop cleanly: %w", m.kind, m.err)
		}
	}
	return nil
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// onFleet runs a story with a fleet, winds it up, and adds to the sheet what
// every story promises.
func onFleet(ctx context.Context, o options, sh *sheet, s setup, story func(*fleet) error) (err error) {
	s.fanOut = o.fanOut
	f, err := newFleet(ctx, o.programs, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	err = story(f)
	if err == nil {
		err = f.windUp(ctx)
	}
	f.account(sh)
	if err != nil {
		for _, m := range f.members {
			for _, line := range m.process.Log() {
				err = fmt.Errorf("%w\n  | %s", err, line)
			}
		}
	}
	return err
}

// account adds what came of the records, and what was logged.
func (f *fleet) account(sh *sheet) {
	r := f.ledger.Report()
	sh.note("records in", "%d", r.In)
	sh.none("records lost", r.Missing)
	sh.none("records out that were never put", r.Unknown)
	if f.onlyOurs() {
		if f.producer != nil {
			f.accountUserRecords(sh)
		} else {
			sh.none("records out of order for their key", r.Inversions)
		}
		sh.none("checkpoints that went back", len(f.journal.wentBack()))
		behind, held := 0, 0
		for shard, it := range f.journal.table() {
			if it.position() != lease.After(f.last[shard]) {
				behind++
			}
			if it.owner != "" {
				held++
			}
		}
		sh.none("shards not checkpointed to the last record at the end", behind)
		sh.none("shards that a process left behind", held)
	} else {
		sh.note("records out of order for their key", "%d", r.Inversions)
		// The built-in input stores its last word on a shard that it lost
		// without any condition.
		back := f.journal.wentBack()
		own := slices.DeleteFunc(slices.Clone(back), func(s setback) bool { return !s.ours || !s.renewed })
		sh.none("checkpoints that a process of ours moved back", len(own))
		sh.note("checkpoints that a built-in process moved back", "%d", len(back)-len(own))
	}
	for _, back := range f.journal.wentBack() {
		sh.line("%s", back)
	}
	f.tellMissing(sh)
	for _, t := range f.logs.tallies() {
		sh.line("%s logged %d times, level %s: %s", t.kind, t.count, t.level, t.message)
	}
}

// tellMissing tells of each shard with lost records which they are, and what was
// stored when its checkpoint passed them.
func (f *fleet) tellMissing(sh *sheet) {
	byShard := map[string][]string{}
	for _, id := range f.ledger.MissingIDs() {
		byShard[id.Shard] = append(byShard[id.Shard], id.Sequence)
	}
	for _, shard := range slices.Sorted(maps.Keys(byShard)) {
		missing := byShard[shard]
		first, last := missing[0], missing[len(missing)-1]
		it := f.journal.table()[shard]
		sh.line("not out: %d records of %s from %s to %s; at the end its checkpoint is %s and its owner %q; out came up to %s", len(missing), shard, first, last, it.sequence, it.owner, f.newest[shard])
		for _, c := range f.journal.around(shard, first, last) {
			sh.line("  %s owner %q, checkpoint %q, then %q", c.at.Format("15:04:05.000"), c.owner, c.before, c.after)
		}
	}
}

func (f *fleet) onlyOurs() bool {
	return !slices.ContainsFunc(f.members, func(m *member) bool { return m.kind != ours })
}

// noRepeats is the promise of a story in which nothing dies.
func (f *fleet) noRepeats(sh *sheet) {
	sh.none("records that came twice", f.ledger.Report().Repeats)
}

// pair starts two processes of ours and waits until they share the shards and
// every shard flows.
func (f *fleet) pair(ctx context.Context) (first, second *member, err error) {
	f.start()
	if first, err = f.join(ours); err != nil {
		return nil, nil, err
	}
	if second, err = f.join(ours); err != nil {
		return nil, nil, err
	}
	if _, err := f.until(ctx, settle, f.shared(2)); err != nil {
		return nil, nil, fmt.Errorf("sharing %d shards by two processes: %w", f.shards, err)
	}
	return first, second, f.flow(ctx)
}

// flow waits until every shard has let out a new record.
func (f *fleet) flow(ctx context.Context) error {
	f.mark()
	if _, err := f.until(ctx, settle, func() bool { return len(f.silence) == f.shards }); err != nil {
		return fmt.Errorf("waiting for records of all %d shards: %w", f.shards, err)
	}
	return nil
}

// sharded returns whose shards let out records in the last while.
func (f *fleet) sharded(ctx context.Context, m *member) ([]string, error) {
	f.mark()
	if err := f.pass(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(m.seen)), nil
}

func joinShort(ctx context.Context, o options, sh *sheet) error {
	return join(ctx, o, sh, setup{
		shards: 16, rate: 10, size: 256,
		lease: 5 * time.Second, rebalance: 5 * time.Second, commit: time.Second,
	}, 5*time.Second)
}

func joinDefault(ctx context.Context, o options, sh *sheet) error {
	return join(ctx, o, sh, setup{
		shards: 16, rate: 10, size: 256,
		lease: defaultLease, rebalance: defaultRebalance, commit: defaultCommit,
	}, 10*time.Second)
}

func join(ctx context.Context, o options, sh *sheet, s setup, goal time.Duration) error {
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		f.start()
		if _, err := f.join(ours); err != nil {
			return err
		}
		alone, err := f.until(ctx, settle, f.shared(1))
		if err != nil {
			return fmt.Errorf("claiming all shards: %w", err)
		}
		sh.note("first process, start to 16 of 16", "%s", seconds(alone))
		if err := f.flow(ctx); err != nil {
			return err
		}
		f.mark()
		if err := f.pass(ctx, 5*time.Second); err != nil {
			return err
		}
		sh.note("longest silence of a shard before", "%s", seconds(f.longestSilence()))

		f.mark()
		if _, err := f.join(ours); err != nil {
			return err
		}
		took, err := f.until(ctx, 3*s.rebalance+3*s.lease, f.shared(2))
		if err != nil && !errors.Is(err, errLate) {
			return err
		}
		sh.within("second process, start to 8 and 8", took, goal, err)
		if err := f.pass(ctx, 5*time.Second); err != nil {
			return err
		}
		sh.within("longest silence of a shard meanwhile", f.longestSilence(), 2*time.Second, nil)
		before := changes(f.journal.table())
		if err := f.pass(ctx, s.rebalance+s.lease); err != nil {
			return err
		}
		sh.note("moves after that", "%d", changes(f.journal.table())-before)
		f.noRepeats(sh)
		return nil
	})
}

func changes(items map[string]item) int {
	sum := 0
	for _, it := range items {
		sum += it.changes
	}
	return sum
}

// leaver are the settings of the stories in which one of two leaves.
var leaver = setup{
	shards: 16, rate: 20, size: 256,
	lease: 5 * time.Second, rebalance: 5 * time.Second, commit: time.Second,
}

func kill(ctx context.Context, o options, sh *sheet) error {
	return onFleet(ctx, o, sh, leaver, func(f *fleet) error {
		victim, heir, err := f.pair(ctx)
		if err != nil {
			return err
		}
		shards, err := f.sharded(ctx, victim)
		if err != nil {
			return err
		}
		f.mark()
		dead := time.Now()
		if err := victim.signal(syscall.SIGKILL); err != nil {
			return err
		}
		if _, err := f.until(ctx, settle, gone(victim)); err != nil {
			return err
		}
		// What the dead one let out above its checkpoints may come again; the
		// shards of the other one have no reason to repeat anything.
		stored := maps.Clone(f.newest)
		items := f.journal.table()
		for _, shard := range shards {
			stored[shard] = items[shard].sequence
		}
		f.ledger.Begin("SIGKILL", stored)
		if err := f.resume(ctx, sh, heir, shards, dead, leaver.lease*3/2); err != nil {
			return err
		}
		r := f.ledger.Report()
		sh.none("repeats before", r.Phases[0].Repeats)
		sh.atMost("repeats of what was above the checkpoints", r.Phases[1].Repeats, r.Phases[1].Allowed)
		sh.none("repeats of what a checkpoint covered", r.Phases[1].Rewound)
		return nil
	})
}

func term(ctx context.Context, o options, sh *sheet) error {
	return onFleet(ctx, o, sh, leaver, func(f *fleet) error {
		victim, heir, err := f.pair(ctx)
		if err != nil {
			return err
		}
		shards, err := f.sharded(ctx, victim)
		if err != nil {
			return err
		}
		f.mark()
		told := time.Now()
		if err := victim.signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := f.resume(ctx, sh, heir, shards, told, 2*time.Second); err != nil {
			return err
		}
		if _, err := f.until(ctx, settle, gone(victim)); err != nil {
			return err
		}
		sh.note("process ended after", "%s", seconds(victim.ended.Sub(told)))
		f.noRepeats(sh)
		return victim.err
	})
}

// resume waits until an heir lets out records of all the shards, and tells when
// the last of them did.
func (f *fleet) resume(ctx context.Context, sh *sheet, heir *member, shards []string, since time.Time, goal time.Duration) error {
	_, err := f.until(ctx, settle, func() bool {
		return !slices.ContainsFunc(shards, func(shard string) bool { return heir.seen[shard].IsZero() })
	})
	if err != nil {
		return fmt.Errorf("waiting for %d shards to flow again: %w", len(shards), err)
	}
	var last time.Duration
	for _, shard := range shards {
		last = max(last, heir.seen[shard].Sub(since))
	}
	sh.within(fmt.Sprintf("until the last of its %d shards flowed again", len(shards)), last, goal, nil)
	return f.pass(ctx, 2*time.Second)
}

// pauses is how often a process stands still.
const pauses = 10

func pause(ctx context.Context, o options, sh *sheet) error {
	s := setup{
		shards: 8, rate: 100, size: 256,
		lease: 3 * time.Second, rebalance: 3 * time.Second, commit: time.Second,
	}
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		first, second, err := f.pair(ctx)
		if err != nil {
			return err
		}
		taken := 0
		for round := range pauses {
			m := []*member{first, second}[round%2]
			if err := m.signal(syscall.SIGSTOP); err != nil {
				return err
			}
			before := changes(f.journal.table())
			_, err := f.until(ctx, 2*s.lease, f.shared(1))
			if err == nil {
				taken += changes(f.journal.table()) - before
				// Both are wanted: the heir reads on for a while.
				err = f.pass(ctx, time.Second)
			}
			if err := errors.Join(err, m.signal(syscall.SIGCONT)); err != nil {
				return fmt.Errorf("pause %d: taking over the shards of the process that stands still: %w", round+1, err)
			}
			if _, err := f.until(ctx, settle, f.shared(2)); err != nil {
				return fmt.Errorf("pause %d: sharing again: %w", round+1, err)
			}
			if err := f.pass(ctx, time.Second); err != nil {
				return err
			}
		}
		sh.note("pauses, and shards that were taken meanwhile", "%d, %d", pauses, taken)
		sh.note("records that came twice", "%d", f.ledger.Report().Repeats)
		return nil
	})
}

func blocked(ctx context.Context, o options, sh *sheet) error {
	s := setup{
		shards: 8, rate: 400, size: 1024,
		lease: 3 * time.Second, rebalance: 3 * time.Second, commit: time.Second,
	}
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		stuck, _, err := f.pair(ctx)
		if err != nil {
			return err
		}
		shards, err := f.sharded(ctx, stuck)
		if err != nil {
			return err
		}
		stuck.block()
		// Until the buffers between the processes are full, records flow.
		if err := f.pass(ctx, 2*s.lease); err != nil {
			return err
		}
		before, start, readsBefore := f.journal.table(), time.Now(), f.reads(shards)
		var memory []int
		for range 10 {
			u, err := usageOf(stuck.process.PID())
			if err != nil {
				return err
			}
			memory = append(memory, u.rss)
			if err := f.pass(ctx, s.lease); err != nil {
				return err
			}
		}
		after, took, reads := f.journal.table(), time.Since(start), f.reads(shards)-readsBefore
		moved, fewest := 0, 1<<30
		for _, shard := range shards {
			moved += after[shard].changes - before[shard].changes
			fewest = min(fewest, after[shard].renewals-before[shard].renewals)
		}
		sh.note("blocked for", "%s, %d shards", seconds(took), len(shards))
		sh.none("changes of owner of its shards", moved)
		sh.note("fewest renewals of one of its shards", "%d, one each %s", fewest, seconds(took/time.Duration(max(fewest, 1))))
		sh.note("GetRecords of its shards", "%d", reads)
		sh.below("growth of its memory", mebibytes(slices.Max(memory)-memory[0]), 4, "%.1f MiB")
		sh.note("its memory at first, at last", "%.1f MiB, %.1f MiB", mebibytes(memory[0]), mebibytes(memory[len(memory)-1]))
		stuck.unblock()
		f.stop()
		freed, err := f.until(ctx, settle, f.out)
		sh.note("unblocked, until everything was out", "%s", seconds(freed))
		f.noRepeats(sh)
		return err
	})
}

// reads is the number of GetRecords calls for the shards so far.
func (f *fleet) reads(shards []string) int {
	_, reads := f.journal.totals()
	sum := 0
	for _, shard := range shards {
		sum += reads[shard]
	}
	return sum
}

const (
	// flowGoal is an attempt of a call, and what the next one may take.
	flowGoal = session.AttemptTimeout + 2*time.Second
	// flowLimit is for clients that do not find out by themselves.
	flowLimit = 2 * time.Minute
)

// cut is the story of a process whose packets are dropped from one moment on,
// without a word, on all connections that it has open.
func cut(shards int) func(context.Context, options, *sheet) error {
	s := setup{
		shards: shards, rate: 10, size: 256, relayed: true,
		lease: defaultLease, rebalance: defaultRebalance, commit: defaultCommit,
	}
	return func(ctx context.Context, o options, sh *sheet) error {
		return onFleet(ctx, o, sh, s, func(f *fleet) error {
			f.start()
			if _, err := f.join(ours); err != nil {
				return err
			}
			if err := f.flow(ctx); err != nil {
				return err
			}
			// The burst of the start is over, its connections are idle.
			if err := f.pass(ctx, 2*s.commit); err != nil {
				return err
			}
			before, put := changes(f.journal.table()), maps.Clone(f.last)
			f.mark()
			sh.note("connections that fell silent", "%d", f.relay.Cut())
			took, err := f.until(ctx, flowLimit, func() bool {
				return !slices.ContainsFunc(f.ids, func(shard string) bool {
					return verify.Compare(f.newest[shard], put[shard]) <= 0
				})
			})
			if err != nil && !errors.Is(err, errLate) {
				return err
			}
			sh.within("until all shards flowed again", took, flowGoal, err)
			// A lease that could not be renewed would be over by then.
			if err := f.pass(ctx, s.lease); err != nil {
				return err
			}
			sh.within("longest silence of a shard, to the end of a lease period", f.longestSilence(), flowGoal, nil)
			sh.none("changes of owner", changes(f.journal.table())-before)
			f.noRepeats(sh)
			return nil
		})
	}
}

const (
	idleShards  = 1200
	idleTime    = 60 * time.Second
	idleSamples = 30
)

func idle(ctx context.Context, o options, sh *sheet) error {
	s := setup{
		shards: idleShards, size: 256,
		lease: defaultLease, rebalance: defaultRebalance, commit: defaultCommit,
	}
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		m, err := f.join(ours)
		if err != nil {
			return err
		}
		claimed, err := f.until(ctx, settle, f.shared(1))
		if err != nil && !errors.Is(err, errLate) {
			return err
		}
		sh.within("process start to all claimed", claimed, 6*time.Second, err)
		// Iterators are fetched, polls slow down.
		if err := f.pass(ctx, 20*time.Second); err != nil {
			return err
		}
		if err := f.restUnwatched(ctx, sh, m, idleBounds{writes: 1.2, cpu: 25}); err != nil {
			return err
		}
		if err := f.firstRecords(ctx, sh); err != nil {
			return err
		}
		return f.releaseAll(ctx, sh, m)
	})
}

// idleLeases is idle with next to no GetRecords.
func idleLeases(ctx context.Context, o options, sh *sheet) error {
	s := setup{
		shards: 1000, size: 256,
		lease: defaultLease, rebalance: defaultRebalance, commit: defaultCommit, poll: defaultLease,
	}
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		m, err := f.join(ours)
		if err != nil {
			return err
		}
		if _, err := f.until(ctx, settle, f.shared(1)); err != nil && !errors.Is(err, errLate) {
			return err
		}
		if err := f.pass(ctx, 40*time.Second); err != nil {
			return err
		}
		if err := f.restUnwatched(ctx, sh, m, idleBounds{writes: 1.2, cpu: 8}); err != nil {
			return err
		}
		return f.releaseAll(ctx, sh, m)
	})
}

// idleBounds are what an idle process should not exceed.
type idleBounds struct {
	writes float64 // a shard and minute
	cpu    float64 // % of a core
}

// restUnwatched measures what a process does when there is nothing to do.
func (f *fleet) restUnwatched(ctx context.Context, sh *sheet, m *member, most idleBounds) error {
	before, err := usageOf(m.process.PID())
	if err != nil {
		return err
	}
	own, err := ownCPU()
	if err != nil {
		return err
	}
	writes, reads, start := f.count()
	if err := f.pass(ctx, idleTime); err != nil {
		return err
	}
	after, err := usageOf(m.process.PID())
	if err != nil {
		return err
	}
	ownAfter, err := ownCPU()
	if err != nil {
		return err
	}
	writesAfter, readsAfter, end := f.count()
	took := end.Sub(start)
	perShardMinute := func(n int) float64 { return float64(n) / float64(f.shards) / took.Minutes() }
	core := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
	sh.below("idle: writes a shard and minute", perShardMinute(writesAfter-writes), most.writes, "%.2f")
	sh.note("idle: GetRecords a shard and minute", "%.1f", perShardMinute(readsAfter-reads))
	sh.below("idle: CPU of the process, % of a core", core(after.cpu-before.cpu), most.cpu, "%.1f %%")
	sh.note("idle: CPU of the local AWS, % of a core", "%.1f %%", core(ownAfter-own))
	sh.below("idle: memory of the process", mebibytes(after.rss), 150, "%.1f MiB")
	return nil
}

// count returns the writes and reads of all shards up to now.
func (f *fleet) count() (writes, reads int, now time.Time) {
	writes, byShard := f.journal.totals()
	for _, n := range byShard {
		reads += n
	}
	return writes, reads, time.Now()
}

// firstRecords puts a record into one idle shard after the other and measures
// how long each takes to come out.
func (f *fleet) firstRecords(ctx context.Context, sh *sheet) error {
	r := rand.New(rand.NewPCG(1, 1))
	var took []time.Duration
	for _, n := range r.Perm(f.shards)[:idleSamples] {
		shard := f.ids[n]
		start := time.Now()
		if err := f.put(shard, shard); err != nil {
			return err
		}
		if _, err := f.until(ctx, settle, f.out); err != nil {
			return fmt.Errorf("waiting for the record of %s: %w", shard, err)
		}
		took = append(took, f.active[shard].Sub(start))
	}
	median, worst := spread(took)
	sh.note(fmt.Sprintf("first record of an idle shard, median of %d", idleSamples), "%s", seconds(median))
	sh.within("first record of an idle shard, the slowest", worst, 2200*time.Millisecond, nil)
	return nil
}

func (f *fleet) releaseAll(ctx context.Context, sh *sheet, m *member) error {
	told := time.Now()
	if err := m.signal(syscall.SIGTERM); err != nil {
		return err
	}
	released, err := f.until(ctx, settle, func() bool { return len(f.journal.loads()) == 0 })
	if err != nil && !errors.Is(err, errLate) {
		return err
	}
	sh.within("SIGTERM to all released", released, 2*time.Second, err)
	if _, err := f.until(ctx, settle, gone(m)); err != nil {
		return fmt.Errorf("waiting for the process to end: %w", err)
	}
	sh.note("SIGTERM to the end of the process", "%s", seconds(m.ended.Sub(told)))
	f.noRepeats(sh)
	return m.err
}

const (
	// turn is how often a process comes or goes in the mixed fleet.
	turn = 12 * time.Second
	// fewest and most processes run at a time, when a turn begins.
	fewestMembers, mostMembers = 2, 5
)

func mixed(ctx context.Context, o options, sh *sheet) error {
	s := setup{
		shards: 12, rate: 20, size: 256,
		lease: 5 * time.Second, rebalance: 5 * time.Second, commit: time.Second,
	}
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		f.start()
		// A built-in process that takes a shard before its owner, another one, has
		// stored its first sequence neither reads it nor lets go of it. So there is
		// one with something stored of each shard before others come.
		if _, err := f.join(builtin); err != nil {
			return err
		}
		if err := f.flow(ctx); err != nil {
			return err
		}
		if err := f.pass(ctx, 2*s.commit); err != nil {
			return err
		}
		for _, kind := range []string{builtin, ours} {
			if _, err := f.join(kind); err != nil {
				return err
			}
		}
		r := rand.New(rand.NewPCG(o.seed, o.seed))
		done := map[string]int{}
		start := time.Now()
		for time.Since(start) < o.mixed {
			if err := f.pass(ctx, turn); err != nil {
				return err
			}
			own, others := f.journal.loadsByKind()
			what, err := f.turn(r)
			if err != nil {
				return err
			}
			done[what]++
			sh.line("%6.1f s: %s; before, shards of each process: ours %v, builtin %v", time.Since(start).Seconds(), what, own, others)
		}
		// Nobody comes or goes any more: whoever is left has work.
		if err := f.pass(ctx, 3*turn); err != nil {
			return err
		}
		for _, what := range slices.Sorted(maps.Keys(done)) {
			sh.note(what, "%d times", done[what])
		}
		own, others := f.journal.loadsByKind()
		sh.line("%6.1f s: at the end, shards of each process: ours %v, builtin %v", time.Since(start).Seconds(), own, others)
		f.tellIdle(sh, start)
		err := f.migrate(ctx, sh)
		sh.note("records that came twice", "%d", f.ledger.Report().Repeats)
		return err
	})
}

// migrate leaves the stream to processes of ours. A shard that a built-in one
// holds and no longer reads is then read to its end.
func (f *fleet) migrate(ctx context.Context, sh *sheet) error {
	f.stop()
	if _, err := f.until(ctx, maxIdle, f.out); err != nil && !errors.Is(err, errLate) {
		return err
	}
	sh.note("records not out "+seconds(maxIdle)+" after the last one was put", "%d", f.ledger.Outstanding())
	f.tellMissing(sh)
	if _, err := f.join(ours); err != nil {
		return err
	}
	for _, m := range f.running() {
		if m.kind != builtin {
			continue
		}
		if err := m.signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	// The newcomer may not have got so far as to take note of a signal.
	if _, err := f.until(ctx, settle, func() bool {
		own, others := f.journal.loadsByKind()
		return len(others) == 0 && len(own) == len(f.running())
	}); err != nil {
		return fmt.Errorf("leaving all shards to processes of ours: %w", err)
	}
	return nil // to be wound up, which waits for what is not out
}

// turn lets a process join, or stops or kills one.
func (f *fleet) turn(r *rand.Rand) (what string, err error) {
	running := f.running()
	kind := []string{ours, builtin}[r.IntN(2)]
	if len(running) <= fewestMembers || len(running) < mostMembers && r.IntN(2) == 0 {
		_, err := f.join(kind)
		return kind + " joined", err
	}
	m := running[r.IntN(len(running))]
	m.idle(time.Now())
	if r.IntN(2) == 0 {
		return m.kind + " stopped by SIGTERM", m.signal(syscall.SIGTERM)
	}
	return m.kind + " killed by SIGKILL", m.signal(syscall.SIGKILL)
}

// maxIdle is the goal for the longest time without a record.
const maxIdle = 15 * time.Second

// tellIdle tells how long a process was without a record while it ran: with
// fewer processes than shards, each should have one soon.
func (f *fleet) tellIdle(sh *sheet, start time.Time) {
	longest := map[string]time.Duration{}
	for _, m := range f.members {
		if !m.told {
			m.idle(time.Now())
		}
		longest[m.kind] = max(longest[m.kind], m.longest)
		if m.longest > maxIdle {
			from := m.since.Sub(start)
			sh.line("without work: a process (%s) that started at %.1f s, from %.1f s to %.1f s", m.kind, m.started.Sub(start).Seconds(), from.Seconds(), (from + m.longest).Seconds())
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(longest)) {
		sh.within("longest time a process ("+kind+") was without work", longest[kind], maxIdle, nil)
	}
	repeating := 0
	for _, t := range f.logs.tallies() {
		if t.kind == ours && t.level == "error" && t.count > 1 {
			repeating++
		}
	}
	sh.none("errors of ours that repeat", repeating)
}

//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

const (
	reshardFor   = 2 * time.Minute
	reshardEvery = 4 * time.Second
	// loseEvery is the time between two losses of a process, which another one
	// replaces at once. It has no common beat with reshardEvery.
	loseEvery = 11 * time.Second
	// fewestOpen and mostOpen shards: below the one a shard is split, above the
	// other two are merged, in between chance decides.
	fewestOpen, mostOpen = 3, 8
)

// sighting is when a record came out, and of which process.
type sighting struct {
	at time.Time
	by *member
}

// birth is a shard that a split or merge made.
type birth struct {
	child   string
	parents []string
}

func reshard(ctx context.Context, o options, sh *sheet) error {
	s := setup{
		shards: 4, rate: 100, keys: 200, size: 256,
		lease: 5 * time.Second, rebalance: 5 * time.Second, commit: time.Second,
	}
	return onFleet(ctx, o, sh, s, func(f *fleet) error {
		f.start()
		for range 2 {
			if _, err := f.join(ours); err != nil {
				return err
			}
		}
		if _, err := f.until(ctx, settle, f.shared(2)); err != nil {
			return fmt.Errorf("sharing %d shards by two processes: %w", f.shards, err)
		}
		r := rand.New(rand.NewPCG(o.seed, o.seed))
		u, err := f.upheave(ctx, r, reshardFor, func() (string, error) { return f.replace(ctx, r) })
		if err != nil {
			return err
		}
		u.tell(sh)
		f.stop()
		if _, err := f.until(ctx, settle, f.out); err != nil {
			return fmt.Errorf("waiting for %d records that are not out: %w", f.ledger.Outstanding(), err)
		}
		f.tellBirths(sh, u.births)
		sh.note("records that came twice", "%d", f.ledger.Report().Repeats)
		return nil
	})
}

// upheaval is what happened to a fleet.
type upheaval struct {
	births []birth
	did    map[string]int
}

func (u *upheaval) tell(sh *sheet) {
	sh.note("splits, merges", "%d, %d", u.did["split"], u.did["merge"])
	sh.note("processes replaced after SIGKILL, SIGTERM", "%d, %d", u.did["SIGKILL"], u.did["SIGTERM"])
}

// upheave splits and merges shards for a while, and loses processes in between.
func (f *fleet) upheave(ctx context.Context, r *rand.Rand, lasting time.Duration, lose func() (how string, err error)) (*upheaval, error) {
	u := &upheaval{did: map[string]int{}}
	begin := time.Now()
	nextReshard, nextLoss := begin.Add(reshardEvery), begin.Add(loseEvery)
	for time.Since(begin) < lasting {
		next := nextReshard
		if nextLoss.Before(next) {
			next = nextLoss
		}
		if err := f.pass(ctx, time.Until(next)); err != nil {
			return nil, err
		}
		if next.Equal(nextReshard) {
			nextReshard = next.Add(reshardEvery)
			what, born, err := f.reshard(r)
			if err != nil {
				return nil, err
			}
			u.did[what]++
			u.births = append(u.births, born...)
			continue
		}
		nextLoss = next.Add(loseEvery)
		how, err := lose()
		if err != nil {
			return nil, err
		}
		u.did[how]++
	}
	return u, nil
}

// replace ends one of the processes and starts another.
func (f *fleet) replace(ctx context.Context, r *rand.Rand) (how string, err error) {
	running := f.running()
	victim, sig, how := running[r.IntN(len(running))], syscall.SIGKILL, "SIGKILL"
	if r.IntN(2) == 0 {
		sig, how = syscall.SIGTERM, "SIGTERM"
	}
	if err := victim.signal(sig); err != nil {
		return "", err
	}
	if _, err := f.until(ctx, settle, gone(victim)); err != nil {
		return "", fmt.Errorf("waiting for the end of a process after %s: %w", how, err)
	}
	_, err = f.join(ours)
	return how, err
}

// reshard splits a shard or merges two neighbours.
func (f *fleet) reshard(r *rand.Rand) (what string, born []birth, err error) {
	shards, err := f.aws.Shards(stream)
	if err != nil {
		return "", nil, err
	}
	open := slices.DeleteFunc(shards, awsfake.Shard.Closed)
	if len(open) <= fewestOpen || len(open) < mostOpen && r.IntN(2) == 0 {
		parent := open[r.IntN(len(open))].ID
		low, high, err := f.aws.Split(stream, parent)
		if err != nil {
			return "", nil, fmt.Errorf("splitting %s: %w", parent, err)
		}
		f.adopt(low, high)
		return "split", []birth{{low, []string{parent}}, {high, []string{parent}}}, nil
	}
	// Hash keys are numbers.
	slices.SortFunc(open, func(a, b awsfake.Shard) int { return verify.Compare(a.StartHash, b.StartHash) })
	i := r.IntN(len(open) - 1)
	left, right := open[i].ID, open[i+1].ID
	child, err := f.aws.Merge(stream, left, right)
	if err != nil {
		return "", nil, fmt.Errorf("merging %s and %s: %w", left, right, err)
	}
	f.adopt(child)
	return "merge", []birth{{child, []string{left, right}}}, nil
}

// adopt adds shards to those that are known.
func (f *fleet) adopt(ids ...string) {
	for _, id := range ids {
		f.ids = append(f.ids, id)
		f.active[id] = time.Now()
	}
}

// tellBirths tells how long after the last record of its parents the first record
// of a shard came out: of children whose parents' last readers lived on, by
// whether these read the child too.
func (f *fleet) tellBirths(sh *sheet, births []birth) {
	var same, other []time.Duration
	left := 0
	for _, b := range births {
		first, ok := f.firsts[b.child]
		var last sighting
		stayed, alike := ok, true
		for _, parent := range b.parents {
			l, ok := f.lasts[parent]
			stayed = stayed && ok && (l.by.lost.IsZero() || l.by.lost.After(first.at))
			alike = alike && l.by == first.by
			if l.at.After(last.at) {
				last = l
			}
		}
		switch {
		case !stayed:
			left++
		case alike:
			same = append(same, first.at.Sub(last.at))
		default:
			other = append(other, first.at.Sub(last.at))
		}
	}
	tell := func(where string, gaps []time.Duration, goal time.Duration) {
		if len(gaps) == 0 {
			return
		}
		median, worst := spread(gaps)
		sh.note(fmt.Sprintf("last record of the parents to the first of a child, %s: median of %d", where, len(gaps)), "%s", seconds(median))
		sh.within("the slowest", worst, goal, nil)
	}
	tell("same process", same, time.Second)
	tell("another process", other, 3*time.Second)
	sh.note("children without a record, or whose parents' reader was lost meanwhile", "%d", left)
}

// noteBirth keeps the first and the last new record of a shard.
func (f *fleet) noteBirth(shard string, s sighting) {
	f.firsts[shard] = cmp.Or(f.firsts[shard], s)
	f.lasts[shard] = s
}

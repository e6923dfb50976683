//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

const (
	byShard = "shard"
	byKey   = "partition_key"

	aggregatesFor = time.Minute
	// mostUserRecords are in an aggregate. Each order of magnitude up to there is as
	// frequent as the others.
	mostUserRecords = 5000
	// checkpointLimit is that of aggregates.yaml.
	checkpointLimit = 1024
	// relistEvery is how often the producer asks for the shards. It has no common beat
	// with reshardEvery.
	relistEvery = 5 * time.Second
)

// aggregates is the story of a stream of aggregates whose shards are split and merged,
// while processes that are inside of an aggregate die and others come.
func aggregates(ordering string) func(context.Context, options, *sheet) error {
	s := setup{
		shards: 4, rate: 2000, keys: 10000, size: 100, aggregated: ordering,
		lease: 5 * time.Second, rebalance: 5 * time.Second, commit: time.Second,
	}
	return func(ctx context.Context, o options, sh *sheet) error {
		return onFleet(ctx, o, sh, s, func(f *fleet) error {
			f.start()
			for range 2 {
				if err := f.joinNamed(ctx); err != nil {
					return err
				}
			}
			if _, err := f.until(ctx, settle, f.shared(2)); err != nil {
				return fmt.Errorf("sharing %d shards by two processes: %w", f.shards, err)
			}
			r := rand.New(rand.NewPCG(o.seed, o.seed))
			var left losses
			u, err := f.upheave(ctx, r, aggregatesFor, func() (string, error) { return f.loseInside(ctx, r, &left) })
			if err != nil {
				return err
			}
			u.tell(sh)
			sh.note("shards that these had, and that they left inside of an aggregate", "%d, %d", left.shards, left.inside)
			f.stop()
			sh.note("user records that were put and not out by then", "%d", f.ledger.Outstanding())
			drained, err := f.until(ctx, settle, f.out)
			if err != nil {
				return fmt.Errorf("waiting for %d user records that are not out: %w", f.ledger.Outstanding(), err)
			}
			sh.note("until they were out", "%s", seconds(drained))
			f.producer.tell(sh)
			writes, claims := f.journal.insides()
			sh.note("checkpoints stored inside of an aggregate, claims that began there", "%d, %d", writes, claims)
			sh.note("user records that processes let out above their checkpoints before SIGKILL", "%d", left.above)
			return nil
		})
	}
}

// losses are what processes left that were killed or stopped.
type losses struct {
	number int // of processes
	shards int
	inside int // shards whose checkpoint was inside of an aggregate
	above  int // user records that they had let out above their checkpoints, of those killed
}

// joinNamed lets a process join, and waits until its name in the group is known.
func (f *fleet) joinNamed(ctx context.Context) error {
	known := len(f.journal.joined())
	m, err := f.join(ours)
	if err != nil {
		return err
	}
	if _, err := f.until(ctx, settle, func() bool { return len(f.journal.joined()) > known }); err != nil {
		return fmt.Errorf("waiting for a process to join the group: %w", err)
	}
	m.client = f.journal.joined()[known]
	return nil
}

// loseInside kills or stops, in turn, one of the processes as the last that it has let out
// of one of its shards is a user record in the middle of an aggregate, and starts another.
func (f *fleet) loseInside(ctx context.Context, r *rand.Rand, left *losses) (how string, err error) {
	running := f.running()
	victim, sig, how := running[r.IntN(len(running))], syscall.SIGKILL, "SIGKILL"
	if left.number%2 == 1 {
		sig, how = syscall.SIGTERM, "SIGTERM"
	}
	left.number++
	if _, err := f.until(ctx, settle, func() bool {
		return slices.ContainsFunc(f.journal.owned(victim.client), f.producer.isInside)
	}); err != nil {
		return "", fmt.Errorf("waiting for a process to be inside of an aggregate: %w", err)
	}
	shards := f.journal.owned(victim.client)
	if err := victim.signal(sig); err != nil {
		return "", err
	}
	if _, err := f.until(ctx, settle, gone(victim)); err != nil {
		return "", fmt.Errorf("waiting for the end of a process after %s: %w", how, err)
	}
	items := f.journal.table()
	for _, shard := range shards {
		left.shards++
		if items[shard].within.Count > 0 {
			left.inside++
		}
	}
	if sig == syscall.SIGKILL {
		left.above += f.ledger.SeenOf(func(id verify.ID) bool {
			return slices.Contains(shards, id.Shard) && !covers(items[id.Shard].position(), id)
		})
	}
	return how, f.joinNamed(ctx)
}

// covers reports whether a user record is done at a position.
func covers(p lease.Position, id verify.ID) bool {
	return verify.Compare(id.Sequence, p.Sequence) <= 0 || id.Sequence == p.Within.Sequence && id.Sub < p.Within.Count
}

// judge counts a user record that came out although the position at which its process
// had claimed the shard covers it.
func (f *fleet) judge(id verify.ID, by *member) {
	at := time.Unix(0, int64(by.clock))
	c, ok := f.journal.lastClaim(id.Shard, by.client, at)
	f.producer.repeats.note(id, sight{stay{by, c}, at})
	switch {
	case !ok:
		f.producer.unclaimed++
	case covers(c.position, id):
		f.producer.covered++
	}
}

// accountUserRecords adds what came of the order of keys, of what checkpoints covered, and
// of what user records have in them.
func (f *fleet) accountUserRecords(sh *sheet) {
	p := f.producer
	along := f.ledger.InversionsAlong(ancestors(p.all))
	sh.none("out of order for their key, in a shard and those that it was split or merged from", along)
	sh.note("the same in shards beside one another, where a split left some: no promise", "%d", f.ledger.Report().Inversions-along)
	sh.none("user records that came although a checkpoint covered them", p.covered)
	sh.none("user records that came from a process without a claim", p.unclaimed)
	sh.none("user records with the contents of another one", p.mixedUp)
	f.tellRepeats(sh)
}

// ancestors returns those of each shard, however far back.
func ancestors(shards []awsfake.Shard) map[string][]string {
	parents := map[string][]string{}
	for _, s := range shards {
		for _, parent := range []string{s.Parent, s.Adjacent} {
			if parent != "" {
				parents[s.ID] = append(parents[s.ID], parent)
			}
		}
	}
	all := map[string][]string{}
	for id := range parents {
		known := map[string]bool{}
		for next := slices.Clone(parents[id]); len(next) > 0; next = next[1:] {
			if !known[next[0]] {
				known[next[0]] = true
				next = append(next, parents[next[0]]...)
			}
		}
		all[id] = slices.Sorted(maps.Keys(known))
	}
	return all
}

// producer writes aggregates as the Kinesis Producer Library does: their user records
// belong to one shard of those that it knows. It asks for them now and then alone, and so
// after a split some belong to another shard than the one that takes the aggregate. It
// puts none of them again.
type producer struct {
	aws  *awsfake.Server
	rand *rand.Rand
	size int // bytes of a user record

	keys   []userKey       // in the order of their hash keys
	shards []awsfake.Shard // that it knows
	listed time.Time
	all    []awsfake.Shard // as they were when the last aggregate was put, closed ones too

	// written are the aggregates, by their number; sizes how many user records each has,
	// by its sequence number.
	written []verify.ID
	sizes   map[string]int
	foreign int             // user records in a shard that they do not belong to
	astray  map[string]bool // keys that have some

	// reached is the last new user record of each shard that came out.
	reached map[string]verify.ID
	// mixedUp counts those that came with the contents of another one; covered, those
	// that came though a checkpoint covered them when their process claimed the shard;
	// unclaimed, those that came from a process that had not claimed it.
	mixedUp, covered, unclaimed int
	repeats                     *repeats
}

// userKey is the keys of a user record, and what they come to.
type userKey struct {
	kpl.Record
	hash kpl.HashKey
}

// newProducer returns one for so many partition keys, of which each fourth has an explicit
// hash key too.
func newProducer(aws *awsfake.Server, keys, size int) *producer {
	p := &producer{
		aws: aws, rand: rand.New(rand.NewPCG(1, 1)), size: size,
		sizes: map[string]int{}, astray: map[string]bool{}, reached: map[string]verify.ID{},
		repeats: newRepeats(),
	}
	for i := range keys {
		r := kpl.Record{PartitionKey: fmt.Sprintf("key-%d", i)}
		if i%4 == 0 {
			hash := new(big.Int).SetUint64(p.rand.Uint64())
			r.ExplicitHashKey = hash.Lsh(hash, 64).String()
		}
		p.keys = append(p.keys, userKey{r, r.HashKey()})
	}
	slices.SortFunc(p.keys, func(a, b userKey) int { return a.hash.Compare(b.hash) })
	return p
}

// put writes an aggregate of at most so many user records and tells which they are, and
// their keys in the same order.
func (p *producer) put(now time.Time, most int) (ids []verify.ID, keys []string, err error) {
	if p.all, err = p.aws.Shards(stream); err != nil {
		return nil, nil, err
	}
	open := slices.DeleteFunc(slices.Clone(p.all), awsfake.Shard.Closed)
	if now.Sub(p.listed) >= relistEvery {
		p.shards, p.listed = open, now
	}
	first := p.keys[p.rand.IntN(len(p.keys))]
	_, believed := shardOf(p.shards, first.hash)
	target, actual := shardOf(open, first.hash)
	from := slices.IndexFunc(p.keys, func(k userKey) bool { return believed.Contains(k.hash) })
	to := from + 1
	for to < len(p.keys) && believed.Contains(p.keys[to].hash) {
		to++
	}
	n := min(most, int(math.Exp(p.rand.Float64()*math.Log(mostUserRecords+1))))
	chosen, users := make([]userKey, n), make([]kpl.Record, n)
	for i := range users {
		chosen[i] = first
		if i > 0 {
			chosen[i] = p.keys[from+p.rand.IntN(to-from)]
		}
		users[i] = chosen[i].Record
		users[i].Data = slices.Grow(p.contents(len(p.written), i), p.size)[:p.size]
	}
	sequence, err := p.aws.PutTo(stream, target, "a", kpltest.Encode(users))
	if err != nil {
		return nil, nil, fmt.Errorf("putting an aggregate to %s: %w", target, err)
	}
	for i, k := range chosen {
		if !actual.Contains(k.hash) {
			p.foreign++
			p.astray[k.PartitionKey] = true
		}
		ids, keys = append(ids, verify.ID{Shard: target, Sequence: sequence, Sub: i}), append(keys, k.PartitionKey)
	}
	p.written = append(p.written, ids[0])
	p.sizes[sequence] = n
	return ids, keys, nil
}

// contents is how the data of a user record begins.
func (p *producer) contents(aggregate, sub int) []byte {
	return fmt.Appendf(nil, "%08d/%04d", aggregate, sub)
}

// shardOf returns the one of the shards to which a hash key belongs.
func shardOf(shards []awsfake.Shard, h kpl.HashKey) (id string, of kpl.Range) {
	for _, s := range shards {
		if of, ok := kpl.ParseRange(s.StartHash, s.EndHash); ok && of.Contains(h) {
			return s.ID, of
		}
	}
	panic("the shards leave out a part of the key space")
}

// parse reads a line of aggregates.yaml, and compares what the user record has in it to
// its place.
func (p *producer) parse(line string) (id verify.ID, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 4 {
		return id, false
	}
	sub, err := strconv.Atoi(fields[2])
	if err != nil {
		return id, false
	}
	id = verify.ID{Shard: fields[0], Sequence: fields[1], Sub: sub}
	number, place, _ := strings.Cut(fields[3], "/")
	aggregate, err := strconv.Atoi(number)
	if err != nil || aggregate >= len(p.written) || place != fmt.Sprintf("%04d", sub) ||
		p.written[aggregate] != (verify.ID{Shard: id.Shard, Sequence: id.Sequence}) {
		p.mixedUp++
	}
	return id, true
}

// isInside reports whether the last that came out of a shard is neither the first nor the
// last user record of its aggregate.
func (p *producer) isInside(shard string) bool {
	id := p.reached[shard]
	return id.Sub > 0 && id.Sub < p.sizes[id.Sequence]-1
}

func (p *producer) tell(sh *sheet) {
	user := slices.Sorted(maps.Values(p.sizes))
	sh.note("aggregates in; user records of one: fewest, median, most", "%d; %d, %d, %d", len(user), user[0], user[len(user)/2], user[len(user)-1])
	sh.note("user records that a split left in the wrong shard, keys that have such", "%d, %d", p.foreign, len(p.astray))
}

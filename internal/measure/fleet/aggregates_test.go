//go:build linux

package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

// aggregatesRig makes a fleet of two shards with aggregates and without a process, and one
// that was never started.
func aggregatesRig(t *testing.T) (*fleet, *member) {
	t.Helper()
	f, err := newFleet(t.Context(), nil, setup{shards: 2, rate: 100, keys: 100, size: 20, aggregated: byShard})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.close()) })
	return f, &member{kind: ours, client: "a", active: time.Now(), seen: map[string]time.Time{}}
}

// own writes that a client has a shard, and its checkpoint.
func (f *fleet) own(t *testing.T, shard, client, sequence, inside string) {
	t.Helper()
	it := awsfake.Item{
		"StreamID": awsfake.String(stream), "ShardID": awsfake.String(shard),
		"SequenceNumber": awsfake.String(sequence), "Inside": awsfake.String(inside),
	}
	if client != "" {
		it["ClientID"] = awsfake.String(client)
	}
	require.NoError(t, f.aws.PutItem(table, it))
}

// let has a process let out a user record of an aggregate.
func (f *fleet) let(t *testing.T, m *member, aggregate, sub int) {
	t.Helper()
	id := f.producer.written[aggregate]
	require.NoError(t, f.take(report{from: m, line: fmt.Sprintf("%s %s %d %08d/%04d", id.Shard, id.Sequence, sub, aggregate, sub), at: time.Now()}))
}

// now has a process tell the time.
func (f *fleet) now(t *testing.T, m *member) {
	t.Helper()
	require.NoError(t, f.take(report{from: m, line: fmt.Sprint("at ", time.Now().UnixNano())}))
}

func TestProducerPutsUserRecordsWhereItBelievesThatTheyBelong(t *testing.T) {
	f, _ := aggregatesRig(t)
	p, now := f.producer, time.Now()
	explicit := 0
	check := func() (foreign int) {
		shards, err := f.aws.Shards(stream)
		require.NoError(t, err)
		for _, s := range shards {
			of, ok := kpl.ParseRange(s.StartHash, s.EndHash)
			require.True(t, ok)
			records, err := f.aws.Records(stream, s.ID)
			require.NoError(t, err)
			for _, r := range records {
				users, err := kpl.Decode(r.Data)
				require.NoError(t, err)
				require.Len(t, users, p.sizes[r.SequenceNumber])
				require.True(t, of.Contains(users[0].HashKey()))
				for sub, u := range users {
					require.Len(t, u.Data, 20)
					if u.ExplicitHashKey != "" {
						explicit++
					}
					if !of.Contains(u.HashKey()) {
						foreign++
					}
					line := fmt.Sprintf("%s %s %d %s", s.ID, r.SequenceNumber, sub, u.Data[:13])
					id, ok := p.parse(line)
					require.True(t, ok)
					require.Equal(t, verify.ID{Shard: s.ID, Sequence: r.SequenceNumber, Sub: sub}, id)
				}
			}
		}
		require.Zero(t, p.mixedUp)
		return foreign
	}
	put := func(n int) {
		for range n {
			ids, keys, err := p.put(now, 50)
			require.NoError(t, err)
			require.Len(t, keys, len(ids))
		}
	}
	put(40)
	require.Zero(t, check())
	require.Positive(t, explicit)

	_, _, err := f.aws.Split(stream, f.ids[0])
	require.NoError(t, err)
	put(40)
	foreign := check()
	require.Positive(t, foreign, "it has not noticed the split")
	require.Equal(t, foreign, p.foreign)
	require.NotEmpty(t, p.astray)

	now = now.Add(relistEvery)
	put(40)
	require.Equal(t, foreign, check(), "it has")
}

func TestContentsOfAnotherUserRecordBreakThePromise(t *testing.T) {
	f, _ := aggregatesRig(t)
	for range 2 {
		require.NoError(t, f.putAggregate(time.Now()))
	}
	id := f.producer.written[1]
	for i, contents := range []string{"00000000/0003", "00000001/0004", "00000002/0003", "x"} {
		_, ok := f.producer.parse(fmt.Sprintf("%s %s 3 %s", id.Shard, id.Sequence, contents))
		require.True(t, ok)
		require.Equal(t, i+1, f.producer.mixedUp, contents)
	}
	var sh sheet
	f.accountUserRecords(&sh)
	require.Equal(t, "BROKEN", verdicts(&sh)["user records with the contents of another one"])
	for _, line := range []string{"", "a b c", "a b c d", "at noon"} {
		require.Error(t, f.take(report{from: &member{}, line: line}), line)
	}
}

func TestUserRecordThatACheckpointCoversBreaksThePromise(t *testing.T) {
	f, m := aggregatesRig(t)
	require.NoError(t, f.putAggregate(time.Now()))
	id := f.producer.written[0]
	f.now(t, m)
	f.let(t, m, 0, 0)
	require.Equal(t, 1, f.producer.unclaimed, "nobody has claimed the shard")

	f.own(t, id.Shard, "a", "", "")
	f.now(t, m)
	f.let(t, m, 0, 0)
	f.let(t, m, 0, 1)
	f.own(t, id.Shard, "a", "", "/"+id.Sequence+"/2")
	f.let(t, m, 0, 1)
	require.Zero(t, f.producer.covered, "it had claimed the shard before that")

	f.own(t, id.Shard, "b", "", "/"+id.Sequence+"/2")
	other := &member{client: "b", seen: map[string]time.Time{}}
	f.now(t, other)
	f.let(t, other, 0, 2)
	require.Zero(t, f.producer.covered)
	f.let(t, other, 0, 1)
	require.Equal(t, 1, f.producer.covered)
	f.own(t, id.Shard, "a", id.Sequence, "")
	f.let(t, m, 0, 2)
	require.Equal(t, 1, f.producer.covered, "it came before the claim and is only heard of now")
	f.now(t, m)
	f.let(t, m, 0, 2)
	require.Equal(t, 2, f.producer.covered)
	require.Equal(t, 1, f.producer.unclaimed)
	var sh sheet
	f.accountUserRecords(&sh)
	require.Equal(t, "BROKEN", verdicts(&sh)["user records that came although a checkpoint covered them"])
}

func TestOrderOfUserRecordsIsThatInWhichProcessesLetThemOut(t *testing.T) {
	f, m := aggregatesRig(t)
	f.producer.keys = f.producer.keys[:1]
	for range 3 {
		require.NoError(t, f.putAggregate(time.Now()))
	}
	other := &member{client: "b", seen: map[string]time.Time{}}
	f.now(t, m)
	f.now(t, other)
	f.let(t, other, 2, 0)
	f.let(t, m, 1, 0)
	inverted := func() int { return f.ledger.InversionsAlong(nil) }
	require.Zero(t, inverted(), "what is heard of first came last")
	f.now(t, m)
	f.let(t, m, 0, 0)
	require.Positive(t, inverted())
}

func TestCheckpointInsideOfAnAggregateIsFollowed(t *testing.T) {
	f, _ := aggregatesRig(t)
	shard := f.ids[0]
	f.own(t, shard, "a", "7", "")
	f.own(t, shard, "a", "7", "7/8/3")
	f.own(t, shard, "a", "7", "7/8/4")
	require.Equal(t, lease.Position{Sequence: "7", Within: lease.Within{Sequence: "8", Count: 4}}, f.journal.table()[shard].position())
	f.own(t, shard, "", "7", "7/8/4")
	f.own(t, shard, "b", "7", "7/8/4")
	writes, claims := f.journal.insides()
	require.Equal(t, []int{2, 1}, []int{writes, claims})
	require.Equal(t, []string{shard}, f.journal.owned("b"))
	require.Empty(t, f.journal.owned("a"))
	require.Empty(t, f.journal.wentBack())

	f.own(t, shard, "b", "7", "7/8/3")
	f.own(t, shard, "b", "8", "7/8/3")
	require.Equal(t, lease.After("8"), f.journal.table()[shard].position(), "it stands beside another sequence")
	back := f.journal.wentBack()
	require.Len(t, back, 1)
	require.Contains(t, back[0].String(), `went back from 7 and 4 of 8 to "7 and 3 of 8"`)
}

func TestShardAtTheEndIsNotLeftInsideOfAnAggregate(t *testing.T) {
	f, _ := aggregatesRig(t)
	const broken = "shards not checkpointed to the last record at the end"
	behind := func() string {
		var sh sheet
		f.account(&sh)
		return verdicts(&sh)[broken]
	}
	f.last[f.ids[0]] = "8"
	f.own(t, f.ids[0], "", "8", "")
	require.Equal(t, "kept", behind())
	f.own(t, f.ids[0], "", "8", "8/9/1")
	require.Equal(t, "BROKEN", behind())
}

func TestMembersAreKnownInTheOrderInWhichTheyJoin(t *testing.T) {
	f, _ := aggregatesRig(t)
	for _, client := range []string{"b", "a", "b"} {
		require.NoError(t, f.aws.PutItem(table, awsfake.Item{"StreamID": awsfake.String(members), "ShardID": awsfake.String(client)}))
	}
	require.Equal(t, []string{"b", "a"}, f.journal.joined())
}

func TestProcessIsInsideOfAnAggregateBetweenItsFirstAndItsLast(t *testing.T) {
	p := &producer{sizes: map[string]int{"7": 3, "8": 1}, reached: map[string]verify.ID{}}
	for id, want := range map[verify.ID]bool{{Sequence: "7"}: false, {Sequence: "7", Sub: 1}: true, {Sequence: "7", Sub: 2}: false, {Sequence: "8"}: false} {
		p.reached["s"] = id
		require.Equal(t, want, p.isInside("s"), id)
	}
	require.False(t, p.isInside("another"))
}

func TestAncestorsAreThoseOfBothParents(t *testing.T) {
	require.Equal(t, map[string][]string{"1": {"0"}, "2": {"0"}, "3": {"0", "1", "2"}}, ancestors([]awsfake.Shard{
		{ID: "0"}, {ID: "1", Parent: "0"}, {ID: "2", Parent: "0"}, {ID: "3", Parent: "1", Adjacent: "2"},
	}))
}

func TestAllThatProcessesHaveToldIsTakenAtAPulse(t *testing.T) {
	f, m := rig(t, nil)
	require.NoError(t, f.put(f.ids[0], "key"))
	for range 100 {
		f.reports <- report{from: m, line: f.line(0), at: time.Now()}
	}
	require.NoError(t, f.takeReady())
	require.Equal(t, 100, f.ledger.Report().Out)
	f.reports <- report{from: m, line: "panic: no"}
	require.ErrorContains(t, f.takeReady(), "names no record")
}

func TestWhatComesTwiceIsToldByWhatEndedTheFirstStay(t *testing.T) {
	f, _ := aggregatesRig(t)
	f.lease = time.Minute
	require.NoError(t, f.putAggregate(time.Now()))
	shard := f.producer.written[0].Shard
	pass := func() {
		require.NoError(t, f.aws.PutItem(table, awsfake.Item{
			"StreamID": awsfake.String(stream), "ShardID": awsfake.String(shard), "SequenceNumber": awsfake.String(""),
			"ClientID": awsfake.String("b"), "LeaseTerm": awsfake.String("b/" + lease.HandOverMark + "x"),
		}))
	}
	for want, end := range map[cause]func(m *member){
		killed: func(m *member) {
			m.sent, m.lost = syscall.SIGKILL, time.Now()
			f.own(t, shard, "b", "", "")
		},
		evicted: func(*member) { f.own(t, shard, "b", "", "") },
		released: func(m *member) {
			m.sent, m.lost = syscall.SIGTERM, time.Now()
			f.own(t, shard, "", "", "")
			f.own(t, shard, "b", "", "")
		},
		passed: func(*member) {
			f.journal.readAt[shard] = time.Now().Add(-20 * time.Second)
			pass()
		},
		hasty: func(*member) {
			f.journal.readAt[shard] = time.Now().Add(-time.Second)
			pass()
		},
		kept: nil,
	} {
		t.Run(string(want), func(t *testing.T) {
			f.producer.repeats = newRepeats()
			first := &member{kind: ours, client: "a", seen: map[string]time.Time{}}
			f.own(t, shard, "", "", "")
			f.own(t, shard, "a", "", "")
			f.now(t, first)
			f.let(t, first, 0, 0)
			again := first
			if end != nil {
				end(first)
				again = &member{kind: ours, client: "b", seen: map[string]time.Time{}}
			}
			f.now(t, again)
			f.let(t, again, 0, 0)
			require.Len(t, f.producer.repeats.found, 1)
			for r, of := range f.producer.repeats.found {
				why, _ := f.causeOf(r)
				require.Equal(t, want, why)
				require.Equal(t, 1, of.number)
			}
			var sh sheet
			f.tellRepeats(&sh)
			bad := want == hasty || want == released || want == kept
			require.Equal(t, bad, sh.err() != nil, sh.err())
			require.Equal(t, want != killed, len(sh.lines) == 1)
			f.aggregated = byKey
			defer func() { f.aggregated = byShard }()
			var ofKeys sheet
			f.tellRepeats(&ofKeys)
			require.Equal(t, want == hasty || want == kept, ofKeys.err() != nil)
		})
	}
}

func TestProcessThatIsHeardOfFirstNeedNotBeTheFirst(t *testing.T) {
	r, now := newRepeats(), time.Now()
	early, late := sight{stay{by: &member{client: "a"}}, now}, sight{stay{by: &member{client: "b"}}, now.Add(time.Second)}
	r.note(verify.ID{Sequence: "7"}, late)
	r.note(verify.ID{Sequence: "7"}, early)
	require.Contains(t, r.found, repeat{"", early.stay, late.stay})
}

package group

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// beside is a group of one member beside a built-in input that has all shards of a
// stream.
type beside struct {
	*testing.T
	group *Group
	now   time.Time
	items []lease.Item
}

const besidePeriod = 30 * time.Second

func newBeside(t *testing.T, shards int, number int64) *beside {
	t.Helper()
	b := &beside{T: t, now: time.Now(), group: New(Config{
		Streams:     []StreamConfig{{Name: "orders"}},
		LeasePeriod: besidePeriod, RebalancePeriod: besidePeriod, StartFromOldest: true, Table: "leases",
		Random: func() float64 { return 0 },
	})}
	list := StreamSnapshot{Stream: "orders", Listed: b.now}
	for i := range shards {
		id := lineage.ShardID(fmt.Sprint(i))
		list.Shards = append(list.Shards, lineage.Shard{ID: id})
		b.items = append(b.items, lease.Item{
			Key: lease.Key{Stream: "orders", Shard: id}, Exists: true, Sequence: "7",
			Owner: "built-in", Token: "0", Number: number,
		})
	}
	b.group.Begin([]StreamSnapshot{list}, b.now)
	b.group.Joined("ours", b.now)
	return b
}

// commit has the built-in input write all its items, which erases what is ours.
func (b *beside) commit() {
	for i := range b.items {
		b.items[i].Token += "0"
		b.items[i].Number = 0
	}
}

// look lets time pass, shows the member the table, and returns what it claims.
func (b *beside) look(after time.Duration) []Claim {
	b.Helper()
	var claims []Claim
	for next := b.now.Add(after); b.now.Before(next); {
		b.now = b.now.Add(min(next.Sub(b.now), time.Second))
		b.group.Apply(Snapshot{Members: &MemberSnapshot{
			Members: []lease.Member{{ID: "ours", Token: b.now.String(), Period: besidePeriod, Report: lease.Report{Streams: []string{"orders"}}}},
			Start:   b.now, End: b.now, SoundSince: time.Unix(1, 0),
		}}, b.now)
		b.group.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "orders", Items: b.items, Start: b.now, End: b.now}}, b.now)
		claims = append(claims, b.group.Next(b.now, true).Claim...)
	}
	return claims
}

func TestShardIsStolenOnceTheBuiltInInputWasSeenToCommit(t *testing.T) {
	b := newBeside(t, 3, 0)
	require.Empty(t, b.look(time.Minute), "it may wait after a steal of its own, and begins without another look")
	b.commit()
	claims := b.look(time.Second)
	require.Len(t, claims, 1)
	require.True(t, claims[0].Stolen)
}

func TestShardThatABuiltInInputHasJustStolenIsLeftToIt(t *testing.T) {
	b := newBeside(t, 3, 5)
	require.Empty(t, b.look(time.Minute))
	for i := range b.items { // lost to us and stolen again between two looks
		b.items[i].Token = "stolen again"
	}
	require.Empty(t, b.look(time.Minute), "whoever has lost it may trust its lease still")
	b.commit()
	require.Len(t, b.look(time.Second), 1)
}

// It waits for a lease period after a time that may be four ahead, and then commits.
func TestBuiltInInputIsGivenTheWaitAfterASteal(t *testing.T) {
	b := newBeside(t, 1, 5)
	require.Empty(t, b.look(6*besidePeriod))
	require.Len(t, b.look(2*time.Second), 1, "it is dead after that")

	b = newBeside(t, 1, 0)
	require.Empty(t, b.look(lease.Horizons*besidePeriod))
	require.Len(t, b.look(2*time.Second), 1, "and sooner where it waits for nobody of ours")
}

// Otherwise it would be read at once, beside the one that has not noticed.
func TestShardThatWasStolenWithoutAnAnswerIsWaitedForAsWell(t *testing.T) {
	b := newBeside(t, 3, 0)
	b.look(time.Second)
	b.commit()
	stolen := b.look(time.Second)[0]
	b.group.Exited(stolen.Key, Exit{Outcome: NotClaimed, Err: errors.New("no answer")}, b.now)
	for i := range b.items {
		if b.items[i].Key == stolen.Key {
			b.items[i].Owner, b.items[i].Term = "ours", "late"
		}
	}
	again := b.look(time.Minute)
	require.Len(t, again, 1)
	require.Equal(t, stolen.Key, again[0].Key)
	require.True(t, again[0].Stolen)
}

// It would begin again as soon as the shard is cut, to be stolen from again.
func TestGroupWithAnEndStealsNothingFromABuiltInInput(t *testing.T) {
	b := newBeside(t, 3, 0)
	b.group.conf.EndAt = b.now.Add(-time.Hour)
	for range 5 {
		require.Empty(t, b.look(time.Minute))
		b.commit()
	}
	require.False(t, b.group.Next(b.now, true).Finished)
}

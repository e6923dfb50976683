package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

// ends waits until a member's input has ended by itself, and stops it.
func (m *member) ends(within time.Duration) {
	m.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); pass(250 * time.Millisecond) {
		select {
		case <-m.stopped:
			_, _, err := m.tryRead(time.Second)
			require.ErrorIs(m, err, service.ErrEndOfInput)
			m.leave()
			return
		default:
		}
	}
	require.Fail(m, "the input has not ended")
}

// pastHours is a stream of three hours, with a record of each of sixteen keys every minute,
// in which shards are split and merged. In the end a live pipeline reads all of it.
type pastHours struct {
	*rig
	live    *fleet
	reader  *member
	putAt   []time.Time // of each record, by its number
	reshard map[int]func()
}

const hoursKeys = 16

func newPastHours(r *rig) *pastHours {
	r.table()
	r.stream("orders", 2)
	h := &pastHours{rig: r, live: &fleet{rig: r, conf: `{ streams: [ orders ] }`}}
	split := func(shard int) func() {
		return func() {
			_, _, err := r.aws.Split("orders", shardName(shard))
			require.NoError(r, err)
		}
	}
	h.reshard = map[int]func(){
		30: split(0), // 2 and 3
		80: split(1), // 4 and 5, in the hour that is read again
		100: func() {
			_, err := r.aws.Merge("orders", shardName(3), shardName(4)) // 6
			require.NoError(r, err)
		},
		150: split(6), // 7 and 8, after it
	}
	return h
}

// goLive starts the live pipeline, and lets it get to the tip of the stream.
func (h *pastHours) goLive() {
	h.reader = h.live.join()
	h.minutes(2)
}

// minutes lets so many minutes pass.
func (h *pastHours) minutes(n int) {
	for range n {
		minute := len(h.putAt) / hoursKeys
		if reshard := h.reshard[minute]; reshard != nil {
			reshard()
		}
		h.putKeyed(len(h.putAt), hoursKeys, hoursKeys)
		for range hoursKeys {
			h.putAt = append(h.putAt, time.Now())
		}
		pass(time.Minute)
	}
}

// between are the contents of the records that arrived from one moment to another.
func (h *pastHours) between(from, to time.Time) (contents []string) {
	for i, content := range h.puts(0, len(h.putAt), hoursKeys) {
		if at := h.putAt[i]; !at.Before(from) && !at.After(to) {
			contents = append(contents, content)
		}
	}
	return contents
}

// untouched watches the items of the live group: its shards stay with their reader, until
// that leaves.
func (h *pastHours) untouched() (leave func()) {
	remove := h.aws.OnWrite(func(w awsfake.Write) {
		if w.Key[attrStream].Text != "orders" || w.Before == nil {
			return
		}
		switch {
		case w.After == nil:
			h.Errorf("the item of %s is deleted", w.Key[attrShard].Text)
		case w.Before[attrTerm].Text != w.After[attrTerm].Text, w.Before[attrOwner].Text != w.After[attrOwner].Text:
			h.Errorf("shard %s changes hands", w.Key[attrShard].Text)
		case sequence.Compare(w.Before[attrSequence].Text, w.After[attrSequence].Text) > 0:
			h.Errorf("shard %s goes back", w.Key[attrShard].Text)
		}
	})
	return func() {
		remove()
		h.reader.leave()
	}
}

// conf is that of a replay from one moment to another.
func (*pastHours) conf(from, to time.Time) string {
	return `{ streams: [ orders ], group: replay, start_from_timestamp: "` + stamp(from) + `", end_at_timestamp: "` + stamp(to) + `" }`
}

func TestHourIsReadOnceMoreBesideTheLivePipeline(t *testing.T) {
	ways := map[string]string{"polling": "", "fan-out": "always", "auto": "auto"}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				h := newPastHours(r)
				begun := time.Now()
				h.minutes(178)
				h.goLive()
				from, to := begun.Add(time.Hour), begun.Add(2*time.Hour)
				want := h.between(from, to)
				require.Len(r, want, 61*hoursKeys)
				leave := h.untouched()

				conf := h.conf(from, to)
				if way != "" {
					conf = "{ enhanced_fan_out: { enabled: true, mode: " + way + " }," + conf[1:]
				}
				f := &fleet{rig: r, conf: conf}
				one := f.join()
				one.ends(time.Minute)
				require.ElementsMatch(r, want, f.contents())
				require.Zero(r, f.inversions())
				require.Len(r, r.journal.logged("All shards have been read up to "+stamp(to)), 1)

				// The descendants of what was cut are never begun.
				for shard, item := range r.itemsOf("/groups/replay/orders") {
					require.Empty(r, item[attrOwner].Text)
					require.NotContains(r, []string{shardName(7), shardName(8)}, shard)
				}
				h.minutes(5)
				leave()
				require.ElementsMatch(r, h.puts(0, 185*hoursKeys, hoursKeys), h.live.contents())
			})
		})
	}
}

func TestReplayThatIsCompleteEndsAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		h := newPastHours(r)
		begun := time.Now()
		h.minutes(160)
		conf := h.conf(begun.Add(time.Hour), begun.Add(2*time.Hour))
		f := &fleet{rig: r, conf: conf}
		f.join().ends(time.Minute)
		n := len(f.contents())
		require.Equal(r, 61*hoursKeys, n)

		reads := func() int { return r.aws.Calls("GetRecords") + r.aws.Calls("SubscribeToShard") }
		before := reads()
		start := time.Now()
		f.join().ends(10 * time.Second)
		require.Less(r, time.Since(start), 4*time.Second)
		require.Len(r, f.contents(), n)
		require.Equal(r, before, reads(), "nothing is read")

		// To a later end it goes on from where it was, and without one for ever.
		f.conf = h.conf(begun.Add(time.Hour), begun.Add(2*time.Hour+10*time.Minute))
		f.join().ends(time.Minute)
		require.ElementsMatch(r, h.between(begun.Add(time.Hour), begun.Add(2*time.Hour+10*time.Minute)), f.contents())
		require.Zero(r, f.inversions())
		f.conf = `{ streams: [ orders ], group: replay }`
		on := f.join()
		pass(time.Minute)
		on.leave()
		require.ElementsMatch(r, h.between(begun.Add(time.Hour), time.Now()), f.contents())
		require.Zero(r, f.inversions())
	})
}

func TestReplayGoesOnWhenOneOfItsMembersDies(t *testing.T) {
	for name, end := range map[string]func(*process){"killed": (*process).crash, "stopped": (*process).close} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				h := newPastHours(r)
				begun := time.Now()
				h.minutes(178)
				h.goLive()
				from, to := begun.Add(time.Hour), begun.Add(2*time.Hour)
				leave := h.untouched()
				conf := h.conf(from, to)
				one, two := r.open(conf), r.open(conf)
				var got []string
				read := func(c *process, n int) {
					for range n {
						b := c.next()
						got = append(got, b.contents()...)
						c.ack(b)
					}
				}
				read(one, 100)
				read(two, 100)
				pass(6 * time.Second)
				end(two)
				for {
					messages, ack, err := one.tryRead(2 * time.Minute)
					if errors.Is(err, service.ErrEndOfInput) {
						break
					}
					require.NoError(r, err)
					b := received{messages, ack}
					got = append(got, b.contents()...)
					one.ack(b)
				}
				require.ElementsMatch(r, h.between(from, to), got, "nothing was in flight")
				one.close()
				leave()
			})
		})
	}
}

// A member that has nothing to read waits for the others, so that a death is taken over.
func TestMembersOfAReplayEndTogether(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		pass(time.Minute)
		conf := `{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(time.Now().Add(-time.Second)) + `" }`
		one := r.open(conf)
		first := one.next()
		two := r.open(conf)
		two.nothing(5 * time.Minute)
		one.ack(first)
		pass(6 * time.Second)
		one.crash()
		require.Equal(r, numbers(1, 9), two.read(9)[shardName(0)])
		_, _, err := two.tryRead(time.Minute)
		require.ErrorIs(r, err, service.ErrEndOfInput)
	})
}

func TestReplayEndsWhenTheLastRecordIsAcknowledged(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 2)
		end := time.Now()
		pass(time.Minute)
		r.put("orders", 2, 1)
		conf := `{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(end) + `" }`
		in := r.open(conf)
		first, second := in.next(), in.next()
		in.nothing(time.Minute)
		in.ack(second)
		require.NoError(r, first.ack(r.Context(), errors.New("rejected")))
		again := in.next()
		require.Equal(r, []string{"0"}, again.contents())
		require.EqualValues(r, 2, in.gauge("kinesis_in_flight_messages", "orders", shardName(0)), "both wait for the first")
		in.ack(again)
		_, _, err := in.tryRead(time.Minute)
		require.ErrorIs(r, err, service.ErrEndOfInput)
		in.close()
		item := r.itemsOf("/groups/replay/orders")[shardName(0)]
		require.Equal(r, r.sequences("orders", shardName(0))[1], item[attrSequence].Text)
	})
}

// The end of a group that ends now is that of its first start, by the service's clock, for
// all members and for ever.
func TestNowIsTheFirstStartOfTheGroup(t *testing.T) {
	for name, offset := range map[string]time.Duration{"right clocks": 0, "clock of the machine behind": 2 * time.Hour, "clock of the machine ahead": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.aws.SetClockOffset(offset)
				r.table()
				r.stream("orders", 2)
				pass(700 * time.Millisecond) // the service tells whole seconds
				r.put("orders", 0, 20)
				const conf = `{ streams: [ orders ], group: replay, end_at_timestamp: now }`
				one := r.open(conf)
				begun := time.Now()
				got := together(one.read(5))
				pass(2 * time.Second)
				r.put("orders", 20, 20)
				pass(6 * time.Second)
				one.crash()

				pass(time.Minute)
				r.put("orders", 40, 20)
				f := &fleet{rig: r, conf: conf}
				two, three := f.join(), f.join()
				two.ends(2 * time.Minute)
				three.ends(2 * time.Minute)
				require.ElementsMatch(r, numbers(0, 20), slices.Concat(got, f.contents()))

				pass(time.Hour)
				f.join().ends(10 * time.Second)
				require.Len(r, f.contents(), 15)
				at, err := time.Parse(time.RFC3339Nano, r.itemsOf("/groups/replay//end")["now"][attrEnd].Text)
				require.NoError(r, err)
				require.WithinDuration(r, begun.Add(offset), at, 1100*time.Millisecond)

				// Another group of the same table has its own.
				f = &fleet{rig: r, conf: `{ streams: [ orders ], group: another, end_at_timestamp: now }`}
				f.join().ends(time.Minute)
				require.ElementsMatch(r, numbers(0, 60), f.contents())
			})
		})
	}
}

// The service tells whole seconds, in which several instances of a new replay may start.
func TestOneInstanceAloneIsTheFirstStartOfTheGroup(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		r.put("orders", 0, 40)
		f := &fleet{rig: r, conf: `{ streams: [ orders ], group: replay, end_at_timestamp: now }`}
		one := f.join()
		pass(950 * time.Millisecond)
		require.NotEmpty(r, r.itemsOf("/groups/replay/orders"))
		two := f.join()
		require.Equal(r, one.bound.end, two.bound.end)
		require.True(r, one.bound.first)
		require.False(r, two.bound.first)
		one.ends(time.Minute)
		two.ends(time.Minute)
		require.ElementsMatch(r, numbers(0, 40), f.contents())
		require.Empty(r, r.journal.logged("write a `group` of its own"))
	})
}

func TestReplayOfShardsWithoutRecordsEnds(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		r.putTo("orders", 1, 0, 5)
		pass(time.Hour)
		conf := `{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(time.Now().Add(-time.Minute)) + `" }`
		f := &fleet{rig: r, conf: conf}
		f.join().ends(time.Minute)
		require.ElementsMatch(r, numbers(0, 5), f.contents())
		require.Len(r, r.journal.logged("have been read up to the end"), 1, "%v", r.journal.logged(""))

		start := time.Now()
		f.join().ends(10 * time.Second)
		require.Less(r, time.Since(start), 4*time.Second)
	})
}

// An end that is yet to come is waited for, and what arrives up to it is read.
func TestEndThatIsYetToCome(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		end := time.Now().Add(time.Minute)
		f := &fleet{rig: r, conf: `{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(end) + `" }`}
		m := f.join()
		for i := range 12 {
			r.put("orders", i*10, 10)
			pass(10 * time.Second)
			if i == 3 {
				_, _, err := r.aws.Split("orders", shardName(0))
				require.NoError(r, err)
			}
		}
		m.ends(time.Second)
		require.ElementsMatch(r, numbers(0, 70), f.contents(), "the last of them arrived at the very end")
	})
}

// Pages without records say nothing while the service says that there is more, and those of
// a closed shard at its tip do not say that its children began later.
func TestEmptyPagesDoNotEndAReplay(t *testing.T) {
	byPolling(t)
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 5)
		pass(time.Minute)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		pass(time.Minute)
		r.put("orders", 5, 20)
		pass(time.Hour)
		r.aws.SetEmptyPages("orders", 30)
		f := &fleet{rig: r, conf: `{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(time.Now().Add(-time.Minute)) + `" }`}
		f.join().ends(5 * time.Minute)
		require.ElementsMatch(r, numbers(0, 25), f.contents())
	})
}

func TestExplicitShardsAreReadUpToTheEnd(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.putTo("orders", 0, 0, 5)
		r.putTo("orders", 1, 5, 5)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.putTo("orders", 2, 10, 5)
		end := time.Now()
		pass(time.Minute)
		r.putTo("orders", 1, 15, 5)
		f := &fleet{rig: r, conf: `{ streams: [ "orders:0", "orders:1" ], group: replay, end_at_timestamp: "` + stamp(end) + `" }`}
		f.join().ends(time.Minute)
		require.ElementsMatch(r, numbers(0, 10), f.contents(), "children of shards that are named are not followed")
		f.join().ends(10 * time.Second)
		require.Len(r, f.contents(), 10)
	})
}

// A replay of the live group itself finds its positions, and says so.
func TestReplayWithoutAGroupIsWarnedOf(t *testing.T) {
	for name, end := range map[string]string{"a moment": stamp(time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)), "now": "now"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				live := &fleet{rig: r, conf: `{ streams: [ orders ] }`}
				m := live.join()
				r.put("orders", 0, 20)
				pass(time.Hour)
				m.leave()
				f := &fleet{rig: r, conf: `{ streams: [ orders ], end_at_timestamp: "` + end + `" }`}
				f.join().ends(time.Minute)
				require.Empty(r, f.contents())
				require.Len(r, r.journal.logged("write a `group` of its own"), 1)
			})
		})
	}
}

// A shard that has nothing after the end is read to its tip before it is cut. Who stops
// there has not read beyond the end.
func TestReplayThatWasStoppedIsNotTakenForOthers(t *testing.T) {
	for name, offset := range map[string]time.Duration{"right clocks": 0, "clock of the machine behind": 2 * time.Hour, "clock of the machine ahead": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.aws.SetClockOffset(offset)
				r.table()
				r.stream("orders", 4)
				r.putTo("orders", 0, 0, 10)
				end := time.Now().Add(offset)
				pass(time.Hour)
				f := &fleet{rig: r, conf: `{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(end) + `" }`}
				one := f.join()
				pass(2 * time.Second)
				one.leave()
				for shard, item := range r.itemsOf("/groups/replay/orders") {
					upTo, err := strconv.ParseInt(item[attrUpTo].Text, 10, 64)
					require.NoError(r, err)
					require.False(r, time.Unix(upTo, 0).After(end), shard)
				}
				f.join().ends(time.Minute)
				require.ElementsMatch(r, numbers(0, 10), f.contents())
				require.Empty(r, r.journal.logged("write a `group` of its own"))
			})
		})
	}
}

// A replay in the group of a pipeline that goes on leaves it what it reads, and waits.
func TestReplayInTheLiveGroupTakesNoShardsFromIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		n := 0
		live := &fleet{rig: r, conf: `{ streams: [ orders ] }`}
		m := live.join()
		r.load(4, &n, 30*time.Second)
		owner := m.id()
		remove := r.aws.OnWrite(func(w awsfake.Write) {
			if w.Key[attrStream].Text == "orders" && w.After[attrOwner].Text != owner {
				r.Errorf("shard %s changes hands", w.Key[attrShard].Text)
			}
		})
		f := &fleet{rig: r, conf: `{ streams: [ orders ], end_at_timestamp: "` + stamp(time.Now().Add(-10*time.Second)) + `" }`}
		replay := f.join()
		r.load(4, &n, 2*time.Minute)
		require.Less(r, live.silence(), 2*time.Second)
		remove()
		m.leave()
		replay.ends(time.Minute)
		require.Empty(r, f.contents())
		require.ElementsMatch(r, numbers(0, n), live.contents())
	})
}

func TestSignalsOfAReplayAreTrue(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.putTo("orders", 0, 0, 10)
		pass(10 * time.Minute)
		r.putTo("orders", 1, 10, 10)
		end := time.Now()
		pass(time.Hour)
		r.putTo("orders", 0, 20, 10)
		r.putTo("orders", 1, 30, 10)
		in := r.open(`{ streams: [ orders ], group: replay, end_at_timestamp: "` + stamp(end) + `" }`)
		var held []received
		for range 20 {
			if b := in.next(); b.meta("kinesis_shard") == shardName(0) {
				in.ack(b)
			} else {
				held = append(held, b)
			}
		}
		pass(2 * time.Minute)
		in.nothing(time.Millisecond)
		require.EqualValues(r, unknown, in.gauge("kinesis_lag_milliseconds", "orders", shardName(0)), "it is done with")
		require.InDelta(r, time.Since(end).Milliseconds(), in.gauge("kinesis_lag_milliseconds", "orders", shardName(1)), 2000)
		require.InDelta(r, time.Since(end).Milliseconds(), in.gauge("kinesis_max_lag_milliseconds", "orders"), 2000)
		require.Zero(r, in.gauge("kinesis_unread_shards", "orders"))
		require.EqualValues(r, 1, in.gauge("kinesis_leases_held", "orders"))
		require.EqualValues(r, 1, in.gauge("kinesis_ready"))
		for _, b := range held {
			in.ack(b)
		}
		ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
		defer cancel()
		_, _, err := readAsHost(ctx, in.BatchInput)
		require.ErrorIs(r, err, service.ErrEndOfInput)
		pass(2 * time.Second)
		require.Zero(r, in.gauge("kinesis_unread_shards", "orders"))
		require.EqualValues(r, unknown, in.gauge("kinesis_max_lag_milliseconds", "orders"))
		require.EqualValues(r, 1, in.gauge("kinesis_ready"))
	})
}

// Whoever saw a shard before another has read it up to the end, without a single record,
// does not claim it any more.
func TestShardThatWasCutMeanwhileIsNotClaimed(t *testing.T) {
	bubbleOf(t, awsfake.Options{}, func(r *rig) {
		r.table()
		store, ctx, end := r.store(), r.Context(), time.Date(2024, 5, 1, 13, 0, 0, 0, time.UTC)
		key := lease.Key{Stream: "orders", Shard: shardName(0)}
		claim := func(seen lease.Item, owner string) (lease.Item, error) {
			return store.Claim(ctx, seen, lease.Grant{Link: lease.Link{Owner: owner, Term: "t", Token: "2024-05-01T13:00:00Z"}, ShardStart: "1"})
		}
		item, err := claim(lease.Item{Key: key}, "one")
		require.NoError(r, err)
		require.NoError(r, store.Release(ctx, key, item.Link(), lease.Move{}))
		seen := r.item("orders", shardName(0))

		item, err = claim(seen, "two")
		require.NoError(r, err)
		require.NoError(r, store.Cut(ctx, key, item.Link(), lease.Move{}, end))
		_, err = claim(seen, "one")
		require.ErrorIs(r, err, lease.ErrConflict)

		seen = r.item("orders", shardName(0))
		require.Equal(r, lease.Item{Key: key, Exists: true, Number: 2, CutAt: end, ShardStart: "1"}, seen)
		item, err = claim(seen, "three") // one that ends later
		require.NoError(r, err)
		require.True(r, item.CutAt.IsZero())
		require.NoError(r, store.Release(ctx, key, item.Link(), lease.Move{}))
		require.True(r, r.item("orders", shardName(0)).CutAt.IsZero())
		_, err = claim(seen, "four")
		require.ErrorIs(r, err, lease.ErrConflict)

		// What an operator's hand has made of the moment holds nobody.
		seen = r.item("orders", shardName(0))
		item, err = claim(seen, "five")
		require.NoError(r, err)
		require.NoError(r, store.Cut(ctx, key, item.Link(), lease.Move{To: lease.After("17")}, end))
		stored := r.itemsOf("orders")[shardName(0)]
		stored[attrCut] = awsfake.String("noon")
		require.NoError(r, r.aws.PutItem(tableName, stored))
		seen = r.item("orders", shardName(0))
		require.True(r, seen.CutAt.Before(end))
		_, err = claim(seen, "six")
		require.NoError(r, err)
	})
}

// A mark of a position that another client has moved since says nothing.
func TestMarkOfAPositionThatWasMovedIsNone(t *testing.T) {
	bubbleOf(t, awsfake.Options{}, func(r *rig) {
		r.table()
		item := awsfake.Item{
			attrStream: awsfake.String("orders"), attrShard: awsfake.String("0"), attrSequence: awsfake.String("17"),
			attrCut: awsfake.String("2024-05-01T13:00:00Z"), attrCutSequence: awsfake.String("17"),
		}
		require.NoError(r, r.aws.PutItem(tableName, item))
		require.False(r, r.item("orders", "0").CutAt.IsZero())
		moved, err := r.store().Mirror(r.Context(), r.item("orders", "0"), "18")
		require.NoError(r, err)
		require.True(r, moved.CutAt.IsZero())
		require.NotContains(r, r.itemsOf("orders")["0"], attrCut)

		item[attrSequence] = awsfake.String("19")
		require.NoError(r, r.aws.PutItem(tableName, item))
		require.True(r, r.item("orders", "0").CutAt.IsZero())
		item[attrSequence], item[attrOwner] = awsfake.String("17"), awsfake.String("built-in")
		require.NoError(r, r.aws.PutItem(tableName, item))
		require.True(r, r.item("orders", "0").CutAt.IsZero())
	})
}

// The end is stored once. What an operator made of it is named with what to do.
func TestEndOfAGroupThatIsMalformedIsNamed(t *testing.T) {
	for name, value := range map[string]awsfake.Value{"no time": awsfake.String("tomorrow"), "no text": awsfake.Number(5)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{attrStream: awsfake.String("/groups/replay//end"), attrShard: awsfake.String("now"), attrEnd: value}))
				in := r.input(`{ streams: [ orders ], group: replay, end_at_timestamp: now }`)
				err := in.connect(r.Context(), r.clients())
				require.ErrorContains(r, err, fmt.Sprintf("the item %q of %q in table %s has %s", "now", "/groups/replay//end", tableName, attrEnd))
				require.ErrorContains(r, err, "delete it")
			})
		})
	}
}

package awskinesis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// skipping are configurations in which records older than ten minutes are skipped.
var skipping = map[string]string{
	"shard":         `{ streams: [ orders ], max_record_age: 10m }`,
	"partition_key": `{ streams: [ orders ], max_record_age: 10m, ordering: partition_key }`,
	"explicit":      `{ streams: [ "orders:0" ], max_record_age: 10m }`,
	"deaggregated":  `{ streams: [ orders ], max_record_age: 10m, deaggregate: true }`,
	"lock-step":     `{ streams: [ orders ], max_record_age: 10m, checkpoint_limit: 1, batching: { count: 7, period: 1s } }`,
}

// everyMinute puts a record a minute, from the one of a number on, and passes half a minute.
func (r *rig) everyMinute(from, minutes int) {
	r.Helper()
	for i := range minutes {
		r.putTo("orders", 0, from+i, 1)
		pass(time.Minute)
	}
	pass(30 * time.Second)
}

// drained reads and acknowledges what comes.
func (c *process) drained() (contents []string) {
	c.Helper()
	for {
		b, ok := c.batch(10 * time.Second)
		if !ok {
			return contents
		}
		contents = append(contents, b.contents()...)
		c.ack(b)
	}
}

func TestAfterAnOutageFreshRecordsAloneCome(t *testing.T) {
	for name, conf := range skipping {
		for clock, ahead := range map[string]time.Duration{"right clock": 0, "clock ahead": 2 * time.Hour, "clock behind": -2 * time.Hour} {
			t.Run(name+", "+clock, func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.aws.SetClockOffset(ahead)
					r.table()
					r.neverBack()
					r.stream("orders", 1)
					r.putTo("orders", 0, 0, 5)
					in := r.open(conf)
					require.Equal(r, numbers(0, 5), in.drained())
					in.close()
					pass(time.Minute)

					begun := time.Now().Add(ahead)
					r.everyMinute(5, 60)
					in = r.open(conf)
					require.Equal(r, numbers(56, 9), in.drained(), "the oldest is nine and a half minutes old")
					all := r.sequences("orders", shardName(0))
					item := r.item("orders", shardName(0))
					require.Equal(r, lease.After(all[len(all)-1]), item.Position())
					pass(time.Minute)
					require.Less(r, in.gauge("kinesis_max_lag_milliseconds", "orders"), r.idleLag()+1500)

					lines := r.journal.logged("max_record_age")
					require.Len(r, lines, 1)
					require.Contains(r, lines[0], "Shard "+shardName(0)+" of stream orders has records older than 10m0s, which are skipped and lost to this pipeline, as `max_record_age` says: the first arrived at "+
						begun.UTC().Format(time.RFC3339)+", 1h0m3")
					lines = r.journal.logged("had old records skipped")
					require.Equal(r, []string{fmt.Sprintf("Shard %s of stream orders had old records skipped, in number 51, which arrived from %s to %s; none are any more",
						shardName(0), begun.UTC().Format(time.RFC3339), begun.Add(50*time.Minute).UTC().Format(time.RFC3339))}, lines)
					in.close()

					in = r.open(conf)
					in.nothing(time.Minute)
					r.putTo("orders", 0, 65, 3)
					require.Equal(r, numbers(65, 3), in.drained())
					require.Len(r, r.journal.logged("skip"), 2, "nothing else is skipped")
				})
			})
		}
	}
}

// What an earlier life has skipped is done with: records that may have any age again do not
// come back.
func TestSkippedRecordsAreNotReadAgainByWhoMayReadThem(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 1)
		r.everyMinute(0, 30)
		in := r.open(skipping["shard"])
		require.Equal(r, numbers(21, 9), in.drained())
		in.crash()
		in = r.open(`{ streams: [ orders ] }`)
		in.nothing(time.Minute)
	})
}

func TestCrashWhileRecordsAreSkippedLosesNoFreshOne(t *testing.T) {
	for name, conf := range skipping {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.neverBack()
				r.stream("orders", 1)
				in := r.open(conf)
				r.putTo("orders", 0, 0, 1)
				first := in.next() // which holds the checkpoint
				require.Equal(r, []string{"0"}, first.contents())
				r.everyMinute(1, 30)
				in.drained()
				pass(10 * time.Second)
				if name != "lock-step" && name != "partition_key" { // in which all wait for the first
					require.Len(r, r.journal.logged("which are skipped"), 1)
				}
				require.Empty(r, r.item("orders", shardName(0)).Sequence, "the first is not acknowledged")
				in.crash()

				in = r.open(conf)
				b := in.next()
				in.ack(b)
				got := append(b.contents(), in.drained()...)
				require.Equal(r, numbers(31-len(got), len(got)), got)
				require.Contains(r, []int{8, 9}, len(got), "until somebody else has the shard")
				in.close()
				all := r.sequences("orders", shardName(0))
				require.Equal(r, all[len(all)-1], r.item("orders", shardName(0)).Sequence)
			})
		})
	}
}

func TestRejectedRecordIsReplayedHoweverOldItIs(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 2)
		in := r.open(skipping["shard"])
		first, second := in.next(), in.next()
		pass(20 * time.Minute)
		require.NoError(r, first.ack(r.Context(), errors.New("the output is full")))
		in.ack(second)
		require.Equal(r, []string{"0"}, in.drained())
		require.Empty(r, r.journal.logged("skip"))
	})
}

// An output that is too slow gets what is just young enough. The log does not repeat itself.
func TestOutputThatIsTooSlowGetsFreshRecords(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, -1, 1)
		in := r.open(`{ streams: [ orders ], max_record_age: 1m, checkpoint_limit: 1 }`)
		begun := time.Now()
		put, got := 0, 0
		for time.Since(begun) < 30*time.Minute {
			b := in.next()
			got++
			at, err := time.Parse(time.RFC3339Nano, b.meta("kinesis_approximate_arrival_timestamp"))
			require.NoError(r, err)
			require.LessOrEqual(r, time.Since(at), time.Minute+2*time.Second, "one is made a message while the one before it is handled")
			for range 10 {
				r.putTo("orders", 0, put, 1)
				put++
				pass(100 * time.Millisecond)
			}
			in.ack(b)
		}
		require.Greater(r, put, 5*got)
		lines := r.journal.logged("skip")
		require.Len(r, lines, 1, strings.Join(lines, "\n"))
	})
}

// A group with an end, of whose records some are too old, or all: it ends, what was skipped
// is stored as done, and nothing of it is read by a later start.
func TestReplayWhoseRecordsAreTooOldEnds(t *testing.T) {
	for name, conf := range skipping {
		for after, want := range map[time.Duration][]string{0: numbers(21, 9), 2 * time.Hour: nil} {
			t.Run(fmt.Sprintf("%s, %s later", name, after), func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.table()
					r.stream("orders", 1)
					r.everyMinute(0, 30)
					end := time.Now()
					pass(after)
					if after > 0 {
						r.putTo("orders", 0, 30, 1)
					}
					f := &fleet{rig: r, conf: `{ group: replay, end_at_timestamp: "` + stamp(end) + `",` + conf[1:]}
					one := f.join()
					one.ends(time.Minute)
					require.Equal(r, want, f.contents())
					item := r.itemsOf("/groups/replay/orders")[shardName(0)]
					require.Equal(r, r.sequences("orders", shardName(0))[29], item[attrSequence].Text)
					require.EqualValues(r, unknown, one.gauge("kinesis_lag_milliseconds", "orders", shardName(0)))
					lines := r.journal.logged("had old records skipped")
					require.Len(r, lines, 1)
					require.Contains(r, lines[0], fmt.Sprintf("in number %d, ", 30-len(want)))

					f.join().ends(10 * time.Second)
					require.Equal(r, want, f.contents())
					require.Len(r, r.journal.logged("which are skipped"), 1)
				})
			})
		}
	}
}

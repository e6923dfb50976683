package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// The tests of this file are of losses and doublings that were found by trying to
// bring them about. Each is named after what is promised.

func TestParentIsReadToItsEndWhateverOneAnswerSays(t *testing.T) {
	for name, body := range map[string]string{"empty object": `{}`, "empty body": ``, "no iterator and no children": `{"Records":[],"MillisBehindLatest":0}`} {
		for kind, streams := range map[string]string{"balanced": "orders", "explicit": "orders:0"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.table()
					r.stream("orders", 1)
					r.putTo("orders", 0, 0, 100)
					low, high, err := r.aws.Split("orders", shardName(0))
					require.NoError(r, err)
					for i, child := range []string{low, high} {
						_, err := r.aws.PutTo("orders", child, "key", fmt.Append(nil, 100+i))
						require.NoError(r, err)
					}
					calls := 0
					r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Answer: []byte(body), When: func(*awsfake.Call) bool {
						calls++
						return calls == 2
					}})
					in := r.open(`streams: [ "` + streams + `" ]`)
					want := numbers(0, 100)
					if kind == "balanced" {
						want = numbers(0, 102)
					}
					require.ElementsMatch(r, want, together(in.read(len(want))))
					in.close()
					require.True(r, r.item("orders", shardName(0)).Finished)
				})
			})
		}
	}
}

// remake deletes a stream and makes another of its name, with one shard that has
// ten records and was split.
func (r *rig) remake(from int) {
	r.Helper()
	require.NoError(r, r.aws.DeleteStream("orders"))
	r.stream("orders", 1)
	r.putTo("orders", 0, from, 10)
	_, _, err := r.aws.Split("orders", shardName(0))
	require.NoError(r, err)
}

func TestClosedShardOfAStreamMadeAnewIsReadInSpiteOfAnOldMark(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		pass(time.Minute)
		in.close()
		require.True(r, r.item("orders", shardName(0)).Finished)
		r.remake(10)
		in = r.open(`streams: [ orders ]`)
		require.ElementsMatch(r, numbers(10, 10), together(in.read(10)))
		in.nothing(time.Minute)
	})
}

func TestClosedShardOfAStreamMadeAnewIsReadInSpiteOfAnOldItemOfItsChild(t *testing.T) {
	for name, records := range map[string]int{"with a sequence": 5, "without one": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				r.putTo("orders", 1, 100, records)
				in := r.open(`streams: [ orders ]`)
				in.read(records)
				pass(10 * time.Second)
				in.close()
				require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0))}))
				r.remake(0)
				in = r.open(`streams: [ orders ]`)
				require.ElementsMatch(r, numbers(0, 10), together(in.read(10)))
			})
		})
	}
}

func TestStreamThatIsMadeAnewWhileItIsReadIsReadWhole(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		pass(time.Minute)
		r.remake(10)
		r.putTo("orders", 1, 20, 5)
		require.ElementsMatch(r, numbers(10, 15), together(in.read(15)))
		in.nothing(time.Minute)
	})
}

func TestParentIsReadInSpiteOfAPinnedReaderOfItsChild(t *testing.T) {
	for name, reading := range map[string]bool{"that is reading": true, "that has gone": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				low, _, err := r.aws.Split("orders", shardName(0))
				require.NoError(r, err)
				r.putTo("orders", 1, 10, 5)
				pinned := r.open(`streams: [ "orders:` + low + `" ]`)
				require.ElementsMatch(r, numbers(10, 5), together(pinned.read(5)))
				pass(10 * time.Second)
				if !reading {
					pinned.close()
				}
				in := r.open(`streams: [ orders ]`)
				require.ElementsMatch(r, numbers(0, 10), together(in.read(10)))
				in.nothing(time.Minute)
			})
		})
	}
}

func TestShardHasOneReaderHoweverItIsWritten(t *testing.T) {
	spellings := []string{"orders", "orders:0", "orders:shardId-000000000000", "orders:000000000000"}
	for _, first := range spellings {
		for _, second := range spellings {
			if first == second {
				continue
			}
			t.Run(first+" and "+second, func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.table()
					r.neverBack()
					r.stream("orders", 1)
					r.putTo("orders", 0, 0, 10)
					one := r.open(`streams: [ "` + first + `" ]`)
					require.ElementsMatch(r, numbers(0, 10), together(one.read(10)))
					two := r.open(`streams: [ "` + second + `" ]`)
					pass(2 * time.Minute)
					two.nothing(time.Second)
					r.putTo("orders", 0, 10, 10)
					require.ElementsMatch(r, numbers(10, 10), together(one.read(10)))
					one.close()
					// Going over to another spelling goes on where the first one was.
					r.putTo("orders", 0, 20, 10)
					require.ElementsMatch(r, numbers(20, 10), together(two.read(10)))
					two.nothing(time.Minute)
				})
			})
		}
	}
}

// literally is the item that the built-in input keeps of a shard that is written
// as 0.
func (r *rig) literally(attributes awsfake.Item) awsfake.Item {
	r.Helper()
	item := awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String("0")}
	maps.Copy(item, attributes)
	require.NoError(r, r.aws.PutItem(tableName, item))
	return item
}

func TestLiteralItemOfTheBuiltInInputIsAdoptedAndKeptUp(t *testing.T) {
	for _, entry := range []string{"orders", "orders:0", "orders:shardId-000000000000"} {
		t.Run(entry, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				all := r.sequences("orders", shardName(0))
				r.literally(awsfake.Item{attrSequence: awsfake.String(all[3])})
				in := r.open(`streams: [ "` + entry + `" ]`)
				require.Equal(r, numbers(4, 6), together(in.read(6)))
				pass(6 * time.Second)
				if entry == "orders:0" {
					require.Equal(r, all[9], r.item("orders", "0").Sequence, "kept up while it is read")
				}
				r.putTo("orders", 0, 10, 1)
				in.read(1)
				in.close()
				last := r.sequences("orders", shardName(0))[10]
				require.Equal(r, last, r.item("orders", shardName(0)).Sequence)
				if entry == "orders:0" {
					literal, err := r.aws.Item(tableName, "orders", "0")
					require.NoError(r, err)
					require.Equal(r, awsfake.String(last), literal[attrSequence], "for the way back")
					require.NotContains(r, literal, attrOwner)
				}
			})
		})
	}
}

func TestLiteralItemIsMadeForTheWayBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`streams: [ "orders:0" ]`)
		in.read(10)
		in.close()
		require.Equal(r, r.sequences("orders", shardName(0))[9], r.item("orders", "0").Sequence)
	})
}

func TestOwnerOfALiteralItemIsRespectedWhileItLives(t *testing.T) {
	for _, entry := range []string{"orders", "orders:0", "orders:shardId-000000000000"} {
		t.Run(entry, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				all := r.sequences("orders", shardName(0))
				renew := func(n int) {
					r.literally(awsfake.Item{
						attrSequence: awsfake.String(all[n]), attrOwner: awsfake.String("built-in"),
						attrToken: awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano)),
					})
				}
				renew(0)
				in := r.open(`streams: [ "` + entry + `" ]`)
				for n := range 8 {
					in.nothing(15 * time.Second)
					renew(n)
				}
				// Now it dies.
				died := time.Now()
				require.Equal(r, numbers(8, 2), together(in.read(2)))
				require.Greater(r, time.Since(died), 85*time.Second)
				require.Less(r, time.Since(died), 110*time.Second)
				require.Empty(r, r.item("orders", "0").Owner, "it would fail, should it come back")
			})
		})
	}
}

func TestShardIsLeftToABuiltInInputThatClaimsItsLiteralItem(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		pass(10 * time.Second)
		r.literally(awsfake.Item{
			attrSequence: awsfake.String(r.sequences("orders", shardName(0))[9]), attrOwner: awsfake.String("built-in"),
			attrToken: awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano)),
		})
		pass(31 * time.Second)
		require.Empty(r, r.item("orders", shardName(0)).Owner)
		require.Len(r, r.journal.logged("is read by client built-in too"), 1)
		r.putTo("orders", 0, 10, 1)
		in.nothing(30 * time.Second)
	})
}

// A built-in input that begins between a look at its item and the claim of the shard's.
func TestShardIsNotReadWhoseLiteralItemWasClaimedMeanwhile(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		all := r.sequences("orders", shardName(0))
		literal := awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String("0"), attrSequence: awsfake.String(all[3])}
		require.NoError(r, r.aws.PutItem(tableName, literal))
		claimed := make(chan struct{}, 1)
		r.aws.OnWrite(func(w awsfake.Write) {
			if w.Key[attrShard].Text == shardName(0) && w.After[attrOwner].Text != "" {
				select {
				case claimed <- struct{}{}:
				default:
				}
			}
		})
		// Each claim of ours is answered late, and the built-in input claims before that.
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", DelayAnswer: time.Second, When: func(c *awsfake.Call) bool {
			return c.Key()[attrShard].Text == shardName(0)
		}})
		in := r.open(`streams: [ orders ]`)
		<-claimed
		for range 8 {
			literal[attrOwner] = awsfake.String("built-in")
			literal[attrToken] = awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano))
			require.NoError(r, r.aws.PutItem(tableName, literal))
			in.nothing(15 * time.Second)
		}
		require.Empty(r, r.item("orders", shardName(0)).Owner, "given up")
	})
}

func TestLastWriteIsTriedAgainWhateverTheLeasePeriod(t *testing.T) {
	for _, period := range []string{"30s", "10m", "1h"} {
		t.Run(period, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 4)
				r.put("orders", 0, 20)
				in := r.open(`{ streams: [ orders ], lease_period: ` + period + ` }`)
				in.read(20)
				pass(time.Second)
				remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError(awsfake.CodeThrottling, "slow down")})
				done := make(chan struct{})
				go func() {
					defer close(done)
					in.close()
				}()
				pass(time.Second)
				remove()
				<-done
				for _, item := range r.items() {
					require.NotContains(r, item, attrOwner)
				}
			})
		})
	}
}

func TestChildWaitsForAParentThatHasLeftTheList(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 1)
		// Its list is made anew each few seconds.
		in := r.open(`{ streams: [ orders ], rebalance_period: 1s }`)
		parent := in.next()
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.putTo("orders", 1, 1, 1)
		pass(5 * time.Second)
		require.NoError(r, r.aws.Trim("orders", time.Now().Add(-time.Second)))
		for i := range 2 {
			r.putTo("orders", 1+i, 2+i, 1)
		}
		in.nothing(2 * time.Minute)
		in.ack(parent)
		require.Len(r, together(in.read(2)), 2)
	})
}

func TestMalformedItemIsSaidAndClaimedAndItsShardRead(t *testing.T) {
	number, null := awsfake.Number(7), awsfake.Value{Type: "NULL"}
	sequence := func(r *rig) awsfake.Value { return awsfake.String(r.sequences("orders", shardName(0))[4]) }
	owned := func(r *rig) awsfake.Item {
		return awsfake.Item{
			attrSequence: sequence(r), attrOwner: awsfake.String("somebody"),
			attrToken: awsfake.String(time.Now().Format(time.RFC3339Nano)),
		}
	}
	with := func(attribute string, value awsfake.Value) func(*rig) awsfake.Item {
		return func(r *rig) awsfake.Item {
			item := owned(r)
			item[attribute] = value
			return item
		}
	}
	for name, test := range map[string]struct {
		item func(r *rig) awsfake.Item
		from int
		says string
	}{
		"owner is blank":         {with(attrOwner, awsfake.String("")), 5, "ClientID is blank"},
		"owner is NULL":          {with(attrOwner, null), 5, "ClientID is NULL"},
		"owner is a number":      {with(attrOwner, number), 5, "ClientID is the number 7"},
		"owner is a list":        {with(attrOwner, awsfake.Value{Type: "L"}), 5, "ClientID is a L"},
		"sequence is a number":   {with(attrSequence, number), 0, "SequenceNumber is the number 7"},
		"sequence is NULL":       {with(attrSequence, null), 0, "SequenceNumber is NULL"},
		"sequence is a word":     {with(attrSequence, awsfake.String("SHARD_END")), 0, `SequenceNumber is the text "SHARD_END"`},
		"time-out is a number":   {with(attrToken, number), 5, "LeaseTimeout is the number 7"},
		"time-out is NULL":       {with(attrToken, null), 5, "LeaseTimeout is NULL"},
		"all of them are":        {func(*rig) awsfake.Item { return awsfake.Item{attrSequence: number, attrOwner: null, attrToken: number} }, 0, "ClientID is NULL"},
		"sequence of a free one": {func(*rig) awsfake.Item { return awsfake.Item{attrSequence: number} }, 0, "SequenceNumber is the number 7"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				item := awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0))}
				maps.Copy(item, test.item(r))
				require.NoError(r, r.aws.PutItem(tableName, item))
				in := r.open(`streams: [ orders ]`)
				writes := r.aws.Calls("UpdateItem")
				pass(time.Minute)
				require.Less(r, r.aws.Calls("UpdateItem")-writes, 30)
				require.Equal(r, numbers(test.from, 10-test.from), together(in.read(10-test.from)))
				require.Len(r, r.journal.logged("that is malformed: "+test.says), 1)
				in.close()
				require.Equal(r, r.sequences("orders", shardName(0))[9], r.item("orders", shardName(0)).Sequence)
			})
		})
	}
}

func TestUnreadRecordsThatLeaveTheStreamAreSaidAndCounted(t *testing.T) {
	for name, began := range map[string]bool{"of a shard that was begun": true, "of a shard that was not": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				after, conf := "(its first record)", `{ streams: [ orders ], rebalance_period: 1s }`
				if began {
					in := r.open(conf)
					for range 5 {
						in.ack(in.next())
					}
					in.close()
					after = r.sequences("orders", shardName(0))[4]
				}
				_, _, err := r.aws.Split("orders", shardName(0))
				require.NoError(r, err)
				shards, err := r.aws.Shards("orders")
				require.NoError(r, err)
				// Its reads fail until its retention is over.
				reads := r.failReads(awsfake.Fault{Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "sorry")}, func(shard string) bool { return shard == shardName(0) })
				claims := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "sorry"), When: func(c *awsfake.Call) bool {
					return !began && c.Key()[attrShard].Text == shardName(0)
				}})
				in := r.open(conf)
				pass(30 * time.Second)
				require.NoError(r, r.aws.Trim("orders", time.Now()))
				reads()
				pass(2 * time.Minute)
				claims()
				lost := r.journal.logged("is lost")
				require.Len(r, lost, 1)
				require.Contains(r, lost[0], "what it held after sequence number "+after+", up to "+shards[0].EndSequence)
				require.False(r, r.item("orders", shardName(0)).Exists)
				r.putTo("orders", 1, 10, 1)
				require.Equal(r, numbers(10, 1), together(in.read(1)), "its children are read")
			})
		})
	}
}

// nullLister writes the end of an open shard as some services do.
type nullLister struct{ shardLister }

func (l nullLister) ListShards(ctx context.Context, in *kinesis.ListShardsInput, opts ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	out, err := l.shardLister.ListShards(ctx, in, opts...)
	if err == nil {
		for i := range out.Shards {
			if out.Shards[i].SequenceNumberRange.EndingSequenceNumber == nil {
				out.Shards[i].SequenceNumberRange.EndingSequenceNumber = new("null")
			}
		}
	}
	return out, err
}

func TestShardThatEndsWithNullIsOpen(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.input(`streams: [ orders ]`)
		c := r.clientsOver(in.line)
		c.lister = nullLister{c.lister}
		require.NoError(r, in.connect(r.Context(), c))
		pass(20 * time.Minute)
		require.Less(r, r.aws.Calls("ListShards"), 20)
	})
}

func TestRejectionThatLooksLikeAStopIsCountedWhenNothingStops(t *testing.T) {
	for _, rejection := range []error{context.Canceled, service.ErrEndOfInput} {
		t.Run(rejection.Error(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 3)
				in := r.open(`{ streams: [ orders ], auto_replay_nacks: false, checkpoint_limit: 1 }`)
				require.NoError(r, in.next().ack(r.Context(), fmt.Errorf("sending: %w", rejection)))
				require.Equal(r, numbers(1, 2), together(in.read(2)))
				pass(6 * time.Second)
				require.Len(r, r.journal.logged("are rejected by the output and skipped: 1 messages: sending: "), 1)
				require.Equal(r, r.sequences("orders", shardName(0))[2], r.item("orders", shardName(0)).Sequence)
			})
		})
	}
}

func TestReplayedBatchWithoutAProvedLeaseHoldsUpNobody(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.stream("returns", 1)
		in := r.open(`streams: [ orders, returns ]`)
		r.putTo("orders", 0, 0, 1)
		b := in.next()
		restore := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down"), When: func(c *awsfake.Call) bool {
			return c.Key()[attrStream].Text == "orders"
		}})
		pass(3 * time.Minute)
		require.NoError(r, b.ack(r.Context(), errors.New("the output refuses")))
		r.putTo("returns", 0, 10, 20)
		require.ElementsMatch(r, numbers(10, 20), together(in.read(20)))
		restore()
		require.Equal(r, numbers(0, 1), together(in.read(1)), "it comes back")
	})
}

func TestShardsWhoseLeasesCannotBeProvedStarveNobody(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 12)
		r.stream("returns", 1)
		large := strings.Repeat("x", 100_000)
		in := r.open(`{ streams: [ orders, returns ], max_buffered_bytes: 4000000 }`)
		pass(10 * time.Second)
		restore := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down"), When: func(c *awsfake.Call) bool {
			return c.Key()[attrStream].Text == "orders"
		}})
		for i := range 12 * 20 {
			_, err := r.aws.PutTo("orders", shardName(i%12), "key", []byte(large))
			require.NoError(r, err)
		}
		pass(3 * time.Minute)
		for range 20 {
			_, err := r.aws.PutTo("returns", shardName(0), "key", []byte(large))
			require.NoError(r, err)
		}
		for range 20 {
			b, ok := in.batch(10 * time.Second)
			require.True(r, ok, "a healthy stream is read")
			require.Equal(r, "returns", b.meta("kinesis_stream"))
			in.ack(b)
		}
		restore()
		for shard, contents := range in.read(12 * 20) {
			require.Len(r, contents, 20, shard)
		}
	})
}

func TestSpuriousRefusalOfAPositionRepeatsNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		in.close()
		r.aws.Inject(awsfake.Fault{Operation: "GetShardIterator", Times: 1, Refuse: awsfake.NewError(awsfake.CodeInvalidArgument, "a bad day")})
		in = r.open(`streams: [ orders ]`)
		in.nothing(20 * time.Second)
		r.putTo("orders", 0, 10, 5)
		require.Equal(r, numbers(10, 5), together(in.read(5)))
	})
}

func TestEmptyAnswerOfTheTableIsNoEmptyTable(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		conf := `{ streams: [ orders ], start_from_oldest: false }`
		r.putTo("orders", 0, 0, 10)
		// As the built-in input leaves it, without a time at which the stream began.
		require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
			attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0)),
			attrSequence: awsfake.String(r.sequences("orders", shardName(0))[9]),
		}))
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.putTo("orders", 1, 10, 10)
		pass(time.Minute)
		r.aws.Inject(awsfake.Fault{Operation: "Query", Times: 6, Answer: []byte(`{}`)})
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Times: 1, Answer: []byte(`{}`)})
		in := r.input(conf)
		for in.connect(r.Context(), r.clientsOver(in.line)) != nil {
			pass(time.Second)
		}
		require.Equal(r, numbers(10, 10), together(in.read(10)), "the stream has begun before")
		pass(10 * time.Second)
		require.Equal(r, r.sequences("orders", shardName(1))[9], r.item("orders", shardName(1)).Sequence)
	})
}

func TestLeasesAreWatchedWhileShardsCannotBeListed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		dying, in := r.open(`streams: [ orders ]`), r.open(`streams: [ orders ]`)
		pass(time.Minute)
		require.Equal(r, []int{2, 2}, r.shares())
		r.aws.Inject(awsfake.Fault{Operation: "ListShards", Refuse: awsfake.NewError("AccessDeniedException", "not allowed")})
		pass(10 * time.Minute) // the list is out of date by now
		dying.crash()
		for i := range 4 {
			r.putTo("orders", i, i, 1)
		}
		begin := time.Now()
		require.ElementsMatch(r, numbers(0, 4), together(in.read(4)))
		require.Less(r, time.Since(begin), 45*time.Second)
	})
}

func TestChoresDelayNoTakeOver(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"slow deletes":      {Operation: "DeleteItem", Delay: 100 * time.Millisecond},
		"hanging deletes":   {Operation: "DeleteItem", Delay: time.Hour},
		"throttled deletes": {Operation: "DeleteItem", Refuse: awsfake.NewError(awsfake.CodeThrottling, "slow down")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 4)
				for i := range 400 { // marks of shards that have left the stream
					r.mark(fmt.Sprintf("shardId-00000000000-%03d", i))
				}
				r.aws.Inject(fault)
				dying, in := r.open(`streams: [ orders ]`), r.open(`streams: [ orders ]`)
				pass(20 * time.Second)
				dying.crash()
				for i := range 4 {
					r.putTo("orders", i, i, 1)
				}
				begin := time.Now()
				require.ElementsMatch(r, numbers(0, 4), together(in.read(4)))
				require.Less(r, time.Since(begin), 32*time.Second)
				before := r.aws.Calls("DeleteItem")
				pass(10 * time.Minute)
				if name == "slow deletes" {
					require.Len(r, r.items(), 4)
					return
				}
				require.Less(r, r.aws.Calls("DeleteItem")-before, 40, "the pauses grow")
				require.NotEmpty(r, r.journal.logged("cannot be removed from the table"))
			})
		})
	}
}

// mark stores that a shard was finished.
func (r *rig) mark(shard string) {
	r.Helper()
	require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
		attrStream: awsfake.String("orders"), attrShard: awsfake.String(shard),
		attrSequence: awsfake.String("1"), attrFinished: awsfake.String("1"),
	}))
}

func TestStreamThatIsInDoubtHoldsUpNoHandOverOfAnother(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.stream("returns", 8)
		r.open(`streams: [ orders, returns ]`)
		pass(20 * time.Second)
		of := func(c *awsfake.Call) bool { return strings.Contains(fmt.Sprint(c.Params()), "orders") }
		r.aws.Inject(awsfake.Fault{Operation: "Query", When: of, Refuse: awsfake.NewError("AccessDeniedException", "not allowed")})
		r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Refuse: awsfake.NewError(awsfake.CodeResourceNotFound, "gone"), When: func(c *awsfake.Call) bool {
			return c.Stream() == "orders"
		}})
		pass(20 * time.Second)
		r.open(`streams: [ returns ]`)
		pass(20 * time.Second)
		owners := map[string]int{}
		for _, item := range r.items() {
			if item[attrStream].Text == "returns" {
				owners[item[attrOwner].Text]++
			}
		}
		require.Len(r, owners, 2)
	})
}

func TestStreamThatIsMissingAtTheStartKeepsNoOtherFromBeingRead(t *testing.T) {
	for _, start := range []string{"start_from_oldest: true", "start_from_oldest: false"} {
		t.Run(start, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				in := r.open(`{ streams: [ orders, returns ], ` + start + ` }`)
				require.Len(r, r.journal.logged("Stream returns: the shards cannot be listed"), 1)
				pass(time.Second)
				r.putTo("orders", 0, 0, 10)
				require.ElementsMatch(r, numbers(0, 10), together(in.read(10)))
				calls := r.aws.Calls("ListShards")
				pass(10 * time.Minute)
				require.Less(r, r.aws.Calls("ListShards")-calls, 20, "the pauses grow")

				r.stream("returns", 2)
				r.putTo("returns", 1, 10, 10)
				require.ElementsMatch(r, numbers(10, 10), together(in.read(10)))
				require.Len(r, r.journal.logged("Stream returns, which was missing, is read now"), 1)

				// Others share it from now on.
				r.open(`{ streams: [ orders, returns ] }`)
				pass(time.Minute)
				require.Equal(r, []int{2, 2}, r.shares())
			})
		})
	}
}

func TestInputDoesNotConnectWhenAllStreamsAreMissing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		in := r.input(`{ streams: [ orders, returns ] }`)
		err := in.connect(r.Context(), r.clientsOver(in.line))
		require.ErrorContains(r, err, "orders")
		require.ErrorContains(r, err, "returns")
	})
}

func TestReadingGoesOnWhereItWasWhenTheTableOrAnItemIsDeleted(t *testing.T) {
	for name, deleted := range map[string]func(r *rig){
		"an item": func(r *rig) {
			require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(1))}))
		},
		"all items": func(r *rig) {
			items, err := r.aws.Items(tableName)
			require.NoError(r, err)
			for _, item := range items {
				require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: item[attrStream], attrShard: item[attrShard]}))
			}
		},
		"the table": func(r *rig) {
			_, err := r.aws.DynamoDB().DeleteTable(r.Context(), &dynamodb.DeleteTableInput{TableName: new(tableName)})
			require.NoError(r, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.stream("orders", 4)
				r.put("orders", 0, 100)
				conf := `{ streams: [ orders ], dynamodb: { table: ` + tableName + `, create: true } }`
				f := &fleet{rig: r, conf: conf}
				one, two := f.join(), f.join()
				pass(time.Minute)
				require.Equal(r, []int{2, 2}, r.shares())
				require.ElementsMatch(r, numbers(0, 100), f.contents())
				deleted(r)
				pass(2 * time.Minute)
				r.put("orders", 100, 100)
				pass(time.Minute)
				require.ElementsMatch(r, numbers(0, 200), f.contents(), "none is missing, none comes twice")
				require.Equal(r, []int{2, 2}, r.shares())
				require.NotEmpty(r, r.journal.logged("deleted"))
				one.leave()
				two.leave()
				for i := range 4 {
					all := r.sequences("orders", shardName(i))
					require.Equal(r, all[len(all)-1], r.item("orders", shardName(i)).Sequence)
				}
			})
		})
	}
}

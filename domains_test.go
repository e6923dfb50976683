package awskinesis

// Failures of one part that must not spread to another.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// refusing is the line of one process, on which the items of orders cannot be listed.
type refusing struct {
	line    *line
	queries atomic.Bool
}

func (l *refusing) Do(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	target := req.Header.Get("X-Amz-Target")
	if l.queries.Load() && strings.HasSuffix(target, ".Query") && strings.Contains(string(body), `"orders"`) {
		return nil, errors.New("no way")
	}
	return l.line.Do(req)
}

func hasStream(c *awsfake.Call, prefix string) bool {
	return strings.Contains(fmt.Sprint(c.Params()), prefix)
}

// evictions notes who is evicted from now on.
func (r *rig) evictions() *[]string {
	var gone []string
	r.aws.OnWrite(func(w awsfake.Write) {
		if w.Key[attrStream].Text == members && w.After != nil && w.After[attrToken].Text == lease.Evicted {
			gone = append(gone, w.Key[attrShard].Text)
		}
	})
	return &gone
}

// After an outage of the whole table nobody is dead: whoever writes first again must not
// take those for dead that have not yet.
func TestOutageOfTheTableEvictsNobody(t *testing.T) {
	for _, outage := range []time.Duration{2 * time.Minute, 10 * time.Minute} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 12)
				f := &fleet{rig: r, conf: `{ streams: [ orders ] }`}
				var members []*member
				for range 6 {
					members = append(members, f.join())
				}
				pass(time.Minute)
				require.Equal(r, []int{2, 2, 2, 2, 2, 2}, r.shares())
				gone := r.evictions()
				remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down")})
				pass(outage)
				remove()
				pass(time.Minute)
				for _, m := range members {
					m.leave()
				}
				require.Empty(r, *gone, "evicted after an outage, of 6 that live")
			})
		})
	}
}

// A list of shards that hangs takes the whole time of a refresh, and the items are not
// read. A shard that can only be begun after a reading stands still for as long.
func TestItemsAreReadWhileListsHang(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"refused": {Operation: "ListShards", Refuse: awsfake.NewError("AccessDeniedException", "not allowed")},
		"hanging": {Operation: "ListShards", Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 4)
				dying, in := r.open(`streams: [ orders ]`), r.open(`streams: [ orders ]`)
				pass(time.Minute)
				require.Equal(r, []int{2, 2}, r.shares())
				for i := range 4 { // so that each shard has a position
					r.putTo("orders", i, i+10, 1)
				}
				dying.read(2)
				in.read(2)
				r.aws.Inject(fault)
				pass(6 * time.Minute) // the list is out of date by now
				dying.crash()
				// For half a minute the table takes no claim.
				remove := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down"), When: func(c *awsfake.Call) bool {
					return c.Key()[attrStream].Text == "orders"
				}})
				pass(90 * time.Second)
				remove()
				pass(time.Minute)
				for i := range 4 {
					r.putTo("orders", i, i, 1)
				}
				begin, came := time.Now(), map[string]time.Duration{}
				for len(came) < 4 && time.Since(begin) < 10*time.Minute {
					if b, ok := in.batch(time.Minute); ok {
						came[b.meta("kinesis_shard")] = time.Since(begin)
						in.ack(b)
					}
				}
				require.Len(r, came, 4, "shards that flow within ten minutes")
				for shard, took := range came {
					require.Less(r, took, time.Minute, "%s, after the table takes claims again", shard)
				}
			})
		})
	}
}

// A member that cannot read the items of a stream must not be handed shards of it: it
// never hears of them, and nobody else reads them.
func TestShardsStayWhereTheyAreReadWhileTheRequesterCannotReadTheTable(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 8)
		one := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		require.Equal(r, []int{8}, r.shares())
		two := r.input(`streams: [ orders ]`)
		// Its first reading goes well, and then the stream's partition refuses it.
		l := &refusing{line: two.line}
		require.NoError(r, two.connect(r.Context(), r.clientsOver(l)))
		pass(500 * time.Millisecond)
		r.until(10*time.Second, func() bool { return len(r.member(two).Requests) > 0 })
		l.queries.Store(true)
		pass(time.Minute)
		for i := range 8 {
			r.putTo("orders", i, i, 1)
		}
		begin, came := time.Now(), map[string]bool{}
		for len(came) < 8 && time.Since(begin) < 20*time.Minute {
			for _, in := range []*process{one, two} {
				if b, ok := in.batch(time.Second); ok {
					came[b.meta("kinesis_shard")] = true
					in.ack(b)
				}
			}
		}
		r.Logf("%v, one holds %d, two is owner of %d, requests %v", time.Since(begin), r.heldBy(one), r.heldBy(two), r.member(two).Requests)
		require.Len(r, came, 8, "shards that flow within twenty minutes")
	})
}

// Claims that hang in one stream must not keep the shards of another from being claimed.
func TestClaimsThatHangInOneStreamHoldUpNoOther(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 300)
		r.stream("returns", 2)
		for i := range 2 { // which another one reads at first
			require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
				attrStream: awsfake.String("returns"), attrShard: awsfake.String(shardName(i)),
				attrSequence: awsfake.String(""), attrOwner: awsfake.String("gone"), attrTerm: awsfake.String("gone/term"), attrToken: awsfake.String("t"),
			}))
		}
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Delay: time.Hour, When: func(c *awsfake.Call) bool {
			return c.Key()[attrStream].Text == "orders"
		}})
		in := r.open(`streams: [ returns, orders ]`)
		r.putTo("returns", 0, 0, 1)
		r.putTo("returns", 1, 1, 1)
		begin, came := time.Now(), 0
		for came < 2 && time.Since(begin) < 10*time.Minute {
			if b, ok := in.batch(time.Second); ok {
				came++
				in.ack(b)
			}
		}
		require.Less(r, time.Since(begin), 20*time.Second, "until the returns flow")
	})
}

// Nor must refreshes that hang in some streams keep those of others waiting.
func TestRefreshesThatHangInSomeStreamsHoldUpNoOther(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		conf := "streams:\n"
		for i := range 150 {
			r.stream(fmt.Sprint("stream-", i), 1)
			conf += fmt.Sprintf("  - stream-%d\n", i)
		}
		r.stream("returns", 4)
		in := r.open(conf + "  - returns\n")
		pass(time.Minute)
		r.aws.Inject(awsfake.Fault{Operation: "Query", Delay: time.Hour, When: func(c *awsfake.Call) bool {
			return hasStream(c, "stream-")
		}})
		pass(2 * time.Minute)
		// All returns go to another, which stops.
		three := r.open(`streams: [ returns ]`)
		pass(time.Minute)
		r.Logf("three has %d, in has %d, three requests %v, all %v", r.heldBy(three), r.heldBy(in), r.member(three).Requests, r.shares())
		pass(10 * time.Second)
		three.close()
		took := time.Duration(0)
		for start := time.Now(); took < 20*time.Minute && r.heldBy(in) < 154; took = time.Since(start) {
			pass(100 * time.Millisecond)
		}
		r.Logf("took %v", took)
		require.Less(r, took, 10*time.Second, "until the first process has the returns again")
	})
}

package retrieval_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// link is one that all connections share: their packets go one after the other.
type link struct {
	aws.HTTPClient
	rate   float64                         // bytes a second
	ends   func(took time.Duration) error  // may break a body off; nil never does
	stalls func(answer int64, at int) bool // whether one stands still at a byte; nil never does
	mu     sync.Mutex
	free   time.Time
	bytes  atomic.Int64 // of bodies
	calls  atomic.Int64
	broken atomic.Int64
}

func (l *link) Do(r *http.Request) (*http.Response, error) {
	l.calls.Add(1)
	resp, err := l.HTTPClient.Do(r)
	if err == nil {
		resp.Body = &linkBody{ReadCloser: resp.Body, ctx: r.Context(), link: l, begun: time.Now(), size: resp.ContentLength}
	}
	return resp, err
}

// turn is when a packet of so many bytes has passed.
func (l *link) turn(bytes int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(bytes) / l.rate * float64(time.Second)))
	return l.free
}

type linkBody struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // of the request, as a transport keeps it
	link  *link
	begun time.Time
	size  int64
	read  int
}

func (b *linkBody) Read(p []byte) (int, error) {
	if b.link.ends != nil {
		if err := b.link.ends(time.Since(b.begun)); err != nil {
			b.link.broken.Add(1)
			return 0, err
		}
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), 1460)])
	arrives := b.link.turn(n)
	if b.link.stalls != nil && b.link.stalls(b.size, b.read) {
		b.link.broken.Add(1)
		arrives = arrives.Add(time.Hour)
	}
	timer := time.NewTimer(time.Until(arrives))
	defer timer.Stop()
	select {
	case <-timer.C:
		b.read += n
		b.link.bytes.Add(int64(n))
		return n, err
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

// linked is a fake behind a link, and what pollers of all its shards have read of it.
type linked struct {
	*link
	read []atomic.Int64 // records of each
	told atomic.Int64   // failures
}

// overLink reads shards full of records of so many bytes over a link, for a time.
func overLink(t *testing.T, l *link, shards, records, bytes int, lasts time.Duration) *linked {
	t.Helper()
	s := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateStream(stream, shards))
	ids, err := s.Shards(stream)
	require.NoError(t, err)
	for _, id := range ids {
		for i := range records {
			_, err := s.PutTo(stream, id.ID, "key", fmt.Appendf(make([]byte, 0, bytes), "%*d", bytes, i))
			require.NoError(t, err)
		}
	}
	l.HTTPClient = s.HTTPClient()
	conf := s.AWSConfig()
	conf.HTTPClient = l
	api := wire.NewDirect(kinesis.NewFromConfig(conf, wire.Install, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }), 10*time.Second, nil)
	ctx, end := context.WithTimeout(t.Context(), lasts)
	defer end()
	n := &linked{link: l, read: make([]atomic.Int64, shards)}
	budget := retrieval.NewBudget(64 << 20)
	var reading sync.WaitGroup
	for i, id := range ids {
		p := retrieval.NewPoller(api, lists(s), retrieval.Shard{Stream: stream, ID: id.ID}, retrieval.Position{}, budget, 0, onTrouble(func(error) { n.told.Add(1) }))
		reading.Go(func() {
			for {
				page, err := p.Next(ctx)
				if err != nil {
					return
				}
				for _, r := range page.Records {
					var number int64
					if _, err := fmt.Sscan(string(r.Data), &number); err != nil || number != n.read[i].Load() {
						t.Errorf("record %q after %d", r.Data[bytes-8:], n.read[i].Load())
					}
					n.read[i].Add(1)
				}
				budget.Release(page.Cost)
			}
		})
	}
	reading.Wait()
	require.Zero(t, budget.Held())
	return n
}

// spread returns the least and the most records of a shard, and those of all.
func (n *linked) spread() (least, most, all int64) {
	least = 1 << 62
	for i := range n.read {
		read := n.read[i].Load()
		least, most, all = min(least, read), max(most, read), all+read
	}
	return least, most, all
}

func TestSlowLinkDeliversWhatItCanCarry(t *testing.T) {
	for _, c := range []struct {
		shards, bytes int
		rate          float64
		lasts         time.Duration
	}{
		{20, 1000, 50e3, time.Minute},
		{20, 20_000, 50e3, 2 * time.Minute},
		{2, 1_000_000, 50e3, 3 * time.Minute}, // one takes half a minute alone
		{200, 1000, 50e3, 3 * time.Minute},    // 250 bytes a second for each
	} {
		t.Run(fmt.Sprintf("%d shards, %d bytes", c.shards, c.bytes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &link{rate: c.rate}
				records := int(1.2*c.rate*c.lasts.Seconds())/c.bytes/c.shards + 2
				n := overLink(t, l, c.shards, records, c.bytes, c.lasts)
				least, most, all := n.spread()
				// What a record takes on its way: base64, and the other members.
				carried := float64(all) * (float64(c.bytes)*4/3 + 165) / (c.rate * c.lasts.Seconds())
				t.Logf("%.0f %% of the link in whole pages, of each shard %d to %d records, in %d calls", 100*carried, least, most, l.calls.Load())
				require.Greater(t, carried, 0.8)
				require.LessOrEqual(t, carried, 1.05, "the estimate is sound")
				require.Greater(t, least, most/3, "none starves")
				require.Zero(t, n.told.Load())
			})
		})
	}
}

// A proxy that ends each answer after a time, and a path that swallows what is long, both
// let small pages through.
func TestPagesShrinkUntilTheyArrive(t *testing.T) {
	for name, l := range map[string]*link{
		"answers are broken off after 3 s": {rate: 10e3, ends: func(took time.Duration) error {
			if took > 3*time.Second {
				return io.ErrUnexpectedEOF
			}
			return nil
		}},
		"large answers stand still": {rate: 1e6, stalls: func(answer int64, at int) bool { return answer > 20e3 && at > 10e3 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := overLink(t, l, 1, 4000, 1000, 10*time.Minute)
				_, _, all := n.spread()
				t.Logf("%d records in %d calls, %d broken", all, l.calls.Load(), l.broken.Load())
				require.Greater(t, all, int64(3000))
				require.Less(t, l.broken.Load(), l.calls.Load()/8)
			})
		})
	}
}

func TestAttemptThatTimesOutIsMadeAgainWithTheSameIterator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 200)
		api := wire.NewDirect(client(s), 10*time.Second, nil)
		var told []error
		p := retrieval.NewPoller(api, lists(s), retrieval.Shard{Stream: stream, ID: shard}, retrieval.Position{}, retrieval.NewBudget(1<<30), 0, onTrouble(func(err error) { told = append(told, err) }))
		require.Equal(t, records(0, 200), read(t, p, 200))
		for outs := 1; outs <= 2; outs++ {
			told = nil
			put(t, s, 200*outs, 200)
			s.Inject(awsfake.Fault{Operation: "GetRecords", Times: outs, DelayAnswer: time.Hour})
			iterators, begin := s.Calls("GetShardIterator"), time.Now()
			require.Equal(t, records(200*outs, 200), read(t, p, 200))
			require.Equal(t, iterators, s.Calls("GetShardIterator"))
			require.Less(t, time.Since(begin), time.Duration(outs)*10*time.Second+2*time.Second, "in pages a half and a quarter of the size")
			if outs == 1 {
				require.Empty(t, told, "the first is nobody's business yet")
			} else {
				require.Len(t, told, outs, "the first, with another a moment before it, is")
			}
		}
		require.ErrorContains(t, told[0], "no answer to GetRecords within 10s")
	})
}

func TestSecondTimeOutTellsSinceWhenNothingCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 1)
		var failed []retrieval.Call
		p := retrieval.NewPoller(wire.NewDirect(client(s), 10*time.Second, nil), lists(s), retrieval.Shard{Stream: stream, ID: shard},
			retrieval.Position{}, retrieval.NewBudget(1<<30), 0, retrieval.Hooks{OnCall: func(c retrieval.Call) {
				if c.Err != nil {
					failed = append(failed, c)
				}
			}})
		begin := time.Now()
		s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 3, DelayAnswer: time.Hour})
		require.Equal(t, records(0, 1), read(t, p, 1))
		require.Len(t, failed, 2)
		require.Equal(t, begin, failed[0].Start, "when the first one began")
		require.GreaterOrEqual(t, failed[1].Start.Sub(begin), 20*time.Second)
	})
}

// Attempts that time out while the network is away tell nothing of what it lets through
// afterwards.
func TestBacklogIsReadAtTheLimitAfterTheNetworkWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records = 2500
		s := start(t, awsfake.Options{EnforceLimits: true})
		api := wire.NewDirect(client(s), 10*time.Second, nil)
		p := retrieval.NewPoller(api, lists(s), retrieval.Shard{Stream: stream, ID: shard}, retrieval.Position{}, retrieval.NewBudget(1<<30), 0, retrieval.Hooks{})
		readAll := func() (took time.Duration) {
			for range records {
				_, err := s.PutTo(stream, shard, "key", make([]byte, 1000))
				require.NoError(t, err)
			}
			var first time.Time
			for n := 0; n < records; {
				page, err := p.Next(t.Context())
				require.NoError(t, err)
				if n += len(page.Records); first.IsZero() {
					first = time.Now()
				}
			}
			return time.Since(first)
		}
		readAll()
		time.AfterFunc(time.Minute, s.Inject(awsfake.Fault{Operation: "GetRecords", DelayAnswer: time.Hour}))
		require.Less(t, readAll(), 9*time.Second)
	})
}

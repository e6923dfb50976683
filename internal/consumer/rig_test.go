package consumer

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	_ "github.com/benthosdev/benthos/v4/public/components/pure"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lease/leasetest"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	leasePeriod  = 30 * time.Second
	commitPeriod = 5 * time.Second
	drainTimeout = 8 * time.Second
)

var key = lease.Key{Stream: "orders", Shard: "shardId-000000000000"}

// pass lets time pass in a bubble of synctest, where it costs none.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

// table is the table of leases with the one item of the shard.
type table struct {
	*leasetest.Table
	mu     sync.Mutex
	asked  int         // writes that were asked for, the refused ones too
	writes []time.Time // of the owner
	silent bool        // no request is answered, nor takes effect
	source *source
	early  int // last writes of the owner while its source was open
}

func newTable() *table {
	s := &table{Table: leasetest.New()}
	s.Network = s.carry
	return s
}

func (s *table) carry(ctx context.Context, method string, serve func() error) error {
	s.mu.Lock()
	silent := s.silent
	s.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	last := method == "Release" || method == "Finish" || method == "Cut" || method == "HandOver"
	if last && s.source != nil && s.source.opened.Load() != 0 {
		s.mu.Lock()
		s.early++
		s.mu.Unlock()
	}
	err := serve()
	if last || method == "Renew" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		if err == nil {
			s.writes = append(s.writes, time.Now())
		}
	}
	return err
}

func (s *table) now() lease.Item { return s.Now(key) }

// answer has requests answered, or not.
func (s *table) answer(answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = !answered
}

// put stores what another client or an operator may.
func (s *table) put(item lease.Item) { s.Change(key, func(now *lease.Item) { *now = item }) }

// source hands out what the test has put into it, and counts what was taken. What
// was taken it hands out again to a reader that begins before it.
type source struct {
	next   chan fetched
	taken  atomic.Int64
	opened atomic.Int64 // sources that were opened and are not closed

	mu           sync.Mutex
	past, repeat []fetched
}

// open begins to read after a sequence number.
func (s *source) open(after string) Source {
	s.opened.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repeat = nil
	for _, f := range s.past {
		var left []retrieval.Record
		for _, r := range f.page.Records {
			if r.SequenceNumber > after {
				left = append(left, r)
			}
		}
		f.page.Records = left
		if len(left) > 0 || f.page.End {
			s.repeat = append(s.repeat, f)
		}
	}
	return s
}

func (s *source) Close() { s.opened.Add(-1) }

func (s *source) Next(ctx context.Context) (retrieval.Page, error) {
	s.mu.Lock()
	if len(s.repeat) > 0 {
		f := s.repeat[0]
		s.repeat = s.repeat[1:]
		s.mu.Unlock()
		return f.page, f.err
	}
	s.mu.Unlock()
	select {
	case f := <-s.next:
		s.taken.Add(1)
		s.mu.Lock()
		kept := f
		kept.page.Records = slices.Clone(f.page.Records) // the consumer clears its own
		s.past = append(s.past, kept)
		s.mu.Unlock()
		return f.page, f.err
	case <-ctx.Done():
		return retrieval.Page{}, ctx.Err()
	}
}

// rig is a consumer with everything around it, in one bubble of synctest.
type rig struct {
	*testing.T
	table    *table
	source   *source
	lease    *lease.Lease
	consumer *Consumer
	give     chan string
	out      chan *Delivery
	stop     context.CancelFunc
	ended    chan Result
}

// bubble runs a test on a rig whose consumer is started. By default a batch is
// one message, and a hundred may be in flight.
func bubble(t *testing.T, configure func(*Config), test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		holder, stop := context.WithCancel(t.Context())
		r := &rig{
			T: t, table: newTable(), stop: stop,
			source: &source{next: make(chan fetched, 1000)},
			give:   make(chan string, 1),
			out:    make(chan *Delivery),
			ended:  make(chan Result, 1),
		}
		r.table.source = r.source
		opts := lease.Options{
			Client: "me", Period: leasePeriod, CommitPeriod: commitPeriod,
			Rand: func() float64 { return 0 },
		}
		session, end := join(t, r.table, opts)
		defer end()
		var err error
		r.lease, _, err = lease.Take(holder, holder, session, r.table, lease.Item{Key: key}, lease.Origin{}, opts)
		require.NoError(t, err)
		conf := Config{
			Budget: retrieval.NewBudget(1 << 30),
			Lease:  r.lease, Open: r.source.open, Batcher: batcher(t, service.BatchPolicy{Count: 1}),
			Limit: 100, HandOver: r.give, DrainTimeout: drainTimeout, Awaited: func(context.Context, string) bool { return true }, Out: r.out,
		}
		if configure != nil {
			configure(&conf)
		}
		c := New(conf)
		r.consumer = c
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.ended <- c.Run()
		}()
		defer func() {
			stop()
			<-done
			require.Zero(t, r.source.opened.Load(), "the source is closed, once")
			require.Zero(t, r.table.early, "the source is closed before the shard is passed on")
		}()
		test(r)
	})
}

// join begins a session, which is kept until it is ended.
func join(tb testing.TB, s *table, opts lease.Options) (session *lease.Session, end func()) {
	tb.Helper()
	session, err := lease.Join(tb.Context(), s, lease.Report{}, opts)
	require.NoError(tb, err)
	keeping, stop := context.WithCancel(tb.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = session.Keep(keeping) // its loss ends the leases
	}()
	return session, func() {
		stop()
		<-done
	}
}

func batcher(t *testing.T, policy service.BatchPolicy) *service.Batcher {
	t.Helper()
	b, err := policy.NewBatcher(service.MockResources())
	require.NoError(t, err)
	return b
}

// processors parses batch processors as a configuration has them.
func processors(t *testing.T, list string) []*service.OwnedProcessor {
	t.Helper()
	conf, err := service.NewConfigSpec().Field(service.NewProcessorListField("processors")).ParseYAML("processors: "+list, nil)
	require.NoError(t, err)
	procs, err := conf.FieldProcessorList("processors")
	require.NoError(t, err)
	return procs
}

// unreliable is a processor that fails as a whole when fails says so, and
// otherwise changes nothing. The host's own do that when a resource that they
// stand for is gone; it has no public way to make one, so that this one is put
// together from the types of its mocks.
func unreliable(fails func() error) *service.OwnedProcessor {
	mock := reflect.TypeFor[service.MockResourcesOptFn]().In(0).Elem()
	all, _ := mock.FieldByName("Processors")
	kind := all.Type.Elem() // func(batch) ([]batch, error)
	process := reflect.MakeFunc(kind, func(in []reflect.Value) []reflect.Value {
		if err := fails(); err != nil {
			return []reflect.Value{reflect.Zero(kind.Out(0)), reflect.ValueOf(&err).Elem()}
		}
		batches := reflect.Append(reflect.Zero(kind.Out(0)), in[0])
		return []reflect.Value{batches, reflect.Zero(kind.Out(1))}
	})
	owned := new(service.OwnedProcessor)
	inner := reflect.ValueOf(owned).Elem().Field(0)
	reflect.NewAt(inner.Type(), inner.Addr().UnsafePointer()).Elem().Set(process)
	return owned
}

// sequence is the sequence number of the nth record; the later of two is longer
// or greater.
func sequence(n int) string { return fmt.Sprint(100 + n) }

// page has n records, the first of them the from-th of the shard.
func page(from, n int) retrieval.Page {
	var p retrieval.Page
	for i := from; i < from+n; i++ {
		p.Records = append(p.Records, retrieval.Record{Data: []byte(fmt.Sprint(i)), SequenceNumber: sequence(i)})
	}
	return p
}

// lastPage is the end of a closed shard that was split.
func lastPage(from, n int) retrieval.Page {
	p := page(from, n)
	p.End, p.Children = true, children
	return p
}

var children = []retrieval.Child{
	{ID: "shardId-000000000001", Parents: []string{key.Shard}},
	{ID: "shardId-000000000002", Parents: []string{key.Shard}},
}

func (r *rig) put(pages ...retrieval.Page) {
	for _, p := range pages {
		r.source.next <- fetched{page: p}
	}
}

// next receives a delivery that is there at this moment, and its contents.
func (r *rig) next() (d *Delivery, contents []string) {
	r.Helper()
	synctest.Wait()
	select {
	case d = <-r.out:
	default:
		require.Fail(r, "no delivery")
	}
	for _, m := range d.Take() {
		content, err := m.AsBytes()
		require.NoError(r, err)
		contents = append(contents, string(content))
	}
	return d, contents
}

// nothing checks that no delivery is there at this moment.
func (r *rig) nothing() {
	r.Helper()
	synctest.Wait()
	select {
	case d := <-r.out:
		require.Fail(r, "nothing was to come", "%d messages", len(d.Take()))
	default:
	}
}

// result returns how the consumer ended, which it has at this moment.
func (r *rig) result() Result {
	r.Helper()
	synctest.Wait()
	select {
	case result := <-r.ended:
		return result
	default:
		require.Fail(r, "the consumer has not ended")
		return Result{}
	}
}

func (r *rig) running() {
	r.Helper()
	synctest.Wait()
	require.Empty(r, r.ended)
}

// free is the item of a shard that was released.
func free(sequence string) lease.Item {
	return lease.Item{Key: key, Exists: true, Sequence: sequence, Number: 1}
}

var errElsewhere = errors.New("the database is away")

// longestGap is the longest time between two writes of the owner.
func (s *table) longestGap(from time.Time) (gap time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range slices.Concat(s.writes, []time.Time{time.Now()}) {
		gap, from = max(gap, at.Sub(from)), at
	}
	return gap
}

package retrieval_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	stream = "orders"
	shard  = "shardId-000000000000"
)

// start returns a fake with a stream of one shard. It enforces the limits of the
// service, so that a poller that exceeds them is throttled.
func start(t *testing.T, opts awsfake.Options) *awsfake.Server {
	t.Helper()
	opts.EnforceLimits = true
	s := awsfake.New(opts)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateStream(stream, 1))
	return s
}

// client does not retry by itself, so that each call is the poller's.
func client(s *awsfake.Server) *kinesis.Client {
	return kinesis.NewFromConfig(s.AWSConfig(), func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
}

// pass lets time pass in a bubble of synctest, where it costs none.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time

func put(t *testing.T, s *awsfake.Server, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		_, err := s.PutTo(stream, shard, "key", fmt.Appendf(nil, "record %d", i))
		require.NoError(t, err)
	}
}

// read collects records until there are n.
func read(t *testing.T, p *retrieval.Poller, n int) []string {
	t.Helper()
	var got []string
	for len(got) < n {
		page, err := p.Next(t.Context())
		require.NoError(t, err)
		for _, r := range page.Records {
			got = append(got, string(r.Data))
		}
	}
	return got
}

func records(from, n int) []string {
	var all []string
	for i := from; i < from+n; i++ {
		all = append(all, fmt.Sprintf("record %d", i))
	}
	return all
}

// lists asks the fake for as long as its calls take.
func lists(s *awsfake.Server) *retrieval.Lists {
	return retrieval.NewLists(context.Background(), client(s))
}

func newPoller(s *awsfake.Server, from retrieval.Position, hooks retrieval.Hooks) *retrieval.Poller {
	return retrieval.NewPoller(client(s), lists(s), retrieval.Shard{Stream: stream, ID: shard}, from, retrieval.NewBudget(1<<30), 0, hooks)
}

// onTrouble is told of each call that fails for a reason to worry.
func onTrouble(told func(error)) retrieval.Hooks {
	return retrieval.Hooks{OnCall: func(c retrieval.Call) {
		if c.Err != nil && !c.Usual {
			told(c.Err)
		}
	}}
}

func TestRecordCarriesWhatTheServiceSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		_, first, err := s.Put(stream, "key", []byte("with key"))
		require.NoError(t, err)
		_, second, err := s.Put(stream, "", []byte("without"))
		require.NoError(t, err)
		now := time.Now().Local()
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
		var got []retrieval.Record
		for range 2 {
			page, err := p.Next(t.Context())
			require.NoError(t, err)
			require.Len(t, page.Records, 1, "the first tells how large they are")
			require.False(t, page.End)
			got = append(got, page.Records...)
		}
		require.Equal(t, []retrieval.Record{
			{Data: []byte("with key"), SequenceNumber: first, PartitionKey: "key", Arrived: got[0].Arrived},
			{Data: []byte("without"), SequenceNumber: second, Arrived: got[1].Arrived},
		}, got)
		require.WithinDuration(t, now, got[0].Arrived, time.Millisecond)
		page, err := p.Next(t.Context())
		require.NoError(t, err)
		require.Zero(t, page.Behind)
	})
}

func TestReadingBeginsAtThePosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 3)
		pass(time.Minute)
		at := time.Now()
		put(t, s, 3, 3)
		all, err := s.Records(stream, shard)
		require.NoError(t, err)

		for name, test := range map[string]struct {
			from retrieval.Position
			want []string
		}{
			"oldest":         {retrieval.Position{}, records(0, 6)},
			"after sequence": {retrieval.Position{After: all[1].SequenceNumber}, records(2, 4)},
			"at time":        {retrieval.Position{At: at}, records(3, 3)},
		} {
			require.Equal(t, test.want, read(t, newPoller(s, test.from, retrieval.Hooks{}), len(test.want)), name)
		}
	})
}

func TestStreamIsReadByItsARN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 2)
		p := retrieval.NewPoller(client(s), lists(s), retrieval.Shard{Stream: s.StreamARN(stream), ID: shard}, retrieval.Position{}, retrieval.NewBudget(1<<30), 0, retrieval.Hooks{})
		require.Equal(t, records(0, 2), read(t, p, 2))
	})
}

func TestExpiredIteratorResumesAfterTheLastRecordRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 5)
		troubles := 0
		p := newPoller(s, retrieval.Position{}, onTrouble(func(error) { troubles++ }))
		require.Equal(t, records(0, 5), read(t, p, 5))
		pass(6 * time.Minute) // the output was busy
		put(t, s, 5, 5)
		require.Equal(t, records(5, 5), read(t, p, 5))
		require.Equal(t, 2, s.Calls("GetShardIterator"))
		require.Zero(t, troubles, "expiry is nothing to worry anybody with")
	})
}

func TestExpiredIteratorBeforeTheFirstRecordKeepsThePosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 1)
		pass(time.Second)
		p := newPoller(s, retrieval.Position{At: time.Now()}, retrieval.Hooks{})
		page, err := p.Next(t.Context())
		require.NoError(t, err)
		require.Empty(t, page.Records)
		put(t, s, 1, 1)
		pass(6 * time.Minute)
		require.Equal(t, records(1, 1), read(t, p, 1))
	})
}

func TestEmptyPagesOfABacklogAreReadThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 3)
		s.SetEmptyPages(stream, 20)
		begin := time.Now()
		require.Equal(t, records(0, 3), read(t, newPoller(s, retrieval.Position{}, retrieval.Hooks{}), 3))
		require.Less(t, time.Since(begin), 9*time.Second, "two pages, 40 empty ones, five calls a second")
	})
}

func TestLastPageOfAClosedShardNamesItsChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 3)
		low, high, err := s.Split(stream, shard)
		require.NoError(t, err)
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
		var page retrieval.Page
		n := 0
		for !page.End {
			page, err = p.Next(t.Context())
			require.NoError(t, err)
			n += len(page.Records)
		}
		require.Equal(t, 3, n)
		require.Equal(t, []retrieval.Child{
			{ID: low, Parents: []string{shard}},
			{ID: high, Parents: []string{shard}},
		}, page.Children)
		_, err = p.Next(t.Context())
		require.ErrorIs(t, err, retrieval.ErrShardGone)
	})
}

func TestFaultsCostNoRecordAndBringNoneTwice(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"internal failure":          {Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "sorry")},
		"throttled":                 {Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "slow down")},
		"answer lost":               {LoseAnswer: true},
		"answer cut short":          {Truncate: true},
		"request lost":              {Lose: true},
		"iterator expired too soon": {Refuse: awsfake.NewError(awsfake.CodeExpiredIterator, "expired")},
	} {
		for _, operation := range []string{"GetRecords", "GetShardIterator"} {
			t.Run(name+" by "+operation, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := start(t, awsfake.Options{})
					put(t, s, 0, 3)
					noticed := 0
					p := newPoller(s, retrieval.Position{}, onTrouble(func(error) { noticed++ }))
					if operation == "GetRecords" {
						require.Equal(t, records(0, 3), read(t, p, 3))
						put(t, s, 3, 3)
					}
					fault.Operation, fault.Times = operation, 4
					s.Inject(fault)
					if operation == "GetRecords" {
						require.Equal(t, records(3, 3), read(t, p, 3))
					} else {
						require.Equal(t, records(0, 3), read(t, p, 3))
					}
					if name != "iterator expired too soon" {
						require.Equal(t, 4, noticed)
					}
				})
			})
		}
	}
}

func TestShardOfAStreamThatWasMadeAnewIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 1)
		old, err := s.Records(stream, shard)
		require.NoError(t, err)
		require.NoError(t, s.DeleteStream(stream))
		require.NoError(t, s.CreateStream(stream, 1))
		put(t, s, 1, 2)

		p := newPoller(s, retrieval.Position{After: old[0].SequenceNumber}, retrieval.Hooks{})
		_, err = p.Next(t.Context())
		require.ErrorIs(t, err, retrieval.ErrShardGone)
		require.ErrorContains(t, err, "is of an earlier stream of the same name")
	})
}

func TestAnswerThatThereIsMoreIsNoEnd(t *testing.T) {
	for _, body := range []string{`{"Records":[],"MillisBehindLatest":60000}`, `{"Records":[]}`} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, awsfake.Options{})
			closed(t, s)
			p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
			got := read(t, p, 1)
			s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 12, Answer: []byte(body)})
			rest, _ := readToEnd(t, p)
			require.Equal(t, records(0, 10), append(got, rest...))
		})
	}
}

func TestShardThatIsSaidToBeGoneIsReadOnWhileTheStreamListsIt(t *testing.T) {
	for _, operation := range []string{"GetRecords", "GetShardIterator"} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, awsfake.Options{})
			put(t, s, 0, 10)
			shards, err := s.Shards(stream)
			require.NoError(t, err)
			s.Inject(awsfake.Fault{Operation: operation, Times: 3, Refuse: awsfake.NewError(awsfake.CodeResourceNotFound, "a bad day")})
			p := retrieval.NewPoller(client(s), lists(s), retrieval.Shard{Stream: stream, ID: shard, FirstSequence: shards[0].StartSequence}, retrieval.Position{},
				retrieval.NewBudget(1<<30), 0, retrieval.Hooks{})
			require.Equal(t, records(0, 10), read(t, p, 10))
		})
	}
}

func TestShardThatIsNotThereIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
		_, err := p.Next(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.DeleteStream(stream))
		_, err = p.Next(t.Context())
		require.ErrorIs(t, err, retrieval.ErrShardGone)
	})
}

func TestNextEndsWithItsContextWhateverItWaitsFor(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"the pace":      {},
		"the service":   {Delay: time.Hour},
		"a retry":       {Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "sorry")},
		"the throttles": {Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "slow down")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, awsfake.Options{})
				p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
				_, err := p.Next(t.Context())
				require.NoError(t, err)
				fault.Operation = "GetRecords"
				s.Inject(fault)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				begin := time.Now()
				_, err = p.Next(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 100*time.Millisecond, time.Since(begin))
			})
		})
	}
}

func TestBacklogIsReadAtTheLimitWithoutBeingThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		data := make([]byte, 100_000)
		for range 600 { // 60 MB: half a minute at 2 MB a second
			_, err := s.PutTo(stream, shard, "key", data)
			require.NoError(t, err)
		}
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
		begin := time.Now()
		for n := 0; n < 600; {
			page, err := p.Next(t.Context())
			require.NoError(t, err)
			if n > 0 { // from then on the size of the records is known
				require.LessOrEqual(t, len(page.Records), 10, "about 1 MiB")
			}
			n += len(page.Records)
		}
		t.Logf("60 MB in %s", time.Since(begin))
		require.Less(t, time.Since(begin), 31*time.Second, "97 percent of the limit")
		require.Zero(t, s.Refused("GetRecords", "ProvisionedThroughputExceededException"))
	})
}

// closed makes a shard with ten records that has been split.
func closed(t *testing.T, s *awsfake.Server) (children []retrieval.Child) {
	t.Helper()
	put(t, s, 0, 10)
	low, high, err := s.Split(stream, shard)
	require.NoError(t, err)
	return []retrieval.Child{{ID: low, Parents: []string{shard}}, {ID: high, Parents: []string{shard}}}
}

// readToEnd reads until the shard ends.
func readToEnd(t *testing.T, p *retrieval.Poller) (got []string, children []retrieval.Child) {
	t.Helper()
	for {
		page, err := p.Next(t.Context())
		require.NoError(t, err)
		for _, r := range page.Records {
			got = append(got, string(r.Data))
		}
		if page.End {
			return got, page.Children
		}
	}
}

func TestAnswerWithoutContentsIsNoEndOfTheShard(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":          "",
		"an empty object":  `{}`,
		"no records":       `{"MillisBehindLatest":0}`,
		"no way on":        `{"Records":[],"MillisBehindLatest":0}`,
		"an iterator only": `{"NextShardIterator":"AAAA"}`,
		"a page of HTML":   `<html><body>Welcome</body></html>`,
		"half a page":      `{"Records":[{"Data":"`,
	} {
		for times := 1; times <= 2; times++ {
			t.Run(fmt.Sprint(name, ", ", times), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := start(t, awsfake.Options{})
					want := closed(t, s)
					p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
					got := read(t, p, 1)
					s.Inject(awsfake.Fault{Operation: "GetRecords", Times: times, Answer: []byte(body)})
					rest, children := readToEnd(t, p)
					require.Equal(t, records(0, 10), append(got, rest...))
					require.Equal(t, want, children)
				})
			})
		}
	}
}

// An answer that leads on and has no list of records does not lead past what it should
// have had.
func TestAnswerWithoutRecordsLeadsPastNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 10)
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
		got := read(t, p, 1)
		latest, err := client(s).GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: aws.String(stream), ShardId: aws.String(shard), ShardIteratorType: types.ShardIteratorTypeLatest,
		})
		require.NoError(t, err)
		s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Answer: fmt.Appendf(nil, `{"NextShardIterator":%q,"MillisBehindLatest":0}`, *latest.ShardIterator)})
		page, err := p.Next(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, page.Records)
		for _, r := range page.Records {
			got = append(got, string(r.Data))
		}
		require.Equal(t, records(0, 10), append(got, read(t, p, 10-len(got))...))
	})
}

func TestListWithoutShardsIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		for _, body := range []string{"", `{}`, `{"Shards":[]}`} {
			s.Inject(awsfake.Fault{Operation: "ListShards", Times: 1, Answer: []byte(body)})
			_, _, err := retrieval.ListShards(t.Context(), client(s), stream)
			require.ErrorContains(t, err, "listing the shards of stream orders", body)
		}
	})
}

func TestAnswerWithoutAnIteratorIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 5)
		var troubles []error
		p := newPoller(s, retrieval.Position{}, onTrouble(func(err error) { troubles = append(troubles, err) }))
		s.Inject(awsfake.Fault{Operation: "GetShardIterator", Times: 1, Answer: []byte(`{}`)})
		require.Equal(t, records(0, 5), read(t, p, 5))
		require.Len(t, troubles, 1)
		require.ErrorContains(t, troubles[0], "making an iterator of shard "+shard+": the answer has none")
	})
}

func TestAnswerWithoutContentsIsNoEndOfAnOpenShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 5)
		var troubles []error
		p := newPoller(s, retrieval.Position{}, onTrouble(func(err error) { troubles = append(troubles, err) }))
		got := read(t, p, 1)
		s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 10, Answer: []byte(`{"Records":[],"MillisBehindLatest":0}`)})
		require.Equal(t, records(0, 5), append(got, read(t, p, 4)...))
		require.Len(t, troubles, 2, "said once in four")
		require.ErrorContains(t, troubles[0], "says that it has ended, and lists it as open")
	})
}

func TestShardThatEndsWithoutChildrenEndsWhenTheStreamSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 10)
		p := newPoller(s, retrieval.Position{}, onTrouble(func(err error) { t.Error(err) }))
		require.Equal(t, records(0, 10), read(t, p, 10))
		low, high, err := s.Split(stream, shard)
		require.NoError(t, err)
		s.Inject(awsfake.Fault{Operation: "GetRecords", Answer: []byte(`{"Records":[],"MillisBehindLatest":0}`)})
		begin := time.Now()
		rest, children := readToEnd(t, p)
		require.Empty(t, rest)
		require.Equal(t, []retrieval.Child{{ID: low, Parents: []string{shard}}, {ID: high, Parents: []string{shard}}}, children, "which the list of shards has")
		require.Less(t, time.Since(begin), 15*time.Second)
	})
}

func TestRefusedPositionIsKeptUnlessTheShardCannotHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 10)
		all, err := s.Records(stream, shard)
		require.NoError(t, err)
		s.Inject(awsfake.Fault{Operation: "GetShardIterator", Times: 3, Refuse: awsfake.NewError(awsfake.CodeInvalidArgument, "not now")})
		p := newPoller(s, retrieval.Position{After: all[4].SequenceNumber}, retrieval.Hooks{})
		require.Equal(t, records(5, 5), read(t, p, 5))
	})
}

func TestRecordsThatWereReadBeforeAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 5)
		all, err := s.Records(stream, shard)
		require.NoError(t, err)
		// A service that takes "after" for "at", or for something earlier.
		inclusive := &inclusiveAPI{API: client(s), from: all[1].SequenceNumber}
		p := retrieval.NewPoller(inclusive, lists(s), retrieval.Shard{Stream: stream, ID: shard}, retrieval.Position{After: all[2].SequenceNumber},
			retrieval.NewBudget(1<<30), 0, retrieval.Hooks{})
		require.Equal(t, records(3, 2), read(t, p, 2))
	})
}

// inclusiveAPI gives iterators that begin too early.
type inclusiveAPI struct {
	retrieval.API
	from string
}

func (a *inclusiveAPI) GetShardIterator(ctx context.Context, in *kinesis.GetShardIteratorInput, opts ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error) {
	in.StartingSequenceNumber = &a.from
	return a.API.GetShardIterator(ctx, in, opts...)
}

func TestIteratorsThatExpireAtOnceAreMadeMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		s.Inject(awsfake.Fault{Operation: "GetRecords", Refuse: awsfake.NewError(awsfake.CodeExpiredIterator, "expired")})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := newPoller(s, retrieval.Position{}, retrieval.Hooks{}).Next(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, s.Calls("GetShardIterator"), 20)
	})
}

// countingLister answers slowly, and counts.
type countingLister struct {
	retrieval.Lister
	calls atomic.Int64
}

func (l *countingLister) ListShards(ctx context.Context, in *kinesis.ListShardsInput, opts ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	l.calls.Add(1)
	pass(100 * time.Millisecond)
	return l.Lister.ListShards(ctx, in, opts...)
}

func TestThoseWhoAskTogetherGetOneListThatIsYounger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		lister := &countingLister{Lister: client(s)}
		lists := retrieval.NewLists(t.Context(), lister)
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() {
				_, ok, err := lists.Find(t.Context(), stream, shard)
				require.NoError(t, err)
				require.True(t, ok)
			})
			pass(time.Millisecond)
		}
		asking.Wait()
		require.LessOrEqual(t, lister.calls.Load(), int64(2), "that of the first, and one for the rest")

		// One who asks while a call is under way gets the next one.
		asking.Go(func() { _, _, _ = lists.Find(t.Context(), stream, shard) })
		pass(50 * time.Millisecond)
		low, _, err := s.Split(stream, shard)
		require.NoError(t, err)
		_, ok, err := lists.Find(t.Context(), stream, low)
		require.NoError(t, err)
		require.True(t, ok)
		asking.Wait()
		_, ok, err = lists.Find(t.Context(), stream, "shardId-000000000099")
		require.NoError(t, err)
		require.False(t, ok)
		lists.Wait()
	})
}

func TestWhoeverGivesUpOnAListDoesNotTakeItFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		life, end := context.WithCancel(t.Context())
		lists := retrieval.NewLists(life, &countingLister{Lister: client(s)})
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		var asking sync.WaitGroup
		asking.Go(func() {
			_, _, err := lists.Find(impatient, stream, shard)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		_, ok, err := lists.Find(t.Context(), stream, shard)
		require.NoError(t, err)
		require.True(t, ok)
		asking.Wait()

		// The end of life ends all calls.
		s.Inject(awsfake.Fault{Operation: "ListShards", Delay: time.Hour})
		begin := time.Now()
		asking.Go(func() {
			_, _, err := lists.Find(t.Context(), stream, shard)
			require.Error(t, err)
		})
		pass(time.Second)
		end()
		asking.Wait()
		lists.Wait()
		require.Less(t, time.Since(begin), 2*time.Second)
	})
}

func TestShardOfAStreamMadeAnewIsNotReadInPlaceOfOneWithoutAPosition(t *testing.T) {
	for name, outage := range map[string]string{"reads fail": "GetRecords", "lists fail": "ListShards"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, awsfake.Options{})
				shards, err := s.Shards(stream)
				require.NoError(t, err)
				p := retrieval.NewPoller(client(s), lists(s), retrieval.Shard{Stream: stream, ID: shard, FirstSequence: shards[0].StartSequence},
					retrieval.Position{}, retrieval.NewBudget(1<<30), 0, retrieval.Hooks{})
				page, err := p.Next(t.Context())
				require.NoError(t, err)
				require.Empty(t, page.Records)
				remove := s.Inject(awsfake.Fault{Operation: outage, Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "sorry")})
				require.NoError(t, s.DeleteStream(stream))
				require.NoError(t, s.CreateStream(stream, 1))
				put(t, s, 0, 5)
				ended := make(chan error, 1)
				go func() {
					for {
						page, err := p.Next(t.Context())
						if err != nil || len(page.Records) > 0 {
							ended <- err
							return
						}
					}
				}()
				pass(time.Minute)
				remove()
				require.ErrorIs(t, <-ended, retrieval.ErrShardGone)
			})
		})
	}
}

func TestEachCallIsToldWithWhatCameOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		_, _, err := s.Put(stream, "key", []byte("1234567"))
		require.NoError(t, err)
		var told []retrieval.Call
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{OnCall: func(c retrieval.Call) { told = append(told, c) }})
		next := func() retrieval.Call {
			told = nil
			_, err := p.Next(t.Context())
			require.NoError(t, err)
			return told[0]
		}
		before := time.Now()
		c := next()
		require.NoError(t, c.Err)
		require.Equal(t, 1, c.Records)
		require.Equal(t, 10, c.Bytes, "data and key")
		require.WithinRange(t, c.Start, before, time.Now())
		require.Zero(t, next().Records)

		for code, want := range map[string]error{
			awsfake.CodeThroughputExceeded: retrieval.ErrThrottled,
			awsfake.CodeExpiredIterator:    retrieval.ErrIteratorExpired,
		} {
			s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Refuse: awsfake.NewError(code, "no")})
			c := next()
			require.ErrorIs(t, c.Err, want)
			require.Equal(t, code == awsfake.CodeExpiredIterator, c.Usual)
		}
		require.NoError(t, s.DeleteStream(stream))
		told = nil
		_, err = p.Next(t.Context())
		require.ErrorIs(t, err, retrieval.ErrShardGone)
		require.ErrorIs(t, told[0].Err, retrieval.ErrShardGone)
	})
}

func TestIteratorThatExpiresAgainAndAgainIsNoUsualThing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 1)
		s.Inject(awsfake.Fault{Operation: "GetRecords", Refuse: awsfake.NewError(awsfake.CodeExpiredIterator, "expired")})
		usual, unusual := 0, 0
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{OnCall: func(c retrieval.Call) {
			if c.Usual {
				usual++
			} else {
				unusual++
			}
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := p.Next(ctx)
		require.Error(t, err)
		require.Equal(t, 1, usual)
		require.LessOrEqual(t, unusual, 15, "the pauses grow to ten seconds")
		require.GreaterOrEqual(t, unusual, 5)
	})
}

func TestPageTellsUpToWhenAllIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 1)
		pass(10 * time.Second)
		put(t, s, 1, 1)
		pass(10 * time.Second)
		p := newPoller(s, retrieval.Position{}, retrieval.Hooks{})
		page, err := p.Next(t.Context()) // the first record, with ten seconds to the second
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
		require.Equal(t, time.Now().Add(-page.Behind), page.ReadTo)
		require.Positive(t, page.Behind)
		page, err = p.Next(t.Context())
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
		require.Equal(t, time.Now(), page.ReadTo)

		s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Answer: []byte(`{"Records":[],"NextShardIterator":"x"}`)})
		page, err = p.Next(t.Context())
		require.NoError(t, err)
		require.Zero(t, page.ReadTo, "the answer does not tell")
	})
}

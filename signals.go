package awskinesis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/metric"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

const (
	// tellEvery is the time between two looks at what has no event of its own: gauges that
	// grow by the clock, and log lines that were gathered. Lag is never further below the
	// truth than this and the precision of the service's clock.
	tellEvery = time.Second
	// behindFor is how long what the service says of the tip of a shard counts.
	behindFor = 10 * time.Second
	// describeEvery is the time between two readings of a stream's retention.
	describeEvery = 10 * time.Minute
)

// signals is what an input tells of itself: its metrics, its log lines, and whether it is
// ready. Everything in the input reports to it. It is safe for concurrent use.
type signals struct {
	conf    *config
	metrics *inputMetrics
	journal *journal.Journal
	// about says of each service how it is reached.
	about map[string]session.About

	tried atomic.Pointer[time.Time] // end of the last attempt to read; nil before the first

	mu      sync.Mutex
	session *lease.Session // nil while there is none
	budget  *retrieval.Budget
	waited  int64 // milliseconds for which somebody had waited for it at the last tick
	// subscriptions returns how many of a stream are open; nil before the input runs.
	subscriptions func(stream string) int
	// searching reports whether the consumer of a stream is being looked for; nil before the
	// input runs.
	searching func(stream string) bool
	streams   map[string]*streamSignals
	shards    map[lease.Key]*shardSignals
	// left are the moments before which all was acknowledged of shards that are read here
	// no more, until a plan tells whether anybody reads them.
	left map[lease.Key]time.Time
	skew time.Duration // by how much the service's clock is ahead
	// told is the service's clock as it was told last, and toldAt when; zero until then.
	told, toldAt time.Time
	// What fails of that which is not of one shard, by what the log calls it.
	failing map[attempted]*failing
	claims  map[lease.Key]*failing
	state   readiness
}

// streamSignals is what is told of one stream.
type streamSignals struct {
	held       int
	unread     int       // unknown where nobody can tell
	unreadFrom time.Time // before which all is acknowledged of what nobody reads; zero when all is read
	missing    failing
	retention  time.Duration // zero while it is not known
}

// attempted is something that is tried again and again: of a stream, or of all.
type attempted struct {
	kind   journal.Kind
	stream string
}

// failing is since when something has failed each time.
type failing struct{ since time.Time }

// saw takes in what came of an attempt that was begun at a time.
func (f *failing) saw(err error, begun time.Time) {
	switch {
	case err == nil:
		f.since = time.Time{}
	case f.since.IsZero():
		f.since = begun
	}
}

// lasts reports whether it has failed for so long.
func (f *failing) lasts(period time.Duration, now time.Time) bool {
	return f != nil && !f.since.IsZero() && now.Sub(f.since) >= period
}

func newSignals(conf *config, metrics *inputMetrics, emit func(journal.Line)) *signals {
	s := &signals{
		conf: conf, metrics: metrics, journal: journal.New(emit),
		streams: map[string]*streamSignals{}, shards: map[lease.Key]*shardSignals{}, left: map[lease.Key]time.Time{},
		failing: map[attempted]*failing{}, claims: map[lease.Key]*failing{},
		state: newReadiness(),
	}
	for _, stream := range conf.streams {
		s.streams[stream.id] = &streamSignals{unread: unknown}
		metrics.begin(metric.OfStream, stream.id)
		for _, reason := range retrieval.Endings {
			metrics.add("kinesis_resubscriptions", 0, stream.id, string(reason))
		}
	}
	metrics.begin(metric.OfInput)
	for _, reason := range wire.DetourReasons {
		metrics.add("kinesis_detours", 0, reason)
	}
	metrics.set("kinesis_buffered_bytes_limit", conf.maxBufferedBytes)
	return s
}

// run tells until ctx ends what has no event of its own.
func (s *signals) run(ctx context.Context, budget *retrieval.Budget, subscriptions func(stream string) int, searching func(stream string) bool) {
	s.mu.Lock()
	s.budget, s.subscriptions, s.searching = budget, subscriptions, searching
	s.mu.Unlock()
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		s.tick(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// end tells what is true of an input that has ended: it has nothing. In streams mode the
// process, and its series, outlive the pipelines that are deleted or changed.
func (s *signals) end() {
	now := time.Now()
	s.mu.Lock()
	s.session, s.subscriptions, s.searching = nil, nil, nil
	for name, stream := range s.streams {
		*stream = streamSignals{unread: unknown}
		s.tellStream(name, stream, sums{lag: unknown})
	}
	s.mu.Unlock()
	s.metrics.set("kinesis_buffered_bytes", 0)
	s.metrics.set("kinesis_session_trusted", 0)
	s.metrics.set("kinesis_ready", 0)
	s.journal.Flush(now)
}

// tick sets the gauges, tells what was gathered, and decides whether the input is ready.
func (s *signals) tick(now time.Time) {
	s.mu.Lock()
	of := map[string]*sums{}
	for name, stream := range s.streams {
		of[name] = &sums{lag: unknown}
		if !stream.unreadFrom.IsZero() {
			of[name].lag = age(stream.unreadFrom, now)
		}
	}
	for key, since := range s.left {
		if !since.IsZero() {
			of[key.Stream].lag = max(of[key.Stream].lag, age(since, now))
		}
	}
	var changes []func(time.Time)
	for key, shard := range s.shards {
		state, lag, change := shard.tell(now)
		changes = append(changes, change)
		stream := of[key.Stream]
		stream.lag = max(stream.lag, lag)
		if state.Suspended {
			stream.suspended++
		}
		if shard.readBy() == retrieval.WayFanOut {
			stream.fanOut++
		} else {
			stream.polling++
		}
	}
	trusted := s.session != nil && s.session.Trusted()
	for name, stream := range s.streams {
		if !trusted {
			stream.unread = unknown
		}
		s.tellStream(name, stream, *of[name])
	}
	held, waited := int64(0), int64(0)
	if s.budget != nil {
		held, waited = s.budget.Held(), s.budget.Waited().Milliseconds()
	}
	more := waited - s.waited
	s.waited = waited
	verdict := s.health(now).verdict()
	change := s.state.be(verdict, now)
	s.mu.Unlock()

	s.metrics.set("kinesis_buffered_bytes", held)
	s.metrics.add("kinesis_buffer_wait_milliseconds", more)
	s.metrics.set("kinesis_session_trusted", truth(trusted))
	s.metrics.set("kinesis_ready", truth(verdict == ""))
	for _, tell := range changes { // without the lock: a log may be slow
		tell(now)
	}
	if change != nil {
		s.journal.Say(*change)
	}
	s.journal.Tick(now)
}

// sums are what the shards of a stream come to together.
type sums struct {
	lag             int64 // the largest, in milliseconds; unknown where there is none
	suspended       int
	polling, fanOut int // by the way in which they are read
}

func (s *signals) tellStream(name string, stream *streamSignals, of sums) {
	left := int64(unknown)
	if stream.retention > 0 {
		left = max(0, stream.retention.Milliseconds()-max(0, of.lag))
	}
	open := 0
	if s.subscriptions != nil {
		open = s.subscriptions(name)
	}
	s.tellShares(name, stream)
	s.metrics.set("kinesis_suspended_shards", int64(of.suspended), name)
	s.metrics.set("kinesis_max_lag_milliseconds", of.lag, name)
	s.metrics.set("kinesis_subscriptions", int64(open), name)
	s.metrics.set("kinesis_read_shards", int64(of.polling), name, string(retrieval.WayPolling))
	s.metrics.set("kinesis_read_shards", int64(of.fanOut), name, string(retrieval.WayFanOut))
	s.metrics.set("kinesis_retention_left_milliseconds", left, name)
}

func (s *signals) tellShares(name string, stream *streamSignals) {
	s.metrics.set("kinesis_leases_held", int64(stream.held), name)
	s.metrics.set("kinesis_client_shards", int64(stream.held), name)
	s.metrics.set("kinesis_unread_shards", int64(stream.unread), name)
}

// age is the time since a moment in milliseconds, by the clock that says more: the
// monotonic one stands still while a machine is suspended.
func age(since, now time.Time) int64 {
	return max(0, now.Sub(since).Milliseconds(), now.Round(0).Sub(since.Round(0)).Milliseconds())
}

func truth(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// say logs something that happens once.
func (s *signals) say(level journal.Level, format string, args ...any) {
	s.journal.Say(journal.Line{Level: level, Text: fmt.Sprintf(format, args...)})
}

// explain adds to an error what to do about it. service is that of the call, where the
// error does not tell.
func (s *signals) explain(err error, service, stream string) error {
	service = cmp.Or(session.Service(err), service)
	about := s.about[service]
	about.Service, about.Stream, about.Table = service, stream, s.conf.table.name
	return session.Explain(err, about)
}

// outcome takes in what came of something that is not of one shard, and was begun at a
// time. stream is empty where all are meant.
func (s *signals) outcome(kind journal.Kind, stream string, err error, begun time.Time) {
	if errors.Is(err, context.Canceled) {
		return
	}
	s.mu.Lock()
	what := attempted{kind, stream}
	f := s.failing[what]
	if f == nil {
		f = &failing{}
		s.failing[what] = f
	}
	f.saw(err, begun)
	s.mu.Unlock()
	if kind == journal.TableReads {
		stream = "" // the log has one line for the table, whatever is read of it
	}
	if err == nil {
		s.journal.Works(kind, stream, "", time.Now())
		return
	}
	service := serviceTable
	if kind == journal.Lists || kind == journal.Retention {
		service = serviceKinesis
	}
	s.journal.Fail(kind, stream, "", s.explain(err, service, stream), time.Now())
}

const (
	serviceKinesis = "kinesis"
	serviceTable   = "dynamodb"
)

// claimFailed takes in that a shard could not be claimed, and claimSettled that it was, or
// that somebody else has it.
func (s *signals) claimFailed(key lease.Key, err error, begun time.Time) {
	s.mu.Lock()
	f := s.claims[key]
	if f == nil {
		f = &failing{}
		s.claims[key] = f
	}
	f.saw(err, begun)
	s.mu.Unlock()
	s.journal.Fail(journal.Claims, key.Stream, key.Shard, s.explain(err, serviceTable, key.Stream), time.Now())
}

func (s *signals) claimSettled(key lease.Key) {
	s.mu.Lock()
	_, failed := s.claims[key]
	delete(s.claims, key)
	s.mu.Unlock()
	if failed {
		s.journal.Works(journal.Claims, key.Stream, key.Shard, time.Now())
	}
}

// unsettled are the shards that could not be claimed.
func (s *signals) unsettled() []lease.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]lease.Key, 0, len(s.claims))
	for key := range s.claims {
		keys = append(keys, key)
	}
	return keys
}

// joined takes in the session that the leases stand on, nil when it is lost.
func (s *signals) joined(session *lease.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = session
}

// streamIs takes in what the group knows of a stream, and whether it has just made a plan.
func (s *signals) streamIs(name string, held, unread int, unreadFrom time.Time, planned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if planned {
		maps.DeleteFunc(s.left, func(key lease.Key, _ time.Time) bool { return key.Stream == name })
	}
	stream := s.streams[name]
	stream.held, stream.unread, stream.unreadFrom = held, unread, unreadFrom
	s.tellShares(name, stream)
}

// missing takes in whether a stream could be found.
func (s *signals) missing(name string, err error, begun time.Time) {
	s.mu.Lock()
	s.streams[name].missing.saw(err, begun)
	s.mu.Unlock()
}

// detour takes in that reads begin to go through the SDK for a while.
func (s *signals) detour(reason string) { s.metrics.add("kinesis_detours", 1, reason) }

// clockIs takes in the service's clock, of an answer to a call that was made between two
// moments. An answer has whole seconds and was given at any time between them, so that a
// small difference says nothing.
func (s *signals) clockIs(service, begun, ended time.Time) {
	if service.IsZero() {
		return
	}
	took := max(ended.Sub(begun), ended.Round(0).Sub(begun.Round(0))) // a machine may have slept
	skew := service.Add(time.Second / 2).Sub(begun.Add(took / 2).Round(0))
	if skew.Abs() < 1500*time.Millisecond+took/2 {
		if took > 2*time.Second {
			return // it may be anything in between
		}
		skew = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = skew
	s.toldAt = time.Now()
	s.told = s.toldAt.Round(0).Add(skew)
}

func (s *signals) clockSkew() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.skew
}

// serviceTime returns the service's clock, or a moment before it. Since the service told its
// own, ours may have been set, which must not make a record older than it is: so the time
// counts that has passed since then, as a clock measures it that nobody sets. That one may
// have stood still while the machine slept. It is the earlier moment that is returned.
func (s *signals) serviceTime() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	ours := now.Round(0).Add(s.skew)
	if s.told.IsZero() {
		return ours
	}
	if passed := s.told.Add(now.Sub(s.toldAt)); passed.Before(ours) {
		return passed
	}
	return ours
}

// withinRetention returns a moment from which a shard is to be read, or the one before which
// nothing is left in the stream, if that is later.
func (s *signals) withinRetention(stream string, at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	const usual = 24 * time.Hour // that of a stream for which nobody has asked for more
	if oldest := time.Now().Add(-cmp.Or(s.streams[stream].retention, usual)); at.Before(oldest) {
		return oldest
	}
	return at
}

// describe reads the retention of the streams now and then, until ctx ends.
func (s *signals) describe(ctx context.Context, lister shardLister) {
	ticker := time.NewTicker(describeEvery)
	defer ticker.Stop()
	for {
		for _, stream := range s.conf.streams {
			s.describeStream(ctx, lister, stream.id)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *signals) describeStream(ctx context.Context, lister shardLister, stream string) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	begun := time.Now()
	in := new(kinesis.DescribeStreamSummaryInput)
	in.StreamName, in.StreamARN = retrieval.StreamParameters(stream)
	out, err := lister.DescribeStreamSummary(limited, in)
	if err == nil && out.StreamDescriptionSummary == nil {
		err = errors.New("the answer describes nothing")
	}
	if ctx.Err() != nil {
		return
	}
	s.outcome(journal.Retention, stream, err, begun)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[stream].retention = time.Duration(aws.ToInt32(out.StreamDescriptionSummary.RetentionPeriodHours)) * time.Hour
}

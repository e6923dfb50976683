package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/metric"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
	"github.com/benthos-plugins/aws-kinesis/internal/throttle"
)

// shardSignals is what is told of one shard, from its claim to the end of the lease. The
// balancer makes one for each claim, and everything that works on the shard reports to
// it. It is safe for concurrent use. Its lock is taken after that of signals.
type shardSignals struct {
	signals *signals
	key     lease.Key

	mu      sync.Mutex
	begun   time.Time          // the claim
	reader  *consumer.Consumer // nil until it reads
	read    time.Time          // start of the last read that succeeded, or the claim
	written time.Time          // when the item was written last
	behind  time.Duration      // by the service; less than zero where it does not tell
	reads   failing
	writes  failing
	// acks is that of the consumer when it was last seen to change or nothing was in flight,
	// at ackedAt.
	acks    int
	ackedAt time.Time
	stalled time.Time // when that was told last; zero when nothing is to be told
	way     retrieval.Way
	// What has been read since it was counted last. The host joins the labels of a counter
	// each time that it is told, which costs as much as a record that was pushed.
	fetches        map[string]int64 // by result
	records, bytes int64
	aggregates     aggregates
	skips          skips
	// subscribed is whether a subscription is open, of which something was read at heard.
	subscribed bool
	heard      time.Time
}

// shard returns the signals of a shard that is about to be claimed.
func (s *signals) shard(key lease.Key) *shardSignals {
	now := time.Now()
	way := retrieval.WayPolling
	if s.conf.fanOut.enabled && !s.conf.fanOut.auto {
		way = retrieval.WayFanOut
	}
	return &shardSignals{signals: s, key: key, begun: now, read: now, written: now, ackedAt: now, behind: unknown, way: way, fetches: map[string]int64{}}
}

// begin begins to tell of a shard that is read from now on.
func (s *shardSignals) begin(reader *consumer.Consumer) {
	s.mu.Lock()
	s.reader, s.written = reader, time.Now()
	s.mu.Unlock()
	s.signals.metrics.begin(metric.OfShard, s.key.Stream, s.key.Shard)
	s.signals.mu.Lock()
	s.signals.shards[s.key] = s
	s.signals.mu.Unlock()
	s.signals.claimSettled(s.key)
}

// end tells what is true of a shard that is read here no more, and returns the moment
// before which everything that arrived in it is acknowledged.
func (s *shardSignals) end() (since time.Time) {
	since = s.since()
	s.count()
	s.mu.Lock()
	skipped := s.skips.said()
	s.mu.Unlock()
	s.tellSkips(skipped, "it is read here no more", time.Now())
	s.signals.mu.Lock()
	_, told := s.signals.shards[s.key]
	delete(s.signals.shards, s.key)
	if told {
		s.signals.left[s.key] = since
	}
	s.signals.mu.Unlock()
	s.signals.journal.Left(s.key.Stream, s.key.Shard, time.Now())
	if !told {
		return since
	}
	s.set("kinesis_shard_owned", 0)
	s.set("kinesis_in_flight_messages", 0)
	for _, name := range []string{
		"kinesis_lag_milliseconds", "kinesis_millis_behind_latest", "kinesis_last_read_age_milliseconds",
		"kinesis_last_commit_age_milliseconds", "kinesis_oldest_unacknowledged_milliseconds",
		"kinesis_subscription_silence_milliseconds",
	} {
		s.set(name, unknown)
	}
	return since
}

func (s *shardSignals) set(name string, value int64) {
	s.signals.metrics.set(name, value, s.key.Stream, s.key.Shard)
}

func (s *shardSignals) add(name string, n int64, labels ...string) {
	s.signals.metrics.add(name, n, append([]string{s.key.Stream, s.key.Shard}, labels...)...)
}

// tell sets the gauges of the shard, and returns how far its consumer has got, the lag in
// milliseconds, and what is to be told of it in the log.
func (s *shardSignals) tell(now time.Time) (state consumer.State, lag int64, change func(time.Time)) {
	s.mu.Lock()
	state = s.state()
	behind := int64(unknown)
	if s.behind >= 0 && s.reads.since.IsZero() && now.Sub(s.read) <= max(behindFor, 2*s.signals.conf.pollPeriod) {
		behind = s.behind.Milliseconds()
	}
	silence := int64(unknown)
	if s.subscribed {
		silence = age(s.heard, now)
	}
	read, written := s.read, s.written
	stalled, skipped := s.stall(state, now), skips{}
	if now.Sub(s.skips.at) >= skipsOver {
		skipped = s.skips.said()
	}
	s.mu.Unlock()
	change = func(now time.Time) {
		stalled(now)
		s.tellSkips(skipped, "none are any more", now)
	}

	lag = age(state.Since, now)
	oldest := int64(0)
	if !state.Oldest.IsZero() {
		oldest = age(state.Oldest, now)
	}
	s.count()
	s.set("kinesis_shard_owned", 1)
	s.set("kinesis_lag_milliseconds", lag)
	s.set("kinesis_millis_behind_latest", behind)
	s.set("kinesis_last_read_age_milliseconds", age(read, now))
	s.set("kinesis_last_commit_age_milliseconds", age(written, now))
	s.set("kinesis_oldest_unacknowledged_milliseconds", oldest)
	s.set("kinesis_in_flight_messages", int64(state.InFlight))
	s.set("kinesis_subscription_silence_milliseconds", silence)
	return state, lag, change
}

// count tells the counters what has been read.
func (s *shardSignals) count() {
	s.countAggregates()
	s.countSkips()
	s.mu.Lock()
	if len(s.fetches) == 0 {
		s.mu.Unlock()
		return
	}
	fetches, records, bytes := s.fetches, s.records, s.bytes
	s.fetches, s.records, s.bytes = map[string]int64{}, 0, 0
	s.mu.Unlock()
	for result, n := range fetches {
		s.add("kinesis_fetches", n, result)
	}
	for name, n := range map[string]int64{"kinesis_records": records, "kinesis_bytes": bytes, "kinesis_throttled": fetches[resultThrottled]} {
		if n > 0 {
			s.add(name, n)
		}
	}
}

// aggregates is what came of aggregated records since it was counted last.
type aggregates struct{ userRecords, foreign, dropped, broken int64 }

// fed takes in what came of a record that is aggregated, or looks like it.
func (s *shardSignals) fed(a consumer.Aggregate) {
	s.mu.Lock()
	s.aggregates.userRecords += int64(a.UserRecords)
	s.aggregates.foreign += int64(a.Foreign)
	if a.Dropped {
		s.aggregates.dropped++
	}
	if a.Err != nil {
		s.aggregates.broken++
	}
	s.mu.Unlock()
	switch j := s.signals.journal; {
	case a.Dropped:
		j.Fail(journal.Drops, s.key.Stream, s.key.Shard, fmt.Errorf("user records in the wrong shard: %d", a.Foreign), time.Now())
	case a.Err == nil:
		j.Works(journal.Drops, s.key.Stream, s.key.Shard, time.Now())
	}
}

// countAggregates tells the counters what came of aggregated records.
func (s *shardSignals) countAggregates() {
	s.mu.Lock()
	came := s.aggregates
	s.aggregates = aggregates{}
	s.mu.Unlock()
	for name, n := range map[string]int64{
		"kinesis_user_records": came.userRecords, "kinesis_foreign_user_records": came.foreign,
		"kinesis_dropped_aggregates": came.dropped, "kinesis_broken_aggregates": came.broken,
	} {
		if n > 0 {
			s.add(name, n)
		}
	}
}

// skips is what was skipped since it is too old, from the first record after a while in
// which nothing was.
type skips struct {
	records   int64 // zero while nothing is skipped
	uncounted int64
	// When the first and the newest of them arrived, by the service's clock.
	first, newest time.Time
	at            time.Time // when the newest was skipped
}

// skipsOver is how long nothing has to be skipped before that is said to have ended. An
// output that is too slow for all there is gets records that are just young enough, between
// others that are not.
const skipsOver = 30 * time.Second

// said returns the skips that the log is to say are over, and begins anew.
func (k *skips) said() (over skips) {
	over = *k
	*k = skips{uncounted: k.uncounted}
	return over
}

// skipped takes in a record that is skipped, and says that this begins.
func (s *shardSignals) skipped(arrived time.Time, age time.Duration) {
	now := time.Now()
	s.mu.Lock()
	k := &s.skips
	begins := k.records == 0
	if begins {
		k.first = arrived
	}
	k.records++
	k.uncounted++
	k.newest, k.at = arrived, now
	s.mu.Unlock()
	if begins {
		most := s.signals.conf.maxRecordAge
		s.signals.journal.Changed(journal.Warning, s.key.Stream, s.key.Shard,
			fmt.Sprintf("has records older than %s, which are skipped and lost to this pipeline, as `max_record_age` says: the first arrived at %s, %s ago", most, second(arrived), age.Round(time.Second)),
			fmt.Sprintf("have records older than %s, which are skipped and lost to this pipeline, as `max_record_age` says", most), now)
	}
}

// tellSkips says how much was skipped, where something was, and why that is over.
func (s *shardSignals) tellSkips(over skips, why string, now time.Time) {
	if over.records == 0 {
		return
	}
	s.signals.journal.Changed(journal.Info, s.key.Stream, s.key.Shard,
		fmt.Sprintf("had old records skipped, in number %d, which arrived from %s to %s; %s", over.records, second(over.first), second(over.newest), why),
		"had old records skipped, see `kinesis_skipped_records`; that is over", now)
}

// second is a moment as the log has it.
func second(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// countSkips tells the counter what was skipped.
func (s *shardSignals) countSkips() {
	s.mu.Lock()
	n := s.skips.uncounted
	s.skips.uncounted = 0
	s.mu.Unlock()
	if n > 0 {
		s.add("kinesis_skipped_records", n)
	}
}

// state is how far the consumer has got. Where nobody knows what came before the claim,
// the shard is late by the time since that at least. The caller holds the lock.
func (s *shardSignals) state() consumer.State {
	state := s.reader.State()
	if state.Since.IsZero() {
		state.Since = s.begun
	}
	return state
}

// readBy returns in which way the shard is read.
func (s *shardSignals) readBy() retrieval.Way {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.way
}

// stall notices that nothing of the shard has been acknowledged for a lease period though
// something is with the processors or the output, and that this is over.
func (s *shardSignals) stall(state consumer.State, now time.Time) (tell func(time.Time)) {
	if state.InFlight == 0 || state.Acks != s.acks {
		s.acks, s.ackedAt = state.Acks, now
	}
	since, where := s.ackedAt, fmt.Sprintf("the oldest of %d messages in flight has waited", state.InFlight)
	if state.InFlight == 0 && !state.Processing.IsZero() {
		since, where = state.Processing, "the batch processors have had a batch"
	}
	stands := now.Sub(since)
	switch {
	case stands >= s.signals.conf.leasePeriod && (state.InFlight > 0 || !state.Processing.IsZero()):
		if now.Sub(s.stalled) < stallEvery {
			break
		}
		s.stalled = now
		return func(now time.Time) {
			s.signals.journal.Fail(journal.Stalled, s.key.Stream, s.key.Shard, fmt.Errorf("%s for %s", where, stands.Round(time.Second)), now)
		}
	case !s.stalled.IsZero():
		s.stalled = time.Time{}
		return func(now time.Time) { s.signals.journal.Works(journal.Stalled, s.key.Stream, s.key.Shard, now) }
	}
	return func(time.Time) {}
}

// stallEvery is the time between two reports of a shard of which nothing is acknowledged.
const stallEvery = 30 * time.Second

// stuck reports whether the shard could not be read or committed for a lease period.
func (s *shardSignals) stuck(now time.Time) (reads, writes bool) {
	period := s.signals.conf.leasePeriod
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads.lasts(period, now), s.writes.lasts(period, now)
}

// waits reports whether the shard was not read for long, and has no subscription. While the
// consumer is looked for it waits for that, and no call is made that could fail.
func (s *shardSignals) waits(now time.Time) bool {
	const registering = time.Minute // as long may be usual
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.subscribed && now.Sub(s.read) >= max(registering, s.signals.conf.leasePeriod)
}

// since returns the moment before which everything that arrived in the shard is
// acknowledged; zero while that is not known.
func (s *shardSignals) since() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == nil {
		return time.Time{}
	}
	return s.state().Since
}

// upTo is since by the clock of the service, which all who share the table see alike.
func (s *shardSignals) upTo() time.Time {
	since := s.since()
	if since.IsZero() {
		return since
	}
	return since.Add(s.signals.clockSkew())
}

// called takes in an attempt to read a page.
func (s *shardSignals) called(c retrieval.Call) {
	now := time.Now()
	s.signals.tried.Store(&now)
	result := resultOfRead(c)
	throttled := errors.Is(c.Err, retrieval.ErrThrottled)
	err := c.Err
	if c.Usual {
		err = nil
	}
	s.mu.Lock()
	s.fetches[result]++
	s.records += int64(c.Records)
	s.bytes += int64(c.Bytes)
	failed := !s.reads.since.IsZero()
	s.reads.saw(err, c.Start)
	if err == nil {
		s.read = c.Start
	}
	if c.Err == nil {
		s.behind, s.heard = c.Behind, now
	}
	s.mu.Unlock()
	j := s.signals.journal
	switch {
	case throttled:
		if s.readBy() == retrieval.WayPolling {
			j.Works(journal.Reads, s.key.Stream, s.key.Shard, now) // it answers
		}
		j.Fail(journal.Throttling, s.key.Stream, s.key.Shard, s.explain(serviceKinesis, err), now)
	case errors.Is(err, retrieval.ErrShardGone): // which the group tells
	case err != nil:
		j.Fail(journal.Reads, s.key.Stream, s.key.Shard, s.explain(serviceKinesis, err), now)
	case failed:
		j.Works(journal.Reads, s.key.Stream, s.key.Shard, now)
		j.Works(journal.Throttling, s.key.Stream, s.key.Shard, now)
	}
}

func (s *shardSignals) explain(service string, err error) error {
	return s.signals.explain(err, service, s.key.Stream)
}

func resultOfRead(c retrieval.Call) string {
	switch {
	case c.Err == nil && c.Records > 0:
		return resultOK
	case c.Err == nil:
		return resultEmpty
	case errors.Is(c.Err, retrieval.ErrThrottled):
		return resultThrottled
	case errors.Is(c.Err, retrieval.ErrIteratorExpired):
		return resultExpired
	case session.IsDenied(c.Err):
		return resultDenied
	case c.Usual:
		return resultEmpty
	}
	return resultFailed
}

// wrote takes in an attempt to write the shard's item.
func (s *shardSignals) wrote(err error) {
	now := time.Now()
	if errors.Is(err, context.Canceled) {
		return
	}
	s.add("kinesis_commits", 1, resultOf(err))
	s.mu.Lock()
	failed := !s.writes.since.IsZero()
	s.writes.saw(err, now)
	if err == nil {
		s.written = now
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		s.signals.journal.Fail(journal.TableWrites, s.key.Stream, s.key.Shard, s.explain(serviceTable, err), now)
	case failed:
		s.signals.journal.Works(journal.TableWrites, s.key.Stream, s.key.Shard, now)
	}
}

// resultOf is the result of a call of the table for the metrics.
func resultOf(err error) string {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, lease.ErrConflict):
		return resultConflict
	case throttle.Is(err):
		return resultThrottled
	case session.IsDenied(err):
		return resultDenied
	}
	return resultFailed
}

// hooks have a consumer report.
func (s *shardSignals) hooks() consumer.Hooks {
	j, stream, shard := s.signals.journal, s.key.Stream, s.key.Shard
	return consumer.Hooks{
		OnReject: func(messages int, err error) {
			s.add("kinesis_rejected_messages", int64(messages))
			j.Fail(journal.Rejections, stream, shard, fmt.Errorf("%d messages: %w", messages, err), time.Now())
		},
		OnProcess: func(err error) {
			if err == nil {
				j.Works(journal.Processors, stream, shard, time.Now())
				return
			}
			j.Fail(journal.Processors, stream, shard, err, time.Now())
		},
		OnSuspend: func(suspended bool) {
			if suspended {
				j.Changed(journal.Warning, stream, shard,
					"is suspended, since its lease cannot be proved. Until it is, nothing of the shard is sent, and nothing is lost",
					"are suspended, since their leases cannot be proved. Until they are, nothing of the shards is sent, and nothing is lost", time.Now())
				return
			}
			j.Changed(journal.Info, stream, shard, "is read on: its lease is proved", "are read on: their leases are proved", time.Now())
		},
		OnClose: func(err error) {
			j.Changed(journal.Warning, stream, shard, fmt.Sprintf("is closed, and its batching policy could not be: %v", err),
				"are closed, and their batching policies could not be", time.Now())
		},
		OnAggregate: s.fed,
		OnSkip:      s.skipped,
	}
}

package retrieval

import "time"

// The limits that all polling readers of one shard share, and how much of them
// one reader takes. See "Quotas and limits" in the Kinesis developer guide.
const (
	// callSpacing keeps a reader below the 5 GetRecords calls a second that a
	// shard allows. A fiftieth is left for clocks that disagree.
	callSpacing  = 204 * time.Millisecond
	callsASecond = 5
	// readRate is the 2 MB a second that a shard delivers.
	readRate = 2e6

	// livePoll is the time between two reads of a shard that had records not
	// long ago, idlePoll that of one which has been silent. In between it grows
	// by idleGrowth at each empty answer.
	livePoll   = 250 * time.Millisecond
	idlePoll   = 2 * time.Second
	idleGrowth = 1.2
	// idleSpread is by how much of it a read of a silent shard may come early, at
	// random: shards that were claimed together would be read together for ever, on
	// hundreds of connections at once.
	idleSpread = 0.1
	// liveFor is how long a shard counts as live after a record: longer than the
	// second between the records of a trickle, so that a trickle stays fast.
	liveFor = 3 * time.Second

	// throttlePause is the mean pause after the first throttled call, doubled
	// with each further one up to throttleMax.
	throttlePause = 500 * time.Millisecond
	throttleMax   = 8 * time.Second
	// Throttling of a reader that keeps within the limits tells of others. It
	// leaves them half of what it took, up to mostCeded of the limits, and takes
	// that back bit by bit: a half in half of reclaimAfter.
	mostCeded    = 0.875
	reclaimAfter = time.Minute
)

// pacer says when to read a shard next. It is pure: the time and randomness are
// arguments. It belongs to the poller.
type pacer struct {
	least      time.Duration // between two reads, whatever else is said
	lastRecord time.Time
	interval   time.Duration
	throttled  int       // calls in a row
	ceded      float64   // share of the limits that is left to other readers
	reclaimed  time.Time // when ceded was last reduced

	ends [callsASecond]time.Time // of the last calls; the next one takes the place at next
	next int
}

// called takes in when a call ended, whatever came of it.
func (p *pacer) called(end time.Time) {
	p.ends[p.next] = end
	p.next = (p.next + 1) % callsASecond
}

// within returns when a call may begin that is to begin at a moment, so that no more than
// callsASecond come within a second. The service has counted each call at some time before
// its end. One that waits for a connection comes late, and the next ones follow closely:
// spaced by their beginnings alone, six came within a second, and the one that was
// throttled told of other readers where there were none.
func (p *pacer) within(moment time.Time) time.Time {
	if earliest := p.ends[p.next].Add(time.Second); moment.Before(earliest) {
		return earliest
	}
	return moment
}

// afterPage returns the pause between the start of the call that brought a page
// and the start of the next one. It is shorter by random in [0, 1) where the shard
// is silent.
func (p *pacer) afterPage(now time.Time, records, bytes int, behind time.Duration, random float64) time.Duration {
	p.throttled = 0
	if p.ceded > 0 {
		p.ceded = max(0, p.ceded-float64(now.Sub(p.reclaimed))/float64(reclaimAfter))
		p.reclaimed = now
	}
	if records > 0 {
		p.lastRecord = now
	}
	early := 0.0
	switch {
	case behind > 0:
		// A backlog, also when the page is empty: the service answers so when
		// it searched without finding, and wants to be asked again.
		p.interval = callSpacing
	case !p.lastRecord.IsZero() && now.Sub(p.lastRecord) < liveFor:
		p.interval = livePoll
	default:
		p.interval = min(max(livePoll, time.Duration(float64(p.interval)*idleGrowth)), idlePoll)
		early = idleSpread * random
	}
	interval := time.Duration(float64(p.interval) * (1 - early))
	return max(p.least, interval, p.afterBytes(int64(bytes)))
}

// mostGiven is what an answer has at most of what counts against readRate.
const mostGiven = 10 << 20

// afterGivenUp returns the pause between the start of a call whose answer, of so many
// bytes, was given up, and the start of the next one. The service has counted them: to ask
// at once would be throttled, which tells of other readers where there are none.
func (p *pacer) afterGivenUp(answer int64) time.Duration { return p.afterBytes(min(answer, mostGiven)) }

// afterBytes is the least pause after a call that brought so many bytes.
func (p *pacer) afterBytes(bytes int64) time.Duration {
	spacing, delivery := float64(callSpacing), float64(bytes)/readRate*float64(time.Second)
	return time.Duration(max(spacing, delivery) / (1 - p.ceded))
}

// afterThrottle returns the pause after a call that was throttled now, between half
// and one and a half times the mean, by random in [0, 1): the other readers that
// were throttled with us should not come back all at once.
func (p *pacer) afterThrottle(now time.Time, random float64) time.Duration {
	p.ceded, p.reclaimed = min((1+p.ceded)/2, mostCeded), now
	mean := min(throttlePause<<min(p.throttled, 10), throttleMax)
	p.throttled++
	return mean/2 + time.Duration(random*float64(mean))
}

package journal

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

var (
	start     = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	errDenied = errors.New("access denied")
)

// rig has a journal, its time, and the lines since they were last taken.
type rig struct {
	*Journal
	now   time.Time
	lines []Line
}

func newRig() *rig {
	r := &rig{now: start}
	r.Journal = New(func(l Line) { r.lines = append(r.lines, l) })
	return r
}

// pass lets time go by, with a tick each second.
func (r *rig) pass(seconds int) {
	for range seconds {
		r.now = r.now.Add(time.Second)
		r.Tick(r.now)
	}
}

func (r *rig) fail(k Kind, stream, shard string) { r.Fail(k, stream, shard, errDenied, r.now) }
func (r *rig) works(k Kind, stream, shard string) {
	r.Works(k, stream, shard, r.now)
}

// take returns the texts of the lines since the last take.
func (r *rig) take() []string {
	texts := []string{}
	for _, l := range r.lines {
		texts = append(texts, l.Text)
	}
	r.lines = nil
	return texts
}

func id(n int) string { return fmt.Sprintf("shardId-%012d", n) }

func TestFirstFailureIsSaidAtOnce(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(3))
	r.fail(Reads, "orders", id(4))
	r.fail(Reads, "orders", id(3))
	require.Equal(t, []Line{{
		Level: Error, Stream: "orders", Shard: id(3),
		Text: "Stream orders: reads of shard shardId-000000000003 fail: access denied. It is read on from where it was when they work again; nothing is skipped",
	}}, r.lines)
}

func TestFaultOfAStreamOrTheTableNamesNoShard(t *testing.T) {
	r := newRig()
	r.fail(Lists, "orders", "")
	r.fail(TableReads, "", "")
	require.Equal(t, []Line{
		{Level: Warning, Stream: "orders", Text: "Stream orders: the shards cannot be listed: access denied. Shards that are known are read on, new ones are found when this works again"},
		{Level: Error, Text: "The items cannot be read from the table: access denied. Shards that are read here are read on; whether others are free is not known until this works again"},
	}, r.lines)
}

func TestFaultThatLastsIsSummedUpOnceAMinute(t *testing.T) {
	r := newRig()
	for range 121 {
		r.fail(Reads, "orders", id(1))
		r.fail(Reads, "orders", id(2))
		r.pass(1)
	}
	require.Equal(t, []string{
		"Reads of stream orders fail, for 1m0s now: 2 shards are concerned, 119 failures since this was said last, the newest: access denied",
		"Reads of stream orders fail, for 2m0s now: 2 shards are concerned, 120 failures since this was said last, the newest: access denied",
	}, r.take()[1:])
}

func TestMinuteLineNamesTheOnlyShard(t *testing.T) {
	r := newRig()
	r.fail(Throttling, "orders", id(1))
	r.fail(Throttling, "orders", id(1))
	r.pass(60)
	require.Equal(t, "Reads of stream orders are throttled, for 1m0s now: shard shardId-000000000001 is concerned, 1 failure since this was said last, the newest: access denied", r.lines[1].Text)
	require.Equal(t, id(1), r.lines[1].Shard)
	require.Equal(t, Warning, r.lines[1].Level)
}

func TestFaultOfWhichNothingIsTriedIsNotRepeated(t *testing.T) {
	r := newRig()
	r.fail(Claims, "orders", id(1))
	require.Len(t, r.take(), 1)
	r.pass(600)
	require.Empty(t, r.take())
	r.fail(Claims, "orders", id(1))
	r.pass(1)
	require.Equal(t, []string{"Claims of stream orders fail, for 10m1s now: shard shardId-000000000001 is concerned, 1 failure since this was said last, the newest: access denied"}, r.take())
}

func TestHarmlessFaultIsRepeatedOnceAnHour(t *testing.T) {
	r := newRig()
	lines := 0
	for range 170 {
		r.fail(Retention, "orders", "")
		r.pass(60)
		lines += len(r.take())
	}
	require.Equal(t, 3, lines)
}

func TestMinuteLineSaysThatAFaultComesAndGoes(t *testing.T) {
	r := newRig()
	for range 60 {
		r.fail(Reads, "orders", id(1))
		r.works(Reads, "orders", id(1))
		r.pass(1)
	}
	require.Equal(t, []string{
		"Reads of stream orders fail now and then, for 1m0s now: 59 failures of shard shardId-000000000001 since this was said last, the newest: access denied",
	}, r.take()[1:])
}

func TestEndIsSaidWhenTheLastShardWorks(t *testing.T) {
	r := newRig()
	for n := range 12 {
		r.fail(Reads, "orders", id(n))
	}
	r.pass(20)
	for n := range 11 {
		r.works(Reads, "orders", id(n))
	}
	r.works(Reads, "orders", "")
	r.works(Reads, "other", id(11))
	r.works(Claims, "orders", id(11))
	r.pass(23)
	r.take()
	r.works(Reads, "orders", id(11))
	r.pass(2)
	require.Empty(t, r.take(), "it is not quiet yet")
	r.pass(1)
	require.Equal(t, []Line{{
		Level: Info, Stream: "orders",
		Text: "Reads of stream orders work again after 43 s; 12 shards were concerned",
	}}, r.lines)
}

func TestFaultDoesNotEndBeforeItIsQuiet(t *testing.T) {
	r := newRig()
	for range 20 {
		r.fail(Reads, "orders", id(1))
		r.works(Reads, "orders", id(1))
		r.pass(2)
	}
	require.Len(t, r.take(), 1)
	r.pass(1)
	require.Equal(t, []string{"Reads of stream orders work again after 38 s; shard shardId-000000000001 was concerned"}, r.take())
}

func TestFaultWaitsForNoShardThatLeft(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.fail(Reads, "orders", id(2))
	r.fail(Processors, "orders", id(2))
	r.pass(5)
	r.take()
	r.Left("orders", id(2), r.now)
	r.pass(5)
	require.Equal(t, []string{
		"The fault that batch processors for stream orders fail is over after 5 s: shard shardId-000000000002 is read here no more",
	}, r.take())
	r.works(Reads, "orders", id(1))
	r.pass(5)
	require.Equal(t, []string{
		"Reads of stream orders work again after 10 s; 2 shards were concerned, 1 of which is read here no more",
	}, r.take())
}

func TestBlipIsSaid(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.works(Reads, "orders", id(1))
	r.pass(10)
	require.Len(t, r.take(), 2)
}

func TestFaultThatComesBackAndPassesIsOneLineAMinuteLater(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.works(Reads, "orders", id(1))
	r.pass(3) // its end
	r.take()
	for n := range 5 {
		r.pass(7)
		r.fail(Reads, "orders", id(n%2))
		r.works(Reads, "orders", id(n%2))
	}
	r.pass(24)
	require.Empty(t, r.take())
	r.pass(1)
	require.Equal(t, []Line{{
		Level: Error, Stream: "orders",
		Text: "Reads of stream orders failed now and then: 5 failures of 2 shards since the end of it was said, the newest: access denied; they work now",
	}}, r.lines)
}

func TestFaultThatComesBackAndLastsIsSaidAMinuteLater(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.works(Reads, "orders", id(1))
	r.pass(3)
	r.take()
	r.pass(10)
	r.fail(Reads, "orders", id(2))
	r.works(Reads, "orders", id(2))
	r.pass(10)
	r.fail(Reads, "orders", id(3))
	r.pass(40)
	require.Equal(t, []string{
		"Reads of stream orders fail, for 40 s now: shard shardId-000000000003 is concerned, 2 failures since this was said last, the newest: access denied",
	}, r.take())
	r.works(Reads, "orders", id(3))
	r.pass(3)
	require.Equal(t, []string{"Reads of stream orders work again after 40 s; shard shardId-000000000003 was concerned"}, r.take())
}

func TestFaultIsNewAMinuteAfterItsEnd(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.works(Reads, "orders", id(1))
	r.pass(3)
	r.now = r.now.Add(time.Minute) // without a tick
	r.take()
	r.fail(Reads, "orders", id(1))
	require.Len(t, r.take(), 1)
}

func TestOutageOfManyStreamsIsAFewLines(t *testing.T) {
	r := newRig()
	each := func(do func(stream string)) {
		for n := range 40 {
			do(fmt.Sprintf("s%02d", n))
		}
	}
	for range 60 {
		each(func(s string) { r.fail(TableWrites, s, id(1)); r.fail(TableWrites, s, id(2)) })
		r.pass(1)
	}
	r.pass(2)
	texts := r.take()
	require.Len(t, texts, 8)
	require.Equal(t, "Leases and checkpoints of 37 more streams cannot be written to the table: access denied. Records go on until the lease of their shard ends, then it is read by whoever can write; what has no checkpoint is delivered again", texts[3])
	require.Equal(t, "Leases and checkpoints of 37 more streams cannot be written to the table, for 1m2s now: 74 shards of 37 streams are concerned, 4292 failures since this was said last, the newest: access denied", texts[7])

	each(func(s string) { r.works(TableWrites, s, id(1)) })
	r.pass(5)
	require.Empty(t, r.take())
	each(func(s string) {
		if s != "s39" {
			r.works(TableWrites, s, id(2))
		}
	})
	r.pass(5)
	require.Len(t, r.take(), 3)
	r.works(TableWrites, "s39", id(2))
	r.pass(5)
	require.Equal(t, []string{"Leases and checkpoints of 37 more streams can be written to the table again after 1m12s; 74 shards were concerned"}, r.take())
}

func TestFewStreamsThatShareALineAreNamed(t *testing.T) {
	r := newRig()
	for _, s := range []string{"a", "b", "c", "d"} {
		r.fail(Lists, s, "")
	}
	r.fail(Lists, "", "") // has its own line
	require.Len(t, r.take(), 4)
	r.pass(2)
	require.Equal(t, "d", r.lines[0].Stream)
	require.True(t, strings.HasPrefix(r.take()[0], "Stream d: the shards cannot be listed: access denied. "))
	r.fail(Lists, "e", "")
	r.pass(61)
	require.Contains(t, r.take(), "The shards of streams d and e cannot be listed, for 1m2s now: 2 streams are concerned, 1 failure since this was said last, the newest: access denied")
}

func TestLineSpeaksForStreamsThatFailedAndWorkedBefore(t *testing.T) {
	r := newRig()
	for _, s := range []string{"a", "b", "c", "d"} {
		r.fail(Lists, s, "")
	}
	r.works(Lists, "d", "")
	r.pass(3) // says the start and the end of d
	r.fail(Lists, "e", "")
	r.works(Lists, "e", "")
	r.pass(10)
	r.fail(Lists, "d", "")
	r.take()
	r.pass(50)
	require.Contains(t, r.take(), "The shards of streams d and e cannot be listed, for 50 s now: 2 failures since this was said last, the newest: access denied")
}

func TestLinesTellTheNewestError(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.Fail(Reads, "orders", id(1), errors.New("broken pipe."), r.now) //nolint:revive // as others write them
	r.pass(60)
	require.True(t, strings.HasSuffix(r.take()[1], "the newest: broken pipe"))
}

func TestMinuteLineIsLeftOutWhenTheEndIsNear(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.pass(59)
	r.works(Reads, "orders", id(1))
	r.pass(3)
	require.Equal(t, []string{"Reads of stream orders work again after 59 s; shard shardId-000000000001 was concerned"}, r.take()[1:])
}

func TestFaultThatCameBackAndLeftDoesNotClaimToWork(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.works(Reads, "orders", id(1))
	r.pass(3)
	r.take()
	r.fail(Reads, "orders", id(1))
	r.Left("orders", id(1), r.now)
	r.pass(60)
	require.Equal(t, []string{"Reads of stream orders failed now and then: 1 failure of shard shardId-000000000001 since the end of it was said, the newest: access denied; what failed is read here no more"}, r.take())
}

func TestLongErrorsAreCutBetweenRunes(t *testing.T) {
	r := newRig()
	r.Fail(Reads, "orders", id(1), errors.New("x"+strings.Repeat("é", 400)), r.now)
	text := r.take()[0]
	require.True(t, utf8.ValidString(text))
	require.Contains(t, text, "fail: x"+strings.Repeat("é", 299)+"....")
	require.Equal(t, strings.Repeat("y", 600), errorText(errors.New(strings.Repeat("y", 600))))
}

func TestChangesThatComeTogetherAreOneLine(t *testing.T) {
	r := newRig()
	handed := func(stream string, n int) {
		r.Changed(Info, stream, id(n), "was handed over to b, which asked for it", "were handed over to b, which asked for them", r.now)
	}
	for n := 11; n >= 0; n-- {
		handed("orders", n)
		handed("orders", n)
	}
	handed("clicks", 7)
	r.Changed(Warning, "orders", id(1), "is lost", "are lost", r.now)
	r.Tick(r.now.Add(900 * time.Millisecond))
	require.Empty(t, r.take())
	r.pass(1)
	require.Equal(t, []Line{
		{Level: Info, Stream: "clicks", Shard: id(7), Text: "Shard shardId-000000000007 of stream clicks was handed over to b, which asked for it"},
		{Level: Info, Stream: "orders", Text: "12 shards of stream orders were handed over to b, which asked for them: shardId-000000000000, -000000000001, -000000000002, -000000000003, -000000000004, -000000000005, -000000000006, -000000000007 and 4 more"},
		{Level: Warning, Stream: "orders", Shard: id(1), Text: "Shard shardId-000000000001 of stream orders is lost"},
	}, r.lines)
	r.take()
	r.pass(5)
	require.Empty(t, r.take())
}

func TestChangesOfAStreamInOneTickAreBounded(t *testing.T) {
	r := newRig()
	for n := range 25 {
		for shard := range n + 1 {
			r.Changed(Level(n%2), "orders", id(shard), "is with "+id(n), "are with "+id(n), r.now)
		}
	}
	r.Changed(Error, "clicks", id(1), "is lost", "are lost", r.now)
	r.pass(1)
	require.Len(t, r.lines, 22)
	require.Equal(t, "6 shards of stream orders are with "+id(5)+": shardId-000000000000, -000000000001, -000000000002, -000000000003, -000000000004, -000000000005", r.lines[1].Text)
	require.Equal(t, Line{Level: Warning, Stream: "orders", Text: "5 shards of stream orders had 5 further changes that no line tells"}, r.lines[21])
}

func TestFlushSaysHowEverythingStands(t *testing.T) {
	r := newRig()
	r.fail(Reads, "orders", id(1))
	r.fail(Throttling, "orders", id(1))
	r.fail(Claims, "orders", id(1))
	r.works(Claims, "orders", id(1))
	r.pass(3)
	r.fail(Claims, "orders", id(2)) // silent, a moment after the end
	r.works(Claims, "orders", id(2))
	r.works(Throttling, "orders", id(1))
	r.fail(Lists, "orders", "")
	r.works(Lists, "orders", "")
	r.pass(3) // which says two ends
	r.fail(Retention, "orders", "")
	r.works(Retention, "orders", "")
	r.Changed(Info, "orders", id(4), "is gained", "are gained", r.now)
	r.take()
	r.Flush(r.now)
	require.Equal(t, []string{
		"Shard shardId-000000000004 of stream orders is gained",
		"Reads of stream orders failed when this input ended, and had for 6 s: shard shardId-000000000001 is concerned, the newest error: access denied",
		"Claims of stream orders failed now and then: 1 failure of shard shardId-000000000002 since the end of it was said, the newest: access denied; they work now",
		"The retention of stream orders can be read again after less than 1 s",
	}, r.take())
	r.Flush(r.now)
	r.pass(100)
	require.Empty(t, r.take())
	requireNoState(t, r.Journal)
}

func requireNoState(t require.TestingT, j *Journal) {
	require.Empty(t, j.faults)
	require.Empty(t, j.byStream)
	require.Empty(t, j.changes)
	require.Empty(t, j.queue)
	require.Equal(t, [kinds]*fault{}, j.rest)
	for k := range j.failing {
		require.Zero(t, j.failing[k].Load())
	}
}

func TestTimeDoesNotGoBack(t *testing.T) {
	r := newRig()
	r.pass(10)
	r.Fail(Reads, "orders", id(1), errDenied, r.now)
	r.Works(Reads, "orders", id(1), r.now.Add(-5*time.Second)) // waited for the lock
	r.pass(2)
	require.Len(t, r.take(), 1)
}

func TestEveryKindHasItsWords(t *testing.T) {
	levels := map[Kind]Level{Throttling: Warning, Lists: Warning, Cleanup: Warning, Stalled: Warning, Retention: Info}
	for k := Reads; k < kinds; k++ {
		w := kindWords[k]
		for _, text := range []string{w.things, w.of, w.fail, w.failed, w.again, w.works, w.forMany} {
			require.NotEmpty(t, text, k)
		}
		level, ok := levels[k]
		if !ok {
			level = Error
		}
		require.Equal(t, level, w.level, k)
		require.NotContains(t, k.String(), "Kind", k)
	}
	require.Equal(t, []string{"info", "warning", "error"}, []string{Info.String(), Warning.String(), Error.String()})
}

func TestTimesReadWell(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "less than 1 s", 1400 * time.Millisecond: "1 s", 59_700 * time.Millisecond: "1m0s",
		123 * time.Second: "2m3s", 26*time.Hour + 5*time.Minute + 10*time.Second: "26h5m",
	} {
		require.Equal(t, want, timeWords(d))
	}
}

func TestWorksCostsNoLockWhileNothingFails(t *testing.T) {
	j := New(func(Line) {})
	j.Fail(Lists, "orders", "", errDenied, start)
	j.mu.Lock() // Works would wait for ever
	defer j.mu.Unlock()
	shard := id(1)
	require.Zero(t, testing.AllocsPerRun(100, func() { j.Works(Reads, "orders", shard, start) }))
}

func TestEmitMayCallTheJournal(t *testing.T) {
	var j *Journal
	var texts []string
	j = New(func(l Line) {
		texts = append(texts, l.Text)
		if l.Text == "first" {
			j.Say(Line{Text: "third"})
			j.Works(Reads, "orders", id(1), start)
		}
	})
	j.queue = []Line{{Text: "first"}, {Text: "second"}}
	j.Say(Line{Text: "last"})
	require.Equal(t, []string{"first", "second", "last", "third"}, texts)
}

func TestSlowEmitKeepsNobodyWaitingButFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, release := make(chan struct{}), make(chan struct{})
		var texts []string
		j := New(func(l Line) {
			if l.Text == "slow" {
				close(inside)
				<-release
			}
			texts = append(texts, l.Text)
		})
		go j.Say(Line{Text: "slow"})
		<-inside
		j.Fail(Reads, "orders", id(1), errDenied, start)
		j.Works(Reads, "orders", id(1), start)
		j.Tick(start.Add(3 * time.Second))
		j.Say(Line{Text: "said"})
		flushed := make(chan struct{})
		go func() {
			j.Flush(start.Add(3 * time.Second))
			close(flushed)
		}()
		synctest.Wait()
		select {
		case <-flushed:
			t.Fatal("lines are not emitted yet")
		default:
		}
		close(release)
		<-flushed
		require.Len(t, texts, 4)
		require.Contains(t, texts[1], "fail")
		require.Contains(t, texts[2], "work again")
		require.Equal(t, "said", texts[3])
	})
}

// Each worker has a shard whose reads fail and work. The lines come one at a time, and in
// the order in which they were made.
func TestManyGoroutinesMayTellAtOnce(t *testing.T) {
	var texts []string // the race detector sees whether emit runs twice at once
	j := New(func(l Line) { texts = append(texts, l.Text) })
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 200 {
				now := start.Add(time.Duration(n) * time.Second)
				stream := fmt.Sprintf("s%d", worker%6)
				j.Fail(Reads, stream, id(worker), errDenied, now)
				j.Changed(Info, stream, id(n), "is gained", "are gained", now)
				j.Works(Reads, stream, id(worker), now)
				j.Left(stream, id(worker), now)
				j.Say(Line{Text: fmt.Sprintf("%d/%03d", worker, n)})
				j.Tick(now)
			}
		})
	}
	wg.Wait()
	j.Flush(start.Add(time.Hour))
	requireNoState(t, j)
	newest := map[byte]string{}
	for _, text := range texts {
		if len(text) == len("0/000") {
			require.Less(t, newest[text[0]], text)
			newest[text[0]] = text
		}
	}
	require.Len(t, newest, 8)
}

func BenchmarkWorksWhileNothingFails(b *testing.B) {
	b.ReportAllocs()
	j := New(func(Line) {})
	for b.Loop() {
		j.Works(Reads, "orders", "shardId-000000000001", start)
	}
}

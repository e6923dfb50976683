package consumer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// ofKeys is a whole shard, in which some keys have far more records than others.
func ofKeys(dice *rand.Rand, records, keys int) []retrieval.Page {
	var pages []retrieval.Page
	for from := 0; from < records; {
		n := min(1+dice.IntN(60), records-from)
		p := page(from, n)
		for i := range p.Records {
			hot := dice.Float64()
			p.Records[i].PartitionKey = fmt.Sprint("key-", int(float64(keys)*hot*hot*hot))
		}
		pages = append(pages, p)
		from += n
	}
	end := &pages[len(pages)-1]
	end.End, end.Children = true, children
	return pages
}

// strict is an output that has many batches at once, takes each for a while, rejects
// some as a whole and some in part, and checks that no message comes before those before
// it of its key are accepted, nor after it was accepted itself.
type strict struct {
	*rig
	outbox *Outbox
	taking chan struct{} // has room for as many batches as it has at once

	mu       sync.Mutex
	dice     *rand.Rand
	rejects  float64                     // the part of its batches that it rejects
	keys     []string                    // by the record's index
	left     map[string][]int            // of each key, the records that it has not accepted, in order
	inside   map[string]*service.Message // the message with records of a key that it has at this moment
	accepted []bool                      // by the record's index
	wrong    string
}

func newStrict(r *rig, dice *rand.Rand, pages []retrieval.Page) *strict {
	s := &strict{
		rig: r, outbox: NewOutbox(), taking: make(chan struct{}, 1+dice.IntN(16)),
		dice: dice, rejects: 0.3 * dice.Float64(), left: map[string][]int{}, inside: map[string]*service.Message{},
	}
	add := func(key string) {
		s.left[key] = append(s.left[key], len(s.keys))
		s.keys, s.accepted = append(s.keys, key), append(s.accepted, false)
	}
	for _, p := range pages {
		for _, record := range p.Records {
			if !kpl.Looks(record.Data) {
				add(record.PartitionKey)
				continue
			}
			users, err := kpl.Decode(record.Data)
			require.NoError(r, err)
			for _, user := range users {
				add(user.PartitionKey)
			}
		}
	}
	return s
}

// aggregated makes aggregates of some runs of the records of a page. Each has the sequence
// number of its last one.
func aggregated(dice *rand.Rand, p retrieval.Page) retrieval.Page {
	var records []retrieval.Record
	for left := p.Records; len(left) > 0; {
		n := 1
		if dice.IntN(3) == 0 {
			n = 1 + dice.IntN(len(left))
		}
		run := left[:n]
		left = left[n:]
		if n == 1 {
			records = append(records, run[0])
			continue
		}
		users := make([]kpl.Record, n)
		for i, r := range run {
			users[i] = kpl.Record{Data: r.Data, PartitionKey: r.PartitionKey}
		}
		records = append(records, retrieval.Record{Data: kpltest.Encode(users), SequenceNumber: run[n-1].SequenceNumber, PartitionKey: "a"})
	}
	whole := pageOf(records...)
	whole.End, whole.Children = p.End, p.Children
	return whole
}

// run takes batches until ctx ends, as an input and its host do.
func (s *strict) run(ctx context.Context) {
	var handling sync.WaitGroup
	defer handling.Wait()
	defer s.outbox.Wait()
	defer s.outbox.Close()
	for {
		select {
		case s.taking <- struct{}{}:
		case <-ctx.Done():
			return
		}
		o := s.receive(ctx)
		if o == nil {
			return
		}
		handling.Go(func() {
			defer func() { <-s.taking }()
			s.handle(ctx, o)
		})
	}
}

func (s *strict) receive(ctx context.Context) *Outgoing {
	for {
		o, fresh := s.outbox.Take(), false
		if o == nil {
			select {
			case d := <-s.out:
				o, fresh = NewOutgoing(d), true
			case <-s.outbox.Ready():
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if !s.outbox.SetAside(ctx, o, fresh) {
			return o
		}
	}
}

func (s *strict) handle(ctx context.Context, o *Outgoing) {
	batch := o.Batch()
	s.mu.Lock()
	for _, m := range batch {
		s.enters(m)
	}
	took := time.Duration(s.dice.Int64N(int64(200 * time.Millisecond)))
	s.mu.Unlock()
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	s.mu.Lock()
	err := s.verdict(batch)
	s.mu.Unlock()
	if err != nil && !o.Delivered(err) {
		s.outbox.Reject(o)
		return
	}
	o.Ack()
}

// enters checks a message as it comes.
func (s *strict) enters(m *service.Message) {
	before := map[string]int{} // records of a key in the message
	for _, i := range s.records(m) {
		key := s.keys[i]
		left := s.left[key][min(before[key], len(s.left[key])):]
		switch {
		case s.wrong != "":
		case s.inside[key] != nil && s.inside[key] != m:
			s.wrong = fmt.Sprintf("record %d of %s came beside another of it", i, key)
		case len(left) == 0 || left[0] != i:
			s.wrong = fmt.Sprintf("record %d of %s came, and not the first of %v", i, key, left)
		}
		s.inside[key] = m
		before[key]++
	}
}

// records returns the indexes of the records of a message.
func (s *strict) records(m *service.Message) (indexes []int) {
	content, _ := m.AsBytes()
	for line := range strings.SplitSeq(string(content), "\n") {
		i, err := strconv.Atoi(line)
		if err != nil && s.wrong == "" {
			s.wrong = err.Error()
		}
		indexes = append(indexes, i)
	}
	return indexes
}

// verdict accepts a batch, or some of it, or nothing.
func (s *strict) verdict(batch service.MessageBatch) error {
	rejects := s.dice.Float64() < s.rejects
	inPart := s.dice.IntN(2) == 0
	err := service.NewBatchError(batch, errElsewhere)
	for i, m := range batch {
		failed := rejects && (!inPart || s.dice.IntN(3) == 0)
		if failed {
			err = err.Failed(i, errElsewhere)
		}
		for _, index := range s.records(m) {
			s.inside[s.keys[index]] = nil
			if !failed {
				s.left[s.keys[index]] = s.left[s.keys[index]][1:]
				s.accepted[index] = true
			}
		}
	}
	switch {
	case err.IndexedErrors() == 0:
		return nil
	case err.IndexedErrors() == len(batch):
		return errElsewhere
	}
	return err
}

// done is the number of records before the first that is not accepted, and of all.
func (s *strict) done() (contiguous, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, accepted := range s.accepted {
		if accepted {
			all++
		}
	}
	if contiguous = slices.Index(s.accepted, false); contiguous < 0 {
		contiguous = len(s.accepted)
	}
	return contiguous, all
}

// stored is the number of records before the checkpoint.
func (s *strict) stored() (n int) {
	stored := s.table.now().Position()
	for n < len(s.accepted) && stored.Sequence >= sequence(n) {
		n++
	}
	return n + stored.Within.Count
}

// requireSound requires that no promise was broken so far.
func (s *strict) requireSound() {
	s.Helper()
	stored := s.stored() // before what it must not exceed
	contiguous, _ := s.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Empty(s, s.wrong)
	require.LessOrEqual(s, stored, contiguous, "the checkpoint")
}

// strictBubble runs a consumer with an order by key, and all else as the dice say.
func strictBubble(t *testing.T, test func(s *strict, dice *rand.Rand)) {
	t.Helper()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 0))
			pages := ofKeys(dice, 1+dice.IntN(800), 1+dice.IntN(60))
			var apart *Deaggregation
			if dice.IntN(2) == 0 {
				apart = new(Deaggregation)
				for i, p := range pages {
					pages[i] = aggregated(dice, p)
				}
			}
			policy := service.BatchPolicy{Count: []int{1, 2, 10, 100}[dice.IntN(4)]}
			if dice.IntN(2) == 0 {
				policy.Period = "500ms"
			}
			bubble(t, func(c *Config) {
				byKey(t, []int{1, 3, 20, 200, 1024}[dice.IntN(5)], policy)(c)
				c.Deaggregate = apart
				switch dice.IntN(4) {
				case 0:
					c.Processors = processors(t, `[ { mapping: 'root = content()' } ]`)
				case 1:
					c.Processors = processors(t, `[ { archive: { format: lines } } ]`)
				}
			}, func(r *rig) {
				s := newStrict(r, dice, pages)
				ctx, stop := context.WithCancel(r.Context())
				var running sync.WaitGroup
				defer running.Wait()
				defer stop()
				running.Go(func() { s.run(ctx) })
				r.put(pages...)
				test(s, rand.New(rand.NewPCG(seed, 1)))
			})
		})
	}
}

func TestEachKeyKeepsItsOrderWhateverTheOutputDoes(t *testing.T) {
	strictBubble(t, func(s *strict, dice *rand.Rand) {
		for ended := false; !ended; {
			if dice.IntN(20) == 0 {
				s.table.answer(false)
				pass(time.Duration(dice.Int64N(int64(2 * leasePeriod))))
				s.table.answer(true)
			}
			pass(time.Duration(dice.Int64N(int64(2 * time.Second))))
			s.requireSound()
			ended = len(s.ended) > 0
		}
		contiguous, _ := s.done()
		require.Len(s.T, s.accepted, contiguous)
		if result := s.result(); result.Outcome != Failed { // the table did not answer the last write
			require.Equal(s, Result{Outcome: Finished, Children: children}, result)
			require.Equal(s, contiguous, s.stored())
		}
	})
}

func TestNothingComesTwiceAfterAHandOverThatIsInTime(t *testing.T) {
	strictBubble(t, func(s *strict, dice *rand.Rand) {
		s.mu.Lock()
		s.rejects = 0
		s.mu.Unlock()
		pass(time.Duration(dice.Int64N(int64(5 * time.Second))))
		begun := time.Now()
		s.give <- "other"
		for len(s.ended) == 0 {
			pass(10 * time.Millisecond)
			s.requireSound()
		}
		inTime := time.Since(begun) < drainTimeout
		result := s.result()
		contiguous, all := s.done()
		switch {
		case result.Outcome == Finished:
			require.Len(s.T, s.accepted, contiguous)
		case inTime:
			require.Equal(s, HandedOver, result.Outcome)
			require.Equal(s, contiguous, all, "what was sent beyond the checkpoint comes again")
			require.Equal(s, contiguous, s.stored())
		default:
			require.Equal(s, contiguous, s.stored())
		}
	})
}

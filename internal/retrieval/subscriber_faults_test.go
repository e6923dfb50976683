package retrieval_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// The shard has a record every ten numbers, and continuations may lie in between. Whatever
// ends a subscription, and wherever, each record is read once and in its order.
func TestFaultsOfSubscriptionsCostNoRecordAndBringNoneTwice(t *testing.T) {
	ends := slices.Sorted(maps.Keys(endings))
	for seed := range uint64(50) {
		inWorld(t, func(t *testing.T, w *world) {
			dice := func(n, side int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(2*n+side))) }
			w.refuse = func(_ context.Context, n int) error {
				switch dice(n, 0).IntN(6) {
				case 0:
					return &types.ResourceInUseException{}
				case 1:
					return errors.New("no network")
				}
				return nil
			}
			w.serve = func(n int, p *push) {
				random, at := dice(n, 1), 0
				if p.from.SequenceNumber != nil {
					for number(at) < *p.from.SequenceNumber {
						at++
					}
				}
				next := at/10*10 + 10
				if random.IntN(8) == 0 || !p.start() {
					return
				}
				for range random.IntN(6) {
					e := event{continuation: next - 1 - random.IntN(9)}
					for range random.IntN(4) {
						e.records, e.continuation = append(e.records, next), next+random.IntN(9)
						next += 10
					}
					if !p.send(e) || !p.pass(time.Duration(random.IntN(5))*time.Second) {
						return
					}
				}
				endings[ends[random.IntN(len(ends))]].end(p)
			}
			s := w.source(retrieval.Position{})
			defer s.Close()
			var want []string
			for n := 1; n <= 40; n++ {
				want = append(want, number(10*n))
			}
			require.Equal(t, want, w.collect(s, 40)[:40], "seed %d", seed)
		})
	}
}

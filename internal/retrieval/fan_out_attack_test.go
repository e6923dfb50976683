package retrieval_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// may take more than one subscription.
func TestRefusedPlaceIsComeToAgainHoweverMuchLiesBeforeIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const read, each = 100, 30
		w.refuse = func(_ context.Context, n int) error {
			if n == 1 {
				return &types.InvalidArgumentException{Message: aws.String("a bad moment")}
			}
			return nil
		}
		w.serve = func(_ int, p *push) {
			at := 0
			for p.from.SequenceNumber != nil && number(at) < *p.from.SequenceNumber {
				at++
			}
			if !p.start() {
				return
			}
			for range each {
				if at++; !p.send(event{records: []int{at}, continuation: at}) || !p.pass(10*time.Second) {
					return
				}
			}
		}
		s := w.source(retrieval.Position{After: number(read)})
		defer s.Close()
		for w.since() < time.Hour {
			if page := w.next(s); len(page.Records) > 0 {
				require.Equal(t, number(read+1), page.Records[0].SequenceNumber)
				return
			}
		}
		require.Fail(t, "the shard is not read on", "%d subscriptions in an hour", len(w.subscriptions))
	})
}

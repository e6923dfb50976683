package consumer

import (
	"testing"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// Nobody can read a shard that is gone again: what was read of it and waits for its batch to
// fill up is sent.
func TestWhatWasReadOfAShardThatIsGoneIsSent(t *testing.T) {
	bubble(t, func(c *Config) { c.Batcher = batcher(t, service.BatchPolicy{Count: 10}) }, func(r *rig) {
		r.put(page(0, 3))
		r.nothing()
		r.source.next <- fetched{err: retrieval.ErrShardGone}
		d, got := r.next()
		require.Equal(r, []string{"0", "1", "2"}, got)
		r.running()
		d.Ack(3, nil)
		require.Equal(r, Gone, r.result().Outcome)
		require.Equal(r, sequence(2), r.table.now().Sequence)
	})
}

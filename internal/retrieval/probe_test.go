package retrieval_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// probed runs a test on a shard whose limits are enforced, in virtual time.
func probed(t *testing.T, test func(t *testing.T, s *awsfake.Server, p *retrieval.Probe, put func() string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := awsfake.New(awsfake.Options{EnforceLimits: true})
		defer func() { require.NoError(t, server.Close()) }()
		require.NoError(t, server.CreateStream("s", 1))
		n := 0
		test(t, server, retrieval.NewProbe(server.Kinesis()), func() string {
			n++
			number, err := server.PutTo("s", "shardId-000000000000", "key", fmt.Append(nil, n))
			require.NoError(t, err)
			return number
		})
		require.Zero(t, server.Refused("GetRecords", "ProvisionedThroughputExceededException"), "it keeps to the limits of a shard")
	})
}

func TestProbeFindsTheRecordBeforeAnotherHoweverLongBefore(t *testing.T) {
	for _, gap := range []time.Duration{0, time.Millisecond, 3 * time.Second, 2 * time.Hour, 20 * time.Hour, 300 * 24 * time.Hour} {
		t.Run(gap.String(), func(t *testing.T) {
			probed(t, func(t *testing.T, _ *awsfake.Server, p *retrieval.Probe, put func() string) {
				first := put()
				before := first
				for range 5 {
					before = put()
				}
				time.Sleep(gap) //nolint:forbidigo // virtual time
				number := put()
				put()
				for of, want := range map[string]string{number: before, first: ""} {
					r, ok, err := p.At(t.Context(), "s", "shardId-000000000000", of)
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, of, r.SequenceNumber)
					got, err := p.Before(t.Context(), "s", "shardId-000000000000", r)
					require.NoError(t, err)
					require.Equal(t, want, got)
				}
				r, ok, err := p.Oldest(t.Context(), "s", "shardId-000000000000")
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, first, r.SequenceNumber)
			})
		})
	}
}

func TestProbeLooksBeyondEmptyPages(t *testing.T) {
	probed(t, func(t *testing.T, s *awsfake.Server, p *retrieval.Probe, put func() string) {
		_, ok, err := p.Oldest(t.Context(), "s", "shardId-000000000000")
		require.NoError(t, err)
		require.False(t, ok)
		number := put()
		s.SetEmptyPages("s", 3)
		r, ok, err := p.Oldest(t.Context(), "s", "shardId-000000000000")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, number, r.SequenceNumber)
	})
}

// What is taken for gone is skipped, with what is left of an aggregate.
func TestRecordBehindManyEmptyPagesIsNotTakenForGone(t *testing.T) {
	probed(t, func(t *testing.T, s *awsfake.Server, p *retrieval.Probe, put func() string) {
		number := put()
		s.SetEmptyPages("s", 30)
		_, ok, err := p.At(t.Context(), "s", "shardId-000000000000", number)
		require.ErrorIs(t, err, retrieval.ErrManyEmpty)
		require.False(t, ok)
	})
}

func TestProbeOfARecordThatHasLeftTheStreamFindsTheNext(t *testing.T) {
	probed(t, func(t *testing.T, s *awsfake.Server, p *retrieval.Probe, put func() string) {
		gone := put()
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		next := put()
		require.NoError(t, s.TrimShard("s", "shardId-000000000000", time.Now().Add(-time.Second)))
		r, ok, err := p.At(t.Context(), "s", "shardId-000000000000", gone)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, next, r.SequenceNumber)
	})
}

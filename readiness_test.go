package awskinesis

import (
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
)

func TestInputIsReadyUnlessNothingThatIsEligibleWorks(t *testing.T) {
	for name, test := range map[string]struct {
		health health
		why    string
	}{
		"nothing to read":                 {health{}, ""},
		"all is well":                     {health{held: 3}, ""},
		"one shard that works":            {health{held: 3, noReads: 1, noWrites: 1}, ""},
		"no reads":                        {health{held: 3, noReads: 3}, "none of its 3 shards could be read"},
		"no commits":                      {health{held: 3, noWrites: 3}, "none of its 3 shards could be committed"},
		"some no reads, some no commits":  {health{held: 3, noReads: 2, noWrites: 1}, "of its 3 shards 2 could not be read, and the others not be committed"},
		"no session":                      {health{held: 3, session: true}, "its session in the group could not be renewed"},
		"no session and no shard":         {health{session: true}, "its session in the group could not be renewed"},
		"no stream":                       {health{missing: true}, "no stream that it is to read could be found"},
		"no claim":                        {health{claims: true}, "it had no shard, and could not claim one"},
		"some claims":                     {health{held: 1, claims: true}, ""},
		"no table to claim by":            {health{table: true}, "it had no shard, and the table could not be read"},
		"no table, and shards that go on": {health{held: 1, table: true}, ""},
	} {
		require.Equal(t, test.why, test.health.verdict(), name)
	}
}

func TestReadinessIsToldWhenItTurns(t *testing.T) {
	r := newReadiness()
	at := time.Now()
	turned := r.turned
	require.Nil(t, r.be("", at))
	line := r.be("it rains", at)
	require.Equal(t, journal.Error, line.Level)
	require.Contains(t, line.Text, "for a lease period it rains")
	require.Nil(t, r.be("it snows", at.Add(time.Minute)), "one reason more is no news")
	select {
	case <-turned:
	default:
		t.Fatal("who waits is not told")
	}
	line = r.be("", at.Add(90*time.Second))
	require.Equal(t, &journal.Line{Level: journal.Info, Text: "The input is ready again after 1m30s"}, line)
}

func TestBatchThatWasRejectedComesAgainWhileTheInputIsNotReady(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`streams: [ orders ]`)
		b := in.next()
		r.failReads(awsfake.Fault{Refuse: awsfake.NewError("AccessDeniedException", "no")})
		pass(time.Minute)
		_, _, err := in.BatchInput.ReadBatch(r.Context())
		require.ErrorIs(r, err, service.ErrNotConnected)
		require.NoError(r, b.ack(r.Context(), errRejected))
		require.Equal(r, []string{"0"}, in.next().contents())
	})
}

func TestInputThatIsClosedWhileItIsNotReadyEnds(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`streams: [ orders ]`)
		r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError("AccessDeniedException", "no")})
		pass(2 * time.Minute)
		ended := make(chan error, 1)
		go func() {
			_, _, err := readAsHost(r.Context(), in.BatchInput)
			ended <- err
		}()
		pass(time.Second)
		in.close()
		require.ErrorIs(r, <-ended, service.ErrEndOfInput)
	})
}

func TestClockOfTheServiceCountsWhereItIsCertainlyAnother(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 300e6, time.UTC)
	for name, test := range map[string]struct {
		service time.Time // in whole seconds, as answers have it
		took    time.Duration
		skew    time.Duration
	}{
		"the same":             {now.Truncate(time.Second), 10 * time.Millisecond, 0},
		"a second apart":       {now.Truncate(time.Second).Add(-time.Second), 10 * time.Millisecond, 0},
		"an hour ahead":        {now.Truncate(time.Second).Add(time.Hour), 400 * time.Millisecond, time.Hour},
		"a minute behind":      {now.Truncate(time.Second).Add(-time.Minute), 400 * time.Millisecond, -time.Minute},
		"a slow answer":        {now.Add(time.Hour), 3 * time.Second, time.Hour},
		"one, and two seconds": {now.Add(2 * time.Second), 3 * time.Second, 0},
		"no time in answer":    {time.Time{}, 0, 0},
	} {
		s := &signals{}
		s.clockIs(test.service, now, now.Add(test.took))
		require.InDelta(t, test.skew, s.clockSkew(), float64(time.Second), name)
		if test.skew == 0 {
			require.Zero(t, s.clockSkew(), name)
		}
	}
}

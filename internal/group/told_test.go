package group

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// gained returns what is said of the claim of shard 0.
func gained(t *testing.T, s *stage) string {
	t.Helper()
	require.Contains(t, s.claims(), ids(0)[0]) // which it carries out
	require.Empty(t, said(s.next(), "is read here now"), "it is not read yet")
	s.Began(key(0))
	s.pass(tellEvery)
	lines := said(s.next(), "is read here now: ")
	require.Len(t, lines, 1)
	require.Equal(t, key(0), lines[0].Key)
	require.NotEmpty(t, lines[0].Many)
	return lines[0].Text
}

func TestOperatorIsToldFromWhomAShardComesAndWhy(t *testing.T) {
	t.Run("nobody has read it", func(t *testing.T) {
		s := begin(t, 1)
		s.read()
		require.Equal(t, "is read here now: nobody has read it yet", gained(t, s))
	})
	t.Run("nobody has it", func(t *testing.T) {
		s := begin(t, 1)
		s.read(free(0))
		require.Equal(t, "is read here now: nobody had it", gained(t, s))
	})
	t.Run("its owner is gone", func(t *testing.T) {
		s := begin(t, 1, anna)
		s.read(owned(0, anna))
		s.next()
		s.Evicted(anna, nil, s.now)
		require.Equal(t, "is read here now: its owner, client anna, is gone", gained(t, s))
	})
	t.Run("it was handed over", func(t *testing.T) {
		s := begin(t, 1, anna)
		s.read(owned(0, anna))
		s.next()
		s.pass(time.Second)
		s.see(me, anna)
		passed := owned(0, me)
		passed.Term = lease.HandOverMark + "t"
		s.read(passed)
		require.Equal(t, "is read here now: client anna handed it over", gained(t, s))
	})
}

func TestReasonsOfAClaimAreToldApart(t *testing.T) {
	s := begin(t, 1, anna)
	s.ids["before"] = true
	s.Group.members.gone["gone"] = s.now
	passed := func(to string) lease.Item {
		item := owned(0, to)
		item.Term = lease.HandOverMark + "t"
		return item
	}
	for name, test := range map[string]struct {
		item   lease.Item
		former string
		stolen bool
		why    string
	}{
		"stolen":                          {item: foreign(0, "b", "t"), stolen: true, why: "it was taken from client b, which cannot be asked for it"},
		"of the built-in input":           {item: foreign(0, "b", "t"), why: "client b, of the built-in input, has not renewed it"},
		"handed over":                     {item: passed(me), former: anna, why: "client anna handed it over"},
		"handed over by nobody known":     {item: passed(me), why: "it was handed over"},
		"handed over, not claimed":        {item: passed(anna), why: "client anna, to which it was handed over, did not claim it"},
		"handed over to one that is gone": {item: passed("gone"), why: "its owner, client gone, is gone"},
		"ours before":                     {item: owned(0, "before"), why: "it was read here before"},
		"ours":                            {item: owned(0, me), why: "it was read here before"},
		"of one that is gone":             {item: owned(0, "gone"), why: "its owner, client gone, is gone"},
		"free":                            {item: free(0), why: "nobody had it"},
		"new":                             {why: "nobody has read it yet"},
	} {
		e := &eligible{candidate: candidate{shard: &shard{key: key(0), item: test.item, former: test.former}}}
		require.Equal(t, test.why, s.reason(e, test.stolen).One, name)
		require.NotEmpty(t, s.reason(e, test.stolen).Many, name)
	}
}

func TestStreamThatCameBackIsNotSaidToHaveBeenUnread(t *testing.T) {
	s := unread(t)
	s.pass(5 * time.Second)
	s.see(me, anna)
	s.stream("foo").missing = true
	s.dirty = true
	s.next()
	_, from, known := s.Unread("foo")
	require.Zero(t, from)
	require.False(t, known)
	s.stream("foo").missing = false
	s.dirty = true
	s.next()
	_, from, _ = s.Unread("foo")
	require.Equal(t, s.now, from)
}

func TestEndOfAnAssignmentIsTold(t *testing.T) {
	for text, e := range map[string]Exit{
		"is read here no more: it was released":                 {Outcome: Released},
		"was handed over to client anna, which asked for it":    {Outcome: HandedOver, To: anna},
		"is closed and has been read to its end":                {Outcome: Finished},
		"is read here no more: lease lost: others took it":      {Outcome: Lost, Err: textError("lease lost: others took it")},
		"is read here no more: the shard does not exist":        {Outcome: Gone, Err: textError("the shard does not exist")},
		"is read here no more, and claimed anew if it is still": {Outcome: Failed, Err: textError("no answer")},
	} {
		s := reading(t, 1)
		s.next()
		s.exit(0, e)
		lines := said(s.next(), text)
		require.Len(t, lines, 1, text)
		require.Equal(t, key(0), lines[0].Key)
		require.NotEmpty(t, lines[0].Many)
	}
}

type textError string

func (e textError) Error() string { return string(e) }

func TestEvictionIsToldByWhoeverMadeIt(t *testing.T) {
	s := begin(t, 1, anna)
	s.Evicted(anna, nil, s.now)
	require.Len(t, said(s.next(), "Client anna is taken for dead"), 1)
	s.Evicted(anna, lease.ErrConflict, s.now)
	require.Empty(t, said(s.next(), "taken for dead"))
}

func TestShardIsSettledWhenItNeedsNoClaimOfOurs(t *testing.T) {
	s := begin(t, 3, anna)
	s.read(free(0), owned(1, anna), finished(2))
	s.next()
	require.False(t, s.Settled(key(0)))
	require.True(t, s.Settled(key(1)), "another has it")
	require.True(t, s.Settled(key(2)), "nobody ever reads it again")
	require.True(t, s.Settled(lease.Key{Stream: "foo", Shard: "shardId-000000000009"}), "nobody knows it")
	s.stream("foo").missing = true
	require.True(t, s.Settled(key(0)), "there is no stream")
}

func TestUnreadShardsTellSinceWhen(t *testing.T) {
	s := unread(t)
	_, from, known := s.Unread("foo")
	require.True(t, known)
	require.Equal(t, s.now, from, "nobody knows more")
	item := free(1)
	item.UpTo = s.now.Add(-time.Minute)
	s.read(owned(0, anna), item)
	s.exit(1, Exit{Outcome: NotClaimed, Err: textError("throttled")})
	s.pass(2 * time.Second)
	s.read(owned(0, anna), item)
	s.next()
	_, from, _ = s.Unread("foo")
	require.Equal(t, item.UpTo, from)
	s.SessionLost(s.now)
	_, _, known = s.Unread("foo")
	require.False(t, known, "nobody tells us")
}

// somebody else has it by its short name, and it is not settled.
func TestShardThatALiteralItemHasAnOwnerOfIsSettled(t *testing.T) {
	s := begin(t, 1)
	s.read(free(0))
	require.Len(t, s.next().Claim, 1)
	s.exit(0, Exit{Outcome: NotClaimed, Err: textError("throttled")})
	for i := range 20 {
		s.pass(20 * time.Second)
		s.see(me)
		s.read(free(0), literally(0, "builtin", time.Duration(i).String()))
		require.Empty(t, s.next().Claim, "it is left to the built-in input")
	}
	require.True(t, s.Settled(key(0)), "another has it")
	require.Zero(t, s.unread())
}

// a built-in input, which erases UpTo, has read the shard for days since we did.
func TestReaderThatTellsNoMomentLeavesNoOldOne(t *testing.T) {
	s := reading(t, 1)
	ended := s.now
	s.exit(0, Exit{Outcome: Lost, Since: s.now, Err: textError("stolen")})
	for i := range 1000 {
		s.pass(5 * time.Minute)
		s.see(me)
		f := foreign(0, "builtin", time.Duration(i).String())
		s.read(f)
		s.next()
	}
	s.pass(20 * time.Second)
	s.see(me)
	f := free(0)
	s.read(f)
	a := s.next()
	_, from, _ := s.Unread("foo")
	t.Log("ended", ended, "now", s.now, "unread from", from, "claims", a.Claim)
	require.True(t, from.IsZero() || s.now.Sub(from) < time.Hour, "%v", s.now.Sub(from))
	for _, c := range a.Claim {
		require.True(t, c.Since.IsZero() || s.now.Sub(c.Since) < time.Hour, "claimed since %v ago", s.now.Sub(c.Since))
	}
}

package group

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// split is a shard that is read here, and is closed by a split into two.
func split(t *testing.T) (*stage, []Child) {
	return reading(t, 1), []Child{{ID: id(1), Parents: ids(0)}, {ID: id(2), Parents: ids(0)}}
}

func TestChildrenOfAFinishedShardAreClaimedAtOnce(t *testing.T) {
	s, children := split(t)
	s.exit(0, Exit{Outcome: Finished, Children: children})
	a := s.next()
	require.Len(t, a.Claim, 2)
	require.Empty(t, a.Claim[0].Shard.FirstSequence, "the parent does not say it")
	require.Equal(t, ids(0), a.Claim[0].Shard.Parents)
}

func TestChildrenAreClaimedThoughOthersShouldHaveThemByThePlan(t *testing.T) {
	s := reading(t, 2, anna)
	s.exit(0, Exit{Outcome: Finished, Children: []Child{{ID: id(2), Parents: ids(0)}, {ID: id(3), Parents: ids(0)}}})
	require.Equal(t, ids(2, 3), s.claims())
}

func TestChildOfAMergeWaitsForTheOtherParent(t *testing.T) {
	s := reading(t, 2)
	child := []Child{{ID: id(2), Parents: ids(0, 1)}}
	s.exit(0, Exit{Outcome: Finished, Children: child})
	require.Empty(t, s.next().Claim)
	s.exit(1, Exit{Outcome: Finished, Children: child})
	require.Equal(t, ids(2), s.claims())
}

// The other parent was made after the list: it is not one that was trimmed.
func TestChildOfAMergeWaitsForAParentThatIsYetToBeListed(t *testing.T) {
	s := reading(t, 1)
	s.exit(0, Exit{Outcome: Finished, Children: []Child{{ID: id(5), Parents: ids(0, 3)}}})
	require.Empty(t, s.next().Claim)
	s.pass(soon)
	a := s.next()
	require.Len(t, a.Refresh, 1)
	require.True(t, a.Refresh[0].Shards)
}

// What the parent's end tells of a child has no start of it, and the list has one.
func TestChildThatWasFinishedIsNotClaimedAgainWhenItIsListed(t *testing.T) {
	s, children := split(t)
	s.exit(0, Exit{Outcome: Finished, Children: children})
	require.Len(t, s.next().Claim, 2)
	s.Claimed(key(1), "term", "1000", s.now)
	s.pass(time.Second)
	s.exit(1, Exit{Outcome: Finished})
	s.pass(time.Second)
	s.list("foo", closed(shardOf(0)), closed(shardOf(1, 0)), shardOf(2, 0))
	s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", Shards: s.shards["foo"], Listed: s.now}}, s.now)
	require.Empty(t, s.next().Claim)
}

func TestEndOfAShardOfAnEarlierStreamDoesNotFinishThatOfThePresentOne(t *testing.T) {
	s := reading(t, 1)
	remade := shardOf(0)
	remade.FirstSequence = "5000"
	s.list("foo", remade)
	s.read(s.held(1)...)
	s.exit(0, Exit{Outcome: Finished})
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.True(t, a.Claim[0].Anew)
}

// The list tells the start of a child that its parent's end has not told.
func TestEndOfAChildIsOfTheStreamThatFirstListedIt(t *testing.T) {
	s := reading(t, 1)
	s.exit(0, Exit{Outcome: Finished, Children: []Child{{ID: id(1), Parents: ids(0)}}})
	require.Len(t, s.next().Claim, 1)
	s.Claimed(key(1), "term", "", s.now)
	for _, start := range []string{"1000", "5000"} { // the second one is of a stream made anew
		s.pass(time.Second)
		child := shardOf(1)
		child.FirstSequence = start
		s.list("foo", child)
		s.read()
	}
	s.exit(1, Exit{Outcome: Finished})
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.True(t, a.Claim[0].Anew)
}

func TestListFromBeforeTheEndOfAShardUndoesNothing(t *testing.T) {
	s, children := split(t)
	start := s.now
	s.pass(time.Second)
	s.exit(0, Exit{Outcome: Finished, Children: children})
	s.pass(time.Second)
	s.readBetween("foo", start, s.now) // the items are those from before, too
	require.Equal(t, ids(1, 2), s.claims())
}

func TestReadingOlderThanOurLastWriteIsNotBelieved(t *testing.T) {
	s := reading(t, 1)
	start := s.now
	s.pass(time.Second)
	s.exit(0, Exit{Outcome: Released})
	require.Empty(t, s.next().Claim, "whose it is only a reading tells")

	s.put(owned(0, me)) // a term of another time
	s.readBetween("foo", start, s.now)
	require.Empty(t, s.next().Claim, "it was begun before the release")

	s.pass(time.Second)
	s.read(s.held(1)...)
	require.Empty(t, s.next().Claim, "it shows the term that was released")
	s.read(s.held(1)...)
	require.Equal(t, s.now.Add(askAgain), s.next().Wake)

	s.read(free(0))
	require.Equal(t, ids(0), s.claims())
}

func TestAbsenceOlderThanOurLastWriteIsNotBelieved(t *testing.T) {
	s := begin(t, 1)
	s.read()
	start := s.now
	require.Equal(t, ids(0), s.claims())
	s.pass(time.Second)
	s.exit(0, Exit{Outcome: Released})
	s.put()
	s.readBetween("foo", start, s.now)
	require.Empty(t, s.next().Claim)
}

// Rule 5: the last write has no known outcome, and the shard may be ours as it was.
func TestShardWhoseLastWriteFailedIsClaimedAnewIfItIsStillOurs(t *testing.T) {
	s := reading(t, 1)
	s.exit(0, Exit{Outcome: Failed, Err: errors.New("throttled")})
	a := s.next()
	require.Len(t, said(a, "claimed anew if it is still"), 1)
	require.Empty(t, a.Claim)
	s.pass(time.Second)
	s.read(s.held(1)...)
	require.Equal(t, ids(0), s.claims())
}

// What follows a claim may fail, and the release after it too.
func TestShardThatWasClaimedInVainIsClaimedAnewIfItIsStillOurs(t *testing.T) {
	s := begin(t, 1)
	s.read()
	require.Equal(t, ids(0), s.claims())
	s.exit(0, Exit{Outcome: NotClaimed, Err: errors.New("reading its position, and releasing it")})
	s.pass(time.Second)
	s.read(s.held(1)...)
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, me, a.Claim[0].Item.Owner)
}

func TestLostShardThatIsAnothersIsLeftToIt(t *testing.T) {
	s := reading(t, 1, anna)
	s.exit(0, Exit{Outcome: Lost, Acked: lease.After("1500"), Err: lease.ErrLost})
	s.pass(time.Second)
	s.read(owned(0, anna))
	require.Empty(t, s.next().Claim)
	s.members[anna] = lease.Member{ID: anna, Token: lease.Evicted}
	s.see(me)
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Empty(t, a.Claim[0].Acked, "it has been read on by another")
}

func TestLostShardThatIsFreeIsGoneOnWithFromWhereItWasAcknowledged(t *testing.T) {
	s := reading(t, 2, anna)
	s.exit(0, Exit{Outcome: Lost, Acked: lease.After("1500"), Err: lease.ErrLost})
	s.pass(time.Second)
	s.read(append(s.held(2)[1:], free(0))...)
	a := s.next()
	require.Len(t, a.Claim, 1, "by this member, which knows more")
	require.Equal(t, lease.After("1500"), a.Claim[0].Acked)
}

func TestDeletedItemIsMadeAnewAtOnce(t *testing.T) {
	s := reading(t, 2, anna)
	s.exit(0, Exit{Outcome: Lost, Acked: lease.After("1500"), Err: fmt.Errorf("%w: %w", lease.ErrLost, lease.ErrDeleted)})
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, lease.After("1500"), a.Claim[0].Acked)
	require.False(t, a.Claim[0].Item.Exists)
	require.Len(t, said(a, "had its item deleted from table leases"), 1)
}

func TestShardThatTheServiceDoesNotKnowRestsAndTheShardsAreListed(t *testing.T) {
	s := reading(t, 1)
	s.exit(0, Exit{Outcome: Gone, Err: errors.New("no such shard")})
	s.pass(soon)
	a := s.next()
	require.Len(t, a.Refresh, 1)
	require.True(t, a.Refresh[0].Shards)
}

func TestOthersAreToldOfWhatHasChanged(t *testing.T) {
	s := begin(t, 3)
	s.read()
	a := s.next()
	require.Zero(t, a.Report.Changes)
	s.Claimed(key(0), "a", "", s.now)
	require.EqualValues(t, 1, s.next().Report.Changes)
	s.Claimed(key(1), "b", "", s.now)
	s.exit(0, Exit{Outcome: Released})
	a = s.next()
	require.EqualValues(t, 1, a.Report.Changes, "they were told a moment ago")
	require.Equal(t, s.now.Add(tellEvery), a.Wake)
	s.pass(tellEvery)
	require.EqualValues(t, 3, s.next().Report.Changes)
}

// A session that is lost is told once, and not for each of a thousand shards.
func TestLeasesThatAreLostWithTheSessionAreNotToldOneByOne(t *testing.T) {
	s := reading(t, 2)
	s.next()
	s.exit(0, Exit{Outcome: Lost, Err: lease.ErrEvicted})
	require.Empty(t, s.next().Lines)
	s.exit(1, Exit{Outcome: Lost, Err: errors.New("lease lost: shard foo:1 now belongs to somebody")})
	require.Len(t, s.next().Lines, 1)
}

func TestSessionThatIsLostIsJoinedAnewUnderAnotherID(t *testing.T) {
	s := reading(t, 2)
	s.SessionLost(s.now)
	a := s.next()
	require.Empty(t, a.Claim)
	require.False(t, a.ReadMembers)
	require.Empty(t, a.Refresh)
	require.Equal(t, s.now.Add(lp), a.Wake)
	require.Equal(t, 2, s.Held("foo"), "its consumers exit by themselves")
	s.exit(0, Exit{Outcome: Lost, Acked: lease.After("1500"), Err: lease.ErrLost})
	s.exit(1, Exit{Outcome: Lost, Acked: lease.After("1600"), Err: lease.ErrLost})
	require.Empty(t, s.next().Claim)

	s.pass(time.Second)
	delete(s.members, me)
	s.Joined("me again", s.now)
	require.Empty(t, s.next().Report.Requests)
	s.pass(time.Second)
	s.see("me again")
	s.read(s.held(2)...)
	a = s.next()
	require.Equal(t, []string{me}, a.Confirm, "a copy of this machine may go on under its id")
	require.Empty(t, a.Claim)
	s.Confirmed(me, false, nil, s.now)
	a = s.next()
	require.Len(t, a.Claim, 2)
	require.Equal(t, me, a.Claim[0].Item.Owner)
	require.NotEmpty(t, a.Claim[0].Acked)
}

func TestRequestsEndWithTheSession(t *testing.T) {
	s := begin(t, 4, anna)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, anna))
	require.NotEmpty(t, s.next().Report.Requests)
	s.SessionLost(s.now)
	delete(s.members, me)
	s.Joined("me again", s.now)
	require.False(t, s.Waiting(s.now))
	require.Empty(t, s.next().Report.Requests, "until it knows the others")
}

func TestNothingIsKnownOfOthersWhenASessionBegins(t *testing.T) {
	s := begin(t, 2, anna)
	s.SessionLost(s.now)
	delete(s.members, me)
	s.pass(lp - time.Second)
	s.Joined("me again", s.now)
	s.see()
	s.pass(lp - time.Second)
	s.see()
	require.Empty(t, s.next().Evict)
	s.pass(time.Second)
	s.see()
	require.Len(t, s.next().Evict, 1)
}

func TestMemberThatWasSeenToMoveBeforeTheSessionTakesNoShare(t *testing.T) {
	s := begin(t, 2, anna)
	s.SessionLost(s.now)
	s.Joined("me again", s.now)
	for range 5 {
		s.see("me again")
		s.pass(time.Second)
	}
	s.read()
	require.Equal(t, ids(0, 1), s.claims())
}

func TestNothingIsBegunWhileTheSessionIsNotSound(t *testing.T) {
	s := begin(t, 2)
	s.read(owned(0, anna))
	a := s.nextIf(false)
	require.Empty(t, a.Claim)
	require.Empty(t, a.Confirm)
	a = s.next()
	require.Len(t, a.Claim, 1)
	require.Len(t, a.Confirm, 1)
}

func TestNothingIsDoneBeforeThereIsASession(t *testing.T) {
	s := newStage(t)
	s.Begin([]StreamSnapshot{{Stream: "foo", Shards: open(1), Listed: s.now}}, s.now)
	a := s.next()
	require.Equal(t, Actions{Report: lease.Report{Streams: []string{"foo"}}, Wake: s.now.Add(lp)}, a)
	s.SessionLost(s.now)
	require.Empty(t, s.next().Claim)
}

func TestOutcomesHaveNames(t *testing.T) {
	for o, name := range map[Outcome]string{
		0: "none", NotClaimed: "not claimed", Released: "released", Finished: "finished",
		HandedOver: "handed over", Lost: "lost", Gone: "gone", Failed: "failed",
		9: "Outcome(9)", -1: "Outcome(-1)",
	} {
		require.Equal(t, name, o.String())
	}
}

func TestChildThatThisMemberHadInAnEarlierStreamWaitsForItsParent(t *testing.T) {
	b := newBeside(t, 2, 1)
	for i := range b.items {
		b.items[i].Owner, b.items[i].Term, b.items[i].Token = "ours", "of the earlier stream", "token"
	}
	b.group.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "orders", Listed: b.now, Shards: []lineage.Shard{
		{ID: lineage.ShardID("0"), FirstSequence: "100", LastSequence: "110", Closed: true},
		{ID: lineage.ShardID("1"), FirstSequence: "120", Parents: []string{lineage.ShardID("0")}},
	}}}, b.now)
	claims := b.look(10 * time.Second)
	require.Len(t, claims, 1)
	require.Equal(t, lineage.ShardID("0"), claims[0].Key.Shard)
	b.group.Claimed(claims[0].Key, "term", "100", b.now)
	b.group.Exited(claims[0].Key, Exit{Outcome: Finished}, b.now)
	b.items[0] = lease.Item{Key: claims[0].Key, Exists: true, Finished: true, Sequence: "105"}
	claims = b.look(10 * time.Second)
	require.Len(t, claims, 1)
	require.Equal(t, lineage.ShardID("1"), claims[0].Key.Shard)
}

package table

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

const tableName = "leases"

// storedShard is one item of a table, under its first term.
type storedShard struct {
	*testing.T
	*Table
	key lease.Key
}

// committedTo returns the item of a shard that was claimed, and committed up to a position.
func committedTo(t *testing.T, position lease.Position) storedShard {
	t.Helper()
	server := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	require.NoError(t, server.CreateTable(tableName, AttrStream, AttrShard))
	s := storedShard{t, New(server.DynamoDB(), tableName, ""), lease.Key{Stream: "orders", Shard: "s"}}
	grant := lease.Grant{Link: lease.Link{Owner: "a", Term: "1", Token: "t0"}, ShardStart: "3"}
	item, err := s.Claim(t.Context(), lease.Item{Key: s.key}, grant)
	require.NoError(t, err)
	_, err = s.Renew(t.Context(), s.key, item.Link(), "t1", lease.Move{To: position})
	require.NoError(t, err)
	return s
}

func (s storedShard) now() lease.Item {
	s.Helper()
	item, err := s.Get(s.Context(), s.key)
	require.NoError(s, err)
	return item
}

// raw returns the attributes as they stand in the table.
func (s storedShard) raw() values {
	s.Helper()
	attributes, err := s.get(s.Context(), s.key)
	require.NoError(s, err)
	return attributes
}

// write is what another client of the table does, or an operator.
func (s storedShard) write(expression string, v values) {
	s.Helper()
	_, err := s.api.UpdateItem(s.Context(), &dynamodb.UpdateItemInput{
		TableName: aws.String(tableName), Key: s.keyOf(s.key), UpdateExpression: &expression, ExpressionAttributeValues: v,
	})
	require.NoError(s, err)
}

// inside is a position some way into the record 7, which comes after the record 5.
var inside = lease.Position{Sequence: "5", Within: lease.Within{Sequence: "7", Count: 3}}

func TestPlaceWithinARecordStandsWithTheSequenceThatItWasWrittenWith(t *testing.T) {
	for name, step := range map[string]struct {
		expression string
		v          values
		want       lease.Position
	}{
		"built-in input claims": {
			"SET ClientID = :c, LeaseTimeout = :t", values{":c": text("built-in"), ":t": text("2026-01-02T03:04:05Z")}, inside,
		},
		"built-in input yields":               {"SET SequenceNumber = :s", values{":s": text("9")}, lease.After("9")},
		"operator has it replayed":            {"SET SequenceNumber = :s", values{":s": text("4")}, lease.After("4")},
		"operator has it read from the start": {"SET SequenceNumber = :s", values{":s": text("")}, lease.Position{}},
		"sequence is removed":                 {"REMOVE SequenceNumber", nil, lease.Position{}},
		"sequence becomes malformed":          {"SET SequenceNumber = :s", values{":s": text("null")}, lease.Position{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := committedTo(t, inside)
			require.Equal(t, inside, s.now().Position())
			s.write(step.expression, step.v)
			require.Equal(t, step.want, s.now().Position())
		})
	}
}

func TestPlaceWithinARecordThatIsNoneCountsForNothing(t *testing.T) {
	s := committedTo(t, inside)
	for _, malformed := range []types.AttributeValue{
		text(""), text("5"), text("5/7"), text("5/7/"), text("5/7/0"), text("5/7/-3"), text("5/7/3.5"), text("5/7/99999999999999999999"),
		text("5//3"), text("5/seven/3"), text("5/7/3/1"), text("/7/3"), number(573), &types.AttributeValueMemberNULL{Value: true},
	} {
		s.write("SET Inside = :w", values{":w": malformed})
		require.Equal(t, lease.After("5"), s.now().Position(), "%v", malformed)
	}
	s.write("SET Inside = :w", values{":w": text("5/7/4")})
	require.Equal(t, 4, s.now().Within.Count)
	s.write("SET SequenceNumber = :s, Inside = :w", values{":s": text("null"), ":w": text("/7/4")})
	require.Zero(t, s.now().Position(), "what really stands there is not empty")
}

func TestPlaceWithinTheFirstRecordLeavesWhatTellsTheShard(t *testing.T) {
	first := lease.Position{Within: lease.Within{Sequence: "7", Count: 3}}
	s := committedTo(t, first)
	require.Equal(t, first, s.now().Position())
	require.Equal(t, "3", s.now().ShardStart)
	require.Equal(t, text(""), s.raw()[AttrSequence], "as the built-in input knows it")
}

func TestPlaceWithinARecordGoesWhenTheRecordIsDone(t *testing.T) {
	for name, write := range map[string]func(s storedShard, move lease.Move) error{
		"renewal": func(s storedShard, move lease.Move) error {
			_, err := s.Renew(s.Context(), s.key, s.now().Link(), "t2", move)
			return err
		},
		"release": func(s storedShard, move lease.Move) error { return s.Release(s.Context(), s.key, s.now().Link(), move) },
		"finish":  func(s storedShard, move lease.Move) error { return s.Finish(s.Context(), s.key, s.now().Link(), move) },
		"hand-over": func(s storedShard, move lease.Move) error {
			return s.HandOver(s.Context(), s.key, s.now().Link(), move, lease.Link{Owner: "b", Term: "+", Token: "t2"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			further := lease.Position{Sequence: "5", Within: lease.Within{Sequence: "7", Count: 4}}
			for _, to := range []lease.Position{inside, further, lease.After("7")} {
				s := committedTo(t, inside)
				require.NoError(t, write(s, lease.Move{From: inside, To: to}))
				require.Equal(t, to, s.now().Position())
				_, there := s.raw()[AttrInside]
				require.Equal(t, to.Within != lease.Within{}, there)

				s = committedTo(t, inside)
				s.write("SET SequenceNumber = :s", values{":s": text("6")}) // as the built-in input yields
				if err := write(s, lease.Move{From: inside, To: to}); to != inside || name != "renewal" {
					require.ErrorIs(t, err, lease.ErrConflict)
				}
				require.Equal(t, lease.After("6"), s.now().Position())
			}
		})
	}
}

func TestClaimBeginsWithinTheRecord(t *testing.T) {
	s := committedTo(t, inside)
	item, err := s.Claim(t.Context(), s.now(), lease.Grant{Link: lease.Link{Owner: "b", Term: "2", Token: "t2"}})
	require.NoError(t, err)
	require.Equal(t, inside, item.Position())

	item, err = s.Claim(t.Context(), s.now(), lease.Grant{Link: lease.Link{Owner: "b", Term: "3", Token: "t3"}, Anew: true})
	require.NoError(t, err)
	require.Zero(t, item.Position(), "it is another shard")
	require.NotContains(t, s.raw(), AttrInside)

	removed, err := s.RemoveItem(t.Context(), s.now())
	require.NoError(t, err)
	require.True(t, removed)
	item, err = s.Claim(t.Context(), lease.Item{Key: s.key}, lease.Grant{Link: lease.Link{Owner: "b", Term: "4", Token: "t4"}, Position: inside})
	require.NoError(t, err)
	require.Equal(t, inside, item.Position(), "how far it was acknowledged before its item was deleted")
}

func TestPlacedShardStandsWhereItWasPut(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, to := range map[string]Standing{
		"oldest":        {ShardStart: "3"},
		"time":          {StartAt: at, ShardStart: "3", UpTo: at.Truncate(time.Second)},
		"record":        {Position: lease.After("9")},
		"within":        {Position: inside},
		"within first":  {Position: lease.Position{Within: lease.Within{Sequence: "7", Count: 3}}, ShardStart: "3", StartAt: at},
		"finished":      {Position: lease.After("9"), Finished: true},
		"never filled":  {Finished: true, ShardStart: "3"},
		"cut":           {Position: lease.After("9"), CutAt: at},
		"pinned":        {Position: lease.After("9"), Pinned: true},
		"back and free": {Position: lease.After("1")},
	} {
		t.Run(name, func(t *testing.T) {
			s := committedTo(t, inside)
			seen := s.now()
			item, err := s.Place(t.Context(), seen, to)
			require.NoError(t, err)
			require.Empty(t, item.Owner)
			got := StandingOf(s.now())
			if got.UpTo = got.UpTo.UTC(); !to.UpTo.IsZero() {
				require.True(t, got.UpTo.Equal(to.UpTo))
			}
			got.UpTo = to.UpTo
			require.Equal(t, to, got)
			require.NotNil(t, s.raw()[AttrSequence], "the built-in input fails without one")
			require.EqualValues(t, 1, s.now().Number, "terms go on growing")

			_, err = s.Place(t.Context(), seen, Standing{})
			require.ErrorIs(t, err, lease.ErrConflict, "it is not as it was seen any more")
			_, err = s.Place(t.Context(), lease.Item{Key: s.key}, Standing{})
			require.ErrorIs(t, err, lease.ErrConflict, "it is there")
			require.Equal(t, to.Position, s.now().Position())

			removed, err := s.RemoveItem(t.Context(), s.now())
			require.NoError(t, err)
			require.True(t, removed)
			_, err = s.Place(t.Context(), lease.Item{Key: s.key}, to)
			require.NoError(t, err)
			require.Equal(t, to.Position, s.now().Position())
		})
	}
}

func TestOwnerThatCommitsIsNeitherPlacedNorFreed(t *testing.T) {
	s := committedTo(t, inside)
	seen := s.now()
	_, err := s.Renew(t.Context(), s.key, seen.Link(), "t2", lease.Move{From: inside, To: lease.After("7")})
	require.NoError(t, err)
	_, err = s.Place(t.Context(), seen, Standing{})
	require.ErrorIs(t, err, lease.ErrConflict)
	_, err = s.Free(t.Context(), seen)
	require.ErrorIs(t, err, lease.ErrConflict)
	require.Equal(t, lease.After("7"), s.now().Position())
}

func TestShardThatWasReadWithinARecordSinceIsNotPlaced(t *testing.T) {
	s := committedTo(t, lease.After("5"))
	require.NoError(t, s.Release(t.Context(), s.key, s.now().Link(), lease.Move{From: lease.After("5"), To: lease.After("5")}))
	seen := s.now()
	item, err := s.Claim(t.Context(), seen, lease.Grant{Link: lease.Link{Owner: "b", Term: "2", Token: "t2"}})
	require.NoError(t, err)
	within := lease.Position{Sequence: "5", Within: lease.Within{Sequence: "7", Count: 2}}
	require.NoError(t, s.Release(t.Context(), s.key, item.Link(), lease.Move{From: lease.After("5"), To: within}))
	_, err = s.Place(t.Context(), seen, Standing{Position: lease.After("5")})
	require.ErrorIs(t, err, lease.ErrConflict)
	require.Equal(t, within, s.now().Position())
	_, err = s.Place(t.Context(), s.now(), Standing{Position: lease.After("5")})
	require.NoError(t, err)
}

// The built-in input claims a finished item and keeps what it does not know. Without the
// owner the mark would count again.
func TestFreedShardIsNotFinishedByAMarkOfBefore(t *testing.T) {
	s := committedTo(t, inside)
	require.NoError(t, s.Finish(t.Context(), s.key, s.now().Link(), lease.Move{From: inside, To: lease.After("9")}))
	require.True(t, s.now().Finished)
	s.write("SET ClientID = :c, LeaseTimeout = :t", values{":c": text("built-in"), ":t": text("2026-01-02T03:04:05Z")})
	item, err := s.Free(t.Context(), s.now())
	require.NoError(t, err)
	require.Empty(t, item.Owner)
	require.False(t, item.Finished)
	require.Equal(t, "9", item.Sequence)
}

package table

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// ListMembers returns the members of the group.
func (t *Table) ListMembers(ctx context.Context, consistent bool) ([]lease.Member, error) {
	all, _, err := t.query(ctx, MembersStream, consistent)
	if err != nil {
		return nil, fmt.Errorf("reading who is in the group: %w", err)
	}
	found := make([]lease.Member, 0, len(all))
	for _, attributes := range all {
		found = append(found, decodeMember(attributes))
	}
	return found, nil
}

// Member implements lease.Members.
func (t *Table) Member(ctx context.Context, id string) (lease.Member, bool, error) {
	attributes, err := t.get(ctx, lease.Key{Stream: MembersStream, Shard: id})
	if err != nil || attributes == nil {
		return lease.Member{}, false, err
	}
	return decodeMember(attributes), true, nil
}

// Join implements lease.Members.
func (t *Table) Join(ctx context.Context, m lease.Member) error {
	return t.beat(ctx, m, "attribute_not_exists("+AttrShard+")", values{})
}

// Beat implements lease.Members.
func (t *Table) Beat(ctx context.Context, m lease.Member, at string) error {
	return t.beat(ctx, m, AttrToken+" = :at", values{":at": text(at)})
}

func (t *Table) beat(ctx context.Context, m lease.Member, condition string, v values) error {
	v[":token"], v[":period"], v[":changes"] = text(m.Token), number(m.Period.Milliseconds()), number(m.Changes)
	set := "SET " + AttrToken + " = :token, " + AttrPeriod + " = :period, " + AttrChanges + " = :changes"
	var remove []string
	// A set cannot be empty.
	if len(m.Streams) > 0 {
		set += ", " + AttrStreams + " = :streams"
		v[":streams"] = &types.AttributeValueMemberSS{Value: m.Streams}
	} else {
		remove = append(remove, AttrStreams)
	}
	if len(m.Requests) > 0 {
		requests := make([]string, 0, len(m.Requests))
		for owner, count := range m.Requests {
			requests = append(requests, strconv.Itoa(count)+" "+owner)
		}
		set += ", " + AttrRequests + " = :requests"
		v[":requests"] = &types.AttributeValueMemberSS{Value: requests}
	} else {
		remove = append(remove, AttrRequests)
	}
	if len(m.Starts) > 0 {
		starts := make([]string, 0, len(m.Starts))
		for stream, at := range m.Starts {
			starts = append(starts, encodeStart(at)+" "+stream)
		}
		set += ", " + AttrStarts + " = :starts"
		v[":starts"] = &types.AttributeValueMemberSS{Value: starts}
	} else {
		remove = append(remove, AttrStarts)
	}
	if len(remove) > 0 {
		set += " REMOVE " + strings.Join(remove, ", ")
	}
	_, err := t.update(ctx, lease.Key{Stream: MembersStream, Shard: m.ID}, set, condition, v)
	return err
}

// Evict implements lease.Members.
func (t *Table) Evict(ctx context.Context, m lease.Member) error {
	condition, v := beatenAs(m)
	v[":evicted"] = text(lease.Evicted)
	_, err := t.update(ctx, lease.Key{Stream: MembersStream, Shard: m.ID},
		"SET "+AttrToken+" = :evicted REMOVE "+strings.Join([]string{AttrPeriod, AttrStreams, AttrRequests, AttrStarts, AttrChanges}, ", "), condition, v)
	return err
}

// Remove implements lease.Members.
func (t *Table) Remove(ctx context.Context, m lease.Member) error {
	condition, v := beatenAs(m)
	if len(v) == 0 {
		v = nil
	}
	return t.delete(ctx, lease.Key{Stream: MembersStream, Shard: m.ID}, condition, v)
}

func decodeMember(attributes map[string]types.AttributeValue) lease.Member {
	item := decodeItem(attributes)
	m := lease.Member{ID: item.Shard, Token: item.Token}
	if stored, malformed := raw(item)[AttrToken]; malformed {
		m.Raw = stored
	}
	if ms, ok := attributes[AttrPeriod].(*types.AttributeValueMemberN); ok {
		m.Period = time.Duration(integer(ms)) * time.Millisecond
	}
	if changes, ok := attributes[AttrChanges].(*types.AttributeValueMemberN); ok {
		m.Changes = integer(changes)
	}
	if streams, ok := attributes[AttrStreams].(*types.AttributeValueMemberSS); ok {
		m.Streams = streams.Value
	}
	if requests, ok := attributes[AttrRequests].(*types.AttributeValueMemberSS); ok {
		m.Requests = make(map[string]int, len(requests.Value))
		for _, request := range requests.Value {
			count, owner, _ := strings.Cut(request, " ")
			if n, err := strconv.Atoi(count); err == nil && n > 0 {
				m.Requests[owner] = n
			}
		}
	}
	if starts, ok := attributes[AttrStarts].(*types.AttributeValueMemberSS); ok {
		m.Starts = make(map[string]time.Time, len(starts.Value))
		for _, start := range starts.Value {
			at, stream, _ := strings.Cut(start, " ")
			if at, ok := decodeStart(at); ok {
				m.Starts[stream] = at
			}
		}
	}
	return m
}

// startOldest stands for the oldest record.
const startOldest = "oldest"

func encodeStart(at time.Time) string {
	if at.IsZero() {
		return startOldest
	}
	return at.UTC().Format(time.RFC3339Nano)
}

func decodeStart(s string) (at time.Time, ok bool) {
	if s == startOldest {
		return time.Time{}, true
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	return at, err == nil
}

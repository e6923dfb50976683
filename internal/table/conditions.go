package table

import (
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// claimable is the condition of a claim. One of our own owners is gone for good when its
// shard is claimed, so its term tells enough: a checkpoint of it that came since the item
// was seen is where the claim begins. An item of another owner has to be as it was seen.
func claimable(seen lease.Item, v values) string {
	if seen.Owner == "" || seen.Term == "" || seen.Malformed != "" {
		return asSeen(seen, v)
	}
	v[":seenOwner"], v[":seenTerm"] = text(seen.Owner), text(termOf(seen.Link()))
	return AttrOwner + " = :seenOwner AND " + AttrTerm + " = :seenTerm"
}

// asSeen is the condition that an item is as it was seen. It adds its placeholders to v.
func asSeen(seen lease.Item, v values) string {
	if !seen.Exists {
		return "attribute_not_exists(" + AttrShard + ")"
	}
	odd := raw(seen)
	same := func(attribute, placeholder, value string) string {
		if stored, malformed := odd[attribute]; malformed {
			v[placeholder] = stored
			return attribute + " = " + placeholder
		}
		if value == "" {
			v[":none"] = text("")
			return "(attribute_not_exists(" + attribute + ") OR " + attribute + " = :none)"
		}
		v[placeholder] = text(value)
		return attribute + " = " + placeholder
	}
	if seen.Owner == "" {
		// Not an item that was deleted meanwhile, which would come back as a
		// phantom, nor one that somebody took and gave back further on, finished or cut.
		condition := "attribute_exists(" + AttrShard + ") AND attribute_not_exists(" + AttrOwner + ") AND " +
			same(AttrSequence, ":seenSequence", seen.Sequence)
		if _, malformed := odd[AttrSequence]; malformed {
			return condition // there can be no mark then
		}
		return condition + marked(AttrFinished, seen.Finished) + marked(AttrCutSequence, !seen.CutAt.IsZero())
	}
	condition := same(AttrOwner, ":seenOwner", seen.Owner) + " AND " + same(AttrToken, ":seenToken", seen.Token)
	if seen.Term != "" {
		condition += " AND " + same(AttrTerm, ":seenTerm", termOf(seen.Link()))
	}
	if _, malformed := odd[AttrSequence]; malformed {
		condition += " AND " + same(AttrSequence, ":seenSequence", "")
	}
	return condition
}

// marked is the condition that a mark stands, or does not, beside others.
func marked(attribute string, stands bool) string {
	if stands {
		return " AND " + attribute + " = " + AttrSequence
	}
	return " AND (attribute_not_exists(" + attribute + ") OR " + attribute + " <> " + AttrSequence + ")"
}

// held is the condition that the item is still at the given link.
func held(at lease.Link) (condition string, v values) {
	return AttrOwner + " = :owner AND " + AttrToken + " = :token AND " + AttrTerm + " = :term",
		values{":owner": text(at.Owner), ":token": text(at.Token), ":term": text(termOf(at))}
}

// heldWith is held for a write that moves the position.
func heldWith(at lease.Link, position lease.Move) (condition string, v values) {
	condition, v = held(at)
	v[":stored"], v[":sequence"] = text(position.From.Sequence), text(position.To.Sequence)
	return condition + " AND " + AttrSequence + " = :stored", v
}

// beatenAs is the condition that the item of a member has the token that was seen.
func beatenAs(m lease.Member) (condition string, v values) {
	if stored, malformed := m.Raw.(types.AttributeValue); malformed {
		return AttrToken + " = :token", values{":token": stored}
	}
	if m.Token == "" {
		return "attribute_exists(" + AttrShard + ") AND attribute_not_exists(" + AttrToken + ")", values{}
	}
	return AttrToken + " = :token", values{":token": text(m.Token)}
}

func termOf(l lease.Link) string { return l.Owner + "/" + l.Term }

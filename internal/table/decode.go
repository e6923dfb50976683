package table

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// decodeItem reads an item of ours or of the built-in input, or what an operator's
// hand has made of one.
func decodeItem(attributes map[string]types.AttributeValue) lease.Item {
	str := func(name string) string {
		s, _ := attributes[name].(*types.AttributeValueMemberS)
		if s == nil {
			return ""
		}
		return s.Value
	}
	item := lease.Item{
		Key:      lease.Key{Stream: str(AttrStream), Shard: str(AttrShard)},
		Exists:   true,
		Sequence: str(AttrSequence),
		Owner:    str(AttrOwner),
		Token:    str(AttrToken),
	}
	readMalformed(&item, attributes)
	if term, ours := strings.CutPrefix(str(AttrTerm), item.Owner+"/"); ours && item.Owner != "" {
		item.Term = term
	}
	if terms, ok := attributes[AttrNumber].(*types.AttributeValueMemberN); ok {
		item.Number = integer(terms)
	}
	if at, err := time.Parse(time.RFC3339Nano, str(AttrStartAt)); err == nil {
		item.StartAt = at
	}
	if at, ok := attributes[AttrUpTo].(*types.AttributeValueMemberN); ok && integer(at) > 0 {
		item.UpTo = time.Unix(integer(at), 0)
	}
	if item.Sequence == "" {
		item.ShardStart = str(AttrShardStart)
	}
	if by := str(AttrPinned); by != "" {
		item.Pinned = item.Owner == "" || item.Owner == by
	}
	_, marked := attributes[AttrFinished].(*types.AttributeValueMemberS)
	_, unknown := raw(item)[AttrSequence]
	if !unknown {
		item.Within = decodeWithin(str(AttrInside), item.Sequence)
	}
	item.Finished = marked && !unknown && item.Owner == "" && str(AttrFinished) == item.Sequence
	if _, marked := attributes[AttrCutSequence].(*types.AttributeValueMemberS); marked && !unknown && item.Owner == "" && str(AttrCutSequence) == item.Sequence {
		var err error
		if item.CutAt, err = time.Parse(time.RFC3339Nano, str(AttrCut)); err != nil {
			item.CutAt = time.Unix(0, 0).UTC() // before the end of whoever looks, who reads on
		}
	}
	return item
}

// readMalformed reads the attributes that others share with the most caution where
// they are not what they should be. An owner that is no name may be one that lives:
// it is given one, to be watched. A sequence that is no number may be any, and so is
// none. What really stands there is kept, as the condition of a claim, which would
// otherwise be refused for ever.
func readMalformed(item *lease.Item, attributes map[string]types.AttributeValue) {
	odd := values{}
	var faults []string
	note := func(attribute, readAs string) {
		odd[attribute] = attributes[attribute]
		faults = append(faults, fmt.Sprintf("%s is %s and counts as %s", attribute, describe(attributes[attribute]), readAs))
	}
	isText := func(attribute string) (there, isText bool) {
		value, there := attributes[attribute]
		_, isText = value.(*types.AttributeValueMemberS)
		return there, isText
	}
	if there, isText := isText(AttrOwner); there && (!isText || item.Owner == "") {
		item.Owner = "(" + describe(attributes[AttrOwner]) + ")"
		note(AttrOwner, "an unknown owner")
	}
	if there, isText := isText(AttrToken); there && !isText {
		item.Token = "(" + describe(attributes[AttrToken]) + ")"
		note(AttrToken, "a lease that nobody renews")
	}
	if there, isText := isText(AttrSequence); there && (!isText || item.Sequence != "" && !sequence.Valid(item.Sequence)) {
		item.Sequence = ""
		note(AttrSequence, "none")
	}
	if len(faults) > 0 {
		item.Malformed, item.Raw = strings.Join(faults, ", "), odd
	}
}

// raw has the attributes of an item that are not what they should be.
func raw(item lease.Item) values {
	odd, _ := item.Raw.(values)
	return odd
}

// describe says what an attribute is.
func describe(value types.AttributeValue) string {
	switch value := value.(type) {
	case *types.AttributeValueMemberS:
		if value.Value == "" {
			return "blank"
		}
		return fmt.Sprintf("the text %q", value.Value)
	case *types.AttributeValueMemberN:
		return "the number " + value.Value
	case *types.AttributeValueMemberNULL:
		return "NULL"
	case *types.AttributeValueMemberBOOL:
		return fmt.Sprintf("the truth value %t", value.Value)
	}
	// Such as a list, a map or a set.
	return "a " + strings.TrimPrefix(fmt.Sprintf("%T", value), "*types.AttributeValueMember")
}

// encodeWithin is the text of AttrInside; empty for a position that is not inside of a
// record.
func encodeWithin(p lease.Position) string {
	if p.Within == (lease.Within{}) {
		return ""
	}
	return p.Sequence + "/" + p.Within.Sequence + "/" + strconv.Itoa(p.Within.Count)
}

// decodeWithin reads AttrInside as it stands beside a sequence number. Where it was written
// with another one, or is none, nothing is acknowledged of any record: who has moved the
// sequence wants what comes after it.
func decodeWithin(written, sequenceNumber string) lease.Within {
	parts := strings.Split(written, "/")
	if len(parts) != 3 || parts[0] != sequenceNumber || !sequence.Valid(parts[1]) {
		return lease.Within{}
	}
	count, err := strconv.Atoi(parts[2])
	if err != nil || count <= 0 {
		return lease.Within{}
	}
	return lease.Within{Sequence: parts[1], Count: count}
}

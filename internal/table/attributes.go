package table

// The attributes of a shard's item. The first five are shared with Benthos' built-in
// input, which erases the others whenever it commits, and keeps them, stale,
// when it claims: each of those is tied to the owner or sequence that it was
// written with, and left out of a lease.Item when that has changed. All are read by
// everybody, and are therefore short and few.
const (
	AttrStream   = "StreamID"
	AttrShard    = "ShardID"
	AttrSequence = "SequenceNumber"
	AttrOwner    = "ClientID"
	AttrToken    = "LeaseTimeout"

	// AttrTerm is "owner/term", and stands only while AttrOwner is that owner.
	AttrTerm = "LeaseTerm"
	// AttrNumber counts the terms, also while nobody owns the item.
	AttrNumber = "TermNumber"
	// AttrStartAt is where a shard without a sequence starts, RFC 3339.
	AttrStartAt = "StartTimestamp"
	// AttrFinished is the sequence with which the shard was finished, and stands
	// only while AttrSequence is the same and nobody owns the item.
	AttrFinished = "FinishedSequence"
	// AttrCut is the moment up to which the shard was read, RFC 3339, and stands only while
	// AttrSequence is the sequence AttrCutSequence and nobody owns the item.
	AttrCut         = "CutAt"
	AttrCutSequence = "CutSequence"
	// AttrShardStart is the starting sequence number of the shard that was claimed,
	// and stands only while AttrSequence is empty: from then on that tells the shard.
	AttrShardStart = "ShardStart"
	// AttrPinned is the owner that was told to read this very shard, and stands only
	// while AttrOwner is that owner or there is none.
	AttrPinned = "PinnedBy"
	// AttrInside is how much was acknowledged of the record after AttrSequence, as
	// "sequence/record/count", and stands only while AttrSequence is that sequence.
	AttrInside = "Inside"
	// AttrUpTo is the moment before which all that arrived was acknowledged, in seconds
	// since 1970.
	AttrUpTo = "UpTo"
)

// The members of the group stand under a stream name that no stream can have, with
// their ids for shards and without AttrOwner: the built-in input never sees one. All
// items of a group that has a name, its members too, stand under names that begin with
// GroupPrefix and its own: no stream has a slash in its name, and an ARN begins with arn.
const (
	GroupPrefix   = "/groups/"
	MembersStream = "/clients"
	// AttrPeriod is a member's lease period in milliseconds.
	AttrPeriod = "LeasePeriod"
	// AttrStreams are the streams of which it shares the shards, a set of strings.
	AttrStreams = "Streams"
	// AttrRequests are how many shards it asks for of whom, a set of "count owner".
	AttrRequests = "Requests"
	// AttrStarts are where shards without an item start, a set of "time stream" with times
	// in RFC 3339, or with startOldest in place of one.
	AttrStarts = "Starts"
	// AttrChanges is a number that grows with what the member changes.
	AttrChanges = "Changes"
)

// The end of a group that ends at its first start stands in an item of its own, under a
// stream name that no stream can have either.
const (
	endStream = "/end"
	endShard  = "now"
	// AttrEnd is that moment, RFC 3339.
	AttrEnd = "EndTimestamp"
	// AttrEndBy is a text of whoever wrote it, used once: several may start in one second.
	AttrEndBy = "EndBy"
)

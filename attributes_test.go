package awskinesis

import "github.com/benthos-plugins/aws-kinesis/internal/table"

// What stands in the table, by short names.
const (
	attrStream      = table.AttrStream
	attrShard       = table.AttrShard
	attrSequence    = table.AttrSequence
	attrOwner       = table.AttrOwner
	attrToken       = table.AttrToken
	attrTerm        = table.AttrTerm
	attrNumber      = table.AttrNumber
	attrStartAt     = table.AttrStartAt
	attrFinished    = table.AttrFinished
	attrCut         = table.AttrCut
	attrCutSequence = table.AttrCutSequence
	attrShardStart  = table.AttrShardStart
	attrPinned      = table.AttrPinned
	attrInside      = table.AttrInside
	attrUpTo        = table.AttrUpTo
	attrPeriod      = table.AttrPeriod
	attrStreams     = table.AttrStreams
	attrRequests    = table.AttrRequests
	attrEnd         = table.AttrEnd

	members = table.MembersStream
)

package wire

import (
	"bytes"
	"slices"
	"time"

	"github.com/segmentio/asm/base64"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// maxRecords is the most records that an answer has. See "GetRecords" in the
// Kinesis API reference.
const maxRecords = 10_000

// decode decodes the body of an answer of GetRecords. It leaves no reference to
// body in page. False means that it met what it does not know; then page is as
// it was. It knows what the SDK takes alike wherever it stands: so no member that
// comes twice, and nothing that is not simple in a member that it skips.
func decode(body []byte, page *kinesis.GetRecordsOutput) bool {
	var decoded kinesis.GetRecordsOutput
	d := decoder{body: body}
	if !d.page(&decoded) || !d.end() {
		return false
	}
	*page = decoded
	return true
}

// decodeEvent does the same with the payload of an event of SubscribeToShard.
func decodeEvent(body []byte, event *types.SubscribeToShardEvent) bool {
	var decoded types.SubscribeToShardEvent
	d := decoder{body: body}
	if !d.event(&decoded) || !d.end() {
		return false
	}
	*event = decoded
	return true
}

// cell holds what the fields of a record point to. Records share a slice of
// them, so that a page does not take an allocation for each pointer.
type cell struct {
	sequence, key string
	arrived       time.Time
}

// cellsAtOnce is how many records a pointer into one of them keeps.
const cellsAtOnce = 64

// members are those of an object that were met.
type members uint8

// add says whether m is met for the first time.
func (s *members) add(m members) bool {
	first := *s&m == 0
	*s |= m
	return first
}

func (d *decoder) page(out *kinesis.GetRecordsOutput) bool {
	var met members
	return d.object(func(name []byte) bool {
		switch string(name) {
		case "Records":
			return met.add(1) && d.records(&out.Records)
		case "NextShardIterator":
			s, ok := d.text()
			iterator := string(s)
			out.NextShardIterator = &iterator
			return ok && met.add(2)
		case "MillisBehindLatest":
			n, _, ok := d.whole()
			behind := int64(n)
			out.MillisBehindLatest = &behind
			return ok && met.add(4)
		case "ChildShards":
			// Those of the last page are the SDK's: a shard has one such page.
			out.ChildShards = []types.ChildShard{}
			return met.add(8) && d.token('[') && d.token(']')
		}
		return d.skip()
	})
}

func (d *decoder) event(out *types.SubscribeToShardEvent) bool {
	var met members
	return d.object(func(name []byte) bool {
		switch string(name) {
		case "Records":
			return met.add(1) && d.records(&out.Records)
		case "ContinuationSequenceNumber":
			s, ok := d.text()
			continuation := string(s)
			out.ContinuationSequenceNumber = &continuation
			return ok && met.add(2)
		case "MillisBehindLatest":
			n, _, ok := d.whole()
			behind := int64(n)
			out.MillisBehindLatest = &behind
			return ok && met.add(4)
		case "ChildShards":
			out.ChildShards = []types.ChildShard{}
			return met.add(8) && d.token('[') && d.token(']')
		}
		return d.skip()
	})
}

func (d *decoder) records(out *[]types.Record) bool {
	*out = []types.Record{}
	begin := d.at
	return d.list(func() bool {
		*out = withRoom(*out, d.at-begin, d.left())
		*out = append(*out, types.Record{})
		return d.record(&(*out)[len(*out)-1], cap(*out)-len(*out)+1)
	})
}

// withRoom returns the records of a page with room for one more, when so many bytes of
// them are decoded and so many are left.
func withRoom(records []types.Record, decoded, left int) []types.Record {
	n := len(records)
	if n < cap(records) {
		return records
	}
	more := 1
	if n > 0 { // as many as there are to come, if they are like those before
		more += left * n / decoded
	}
	return slices.Grow(records, min(more, maxRecords))
}

// record decodes one of about left records.
func (d *decoder) record(r *types.Record, left int) bool {
	if len(d.cells) == 0 {
		d.cells = make([]cell, min(left, cellsAtOnce))
	}
	c := &d.cells[0]
	d.cells = d.cells[1:]
	var met members
	return d.object(func(name []byte) bool {
		switch string(name) {
		case "Data":
			var ok bool
			r.Data, ok = d.blob()
			return ok && met.add(1)
		case "SequenceNumber":
			s, ok := d.text()
			c.sequence = d.arena.text(s, d.left()+len(s))
			r.SequenceNumber = &c.sequence
			return ok && met.add(2)
		case "PartitionKey":
			s, ok := d.text()
			c.key = d.arena.text(s, d.left()+len(s))
			r.PartitionKey = &c.key
			return ok && met.add(4)
		case "ApproximateArrivalTimestamp":
			var ok bool
			c.arrived, ok = d.epoch()
			r.ApproximateArrivalTimestamp = &c.arrived
			return ok && met.add(8)
		case "EncryptionType":
			s, ok := d.text()
			r.EncryptionType = encryption(s)
			return ok && met.add(16)
		}
		return d.skip()
	})
}

// encryption is a type of encryption; those that are known are not copied.
func encryption(s []byte) types.EncryptionType {
	switch string(s) {
	case string(types.EncryptionTypeNone):
		return types.EncryptionTypeNone
	case string(types.EncryptionTypeKms):
		return types.EncryptionTypeKms
	}
	return types.EncryptionType(s)
}

// left bounds what the rest of the body may decode to, without what was just read. It has
// no margin: an event of one record would take it each time, and hold it with the record.
func (d *decoder) left() int { return len(d.body) - d.at }

// blob reads a string of base64 into memory of its own.
func (d *decoder) blob() ([]byte, bool) {
	s, ok := d.quoted()
	if !ok || len(s)%4 != 0 {
		return nil, false
	}
	if len(s) == 0 {
		return []byte{}, true
	}
	size := len(s) / 4 * 3
	data := d.arena.take(size, d.left()+size)
	n, err := base64.StdEncoding.Decode(data, s)
	// The decoder passes over line ends, which no JSON string has. They show in
	// the size, since four of them are the least that gets this far.
	return data[:n:n], err == nil && n == size-bytes.Count(s[len(s)-2:], []byte{'='})
}

// epoch reads seconds since 1970 as the SDK does: as a float64, of which it
// takes the whole milliseconds. Where the digits make an exact float64, which 15
// always do, and so does the power of ten, which it does up to 22, one division
// or multiplication rounds as the parser of floats does.
func (d *decoder) epoch() (time.Time, bool) {
	n, digits, ok := d.whole()
	power := 0
	if ok && d.next('.') {
		var fraction int
		n, fraction = d.digits(n)
		ok = fraction > 0
		digits += fraction
		power = -fraction
	}
	if ok && (d.next('E') || d.next('e')) {
		d.next('+')
		exponent, size := d.digits(0)
		ok = size > 0 && size < 3
		power += int(exponent)
	}
	if !ok || digits > 15 || power < -22 || power > 22 {
		return time.Time{}, false
	}
	seconds := float64(n)
	if power < 0 {
		seconds /= powers[-power]
	} else {
		seconds *= powers[power]
	}
	if seconds > 9e9 { // before nanoseconds end, in 2262
		return time.Time{}, false
	}
	return time.Unix(0, int64(seconds*1000)*1e6).UTC(), true
}

// powers of ten that are exact.
var powers = [23]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

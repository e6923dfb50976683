package wire

import (
	"bytes"
	"time"

	"github.com/segmentio/asm/base64"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// maxRecords is the most records that an answer has. See "GetRecords" in the
// Kinesis API reference.
const maxRecords = 10_000

// decode decodes the body of an answer of GetRecords. It leaves no reference to
// body in page. False means that it met what it does not know; then page is as
// it was. It knows what the SDK takes alike wherever it stands: so no member that
// comes twice, and nothing that is not simple in a member that it skips.
func decode(body []byte, page *Page) bool { return decodeWith("NextShardIterator", body, page) }

// decodeEvent does the same with the payload of an event of SubscribeToShard.
func decodeEvent(body []byte, page *Page) bool {
	return decodeWith("ContinuationSequenceNumber", body, page)
}

// decodeWith decodes what differs only in which member leads on from it.
func decodeWith(next string, body []byte, page *Page) bool {
	var decoded Page
	d := decoder{body: body}
	if !d.page(next, &decoded) || !d.end() {
		return false
	}
	*page = decoded
	return true
}

// members are those of an object that were met.
type members uint8

// add says whether m is met for the first time.
func (s *members) add(m members) bool {
	first := *s&m == 0
	*s |= m
	return first
}

func (d *decoder) page(next string, out *Page) bool {
	var met members
	return d.object(func(name []byte) bool {
		switch string(name) {
		case "Records":
			return met.add(1) && d.records(&out.Records)
		case next:
			s, ok := d.text()
			out.Next = string(s)
			return ok && met.add(2)
		case "MillisBehindLatest":
			n, _, ok := d.whole()
			behind := int64(n)
			out.Behind = &behind
			return ok && met.add(4)
		case "ChildShards":
			// Those of the last page are the SDK's: a shard has one such page.
			out.Children = []types.ChildShard{}
			return met.add(8) && d.token('[') && d.token(']')
		}
		return d.skip()
	})
}

func (d *decoder) records(out *[]Record) bool {
	records := []Record{}
	begin := d.at
	ok := d.list(func() bool {
		records = append(withRoom(records, d.at-begin, d.left()), Record{})
		return d.record(&records[len(records)-1])
	})
	*out = fitted(records)
	return ok
}

func (d *decoder) record(r *Record) bool {
	var met members
	return d.object(func(name []byte) (ok bool) {
		var s []byte
		switch string(name) {
		case "Data":
			r.Data, ok = d.blob()
			return ok && met.add(1)
		case "SequenceNumber":
			s, ok = d.text()
			r.SequenceNumber = d.arena.Text(s, d.left()+len(s))
			return ok && met.add(2)
		case "PartitionKey":
			s, ok = d.text()
			r.PartitionKey = d.arena.Text(s, d.left()+len(s))
			return ok && met.add(4)
		case "ApproximateArrivalTimestamp":
			r.Arrived, ok = d.epoch()
			return ok && met.add(8)
		case "EncryptionType": // nobody asks for it
			_, ok = d.text()
			return ok && met.add(16)
		}
		return d.skip()
	})
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
	data := d.arena.Take(size, d.left()+size)
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

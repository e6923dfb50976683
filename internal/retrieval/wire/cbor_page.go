package wire

import (
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/arena"
)

// cborDecoder decodes a page into memory that its messages will own, as decoder does
// with JSON.
type cborDecoder struct {
	cborReader
	arena arena.Arena
}

// decodeCBOR decodes the body of an answer of GetRecords. It leaves no reference to body
// in page. False means that it met what it does not know, such as a member that comes
// twice or a text in parts, which is left to a shapeReader as a whole; then page is as it
// was.
func decodeCBOR(body []byte, page *Page) bool {
	var decoded Page
	d := cborDecoder{cborReader: cborReader{body: body}}
	if !d.page(&decoded) || d.left() > 0 {
		return false
	}
	*page = decoded
	return true
}

// Members of a page and of a record, as bits of members.
const (
	pageRecords = 1 << iota
	pageNext
	pageBehind
	pageChildren
)

const (
	recordData = 1 << iota
	recordSequence
	recordKey
	recordArrived
	recordEncryption
)

func memberOfPage(name []byte) members {
	switch string(name) {
	case "Records":
		return pageRecords
	case "NextShardIterator":
		return pageNext
	case "MillisBehindLatest":
		return pageBehind
	case "ChildShards":
		return pageChildren
	}
	return 0
}

func memberOfRecord(name []byte) members {
	switch string(name) {
	case "Data":
		return recordData
	case "SequenceNumber":
		return recordSequence
	case "PartitionKey":
		return recordKey
	case "ApproximateArrivalTimestamp":
		return recordArrived
	case "EncryptionType":
		return recordEncryption
	}
	return 0
}

// object calls read for each member of a map that has a name and is not null; read reads
// the value. depth is how deep the others may be.
func (d *cborDecoder) object(named func([]byte) members, depth int, read func(members) bool) bool {
	var met members
	n, ok := d.begin(cborMap)
	for ok && d.more(&n) {
		var name []byte
		if name, ok = d.part(cborText); !ok {
			return false
		}
		switch m := named(name); {
		case m == 0:
			ok = d.skip(depth)
		case !met.add(m):
			return false
		case !d.next(cborNull):
			ok = read(m)
		}
	}
	return ok
}

func (d *cborDecoder) page(out *Page) bool {
	return d.object(memberOfPage, maxDepth-1, func(m members) (ok bool) {
		switch m {
		case pageRecords:
			return d.records(&out.Records)
		case pageNext:
			var s []byte
			s, ok = d.part(cborText)
			out.Next = string(s)
		case pageBehind:
			var behind int64
			behind, ok = d.integer()
			out.Behind = &behind
		case pageChildren:
			// Those of the last page are left to the SDK: a shard has one such page.
			out.Children = []types.ChildShard{}
			var n int
			n, ok = d.begin(cborList)
			ok = ok && !d.more(&n)
		}
		return ok
	})
}

func (d *cborDecoder) records(out *[]Record) bool {
	records := []Record{}
	n, ok := d.begin(cborList)
	if n > 0 && ok {
		records = make([]Record, 0, min(n, maxRecords))
	}
	begin := d.at
	for ok && d.more(&n) {
		records = append(withRoom(records, d.at-begin, d.left()), Record{})
		ok = d.record(&records[len(records)-1])
	}
	*out = fitted(records)
	return ok
}

func (d *cborDecoder) record(r *Record) bool {
	return d.object(memberOfRecord, maxDepth-3, func(m members) (ok bool) {
		var s []byte
		switch m {
		case recordData:
			s, ok = d.part(cborBytes)
			r.Data = d.arena.Bytes(s, d.left()+len(s))
		case recordSequence:
			s, ok = d.part(cborText)
			r.SequenceNumber = d.arena.Text(s, d.left()+len(s))
		case recordKey:
			s, ok = d.part(cborText)
			r.PartitionKey = d.arena.Text(s, d.left()+len(s))
		case recordArrived:
			d.next(cborTag<<5 | epochTag)
			var millis int64
			millis, ok = d.integer()
			r.Arrived = time.UnixMilli(millis).UTC()
		case recordEncryption: // nobody asks for it
			_, ok = d.part(cborText)
		}
		return ok
	})
}

// time reads a time as Amazon's client for Java does, which takes the integer for
// milliseconds and passes over the tag. A float it refuses; here it has seconds, as in
// JSON and RFC 8949, for emulators write that.
func (r *cborReader) time() (time.Time, bool) {
	if r.at < len(r.body) && r.body[r.at]>>5 == cborTag {
		if _, tag, ok := r.head(); !ok || tag != epochTag {
			return time.Time{}, false
		}
	}
	if r.at < len(r.body) && r.body[r.at]>>5 == cborOther {
		seconds, ok := r.float()
		millis := seconds * 1000
		if !ok || !(math.Abs(millis) < math.MaxInt64) { // NaN is not either
			return time.Time{}, false
		}
		return time.UnixMilli(int64(millis)).UTC(), true
	}
	millis, ok := r.integer()
	return time.UnixMilli(millis).UTC(), ok
}

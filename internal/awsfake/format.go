package awsfake

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"mime"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/segmentio/asm/base64"
)

// Format is how a request or an answer of Kinesis is written.
type Format string

// The formats of Kinesis, application/x-amz-json-1.1 and application/x-amz-cbor-1.1.
const (
	FormatJSON Format = "json"
	FormatCBOR Format = "cbor"
	// FormatCBORInParts is that of an answer in which nothing has a length: lists and
	// maps end with a break, texts and byte strings come in parts.
	FormatCBORInParts Format = "cbor in parts"
)

const (
	contentJSON = "application/x-amz-json-1.1"
	contentCBOR = "application/x-amz-cbor-1.1"
)

// Major types of CBOR, and what takes the place of a length that is not known.
const (
	cborBytes  = 2
	cborText   = 3
	cborList   = 4
	cborMap    = 5
	cborTag    = 6
	indefinite = 31
	cborBreak  = 0xff
	// epochTag stands before a time, which is an integer of milliseconds since 1970.
	epochTag = 1
)

// formatOf is the format of a request.
func formatOf(h http.Header) Format {
	if media, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && media == contentCBOR {
		return FormatCBOR
	}
	return FormatJSON
}

func (f Format) contentType() string {
	if f == FormatCBOR || f == FormatCBORInParts {
		return contentCBOR
	}
	return contentJSON
}

// notCBOR is a request that no operation can read.
var notCBOR = []byte("what was to be CBOR")

// request is the body of a request in JSON, which all operations read.
func (f Format) request(body []byte) []byte {
	if f == FormatJSON || len(body) == 0 {
		return body
	}
	if cbor.Wellformed(body) != nil {
		return notCBOR
	}
	v, err := fromCBOR(body)
	if err != nil {
		return notCBOR
	}
	inJSON, err := json.Marshal(v)
	if err != nil {
		return notCBOR
	}
	return inJSON
}

// fromCBOR is a well-formed item as encoding/json writes it.
func fromCBOR(item cbor.RawMessage) (any, error) {
	switch item[0] >> 5 {
	case cborMap:
		var items map[string]cbor.RawMessage
		err := cbor.Unmarshal(item, &items)
		members := make(map[string]any, len(items))
		for name, item := range items {
			if err == nil {
				members[name], err = fromCBOR(item)
			}
		}
		return members, err
	case cborList:
		var items []cbor.RawMessage
		err := cbor.Unmarshal(item, &items)
		list := make([]any, len(items))
		for i, item := range items {
			if err == nil {
				list[i], err = fromCBOR(item)
			}
		}
		return list, err
	case cborTag:
		var tag cbor.RawTag
		if err := cbor.Unmarshal(item, &tag); err != nil {
			return nil, err
		}
		var millis int64
		if tag.Number != epochTag {
			return nil, refuse("SerializationException", "tag %d", tag.Number)
		}
		err := cbor.Unmarshal(tag.Content, &millis)
		return epoch(time.UnixMilli(millis)), err
	}
	var v any
	err := cbor.Unmarshal(item, &v)
	return v, err
}

// encode writes what an operation returns.
func (f Format) encode(v any) ([]byte, error) {
	if f == FormatJSON {
		return json.Marshal(v)
	}
	return cbor.Marshal(v)
}

// MarshalCBOR writes the time with its tag.
func (e epoch) MarshalCBOR() ([]byte, error) {
	return cbor.Marshal(cbor.Tag{Number: epochTag, Content: time.Time(e).UnixMilli()})
}

// written is the answer to a call, in the format of the call.
func (c *Call) written(status int, parts ...[]byte) answer {
	if c.Format == FormatCBORInParts {
		whole := slices.Concat(parts...)
		parts = [][]byte{appendInParts(make([]byte, 0, 2*len(whole)), whole)}
	}
	a := newAnswer(c.Service, status, parts...)
	a.format = c.Format
	return a
}

// appendInParts appends an item that was made here, without any length.
func appendInParts(b []byte, item cbor.RawMessage) []byte {
	first := item[0] >> 5
	switch first {
	case cborBytes:
		var data []byte
		unmarshal(item, &data)
		return appendHalves(b, first, data, len(data)/2)
	case cborText:
		var s string
		unmarshal(item, &s)
		half := len(s) / 2
		for half > 0 && !utf8.RuneStart(s[half]) {
			half--
		}
		return appendHalves(b, first, []byte(s), half)
	case cborList:
		var items []cbor.RawMessage
		unmarshal(item, &items)
		b = append(b, cborList<<5|indefinite)
		for _, item := range items {
			b = appendInParts(b, item)
		}
	case cborMap:
		var items map[string]cbor.RawMessage
		unmarshal(item, &items)
		b = append(b, cborMap<<5|indefinite)
		for _, name := range slices.Sorted(maps.Keys(items)) {
			b = appendInParts(appendInParts(b, appendText(nil, name)), items[name])
		}
	default:
		return append(b, item...)
	}
	return append(b, cborBreak)
}

func appendHalves(b []byte, major byte, s []byte, half int) []byte {
	b = append(b, major<<5|indefinite)
	b = append(appendHead(b, major, half), s[:half]...)
	b = append(appendHead(b, major, len(s)-half), s[half:]...)
	return append(b, cborBreak)
}

// unmarshal is for what this package has written itself.
func unmarshal(item cbor.RawMessage, v any) {
	if err := cbor.Unmarshal(item, v); err != nil {
		panic("awsfake: decoding an answer: " + err.Error())
	}
}

// appendHead appends the begin of an item: its major type, and its length or value.
func appendHead(b []byte, major byte, n int) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), uint64(n))
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(appendHead(b, cborText, len(s)), s...)
}

// inCBOR is an answer of GetRecords with this page.
func (p page) inCBOR(it iterator, st *stream, sh *shard) ([][]byte, error) {
	head := appendText(appendHead(make([]byte, 0, 512), cborMap, 3), "MillisBehindLatest")
	head = appendHead(head, 0, int(p.behind))
	if p.ended {
		children, err := cbor.Marshal(st.childrenOf(sh))
		if err != nil {
			return nil, err
		}
		head = append(appendText(head, "ChildShards"), children...)
	} else {
		head = appendText(appendText(head, "NextShardIterator"), it.String())
	}
	head = appendHead(appendText(head, "Records"), cborList, p.count)
	return append([][]byte{head}, p.parts...), nil
}

// cborChunk is what a chunk holds in CBOR: its records up to one, each at a place of its
// own. Bytes are appended and never change.
type cborChunk struct {
	b []byte
	// Where each record begins, in JSON and here.
	starts, places []int
	done           int // the bytes of JSON that are here too
}

// inCBOR is the records of a part of a chunk, which begins and ends with one. Whoever
// asks first has them encoded; needs the lock of the chunk's shard.
func (c *chunk) inCBOR(start, end int) []byte {
	e := &c.cbor
	if e.done < end {
		e.b = slices.Grow(e.b, len(c.json)-e.done) // CBOR takes less
		for e.done < end {
			e.encodeNext(c.json)
		}
	}
	first := sort.SearchInts(e.starts, start)
	last := len(e.b)
	if next := sort.SearchInts(e.starts, end); next < len(e.places) {
		last = e.places[next]
	}
	return e.b[e.places[first]:last:last]
}

// encodeNext encodes one more record of a chunk, as shard.append wrote it.
func (e *cborChunk) encodeNext(chunk []byte) {
	e.starts = append(e.starts, e.done+1)
	e.places = append(e.places, len(e.b))
	rest := chunk[e.done:]
	data := upTo(&rest, `,{"Data":"`, `"`)
	var key []byte
	arrived, hasKey := `,"ApproximateArrivalTimestamp":`, bytes.HasPrefix(rest, []byte(`,"P`))
	if hasKey {
		key = upTo(&rest, `,"PartitionKey":`, arrived) // no key has such quotes without an escape
		arrived = ""
	}
	seconds := upTo(&rest, arrived, `,"SequenceNumber":"`)
	sequence := upTo(&rest, "", `"}`)
	e.done = len(chunk) - len(rest)

	b := appendHead(e.b, cborMap, 3)
	if hasKey {
		b[len(b)-1]++
	}
	room := base64.StdEncoding.DecodedLen(len(data))
	size := room - bytes.Count(data[max(0, len(data)-2):], []byte("="))
	b = slices.Grow(appendHead(appendText(b, "Data"), cborBytes, size), room)
	_, err := base64.StdEncoding.Decode(b[len(b):len(b)+room], data)
	b = b[:len(b)+size]
	if hasKey {
		if bytes.IndexByte(key, '\\') < 0 {
			key = key[1 : len(key)-1]
		} else {
			var s string
			err = errors.Join(err, json.Unmarshal(key, &s))
			key = []byte(s)
		}
		b = appendText(appendText(b, "PartitionKey"), key)
	}
	at, notAt := strconv.ParseFloat(string(seconds), 64)
	if err := errors.Join(err, notAt); err != nil {
		panic("awsfake: decoding a record: " + err.Error())
	}
	b = appendHead(appendText(b, "ApproximateArrivalTimestamp"), cborTag, epochTag)
	b = appendHead(b, 0, int(math.Round(at*1000)))
	e.b = appendText(appendText(b, "SequenceNumber"), sequence)
}

// upTo takes what stands between two texts from the begin of rest, together with them.
func upTo(rest *[]byte, before, after string) []byte {
	value, following, ok := bytes.Cut((*rest)[len(before):], []byte(after))
	if !ok {
		panic("awsfake: decoding a record: no " + after)
	}
	*rest = following
	return value
}

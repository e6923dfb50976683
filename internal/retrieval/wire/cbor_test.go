package wire

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

var (
	oursInCBOR = Protocol{ClientProtocol: sdk, cbor: true}
	listShards = smithy.NewOperationSchema(schemas.ListShards, schemas.ListShardsInput, schemas.ListShardsOutput)
)

// library decodes by the rules of this package: of a member that comes twice the last
// one counts, and texts need not be UTF-8.
var library = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyQuiet,
		IndefLength:      cbor.IndefLengthAllowed,
		MaxNestedLevels:  maxDepth,
		MaxArrayElements: math.MaxInt32,
		MaxMapPairs:      math.MaxInt32,
		UTF8:             cbor.UTF8DecodeInvalid,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// major is the major type of an item.
func major(item cbor.RawMessage) int { return int(item[0] >> 5) }

func none(item cbor.RawMessage) bool { return item[0] == cborNull || item[0] == cborUndefined }

var errUnlike = errors.New("the library has something else")

// as decodes an item with the library, which has to be of a major type.
func as[T any](item cbor.RawMessage, kind int) (v T, err error) {
	if major(item) != kind {
		return v, errUnlike
	}
	return v, library.Unmarshal(item, &v)
}

// set decodes a member, if it is there and not null, into what a field points to.
func set[T any](members map[string]cbor.RawMessage, name string, field **T, decode func(cbor.RawMessage) (T, error)) error {
	item, ok := members[name]
	if !ok || none(item) {
		return nil
	}
	v, err := decode(item)
	*field = &v
	return err
}

func asText(item cbor.RawMessage) (string, error) { return as[string](item, cborText) }

// asMap is a map whose names have no tags, which the library passes over.
func asMap(item cbor.RawMessage) (map[string]cbor.RawMessage, error) {
	m, err := as[map[string]cbor.RawMessage](item, cborMap)
	r := cborReader{body: item}
	for n, ok := r.begin(cborMap); err == nil && ok && r.more(&n); {
		if r.body[r.at]>>5 != cborText {
			return nil, errUnlike
		}
		ok = r.skip(0) && r.skip(maxDepth)
	}
	return m, err
}

func asBytes(item cbor.RawMessage) ([]byte, error) {
	if major(item) == cborText {
		text, err := asText(item)
		if err != nil {
			return nil, err
		}
		return base64.StdEncoding.DecodeString(text)
	}
	b, err := as[[]byte](item, cborBytes)
	return append([]byte{}, b...), err
}

func asInteger(item cbor.RawMessage) (int64, error) {
	if major(item) == cborNegative {
		return as[int64](item, cborNegative)
	}
	return as[int64](item, cborUnsigned)
}

// asTime is a time as this package documents it.
func asTime(item cbor.RawMessage) (time.Time, error) {
	if major(item) == cborTag {
		var tag cbor.RawTag
		if err := library.Unmarshal(item, &tag); err != nil || tag.Number != epochTag {
			return time.Time{}, errors.Join(errUnlike, err)
		}
		item = tag.Content
	}
	if major(item) == cborOther {
		var f any
		if err := library.Unmarshal(item, &f); err != nil {
			return time.Time{}, err
		}
		seconds, ok := f.(float64)
		if millis := seconds * 1000; ok && math.Abs(millis) < math.MaxInt64 {
			return time.UnixMilli(int64(millis)).UTC(), nil
		}
		return time.Time{}, errUnlike
	}
	millis, err := asInteger(item)
	return time.UnixMilli(millis).UTC(), err
}

// asList is a list whose elements decode reads; null is a zero.
func asList[T any](decode func(cbor.RawMessage) (T, error)) func(cbor.RawMessage) ([]T, error) {
	return func(item cbor.RawMessage) ([]T, error) {
		items, err := as[[]cbor.RawMessage](item, cborList)
		list := make([]T, len(items))
		for i, item := range items {
			if err == nil && !none(item) {
				list[i], err = decode(item)
			}
		}
		return list, err
	}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func asRecord(item cbor.RawMessage) (r types.Record, err error) {
	m, err := asMap(item)
	var data *[]byte
	var encryption *string
	err = errors.Join(err,
		set(m, "Data", &data, asBytes),
		set(m, "SequenceNumber", &r.SequenceNumber, asText),
		set(m, "PartitionKey", &r.PartitionKey, asText),
		set(m, "ApproximateArrivalTimestamp", &r.ApproximateArrivalTimestamp, asTime),
		set(m, "EncryptionType", &encryption, asText))
	r.Data, r.EncryptionType = value(data), types.EncryptionType(value(encryption))
	return r, err
}

func asRange(item cbor.RawMessage) (r types.HashKeyRange, err error) {
	m, err := asMap(item)
	return r, errors.Join(err,
		set(m, "StartingHashKey", &r.StartingHashKey, asText),
		set(m, "EndingHashKey", &r.EndingHashKey, asText))
}

func asChild(item cbor.RawMessage) (c types.ChildShard, err error) {
	m, err := asMap(item)
	var parents *[]string
	err = errors.Join(err,
		set(m, "ShardId", &c.ShardId, asText),
		set(m, "ParentShards", &parents, asList(asText)),
		set(m, "HashKeyRange", &c.HashKeyRange, asRange))
	c.ParentShards = value(parents)
	return c, err
}

// theLibrarys is what the library makes of an answer.
func theLibrarys(body []byte) (*kinesis.GetRecordsOutput, error) {
	if err := library.Wellformed(body); err != nil {
		return nil, err
	}
	page := &kinesis.GetRecordsOutput{}
	m, err := asMap(body)
	var records *[]types.Record
	var children *[]types.ChildShard
	err = errors.Join(err,
		set(m, "NextShardIterator", &page.NextShardIterator, asText),
		set(m, "MillisBehindLatest", &page.MillisBehindLatest, asInteger),
		set(m, "Records", &records, asList(asRecord)),
		set(m, "ChildShards", &children, asList(asChild)))
	page.Records, page.ChildShards = value(records), value(children)
	return page, err
}

func deserializeCBOR(p Protocol, body []byte, page *kinesis.GetRecordsOutput) error {
	resp := &smithyhttp.Response{Response: &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {contentCBOR}},
		Body: http.NoBody, ContentLength: int64(len(body)),
	}}
	resp.Body = readCloser{bytes.NewReader(body)}
	return p.DeserializeResponse(context.Background(), getRecords, kinesis.TypeRegistry, resp, page)
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// sameAsTheLibrary holds that an answer is taken, or refused, as the library does, and
// that what the fast path takes the slow one takes alike.
func sameAsTheLibrary(t require.TestingT, body []byte) {
	want, refused := theLibrarys(body)
	var got kinesis.GetRecordsOutput
	err := deserializeCBOR(ours, body, &got)
	// Of a member that we do not know the library would know what its tag may stand
	// before, when the member has one.
	if _, ok := errors.AsType[*cbor.InadmissibleTagContentTypeError](refused); !ok {
		require.Equal(t, refused != nil, err != nil, "%v, %v: %x", refused, err, body)
	}
	page, failed := paged(oursInCBOR, bytes.NewReader(body), int64(len(body)))
	require.Equal(t, err, failed, "%x", body)
	if refused == nil {
		require.Equal(t, want, &got, "%x", body)
		require.Equal(t, pageOf(want), page, "%x", body)
	}
	var fast Page
	var slow kinesis.GetRecordsOutput
	if decodeCBOR(body, &fast) {
		require.NoError(t, readShape(body, &slow), "%x", body)
		require.Equal(t, pageOf(&slow), &fast, "%x", body)
	}
}

// written is a value in CBOR by the library.
func written(t require.TestingT, v any) []byte {
	b, err := cbor.Marshal(v)
	require.NoError(t, err)
	return b
}

type fields = map[string]any

func tagged(n uint64, v any) cbor.Tag { return cbor.Tag{Number: n, Content: v} }

// cborRecord is one as the service writes it.
func cborRecord() fields {
	return fields{
		"SequenceNumber":              "49590338271490256608559692538361571095921575989136588898",
		"ApproximateArrivalTimestamp": tagged(1, 1441215410867),
		"Data":                        []byte("data"), "PartitionKey": "key ü", "EncryptionType": "KMS",
	}
}

// inParts writes an item once more with nothing that has a length: texts and byte
// strings in parts, lists and maps until a break. Other items remain as they are.
func inParts(t require.TestingT, item cbor.RawMessage) []byte {
	out := []byte{byte(major(item))<<5 | indefinite}
	switch major(item) {
	case cborBytes, cborText:
		r := cborReader{body: item}
		s, ok := r.part(byte(major(item)))
		require.True(t, ok)
		for _, part := range [][]byte{s[:len(s)/2], {}, s[len(s)/2:]} {
			w := shapeWriter{b: out}
			w.head(byte(major(item)), uint64(len(part)))
			out = slices.Concat(w.b, part)
		}
	case cborList:
		var items []cbor.RawMessage
		require.NoError(t, library.Unmarshal(item, &items))
		for _, item := range items {
			out = append(out, inParts(t, item)...)
		}
	case cborMap:
		var items map[string]cbor.RawMessage
		require.NoError(t, library.Unmarshal(item, &items))
		for name, item := range items {
			out = append(append(out, inParts(t, written(t, name))...), inParts(t, item)...)
		}
	default:
		return item
	}
	return append(out, cborBreak)
}

// knownCBOR are all decoded by the fast path.
func knownCBOR(t require.TestingT) [][]byte {
	long := cborRecord()
	long["Data"], long["New"], long["Newer"] = make([]byte, 10_000), fields{"a": []any{1, tagged(9, 1.5)}}, nil
	return [][]byte{
		written(t, fields{}),
		{cborMap<<5 | indefinite, cborBreak},
		written(t, fields{"Records": []any{}, "ChildShards": []any{}}),
		written(t, fields{"Records": []any{cborRecord(), fields{}, long}, "MillisBehindLatest": 86_400_000, "NextShardIterator": "AAAA"}),
		written(t, fields{"NextShardIterator": nil, "Records": nil, "MillisBehindLatest": nil, "ChildShards": nil}),
		written(t, fields{"MillisBehindLatest": -1, "NextShardIterator": ""}),
		written(t, fields{"MillisBehindLatest": uint64(math.MaxInt64)}),
		written(t, fields{"Records": []any{fields{"Data": []byte{}, "SequenceNumber": "", "PartitionKey": "", "EncryptionType": ""}}}),
		written(t, fields{"Records": []any{fields{"Data": nil, "SequenceNumber": nil, "PartitionKey": nil, "ApproximateArrivalTimestamp": nil}}}),
		written(t, fields{"Records": []any{fields{"ApproximateArrivalTimestamp": tagged(1, 0)}, fields{"ApproximateArrivalTimestamp": tagged(1, -1)}}}),
		written(t, fields{"Records": []any{fields{"ApproximateArrivalTimestamp": 1441215410867}}}),
		written(t, fields{"Records": []any{fields{"EncryptionType": "NONE"}, fields{"EncryptionType": "A_NEW_ONE"}}}),
		written(t, fields{"New": []any{1.5, true, "x", []byte{1}, tagged(55799, fields{"a": -1})}, "Newer": false}),
		written(t, fields{"PartitionKey": "\xff", "Records": []any{fields{"PartitionKey": "\xff"}}}),
		// Records until a break, as a writer has them that does not know how many come.
		[]byte("\xbf\x67Records\x9f\xbf\x64Data\x41x\xff\xbf\x64Data\x41y\xff\xff\x72MillisBehindLatest\x00\xff"),
	}
}

// foreignCBOR are all left to the slow path, which takes some of them.
func foreignCBOR(t require.TestingT) map[string][]byte {
	whole := written(t, fields{"Records": []any{cborRecord()}})
	withTime := func(v any) []byte {
		return written(t, fields{"Records": []any{fields{"ApproximateArrivalTimestamp": v}}})
	}
	nested := func(depth int) []byte {
		return []byte("\xa1\x63New" + strings.Repeat("\x81", depth) + "\x00")
	}
	return map[string][]byte{
		"nothing":                          {},
		"JSON":                             []byte(`{"Records":[]}`),
		"null":                             {cborNull},
		"a list":                           written(t, []any{}),
		"a break":                          {cborBreak},
		"trailing data":                    append(written(t, fields{}), 0),
		"an end within":                    whole[:len(whole)-3],
		"a map without end":                []byte("\xbf\x67Records\x80"),
		"a map that ends after a name":     []byte("\xbf\x67Records\xff"),
		"a length that is too large":       []byte("\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
		"a list of 2^63":                   []byte("\xa1\x67Records\x9b\x80\x00\x00\x00\x00\x00\x00\x00"),
		"data of 2^63":                     []byte("\xa1\x67Records\x81\xa1\x64Data\x5b\x80\x00\x00\x00\x00\x00\x00\x00"),
		"a reserved length":                []byte("\xbc"),
		"a name that is a number":          []byte("\xa1\x01\x01"),
		"a name with a tag":                []byte("\xa1\xd9\xd9\xf7\x67Records\x80"),
		"a name in bytes":                  []byte("\xa1\x47Records\x80"),
		"a name in parts":                  []byte("\xa1\x7f\x63Rec\x64ords\xff\x80"),
		"everything in parts":              inParts(t, whole),
		"a part in parts":                  []byte("\xa1\x71NextShardIterator\x7f\x7f\xff\xff"),
		"a part of another type":           []byte("\xa1\x71NextShardIterator\x7f\x41a\xff"),
		"records twice":                    []byte("\xa2\x67Records\x80\x67Records\x81\xa0"),
		"records twice, then null":         []byte("\xa2\x67Records\x81\xa0\x67Records\xf6"),
		"records twice, first wrong":       []byte("\xa2\x67Records\x01\x67Records\x81\xa0"),
		"a member twice":                   []byte("\xa1\x67Records\x81\xa2\x64Data\x41a\x64Data\x41b"),
		"undefined":                        []byte("\xa1\x67Records\xf7"),
		"children":                         written(t, fields{"ChildShards": []any{fields{"ShardId": "shardId-000000000001", "ParentShards": []string{"shardId-000000000000"}, "HashKeyRange": fields{"StartingHashKey": "0", "EndingHashKey": "1"}}}}),
		"children that are null":           written(t, fields{"ChildShards": []any{nil, fields{"ParentShards": []any{nil}, "HashKeyRange": nil}}}),
		"a record that is null":            written(t, fields{"Records": []any{nil, cborRecord()}}),
		"a record that is a list":          written(t, fields{"Records": []any{[]any{}}}),
		"records that are a map":           written(t, fields{"Records": fields{}}),
		"data in base64":                   written(t, fields{"Records": []any{fields{"Data": "QQ=="}}}),
		"data in base64, nothing":          written(t, fields{"Records": []any{fields{"Data": ""}}}),
		"data in base64, in parts":         []byte("\xa1\x67Records\x81\xa1\x64Data\x7f\x61Q\x63Q==\xff"),
		"data in base64 that is none":      written(t, fields{"Records": []any{fields{"Data": "QQ"}}}),
		"data with a tag":                  written(t, fields{"Records": []any{fields{"Data": tagged(22, []byte("a"))}}}),
		"a key that is bytes":              written(t, fields{"Records": []any{fields{"PartitionKey": []byte("a")}}}),
		"a sequence that is a number":      written(t, fields{"Records": []any{fields{"SequenceNumber": 1}}}),
		"a lag that is a float":            written(t, fields{"MillisBehindLatest": 1.0}),
		"a lag that is a text":             written(t, fields{"MillisBehindLatest": "1"}),
		"a lag above 64 bits":              written(t, fields{"MillisBehindLatest": uint64(math.MaxUint64)}),
		"a lag below 64 bits":              []byte("\xa1\x72MillisBehindLatest\x3b\xff\xff\xff\xff\xff\xff\xff\xff"),
		"a time in seconds":                withTime(tagged(1, 1441215410.867)),
		"a time in short seconds":          withTime(tagged(1, float32(1.5))),
		"a time in half a float":           []byte("\xa1\x67Records\x81\xa1\x78\x1bApproximateArrivalTimestamp\xc1\xf9\x3e\x00"),
		"a time that is not a number":      withTime(tagged(1, math.NaN())),
		"a time without end":               withTime(tagged(1, math.Inf(1))),
		"a time that is too late":          withTime(tagged(1, 1e300)),
		"a time in words":                  withTime(tagged(0, "2015-09-02T17:36:50Z")),
		"a time with two tags":             withTime(tagged(1, tagged(1, 0))),
		"a time with a long tag":           []byte("\xa1\x67Records\x81\xa1\x78\x1bApproximateArrivalTimestamp\xd8\x01\x00"),
		"a time that is true":              withTime(true),
		"a simple value in two bytes":      []byte("\xa1\x61a\xf8\x14"),
		"a page with a tag":                written(t, tagged(55799, fields{})),
		"an unknown member of a wrong tag": []byte("\xa1\x63New\xc1\x41a"),
		"as deep as it may be":             nested(maxDepth - 1),
		"deeper than it may be":            nested(maxDepth),
		"deeper, and empty there":          []byte("\xa1\x63New" + strings.Repeat("\x81", maxDepth-1) + "\x80"),
		"as many tags as there may be":     []byte("\xa1\x63New" + strings.Repeat("\xc9", maxDepth) + "\x00"),
		"more tags than there may be":      []byte("\xa1\x63New" + strings.Repeat("\xc9", maxDepth+1) + "\x00"),
		"so deep that a stack would end":   nested(1 << 20),
		"a name that is not UTF-8, before": []byte("\xa2\x61\xff\x01\x67Records\x81\xf7"),
	}
}

func TestEachCBORAnswerIsTakenAsTheLibraryTakesIt(t *testing.T) {
	for _, body := range knownCBOR(t) {
		var page Page
		require.True(t, decodeCBOR(body, &page), "%x", body)
		sameAsTheLibrary(t, body)
	}
	for name, body := range foreignCBOR(t) {
		t.Run(name, func(t *testing.T) {
			var page Page
			if name != "as deep as it may be" && name != "as many tags as there may be" && name != "an unknown member of a wrong tag" {
				require.False(t, decodeCBOR(body, &page), "%x", body)
				require.Zero(t, page)
			}
			sameAsTheLibrary(t, body)
		})
	}
}

func FuzzCBORGetRecords(f *testing.F) {
	for _, body := range knownCBOR(f) {
		f.Add(body)
		f.Add(inParts(f, body))
	}
	for _, body := range foreignCBOR(f) {
		if len(body) < 1<<16 {
			f.Add(body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameAsTheLibrary(t, body) })
}

// drawnPage is a page, in the values that the library writes.
func drawnPage(t *rapid.T) fields {
	maybe := func(f fields, name string, draw func() any) {
		switch rapid.IntRange(0, 9).Draw(t, name+" there") {
		case 0:
		case 1:
			f[name] = nil
		default:
			f[name] = draw()
		}
	}
	text := func(name string) func() any { return func() any { return rapid.String().Draw(t, name) } }
	records := []any{}
	for range rapid.IntRange(0, 150).Draw(t, "records") {
		r := fields{}
		maybe(r, "Data", func() any { return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data") })
		maybe(r, "SequenceNumber", text("sequence"))
		maybe(r, "PartitionKey", text("key"))
		maybe(r, "EncryptionType", text("encryption"))
		maybe(r, "ApproximateArrivalTimestamp", func() any { return tagged(1, rapid.Int64().Draw(t, "arrived")) })
		maybe(r, "Other", text("other"))
		records = append(records, r)
	}
	page := fields{}
	maybe(page, "Records", func() any { return records })
	maybe(page, "NextShardIterator", text("next"))
	maybe(page, "MillisBehindLatest", func() any { return rapid.Int64().Draw(t, "behind") })
	maybe(page, "Other", func() any { return fields{"a": []any{text("other")(), 1.5}} })
	return page
}

func TestAnyPageOfTheLibraryIsDecodedAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := written(t, drawnPage(t))
		var page Page
		require.True(t, decodeCBOR(body, &page))
		sameAsTheLibrary(t, body)
		sameAsTheLibrary(t, inParts(t, body))
	})
}

func TestPagesOfCBORKeepNothingOfTheirBody(t *testing.T) {
	body := written(t, fields{"NextShardIterator": "next", "Records": []any{cborRecord(), cborRecord()}})
	for _, body := range [][]byte{body, inParts(t, body)} {
		want, err := theLibrarys(body)
		require.NoError(t, err)
		var got Page
		if !decodeCBOR(body, &got) {
			var slow kinesis.GetRecordsOutput
			require.NoError(t, readShape(body, &slow))
			got = *pageOf(&slow)
		}
		clear(body)
		require.Equal(t, pageOf(want), &got)
		// Who appends to a payload must not write into another one.
		first := got.Records[0]
		first.Data = append(first.Data, "more"...)
		require.Equal(t, "datamore", string(first.Data))
		require.Equal(t, pageOf(want), &got)
	}
}

// asks is what a client sends.
func asks(t *testing.T, in smithy.Serializable) any {
	t.Helper()
	body, err := writeShape(in)
	require.NoError(t, err)
	require.True(t, wellFormed(body))
	items := map[string]cbor.RawMessage{}
	require.NoError(t, library.Unmarshal(body, &items))
	sent := fields{}
	for name, item := range items {
		var v any
		if major(item) == cborTag {
			var tag cbor.RawTag
			require.NoError(t, library.Unmarshal(item, &tag))
			require.NoError(t, library.Unmarshal(tag.Content, &v))
			v = tagged(tag.Number, v)
		} else {
			require.NoError(t, library.Unmarshal(item, &v))
		}
		sent[name] = v
	}
	return sent
}

func TestRequestsAreWrittenAsAmazonsClientForJavaWritesThem(t *testing.T) {
	at := time.UnixMilli(1441215410867)
	require.Equal(t, fields{"Limit": uint64(10_000), "ShardIterator": "AAAA", "StreamARN": "arn"},
		asks(t, &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAA"), Limit: aws.Int32(10_000), StreamARN: aws.String("arn")}))
	require.Equal(t, fields{"ShardId": "0", "ShardIteratorType": "AT_TIMESTAMP", "StreamName": "s", "Timestamp": tagged(1, uint64(1441215410867))},
		asks(t, &kinesis.GetShardIteratorInput{ShardId: aws.String("0"), ShardIteratorType: types.ShardIteratorTypeAtTimestamp, StreamName: aws.String("s"), Timestamp: &at}))
	require.Equal(t, fields{"StreamName": "s", "ShardFilter": map[any]any{"Type": "FROM_TRIM_HORIZON"}, "MaxResults": uint64(70_000)},
		asks(t, &kinesis.ListShardsInput{StreamName: aws.String("s"), MaxResults: aws.Int32(70_000), ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeFromTrimHorizon}}))
	require.Equal(t, fields{"StreamName": "s", "ShardCount": int64(-300), "Tags": map[any]any{"a": "b"}},
		asks(t, &kinesis.CreateStreamInput{StreamName: aws.String("s"), ShardCount: aws.Int32(-300), Tags: map[string]string{"a": "b"}}))
	require.Equal(t, fields{"StreamName": "s", "Records": []any{map[any]any{"Data": []byte("data"), "PartitionKey": "key"}}},
		asks(t, &kinesis.PutRecordsInput{StreamName: aws.String("s"), Records: []types.PutRecordsRequestEntry{{Data: []byte("data"), PartitionKey: aws.String("key")}}}))

	req := smithyhttp.NewStackRequest().(*smithyhttp.Request)
	require.NoError(t, oursInCBOR.SerializeRequest(t.Context(), getRecords, &kinesis.GetRecordsInput{}, req))
	require.Equal(t, http.MethodPost, req.Method)
	require.Equal(t, "/", req.URL.Path)
	require.Equal(t, http.Header{"Content-Type": {"application/x-amz-cbor-1.1"}, "X-Amz-Target": {"Kinesis_20131202.GetRecords"}}, req.Header)
}

// listed is what a protocol makes of an answer of ListShards.
func listed(p Protocol, status int, header http.Header, body []byte) (*kinesis.ListShardsOutput, error) {
	resp := &smithyhttp.Response{Response: &http.Response{StatusCode: status, Header: header, Body: readCloser{bytes.NewReader(body)}, ContentLength: int64(len(body))}}
	out := &kinesis.ListShardsOutput{}
	return out, p.DeserializeResponse(context.Background(), listShards, kinesis.TypeRegistry, resp, out)
}

func TestAnswerIsReadAsItIsWritten(t *testing.T) {
	inJSON := []byte(`{"NextToken":"a","Shards":[{"ShardId":"shardId-000000000000"}]}`)
	inCBOR := written(t, fields{"NextToken": "a", "Shards": []any{fields{"ShardId": "shardId-000000000000"}}})
	want := &kinesis.ListShardsOutput{NextToken: aws.String("a"), Shards: []types.Shard{{ShardId: aws.String("shardId-000000000000")}}}
	for _, p := range []Protocol{ours, oursInCBOR} {
		for content, body := range map[string][]byte{
			"application/x-amz-cbor-1.1":               inCBOR,
			"application/cbor":                         inCBOR,
			"Application/X-Amz-CBOR-1.1; charset=utf8": inCBOR,
			"application/x-amz-json-1.1":               inJSON,
			"application/json":                         inJSON,
		} {
			got, err := listed(p, 200, http.Header{"Content-Type": {content}}, body)
			require.NoError(t, err, content)
			require.Equal(t, want, got, content)
		}
	}
	got, err := listed(oursInCBOR, 200, nil, inCBOR)
	require.NoError(t, err)
	require.Equal(t, want, got, "without a type it is as it was asked for")
	got, err = listed(ours, 200, nil, inJSON)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestBodyThatIsNoAnswerInCBORIsRefused(t *testing.T) {
	for _, body := range []string{"", "<html>", `{"Shards":[]}`, "\xa1\x66Shards\x81"} {
		_, err := listed(oursInCBOR, 200, nil, []byte(body))
		_, ok := errors.AsType[*smithy.DeserializationError](err)
		require.True(t, ok, "%q: %v", body, err)
	}
	resp := &smithyhttp.Response{Response: &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {contentCBOR}}, Body: readCloser{bytes.NewReader(nil)}, ContentLength: maxAnswer + 1}}
	err := ours.DeserializeResponse(t.Context(), listShards, kinesis.TypeRegistry, resp, &kinesis.ListShardsOutput{})
	require.ErrorContains(t, err, "above the limit of 67108864")
	_, err = listed(oursInCBOR, 200, nil, written(t, fields{"Shards": []any{fields{"ShardId": 1}}}))
	require.EqualError(t, err, "deserialization failed, the answer has something else where a text should stand, for ShardId")
}

func TestAnswerThatHasNothingToSayMayBeEmpty(t *testing.T) {
	for _, body := range [][]byte{{}, {0xa0}} {
		for _, output := range []*smithy.Schema{nil, smithy.NewSchema(smithy.ShapeID{Name: "Unit"}, smithy.ShapeTypeStructure, 0)} {
			resp := &smithyhttp.Response{Response: &http.Response{StatusCode: 200, Body: readCloser{bytes.NewReader(body)}, ContentLength: int64(len(body))}}
			schema := smithy.NewOperationSchema(schemas.CreateStream, nil, output)
			require.NoError(t, oursInCBOR.DeserializeResponse(t.Context(), schema, kinesis.TypeRegistry, resp, &kinesis.CreateStreamOutput{}))
		}
	}
	req := smithyhttp.NewStackRequest().(*smithyhttp.Request)
	require.NoError(t, oursInCBOR.SerializeRequest(t.Context(), smithy.NewOperationSchema(schemas.CreateStream, nil, nil), nil, req))
	body, err := io.ReadAll(req.GetStream())
	require.NoError(t, err)
	require.Equal(t, []byte{0xa0}, body)
}

func TestErrorsInCBORAreThoseInJSON(t *testing.T) {
	for _, said := range []fields{
		{"__type": "ExpiredIteratorException", "message": "too old"},
		{"__type": "ExpiredIteratorException", "Message": "too old"},
		{"__type": "com.amazonaws.kinesis.v20131202#ExpiredIteratorException", "message": "too old"},
		{"__type": "ExpiredIteratorException:http://internal.amazon.com/coral/", "message": "too old"},
	} {
		for _, body := range [][]byte{written(t, said), inParts(t, written(t, said))} {
			_, err := listed(oursInCBOR, 400, nil, body)
			require.Equal(t, &types.ExpiredIteratorException{Message: aws.String("too old")}, err)
		}
	}
	throttled := written(t, fields{"__type": "ThrottlingException", "message": "slow down", "more": []any{1}})
	_, err := listed(oursInCBOR, 400, nil, throttled)
	require.Equal(t, &smithy.GenericAPIError{Code: "ThrottlingException", Message: "slow down"}, err)
	_, err = listed(oursInCBOR, 400, http.Header{"X-Amzn-Errortype": {"ExpiredIteratorException:"}}, written(t, fields{"message": "too old"}))
	require.Equal(t, &types.ExpiredIteratorException{Message: aws.String("too old")}, err)
	for _, body := range [][]byte{{}, written(t, fields{}), written(t, fields{"__type": nil, "message": nil})} {
		_, err = listed(oursInCBOR, 503, nil, body)
		require.Equal(t, &smithy.GenericAPIError{Code: "UnknownError", Message: "UnknownError"}, err)
		_, want := listed(ours, 503, nil, nil)
		require.Equal(t, want, err, "as the SDK has it")
	}
	_, err = listed(oursInCBOR, 503, nil, []byte("<html>"))
	_, ok := errors.AsType[*smithy.DeserializationError](err)
	require.True(t, ok, "%v", err)
	_, err = listed(oursInCBOR, 400, http.Header{"Content-Type": {"application/x-amz-json-1.1"}}, []byte(`{"__type":"ExpiredIteratorException","message":"too old"}`))
	require.Equal(t, &types.ExpiredIteratorException{Message: aws.String("too old")}, err)
}

func TestValuesThatHaveNoFormAreErrors(t *testing.T) {
	w := &shapeWriter{}
	for name, write := range map[string]func(){
		"a number": func() { w.WriteBigInt(refusedType, nil) },
		"a float":  func() { w.WriteBigFloat(refusedType, nil) },
		"a union":  func() { w.WriteUnion(refusedType, nil) },
		"a value":  func() { w.WriteDocument(refusedType, nil) },
	} {
		w.err = nil
		write()
		require.ErrorIs(t, w.err, errNoForm, name)
	}
	r := &shapeReader{}
	_, err := r.ReadUnion(nil)
	for _, err := range []error{r.ReadBigInt(nil, nil), r.ReadBigFloat(nil, nil), r.ReadDocument(nil, nil), err} {
		require.ErrorIs(t, err, errNoForm)
	}
}

// What one half of shapes writes the other one reads.
func TestShapesReadWhatTheyWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &shapeWriter{}
		i8, i16, i32 := rapid.Int8().Draw(t, "8"), rapid.Int16().Draw(t, "16"), rapid.Int32().Draw(t, "32")
		i64, f32, f64 := rapid.Int64().Draw(t, "64"), rapid.Float32().Draw(t, "f32"), rapid.Float64().Draw(t, "f64")
		b, key := rapid.Bool().Draw(t, "bool"), rapid.String().Draw(t, "key")
		at := time.UnixMilli(rapid.Int64().Draw(t, "at")).UTC()
		w.WriteMap(nil)
		w.WriteKey(nil, key)
		w.WriteList(nil)
		w.WriteInt8(nil, i8)
		w.WriteInt16(nil, i16)
		w.WriteInt32(nil, i32)
		w.WriteInt64(nil, i64)
		w.WriteFloat32(nil, f32)
		w.WriteFloat64(nil, f64)
		w.WriteBool(nil, b)
		w.WriteTime(nil, at)
		w.WriteNil(nil)
		w.CloseList()
		w.CloseMap()
		require.NoError(t, library.Wellformed(w.Bytes()))
		require.True(t, wellFormed(w.Bytes()))

		r := &shapeReader{cborReader: cborReader{body: w.Bytes()}}
		require.NoError(t, r.ReadMap(nil))
		gotKey, more, err := r.ReadMapKey(nil)
		require.NoError(t, err)
		require.True(t, more)
		require.Equal(t, key, gotKey)
		require.NoError(t, r.ReadList(nil))
		for _, c := range []struct {
			want any
			read func(any) error
		}{
			{i8, func(v any) error { return r.ReadInt8(nil, v.(*int8)) }},
			{i16, func(v any) error { return r.ReadInt16(nil, v.(*int16)) }},
			{i32, func(v any) error { return r.ReadInt32(nil, v.(*int32)) }},
			{i64, func(v any) error { return r.ReadInt64(nil, v.(*int64)) }},
			{f32, func(v any) error { return r.ReadFloat32(nil, v.(*float32)) }},
			{f64, func(v any) error { return r.ReadFloat64(nil, v.(*float64)) }},
			{b, func(v any) error { return r.ReadBool(nil, v.(*bool)) }},
			{at, func(v any) error { return r.ReadTime(nil, v.(*time.Time)) }},
		} {
			more, err := r.ReadListItem(nil)
			require.NoError(t, err)
			require.True(t, more)
			got := reflect.New(reflect.TypeOf(c.want))
			require.NoError(t, c.read(got.Interface()))
			require.Equal(t, c.want, got.Elem().Interface())
		}
		more, err = r.ReadListItem(nil)
		require.NoError(t, err)
		require.True(t, more)
		isNil, err := r.ReadNil(nil)
		require.NoError(t, err)
		require.True(t, isNil)
		more, err = r.ReadListItem(nil)
		require.NoError(t, err)
		require.False(t, more)
		_, more, err = r.ReadMapKey(nil)
		require.NoError(t, err)
		require.False(t, more)
	})
}

func TestIntegersAreNotCutOff(t *testing.T) {
	for bits, n := range map[int]int64{8: math.MaxInt8 + 1, 16: math.MinInt16 - 1, 32: math.MaxInt32 + 1} {
		w := &shapeWriter{}
		w.WriteInt64(nil, n)
		r := &shapeReader{cborReader: cborReader{body: w.Bytes()}}
		var err error
		switch bits {
		case 8:
			err = r.ReadInt8(nil, new(int8))
		case 16:
			err = r.ReadInt16(nil, new(int16))
		case 32:
			err = r.ReadInt32(nil, new(int32))
		}
		require.EqualError(t, err, fmt.Sprintf("the answer has something else where an integer of %d bits should stand", bits))
	}
}

func TestDirectCallsAreInCBORToo(t *testing.T) {
	s := awsfake.New(awsfake.Options{})
	_, sent, in := direct(t, s)
	cfg := s.AWSConfig()
	cfg.HTTPClient = sent
	d := NewDirect(kinesis.NewFromConfig(cfg, InstallCBOR), time.Second, nil)
	formats := []awsfake.Format{}
	s.OnCall(func(c *awsfake.Call) { formats = append(formats, c.Format) })
	for range 3 {
		page, err := GetRecords(t.Context(), d, in)
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
		require.Equal(t, "data", string(page.Records[0].Data))
	}
	require.True(t, throughSDK(sent.requests[0]))
	require.False(t, throughSDK(sent.requests[1]))
	require.Equal(t, []awsfake.Format{awsfake.FormatCBOR, awsfake.FormatCBOR, awsfake.FormatCBOR}, formats)
	require.Equal(t, sent.bodies[0], sent.bodies[1])
	require.Equal(t, sent.requests[0].Header.Get("Content-Type"), sent.requests[1].Header.Get("Content-Type"))

	_, err := d.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAA"), StreamARN: in.StreamARN})
	_, ok := errors.AsType[*types.InvalidArgumentException](err)
	require.True(t, ok, "%v", err)
	require.Len(t, sent.requests, 4, "a refusal of Kinesis is returned at once")
}

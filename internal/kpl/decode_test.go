package kpl_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

// vector is user records, and the aggregate that aws-kinesis-agg of npm, 4.2.8, made of
// them. To make the aggregates again, in the folder of this file, once `make integration`
// has installed it:
//
//	node ../integration/clients/kpl.mjs aggregate testdata/vectors.json testdata/vectors.json
type vector struct {
	Name      string
	Records   []kpl.Record
	Aggregate []byte
}

func vectors(t testing.TB) (v []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &v))
	require.NotEmpty(t, v)
	return v
}

func TestAggregatesOfAnotherLibraryAreDecoded(t *testing.T) {
	for _, v := range vectors(t) {
		got, err := kpl.Decode(v.Aggregate)
		require.NoError(t, err, v.Name)
		require.Equal(t, v.Records, got, v.Name)
	}
}

func TestEncoderOfTheTestsWritesWhatTheOtherLibraryDoes(t *testing.T) {
	for _, v := range vectors(t) {
		require.Equal(t, v.Aggregate, kpltest.Encode(v.Records), v.Name)
	}
}

var someKey = rapid.OneOf(
	rapid.SampledFrom([]string{"a", "b", "8"}),
	rapid.StringN(1, 256, -1),
	rapid.Just(strings.Repeat("ä", 256)),
	rapid.Just(""),
)

var userRecord = rapid.Custom(func(t *rapid.T) kpl.Record {
	return kpl.Record{
		Data:            append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "data")...),
		PartitionKey:    someKey.Draw(t, "partition key"),
		ExplicitHashKey: rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[1-9][0-9]{0,38}`)).Draw(t, "explicit hash key"),
	}
})

func TestUserRecordsComeOutAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(userRecord, 1, 100).Draw(t, "user records")
		data := kpltest.Encode(want)
		require.True(t, kpl.Looks(data))
		got, err := kpl.Decode(data)
		require.NoError(t, err)
		require.Equal(t, want, got)
		same(t, data)
	})
}

func TestAnyNumberOfUserRecordsIsDecodedInOrder(t *testing.T) {
	for _, n := range []int{1, 2, 127, 128, 129, 5_000} {
		want := make([]kpl.Record, n)
		for i := range want {
			want[i] = kpl.Record{Data: fmt.Append(nil, i), PartitionKey: fmt.Sprint("key ", i)}
		}
		got, err := kpl.Decode(kpltest.Encode(want))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestAggregateInAUserRecordStaysThere(t *testing.T) {
	inner := kpltest.Encode([]kpl.Record{{Data: []byte("a"), PartitionKey: "k"}})
	got, err := kpl.Decode(kpltest.Encode([]kpl.Record{{Data: inner, PartitionKey: "k"}}))
	require.NoError(t, err)
	require.Equal(t, []kpl.Record{{Data: inner, PartitionKey: "k"}}, got)
}

func TestDataIsAPartOfTheAggregateThatCannotGrowIntoTheRest(t *testing.T) {
	data := kpltest.Encode([]kpl.Record{{Data: []byte("one"), PartitionKey: "k"}, {Data: []byte("two"), PartitionKey: "k"}})
	before := bytes.Clone(data)
	got, err := kpl.Decode(data)
	require.NoError(t, err)
	_ = append(got[0].Data, "overwrites"...)
	require.Equal(t, before, data)
	data[bytes.Index(data, []byte("one"))] = 'O'
	require.Equal(t, "One", string(got[0].Data), "it is not copied")
	require.Equal(t, "k", got[0].PartitionKey)
}

func TestUserRecordsCostNoAllocationEach(t *testing.T) {
	records := make([]kpl.Record, 5_000)
	for i := range records {
		records[i] = kpl.Record{Data: []byte("data"), PartitionKey: fmt.Sprint("key ", i), ExplicitHashKey: fmt.Sprint(i)}
	}
	data := kpltest.Encode(records)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { _, _ = kpl.Decode(data) }), 4.0, "records, two tables, and the text of the keys")
}

// Fields of a message, each written with its tag.

func text(field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), value)
}

func integer(field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), value)
}

func group(field protowire.Number, members ...[]byte) []byte {
	return protowire.AppendGroup(protowire.AppendTag(nil, field, protowire.StartGroupType), field, slices.Concat(members...))
}

func userRecordOf(members ...[]byte) []byte { return text(3, string(slices.Concat(members...))) }

func concat(fields ...[]byte) []byte { return slices.Concat(fields...) }

var (
	tables    = concat(text(1, "first"), text(1, "second"), text(2, "7"), text(2, "8"))
	named     = integer(1, 1) // by the second partition key
	payload   = text(3, "data")
	fixed32   = []byte{9<<3 | 5, 1, 2, 3, 4}
	fixed64   = []byte{10<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8}
	longest   = protowire.AppendVarint(protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.VarintType), 1)
	sprawling = []byte{1<<3 | 0x80, 0x80, 0x00, 0x81, 0x00} // named in more bytes than it takes
)

// oddities are messages that no library writes and every parser of protobuf takes.
var oddities = []struct {
	name    string
	message []byte
	want    kpl.Record
}{
	{"tables behind the user records", concat(userRecordOf(named, integer(2, 1), payload), tables), kpl.Record{Data: []byte("data"), PartitionKey: "second", ExplicitHashKey: "8"}},
	{"data before the key", concat(tables, userRecordOf(payload, named)), kpl.Record{Data: []byte("data"), PartitionKey: "second"}},
	{"the last of a field counts", concat(tables, userRecordOf(integer(1, 9), text(3, "no"), named, payload, integer(2, 9), integer(2, 0))), kpl.Record{Data: []byte("data"), PartitionKey: "second", ExplicitHashKey: "7"}},
	{"unknown fields", concat(integer(9, 1), tables, longest, userRecordOf(named, text(9, "x"), payload, fixed32, fixed64), fixed32, fixed64), kpl.Record{Data: []byte("data"), PartitionKey: "second"}},
	{"groups", concat(group(1, text(1, "no")), tables, group(3, named, payload), userRecordOf(named, group(3, group(3)), payload)), kpl.Record{Data: []byte("data"), PartitionKey: "second"}},
	{"known fields of another type", concat(integer(1, 5), integer(3, 5), tables, userRecordOf(named, text(1, "\x00"), text(2, "\x00"), payload, integer(3, 1), integer(4, 1))), kpl.Record{Data: []byte("data"), PartitionKey: "second"}},
	{"tags", concat(tables, userRecordOf(named, payload, text(4, string(concat(text(2, "value"), text(1, "key")))), text(4, string(text(1, ""))))), kpl.Record{Data: []byte("data"), PartitionKey: "second"}},
	{"integers in more bytes than they take", concat(tables, userRecordOf(sprawling, payload)), kpl.Record{Data: []byte("data"), PartitionKey: "second"}},
	{"empty data, key and hash key", concat(text(1, ""), text(2, ""), userRecordOf(integer(1, 0), text(3, ""), integer(2, 0))), kpl.Record{Data: []byte{}}},
	{"no UTF-8", concat(text(1, "\xff\xfe"), userRecordOf(integer(1, 0), payload)), kpl.Record{Data: []byte("data"), PartitionKey: "\xff\xfe"}},
}

func TestMessagesAreReadAsProtobufReadsThem(t *testing.T) {
	for _, c := range oddities {
		data := kpltest.Seal(c.message)
		got, err := kpl.Decode(data)
		require.NoError(t, err, c.name)
		require.Equal(t, []kpl.Record{c.want}, got, c.name)
		same(t, data)
	}
}

var whole = kpltest.Encode([]kpl.Record{{Data: []byte("data"), PartitionKey: "key"}})

// broken is data of which no user records are taken.
var broken = []struct {
	name  string
	data  []byte
	looks bool
	err   string
}{
	{"nothing", nil, false, "does not begin like an aggregate"},
	{"the beginning alone", whole[:4], false, "too short"},
	{"one byte too short", whole[:19], false, "too short"},
	{"another beginning", append([]byte{0xF3, 0x89, 0x9A, 0xC3}, whole[4:]...), false, "does not begin"},
	{"cut off", whole[:len(whole)-1], true, "digest"},
	{"another byte", concat(whole[:8], []byte{whole[8] ^ 1}, whole[9:]), true, "digest"},
	{"a byte more", concat(whole, []byte{0}), true, "digest"},
	{"an empty message", kpltest.Seal(nil), true, "no user records"},
	{"tables alone", kpltest.Seal(tables), true, "no user records"},
	{"no protobuf", kpltest.Seal([]byte("some text")), true, "reading the message"},
	{"a field that is cut off", kpltest.Seal(concat(tables, []byte{3<<3 | 2, 5, 1})), true, "unexpected EOF"},
	{"field number 0", kpltest.Seal(concat(tables, []byte{0, 0})), true, "invalid field number"},
	{"field number 2^29", kpltest.Seal(concat(tables, integer(protowire.MaxValidNumber+1, 0))), true, "invalid field number"},
	{"a varint of 11 bytes", kpltest.Seal(concat(tables, []byte{9 << 3}, bytes.Repeat([]byte{0xFF}, 10), []byte{1})), true, "overflow"},
	{"a wire type that is not there", kpltest.Seal(concat(tables, []byte{9<<3 | 7})), true, "reserved wire type"},
	{"the end of no group", kpltest.Seal(concat(tables, []byte{9<<3 | 4})), true, "end group"},
	{"the end of another group", kpltest.Seal(concat(tables, []byte{9<<3 | 3, 8<<3 | 4})), true, "end group"},
	{"a user record that is cut off", kpltest.Seal(concat(tables, userRecordOf(named, payload), userRecordOf(named, []byte{3<<3 | 2, 5}))), true, "reading user record 1: unexpected EOF"},
	{"no partition key", kpltest.Seal(concat(tables, userRecordOf(payload))), true, "no partition key"},
	{"no data", kpltest.Seal(concat(tables, userRecordOf(named))), true, "no data"},
	{"partition key out of range", kpltest.Seal(concat(tables, userRecordOf(integer(1, 2), payload))), true, "partition key 2 is not among the 2"},
	{"partition key far out of range", kpltest.Seal(concat(tables, userRecordOf(integer(1, 1<<63), payload))), true, "partition key 9223372036854775808 is not"},
	{"explicit hash key out of range", kpltest.Seal(concat(tables, userRecordOf(named, payload, integer(2, 2)))), true, "explicit hash key 2 is not among the 2"},
	{"a tag without key", kpltest.Seal(concat(tables, userRecordOf(named, payload, text(4, "")))), true, "reading a tag: it has no key"},
	{"a tag that is cut off", kpltest.Seal(concat(tables, userRecordOf(named, payload, text(4, "\x0a\x05")))), true, "reading a tag: unexpected EOF"},
}

func TestWhatIsNoAggregateIsRefusedWithTheReason(t *testing.T) {
	for _, c := range broken {
		require.Equal(t, c.looks, kpl.Looks(c.data), c.name)
		got, err := kpl.Decode(c.data)
		require.ErrorContains(t, err, c.err, c.name)
		require.Nil(t, got, c.name)
		same(t, c.data)
	}
}

func TestMoreUserRecordsThanARecordHasRoomForAreRefused(t *testing.T) {
	const most = 10 << 20 / 6
	smallest := userRecordOf(integer(1, 0), text(3, ""))
	require.Len(t, smallest, 6)
	key := text(1, "k")
	got, err := kpl.Decode(kpltest.Seal(append(bytes.Repeat(smallest, most), key...)))
	require.NoError(t, err)
	require.Len(t, got, most)
	_, err = kpl.Decode(kpltest.Seal(append(bytes.Repeat(smallest, most+1), key...)))
	require.ErrorContains(t, err, "it has 1747627 user records, and a record of Kinesis 1747626 at most")
}

// A key of megabytes that a million user records share would take hours to hash, and
// terabytes to write.
func TestLongKeysAreNotSharedWithoutBound(t *testing.T) {
	for _, c := range []struct {
		length, users int
		ok            bool
	}{
		{1_024, 10_000, true}, // 256 characters of four bytes
		{9 << 20, 1, true},    // no key of Kinesis, and yet no more than was read
		{2_000, 2, true},
		{2_000, 10, false},
		{1 << 20, 100_000, false},
	} {
		used := userRecordOf(integer(1, 0), integer(2, 0), text(3, ""))
		data := kpltest.Seal(concat(text(1, strings.Repeat("k", c.length)), text(2, strings.Repeat("1", 39)), bytes.Repeat(used, c.users)))
		got, err := kpl.Decode(data)
		if c.ok {
			require.NoError(t, err)
			require.Len(t, got, c.users)
		} else {
			require.ErrorContains(t, err, "too long for Kinesis")
		}
		same(t, data)
	}
}

// Any fields at any place, more of which make sense than of random bytes.
func TestAnyFieldsAreReadAsProtobufReadsThem(t *testing.T) {
	var member *rapid.Generator[[]byte]
	fieldOf := func(value *rapid.Generator[string]) *rapid.Generator[[]byte] {
		return rapid.Custom(func(t *rapid.T) []byte {
			field := protowire.Number(rapid.IntRange(1, 5).Draw(t, "field"))
			switch rapid.IntRange(0, 9).Draw(t, "type") {
			case 0:
				return rapid.SampledFrom([][]byte{fixed32, fixed64, longest, sprawling}).Draw(t, "fixed")
			case 1:
				return group(field, integer(1, 1))
			case 2:
				return rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "bytes")
			case 3, 4, 5:
				return integer(field, rapid.Uint64Range(0, 3).Draw(t, "integer"))
			default:
				return text(field, value.Draw(t, "value"))
			}
		})
	}
	join := func(of *rapid.Generator[[]byte]) *rapid.Generator[string] {
		return rapid.Map(rapid.SliceOfN(of, 0, 5), func(fields [][]byte) string { return string(concat(fields...)) })
	}
	keys := rapid.Just(string(text(1, "key")))
	member = rapid.OneOf(rapid.Just(named), rapid.Just(payload), fieldOf(rapid.OneOf(keys, rapid.Just(""))))
	top := rapid.OneOf(rapid.Just(tables), rapid.Map(join(member), func(m string) []byte {
		return userRecordOf(named, payload, []byte(m))
	}), fieldOf(join(member)))
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		data := kpltest.Seal([]byte(join(top).Draw(t, "message")))
		same(t, data)
		if _, err := kpl.Decode(data); err == nil {
			taken++
		}
	})
	require.NotZero(t, taken)
}

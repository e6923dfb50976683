package wire

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record is one as the service spells it.
const record = `{"SequenceNumber":"49590338271490256608559692538361571095921575989136588898",` +
	`"ApproximateArrivalTimestamp":1.441215410867E9,"Data":"YWIrLw==","PartitionKey":"key ü","EncryptionType":"KMS"}`

// knownAnswers are all decoded here, without the SDK.
var knownAnswers = []string{
	`{}`,
	`{"Records":[]}`,
	`{"MillisBehindLatest":0,"NextShardIterator":"AAAA","Records":[` + record + `]}`,
	`{"Records":[` + record + `,` + record + `],"ChildShards":[],"MillisBehindLatest":86400000,"NextShardIterator":""}`,
	" {\t\"Records\" :\r\n[ " + record + " , { } ] , \"MillisBehindLatest\" : 7 } \n",
	`{"NextShardIterator":null,"Records":null,"MillisBehindLatest":null,"ChildShards":null}`,
	`{"Records":[{"Data":null,"SequenceNumber":null,"PartitionKey":null,"ApproximateArrivalTimestamp":null,"EncryptionType":null}]}`,
	`{"Records":[{"Data":"","SequenceNumber":"","PartitionKey":"","EncryptionType":""}]}`,
	`{"Records":[{"ApproximateArrivalTimestamp":0},{"ApproximateArrivalTimestamp":1700000000},{"ApproximateArrivalTimestamp":1700000000.123}]}`,
	`{"Records":[{"ApproximateArrivalTimestamp":17e8},{"ApproximateArrivalTimestamp":1.7E+09},{"ApproximateArrivalTimestamp":0.0000001}]}`,
	`{"Records":[{"EncryptionType":"NONE"},{"EncryptionType":"A_NEW_ONE"}]}`,
	`{"Records":[{"Data":"QR=="},{"Data":"QUJD"},{"Data":"` + strings.Repeat("QUJD", 100) + `"}]}`,
	`{"New":"string","Newer":1,"Newest":true,"Most":false,"Void":null,"Records":[{"New":"string","Newer":0}]}`,
	`{"MillisBehindLatest":999999999999999999}`,
}

// foreignAnswers are all left to the SDK, which takes some of them and refuses
// the others.
var foreignAnswers = map[string]string{
	"nothing":                          ``,
	"white space":                      ` `,
	"null":                             `null`,
	"a list":                           `[]`,
	"CBOR":                             "\xbf\x67Records\x80\xff",
	"a byte order mark":                "\xef\xbb\xbf{}",
	"trailing data":                    `{"Records":[]}{`,
	"an end within":                    `{"Records":[` + record[:60],
	"an end between":                   `{"Records":[` + record + `]`,
	"a comma too many":                 `{"Records":[` + record + `,]}`,
	"a comma too few":                  `{"Records":[` + record + record + `]}`,
	"no comma between members":         `{"MillisBehindLatest":1"Records":[]}`,
	"a comma before the end":           `{"MillisBehindLatest":1,}`,
	"no colon":                         `{"MillisBehindLatest"1}`,
	"a list that ends as an object":    `{"Records":[}`,
	"an object that ends as a list":    `{"Records":[{]]}`,
	"a name without quotes":            `{Records:[]}`,
	"children":                         `{"ChildShards":[{"ShardId":"shardId-000000000001","ParentShards":["shardId-000000000000"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"1"}}],"Records":[]}`,
	"a record that is null":            `{"Records":[null]}`,
	"a record that is a list":          `{"Records":[[]]}`,
	"records that are an object":       `{"Records":{}}`,
	"records that are a string":        `{"Records":"[]"}`,
	"records twice":                    `{"Records":[` + record + `],"Records":[{}]}`,
	"an iterator twice":                `{"NextShardIterator":"a","NextShardIterator":"b"}`,
	"a lag twice":                      `{"MillisBehindLatest":1,"MillisBehindLatest":2}`,
	"children twice":                   `{"ChildShards":[],"ChildShards":[]}`,
	"data twice":                       `{"Records":[{"Data":"QQ==","Data":"Qg=="}]}`,
	"a sequence twice":                 `{"Records":[{"SequenceNumber":"1","SequenceNumber":"2"}]}`,
	"a key twice":                      `{"Records":[{"PartitionKey":"1","PartitionKey":"2"}]}`,
	"an arrival twice":                 `{"Records":[{"ApproximateArrivalTimestamp":1,"ApproximateArrivalTimestamp":2}]}`,
	"an encryption twice":              `{"Records":[{"EncryptionType":"KMS","EncryptionType":"NONE"}]}`,
	"a name with an escape":            `{"\u0052ecords":[` + record + `]}`,
	"an unknown name with an escape":   `{"\x":1,"Records":[]}`,
	"a name with a control character":  "{\"a\x01\":1}",
	"a key with an escape":             `{"Records":[{"PartitionKey":"\u00fc \"quoted\" \\ \/ \n"}]}`,
	"a key with a surrogate":           `{"Records":[{"PartitionKey":"\ud83d\ude00 \ud83d"}]}`,
	"an escape that does not exist":    `{"Records":[{"PartitionKey":"\x"}]}`,
	"a control character":              "{\"Records\":[{\"PartitionKey\":\"long enough \x1f to matter\"}]}",
	"a control character at the end":   "{\"Records\":[{\"PartitionKey\":\"\n\"}]}",
	"data with an escape":              `{"Records":[{"Data":"QQ\u003d="}]}`,
	"data with a slash escaped":        `{"Records":[{"Data":"YWIrL\/=="}]}`,
	"data with line ends":              "{\"Records\":[{\"Data\":\"QUJD\n\n\n\nQUJD\"}]}",
	"data with line ends behind":       "{\"Records\":[{\"Data\":\"QUI=\r\n\r\n\"}]}",
	"data without padding":             `{"Records":[{"Data":"QQ"}]}`,
	"data with too much padding":       `{"Records":[{"Data":"QUJD===="}]}`,
	"data with padding within":         `{"Records":[{"Data":"QQ==QQ=="}]}`,
	"data of another alphabet":         `{"Records":[{"Data":"_-__"}]}`,
	"long data with a wrong byte":      `{"Records":[{"Data":"` + strings.Repeat("QUJD", 50) + `QU*D` + strings.Repeat("QUJD", 50) + `"}]}`,
	"data that is a number":            `{"Records":[{"Data":1}]}`,
	"a sequence that is a number":      `{"Records":[{"SequenceNumber":1}]}`,
	"a key that is a list":             `{"Records":[{"PartitionKey":[]}]}`,
	"a lag that is a string":           `{"MillisBehindLatest":"1"}`,
	"a lag below zero":                 `{"MillisBehindLatest":-1}`,
	"a lag with a fraction":            `{"MillisBehindLatest":1.0}`,
	"a lag with an exponent":           `{"MillisBehindLatest":1e3}`,
	"a lag with a leading zero":        `{"MillisBehindLatest":01}`,
	"a lag of 19 digits":               `{"MillisBehindLatest":9223372036854775807}`,
	"a lag beyond 64 bits":             `{"MillisBehindLatest":99999999999999999999999999}`,
	"a lag that is not there":          `{"MillisBehindLatest":}`,
	"an arrival that is a string":      `{"Records":[{"ApproximateArrivalTimestamp":"2026-01-01T00:00:00Z"}]}`,
	"an arrival that is a number word": `{"Records":[{"ApproximateArrivalTimestamp":"NaN"}]}`,
	"an arrival before 1970":           `{"Records":[{"ApproximateArrivalTimestamp":-1.5}]}`,
	"an arrival of 16 digits":          `{"Records":[{"ApproximateArrivalTimestamp":1700000000.123456}]}`,
	"an arrival of many digits":        `{"Records":[{"ApproximateArrivalTimestamp":1700000000.12345678901234567890123}]}`,
	"an arrival beyond time":           `{"Records":[{"ApproximateArrivalTimestamp":1e10}]}`,
	"an arrival beyond floats":         `{"Records":[{"ApproximateArrivalTimestamp":1e999}]}`,
	"an arrival of a small power":      `{"Records":[{"ApproximateArrivalTimestamp":1e-3}]}`,
	"an arrival of a large power":      `{"Records":[{"ApproximateArrivalTimestamp":1e23}]}`,
	"an arrival with a point alone":    `{"Records":[{"ApproximateArrivalTimestamp":1.}]}`,
	"an arrival with an E alone":       `{"Records":[{"ApproximateArrivalTimestamp":1E}]}`,
	"an unknown member with depth":     `{"New":{"Records":[` + record + `]},"Records":[]}`,
	"an unknown list":                  `{"New":[1,2,[3]],"Records":[]}`,
	"an unknown number":                `{"New":-1.5e-7,"Records":[]}`,
	"an unknown word":                  `{"New":truth,"Records":[]}`,
	"a null that goes on":              `{"Records":nullify}`,
}

func TestAnswersOfTheServiceAreDecodedWithoutTheSDK(t *testing.T) {
	for _, body := range knownAnswers {
		var page Page
		require.True(t, decode([]byte(body), &page), "%s", body)
		want, err := theSDKs(body)
		require.NoError(t, err)
		require.Equal(t, pageOf(want), &page, "%s", body)
	}
}

func TestAnswersOfAnyOtherShapeAreLeftToTheSDK(t *testing.T) {
	for name, body := range foreignAnswers {
		var page Page
		require.False(t, decode([]byte(body), &page), name)
		require.Zero(t, page, "what is not known leaves no trace: %s", name)
		same(t, body)
	}
}

func TestEveryFieldIsDecoded(t *testing.T) {
	var page Page
	require.True(t, decode([]byte(`{"MillisBehindLatest":12,"NextShardIterator":"AAAA","Records":[`+record+`]}`), &page))
	require.Equal(t, Page{
		Behind: aws.Int64(12),
		Next:   "AAAA",
		Records: []Record{{
			Data:           []byte("ab+/"),
			SequenceNumber: "49590338271490256608559692538361571095921575989136588898",
			PartitionKey:   "key ü",
			Arrived:        time.UnixMilli(1441215410867).UTC(),
		}},
	}, page)
}

func TestNothingOfAPageRefersToItsBody(t *testing.T) {
	body := []byte(`{"NextShardIterator":"AAAA","Records":[` + record + `,{"EncryptionType":"A_NEW_ONE"}]}`)
	want, err := theSDKs(string(body))
	require.NoError(t, err)
	var page Page
	require.True(t, decode(body, &page))
	for i := range body {
		body[i] = 'x'
	}
	require.Equal(t, pageOf(want), &page)
}

// A message may change or extend the payload that it owns.
func TestPayloadsShareNoByteWithOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(4094, 4098)), 1, 300).Draw(t, "sizes")
		var page Page
		require.True(t, decode(bodyOf(sizes), &page))
		for i, r := range page.Records {
			require.Len(t, r.Data, sizes[i])
			require.Equal(t, len(r.Data), cap(r.Data))
			for j := range r.Data {
				r.Data[j] = byte(i)
			}
			_ = append(r.Data, "beyond"...)
		}
		for i, r := range page.Records {
			for _, c := range r.Data {
				require.Equal(t, byte(i), c)
			}
			require.Equal(t, fmt.Sprintf("%056d", i), r.SequenceNumber)
			require.Equal(t, fmt.Sprintf("key-%d", i), r.PartitionKey)
		}
	})
}

func TestArrivalIsWhatTheParserOfFloatsMakesOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?`).Draw(t, "seconds")
		body := `{"Records":[{"ApproximateArrivalTimestamp":` + digits + `}]}`
		same(t, body)
		// As the service and others spell milliseconds.
		millis := rapid.Int64Range(1e12, 9e12).Draw(t, "milliseconds")
		for _, form := range []string{"%.3f", "%.12E"} {
			body := fmt.Sprintf(`{"Records":[{"ApproximateArrivalTimestamp":`+form+`}]}`, float64(millis)/1000)
			var page Page
			require.True(t, decode([]byte(body), &page), body)
			same(t, body)
		}
	})
}

// The records of a page are kept until the last one is done with.
func TestPageTakesNoRoomForRecordsThatItDoesNotHave(t *testing.T) {
	for _, sizes := range [][]int{{0, 100_000, 100_000}, {100_000, 0, 0, 0, 0}, {10}, {}} {
		body := bodyOf(sizes)
		inJSON, inCBOR := Page{}, Page{}
		require.True(t, decode(body, &inJSON))
		require.True(t, decodeCBOR(cborOf(t, body), &inCBOR))
		for _, page := range []Page{inJSON, inCBOR} {
			require.Len(t, page.Records, len(sizes))
			require.LessOrEqual(t, cap(page.Records), 2*len(sizes)+1)
		}
	}
}

// A buffer of the host may keep one record of many for hours, after its acknowledgement.
func TestRecordThatIsKeptHoldsLittleOfItsPage(t *testing.T) {
	const apart = 250
	for name, decode := range map[string]func(body []byte, page *Page) bool{"JSON": decode, "CBOR": decodeCBOR} {
		for size, most := range map[int]int{100: 4 << 10, 1000: 24 << 10, 5000: 10 << 10} {
			body := bodyOf(slices.Repeat([]int{size}, 5000))
			if name == "CBOR" {
				body = cborOf(t, body)
			}
			before := heap()
			kept := func() (kept []Record) {
				var page Page
				require.True(t, decode(body, &page))
				for i := 0; i < len(page.Records); i += apart {
					kept = append(kept, page.Records[i])
				}
				return kept
			}()
			each := (heap() - before) / len(kept)
			t.Logf("%s: a record of %d bytes holds %d", name, size, each)
			require.Less(t, each, most)
			runtime.KeepAlive(kept)
			runtime.KeepAlive(body)
		}
	}
}

// heap is how many bytes of it are in use.
func heap() int {
	for range 3 { // what is pooled outlives one collection
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

// bodyOf is an answer with records of the sizes given.
func bodyOf(sizes []int) []byte {
	b := []byte(`{"MillisBehindLatest":0,"NextShardIterator":"` + strings.Repeat("A", 224) + `","Records":[`)
	for i, n := range sizes {
		if i > 0 {
			b = append(b, ',')
		}
		data := make([]byte, n)
		for j := range data {
			data[j] = byte(i*7 + j*31)
		}
		b = fmt.Appendf(b, `{"SequenceNumber":"%056d","ApproximateArrivalTimestamp":1.70000000012%dE9,"Data":"`, i, i%10)
		b = base64.StdEncoding.AppendEncode(b, data)
		b = fmt.Appendf(b, `","PartitionKey":"key-%d"}`, i)
	}
	return append(b, "]}"...)
}

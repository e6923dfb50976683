package awskinesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

const (
	// serviceAhead is how far the clock of the service is ahead of the bubble's.
	serviceAhead = 37 * time.Minute
	// simulatedPage is the number of shards or records in one answer.
	simulatedPage = 7
)

func serviceTime() time.Time { return time.Now().Add(serviceAhead) }

// simulatedStream is a stream in memory. The simulation's lock guards it.
type simulatedStream struct {
	name   string
	shards []*simulatedShard
	byID   map[string]*simulatedShard
	// put is the number of records of all shards, from which their sequence
	// numbers are made: these grow in length on the way.
	put int
	// life counts the streams that were made under the name, and ranged is whether the
	// ranges of their shards are told.
	life   int
	ranged bool
	// consumers are those of enhanced fan-out.
	consumers []*simulatedConsumer
	producers producers
}

// producers are those who put records.
type producers struct {
	// packer has the dice of those that aggregate what they put; nil where none does.
	packer *rand.Rand
	// keyer has the dice of those that give their records one of so many partition keys;
	// nil where none does.
	keyer *rand.Rand
	keys  int
}

// pack is of how many user records the next record is an aggregate, 0 for none.
func (p producers) pack() int {
	if p.packer == nil || p.packer.IntN(4) > 0 {
		return 0
	}
	return 1 + p.packer.IntN(30)
}

// key is the partition key of the next record, empty for none.
func (p producers) key() string {
	if p.keyer == nil || p.keyer.IntN(20) == 0 {
		return ""
	}
	return fmt.Sprint("key-", p.keyer.IntN(p.keys))
}

type simulatedShard struct {
	key      lease.Key
	life     int // of its stream
	parents  []*simulatedShard
	children []*simulatedShard
	closed   bool
	// first and last bound its sequence numbers, as far as that is told.
	first, last string
	records     []simulatedRecord
	indexes     map[string]int // by sequence number, of the last user record of an aggregate
	newest      map[string]int // index of the last record, by partition key

	// changed is closed when there is something new; nil while nobody waits for that.
	changed chan struct{}
}

// simulatedRecord is a record, or a user record of an aggregate: those of one stand side by
// side, with one sequence number. of is how many they are, 0 for a record that is none, and
// sub its place among them.
type simulatedRecord struct {
	sequence string
	sub, of  int
	key      string
	before   int       // index of the one before it of its key, -1 for none
	arrived  time.Time // in whole milliseconds, as it is told
}

func newSimulatedStream(name string, shards int, ranged bool) *simulatedStream {
	st := &simulatedStream{name: name, byID: map[string]*simulatedShard{}, ranged: ranged}
	for range shards {
		st.add()
	}
	return st
}

func (st *simulatedStream) add(parents ...*simulatedShard) {
	sh := &simulatedShard{
		key: lease.Key{Stream: st.name, Shard: shardName(len(st.shards))}, life: st.life,
		parents: parents, indexes: map[string]int{}, newest: map[string]int{}, first: "0", last: "9999999999",
	}
	for _, p := range parents {
		if st.ranged && !p.closed {
			p.last = st.sequence()
		}
		p.closed = true
		p.children = append(p.children, sh)
		p.wake()
	}
	if st.ranged {
		sh.first = st.sequence()
	}
	st.shards = append(st.shards, sh)
	st.byID[sh.key.Shard] = sh
}

// sequence is the next sequence number.
func (st *simulatedStream) sequence() string {
	st.put++
	return strconv.Itoa(st.put + 90)
}

func (st *simulatedStream) open() []*simulatedShard {
	return slices.DeleteFunc(slices.Clone(st.shards), func(sh *simulatedShard) bool { return sh.closed })
}

func (st *simulatedStream) putTo(sh *simulatedShard, n int) {
	for range n {
		sequence, of := st.sequence(), st.producers.pack()
		for sub := range max(of, 1) {
			sh.put(simulatedRecord{sequence: sequence, sub: sub, of: of, key: st.producers.key(), arrived: serviceTime().Truncate(time.Millisecond)})
		}
	}
	sh.wake()
}

// put adds a record, or a user record of an aggregate.
func (sh *simulatedShard) put(r simulatedRecord) {
	index := len(sh.records)
	r.before = -1
	if before, known := sh.newest[r.key]; known {
		r.before = before
	}
	sh.records = append(sh.records, r)
	sh.indexes[r.sequence], sh.newest[r.key] = index, index
}

// whole is the first index from one on at which no aggregate is torn.
func (sh *simulatedShard) whole(index int) int {
	for index < len(sh.records) && sh.records[index].sub > 0 {
		index++
	}
	return min(index, len(sh.records))
}

// data is what a record holds whose last user record, or which itself, has an index.
func (sh *simulatedShard) data(index int) []byte {
	of := sh.records[index].of
	if of == 0 {
		return []byte("x")
	}
	var users []kpl.Record
	for _, r := range sh.records[index+1-of : index+1] {
		users = append(users, kpl.Record{PartitionKey: r.key})
	}
	return kpltest.Encode(users)
}

// last reports whether it is the last user record of its aggregate, as it is by itself.
func (r *simulatedRecord) last() bool { return r.sub+1 >= r.of }

// ofLife marks what a stream hands out that its successor under the name does not take.
func (st *simulatedStream) ofLife(text string) string {
	if st.life == 0 {
		return text
	}
	return text + "/" + strconv.Itoa(st.life)
}

// taken undoes ofLife, and reports whether the text is of this stream.
func (st *simulatedStream) taken(text string, parts int) ([]string, bool) {
	all := strings.Split(text, "/")
	return all[:parts], st.ofLife(strings.Join(all[:parts], "/")) == text
}

// list answers ListShards, a page at a time.
func (st *simulatedStream) list(in *kinesis.ListShardsInput) (*kinesis.ListShardsOutput, error) {
	if st == nil {
		return nil, &types.ResourceNotFoundException{Message: aws.String("no such stream")}
	}
	from := 0
	if in.NextToken != nil {
		token, ok := st.taken(*in.NextToken, 2)
		if !ok {
			return nil, &types.ExpiredNextTokenException{Message: in.NextToken}
		}
		from, _ = strconv.Atoi(token[1])
	}
	out := &kinesis.ListShardsOutput{ResultMetadata: answeredAt(serviceTime())}
	// Pages grow, so that a long list takes few of them.
	to := min(len(st.shards), 2*from+simulatedPage)
	for _, sh := range st.shards[from:to] {
		shard := types.Shard{ShardId: &sh.key.Shard, SequenceNumberRange: &types.SequenceNumberRange{StartingSequenceNumber: &sh.first}}
		if sh.closed {
			shard.SequenceNumberRange.EndingSequenceNumber = &sh.last
		}
		if len(sh.parents) > 0 {
			shard.ParentShardId = &sh.parents[0].key.Shard
		}
		if len(sh.parents) > 1 {
			shard.AdjacentParentShardId = &sh.parents[1].key.Shard
		}
		out.Shards = append(out.Shards, shard)
	}
	if to < len(st.shards) {
		out.NextToken = aws.String(st.ofLife(st.name + "/" + strconv.Itoa(to)))
	}
	return out, nil
}

// answeredAt is the metadata that the SDK makes of an answer with a date.
func answeredAt(date time.Time) middleware.Metadata {
	answer := &smithyhttp.Response{Response: &http.Response{Header: http.Header{"Date": {date.UTC().Format(http.TimeFormat)}}}}
	next := middleware.DeserializeHandlerFunc(func(context.Context, middleware.DeserializeInput) (middleware.DeserializeOutput, middleware.Metadata, error) {
		return middleware.DeserializeOutput{RawResponse: answer}, middleware.Metadata{}, nil
	})
	_, metadata, err := (&awsmiddleware.RecordResponseTiming{}).HandleDeserialize(context.Background(), middleware.DeserializeInput{}, next)
	if err != nil {
		panic(err)
	}
	return metadata
}

// iterate answers GetShardIterator.
func (st *simulatedStream) iterate(in *kinesis.GetShardIteratorInput) (*kinesis.GetShardIteratorOutput, error) {
	var sh *simulatedShard
	if st != nil {
		sh = st.byID[*in.ShardId]
	}
	if sh == nil {
		return nil, &types.ResourceNotFoundException{Message: in.ShardId}
	}
	index := 0
	switch in.ShardIteratorType {
	case types.ShardIteratorTypeTrimHorizon:
	case types.ShardIteratorTypeAfterSequenceNumber:
		at, known := sh.indexes[*in.StartingSequenceNumber]
		if !known {
			return nil, &types.InvalidArgumentException{Message: in.StartingSequenceNumber}
		}
		index = at + 1
	case types.ShardIteratorTypeAtTimestamp:
		index = sh.arrivedBy(*in.Timestamp)
	default:
		panic(in.ShardIteratorType)
	}
	return &kinesis.GetShardIteratorOutput{ShardIterator: st.iterator(sh, index)}, nil
}

// arrivedBy is the index of the first record that did not arrive before a time.
func (sh *simulatedShard) arrivedBy(at time.Time) int {
	index, _ := slices.BinarySearchFunc(sh.records, at, func(r simulatedRecord, at time.Time) int { return r.arrived.Compare(at) })
	return index
}

func (st *simulatedStream) iterator(sh *simulatedShard, index int) *string {
	return aws.String(st.ofLife(sh.key.Stream + "/" + sh.key.Shard + "/" + strconv.Itoa(index)))
}

// records answers GetRecords. It is late at times, and then brings little.
func (s *simulation) records(iterator string, late bool) (*kinesis.GetRecordsOutput, error) {
	stream, _, _ := strings.Cut(iterator, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[stream]
	if st == nil {
		return nil, &types.ResourceNotFoundException{Message: &stream}
	}
	at, ok := st.taken(iterator, 3)
	if !ok {
		return nil, &types.ResourceNotFoundException{Message: &iterator}
	}
	index, err := strconv.Atoi(at[2])
	if err != nil {
		panic(err)
	}
	sh := st.byID[at[1]]
	to := sh.whole(index + simulatedPage)
	if late {
		to = sh.whole(index + 1)
	}
	out := &kinesis.GetRecordsOutput{
		Records:            []types.Record{},
		MillisBehindLatest: aws.Int64(s.behind.of(sh, to-index, len(sh.records)-to).Milliseconds()),
	}
	if late && (!sh.closed || to < len(sh.records)) {
		*out.MillisBehindLatest += 20_000
	}
	for i := range sh.records[index:to] {
		if r := &sh.records[index+i]; r.last() {
			out.Records = append(out.Records, types.Record{Data: sh.data(index + i), SequenceNumber: &r.sequence, PartitionKey: &r.key, ApproximateArrivalTimestamp: &r.arrived})
		}
	}
	if !sh.closed || to < len(sh.records) {
		out.NextShardIterator = st.iterator(sh, to)
		return out, nil
	}
	for _, child := range sh.children {
		c := types.ChildShard{ShardId: &child.key.Shard}
		for _, parent := range child.parents {
			c.ParentShards = append(c.ParentShards, parent.key.Shard)
		}
		out.ChildShards = append(out.ChildShards, c)
	}
	return out, nil
}

// simulatedEvent is a line of a shard's trail.
type simulatedEvent struct {
	at           time.Time
	client, what string
	detail       fmt.Stringer
}

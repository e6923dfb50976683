package awsfake

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// kinesisService holds the streams of the account.
type kinesisService struct {
	opts *Options

	mu      sync.RWMutex
	streams map[string]*stream
	lives   uint64

	emptyMu sync.Mutex
	empty   map[string]int // empty pages before each page with records, by stream

	quotaMu                       sync.Mutex
	describes, summaries, listing window
	registers                     window

	consumersMu   sync.Mutex       // guards the consumers of all streams
	consumerStamp map[string]int64 // the last one used in an ARN, by stream and consumer
}

var kinesisOperations = map[string]operation[*kinesisService]{
	"CreateStream":          operationOf((*kinesisService).createStream),
	"DeleteStream":          operationOf((*kinesisService).deleteStream),
	"DescribeStream":        operationOf((*kinesisService).describeStream),
	"DescribeStreamSummary": operationOf((*kinesisService).describeStreamSummary),
	"ListStreams":           operationOf((*kinesisService).listStreams),
	"ListShards":            operationOf((*kinesisService).listShards),
	"PutRecord":             operationOf((*kinesisService).putRecord),
	"PutRecords":            operationOf((*kinesisService).putRecords),
	"GetShardIterator":      operationOf((*kinesisService).getShardIterator),
	"GetRecords":            (*kinesisService).getRecords,
	"SplitShard":            operationOf((*kinesisService).splitShard),
	"MergeShards":           operationOf((*kinesisService).mergeShards),

	"RegisterStreamConsumer":   operationOf((*kinesisService).registerStreamConsumer),
	"DeregisterStreamConsumer": operationOf((*kinesisService).deregisterStreamConsumer),
	"DescribeStreamConsumer":   operationOf((*kinesisService).describeStreamConsumer),
	"ListStreamConsumers":      operationOf((*kinesisService).listStreamConsumers),
}

func newKinesisService(opts *Options) *kinesisService {
	return &kinesisService{opts: opts, streams: map[string]*stream{}, empty: map[string]int{}, consumerStamp: map[string]int64{}}
}

func (k *kinesisService) now() time.Time { return k.opts.Clock.Now() }

// streamRef is how a request names a stream.
type streamRef struct {
	StreamName string
	StreamARN  string
}

func (k *kinesisService) find(ref streamRef) (*stream, error) {
	name := ref.StreamName
	if ref.StreamARN != "" {
		_, tail, ok := strings.Cut(ref.StreamARN, ":stream/")
		if !ok {
			return nil, invalid("1 validation error detected: Value %q at 'streamARN' failed to satisfy constraint", ref.StreamARN)
		}
		if k.arn(tail) != ref.StreamARN || name != "" && name != tail {
			return nil, refuse(CodeResourceNotFound, "Stream %s not found.", ref.StreamARN)
		}
		name = tail
	}
	if name == "" {
		return nil, refuse(CodeInvalidArgument, "Either StreamName or StreamARN must be provided.")
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	st, ok := k.streams[name]
	if !ok {
		return nil, refuse(CodeResourceNotFound, "Stream %s under account %s not found.", name, accountID)
	}
	return st, nil
}

// ready finds a stream for an operation that needs it to have shards.
func (k *kinesisService) ready(ref streamRef) (*stream, error) {
	st, err := k.find(ref)
	if err != nil {
		return nil, err
	}
	if st.status(k.now()) == "CREATING" {
		return nil, refuse(CodeResourceNotFound, "Stream %s under account %s is not ACTIVE, instead in state CREATING", st.name, accountID)
	}
	return st, nil
}

func (k *kinesisService) arn(name string) string {
	return "arn:aws:kinesis:" + k.opts.Region + ":" + accountID + ":stream/" + name
}

// within counts a call against a quota of the account.
func (k *kinesisService) within(w *window, perSecond int, operation string) error {
	if !k.opts.EnforceLimits {
		return nil
	}
	k.quotaMu.Lock()
	defer k.quotaMu.Unlock()
	if !w.allow(k.now(), perSecond) {
		return refuse(CodeLimitExceeded, "Rate exceeded for %s under account %s.", operation, accountID)
	}
	return nil
}

var streamNames = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

func (k *kinesisService) create(name string, shards int, onDemand, auto bool, delay time.Duration) error {
	if !streamNames.MatchString(name) {
		return invalid("1 validation error detected: Value %q at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+", name)
	}
	if shards < 1 || shards > 100_000 {
		return invalid("1 validation error detected: Value '%d' at 'shardCount' failed to satisfy constraint: Member must be greater than or equal to 1", shards)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.streams[name] != nil {
		return refuse(CodeResourceInUse, "Stream %s under account %s already exists.", name, accountID)
	}
	k.lives++
	st := newStream(name, k.arn(name), k.lives, shards, k.now())
	st.onDemand, st.auto, st.settles = onDemand, auto, st.created.Add(delay)
	k.streams[name] = st
	return nil
}

type createStreamInput struct {
	StreamName                 string
	ShardCount                 *int
	StreamModeDetails          struct{ StreamMode string }
	RecordDistributionStrategy string
}

// defaultShards of an on-demand stream.
const defaultShards = 4

func (k *kinesisService) createStream(in *createStreamInput) (none, error) {
	onDemand := in.StreamModeDetails.StreamMode == "ON_DEMAND"
	auto := in.RecordDistributionStrategy == "AUTO"
	shards := defaultShards
	switch {
	case in.ShardCount != nil && !onDemand:
		shards = *in.ShardCount
	case in.ShardCount != nil:
		return none{}, invalid("ShardCount must not be specified for a stream with ON_DEMAND capacity mode.")
	case !onDemand:
		return none{}, invalid("ShardCount is required for a stream with PROVISIONED capacity mode.")
	}
	if auto && !onDemand {
		return none{}, invalid("RecordDistributionStrategy AUTO is for streams with ON_DEMAND capacity mode.")
	}
	return none{}, k.create(in.StreamName, shards, onDemand, auto, k.opts.StreamDelay)
}

type deleteStreamInput struct {
	streamRef
	EnforceConsumerDeletion bool
}

func (k *kinesisService) deleteStream(in *deleteStreamInput) (none, error) {
	st, err := k.find(in.streamRef)
	if err != nil {
		return none{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	st.consumers.prune(k.now())
	if len(st.consumers.list) > 0 && !in.EnforceConsumerDeletion {
		return none{}, refuse(CodeResourceInUse, "Stream %s under account %s has consumers registered. EnforceConsumerDeletion deletes them with it.", st.name, accountID)
	}
	if k.streams[st.name] == st {
		delete(k.streams, st.name)
	}
	st.consumers.end(refuse(CodeResourceNotFound, "Stream %s under account %s not found.", st.name, accountID))
	return none{}, nil
}

type hashKeyRange struct{ StartingHashKey, EndingHashKey string }

type sequenceRange struct {
	StartingSequenceNumber string
	EndingSequenceNumber   string `json:",omitempty"`
}

type shardDescription struct {
	ShardId               string //nolint:revive // spelled as on the wire
	ParentShardId         string `json:",omitempty"` //nolint:revive // as above
	AdjacentParentShardId string `json:",omitempty"` //nolint:revive // as above
	HashKeyRange          hashKeyRange
	SequenceNumberRange   sequenceRange
}

func (st *stream) describe(sh *shard) shardDescription {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := shardDescription{
		ShardId:               sh.id(),
		ParentShardId:         sh.parent,
		AdjacentParentShardId: sh.adjacent,
		HashKeyRange:          hashKeyRange{sh.start.String(), sh.end.String()},
		SequenceNumberRange:   sequenceRange{StartingSequenceNumber: sequenceNumber(st.life, sh.startCount, sh.index)},
	}
	if !sh.isOpen() {
		d.SequenceNumberRange.EndingSequenceNumber = sequenceNumber(st.life, sh.endCount, sh.index)
	}
	return d
}

func (st *stream) describeAll(shards []*shard) []shardDescription {
	all := make([]shardDescription, len(shards))
	for i, sh := range shards {
		all[i] = st.describe(sh)
	}
	return all
}

// pageOf returns what follows an id, at most limit shards, and whether there
// are more.
func pageOf(shards []*shard, after string, limit int) ([]*shard, bool) {
	from := slices.IndexFunc(shards, func(sh *shard) bool { return sh.id() > after })
	if from < 0 {
		return nil, false
	}
	shards = shards[from:]
	return shards[:min(limit, len(shards))], len(shards) > limit
}

// pageSize is the size of a page that was asked for, or its default, within
// what the options allow.
func (k *kinesisService) pageSize(asked *int, standard int) (int, error) {
	size := standard
	if asked != nil {
		size = *asked
	}
	if size < 1 || size > 10_000 {
		return 0, invalid("1 validation error detected: Value '%d' failed to satisfy constraint: Member must have value between 1 and 10000", size)
	}
	if k.opts.ShardsPerPage > 0 {
		size = min(size, k.opts.ShardsPerPage)
	}
	return size, nil
}

type streamModeDetails struct{ StreamMode string }

func (st *stream) mode() streamModeDetails {
	if st.onDemand {
		return streamModeDetails{"ON_DEMAND"}
	}
	return streamModeDetails{"PROVISIONED"}
}

type describeStreamInput struct {
	streamRef
	Limit                 *int
	ExclusiveStartShardId string //nolint:revive // spelled as on the wire
}

type streamDescription struct {
	StreamName, StreamARN, StreamStatus string
	StreamModeDetails                   streamModeDetails
	Shards                              []shardDescription
	HasMoreShards                       bool
	RetentionPeriodHours                int
	StreamCreationTimestamp             epoch
	EnhancedMonitoring                  []none
	EncryptionType                      string
}

type describeStreamOutput struct{ StreamDescription streamDescription }

func (k *kinesisService) describeStream(in *describeStreamInput) (*describeStreamOutput, error) {
	if err := k.within(&k.describes, describesSecond, "DescribeStream"); err != nil {
		return nil, err
	}
	st, err := k.find(in.streamRef)
	if err != nil {
		return nil, err
	}
	limit, err := k.pageSize(in.Limit, 100)
	if err != nil {
		return nil, err
	}
	status := st.status(k.now())
	var shards []*shard
	more := false
	if status != "CREATING" {
		shards, more = pageOf(st.list(), in.ExclusiveStartShardId, limit)
	}
	return &describeStreamOutput{streamDescription{
		StreamName:              st.name,
		StreamARN:               st.arn,
		StreamStatus:            status,
		StreamModeDetails:       st.mode(),
		Shards:                  st.describeAll(shards),
		HasMoreShards:           more,
		RetentionPeriodHours:    24,
		StreamCreationTimestamp: epoch(st.created),
		EnhancedMonitoring:      []none{},
		EncryptionType:          "NONE",
	}}, nil
}

type streamSummary struct {
	StreamName, StreamARN, StreamStatus string
	StreamModeDetails                   streamModeDetails
	StreamCreationTimestamp             epoch
	// The rest is part of DescribeStreamSummary alone.
	OpenShardCount       int    `json:",omitempty"`
	ConsumerCount        *int   `json:",omitempty"`
	RetentionPeriodHours int    `json:",omitempty"`
	EnhancedMonitoring   []none `json:",omitempty"`
	EncryptionType       string `json:",omitempty"`
}

func (k *kinesisService) summary(st *stream) streamSummary {
	return streamSummary{
		StreamName:              st.name,
		StreamARN:               st.arn,
		StreamStatus:            st.status(k.now()),
		StreamModeDetails:       st.mode(),
		StreamCreationTimestamp: epoch(st.created),
	}
}

type describeSummaryOutput struct{ StreamDescriptionSummary streamSummary }

func (k *kinesisService) describeStreamSummary(in *streamRef) (*describeSummaryOutput, error) {
	if err := k.within(&k.summaries, summariesSecond, "DescribeStreamSummary"); err != nil {
		return nil, err
	}
	st, err := k.find(*in)
	if err != nil {
		return nil, err
	}
	sum := k.summary(st)
	consumers := k.countConsumers(st)
	sum.ConsumerCount = &consumers
	sum.RetentionPeriodHours, sum.EncryptionType, sum.EnhancedMonitoring = 24, "NONE", []none{{}}
	if sum.StreamStatus != "CREATING" {
		st.mu.RLock()
		defer st.mu.RUnlock()
		sum.OpenShardCount = len(st.open)
	}
	return &describeSummaryOutput{sum}, nil
}

func (k *kinesisService) countConsumers(st *stream) int {
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	st.consumers.prune(k.now())
	return len(st.consumers.list)
}

type listStreamsInput struct {
	Limit                    *int
	NextToken                string
	ExclusiveStartStreamName string
}

type listStreamsOutput struct {
	StreamNames     []string
	StreamSummaries []streamSummary
	HasMoreStreams  bool
	NextToken       string `json:",omitempty"`
}

func (k *kinesisService) listStreams(in *listStreamsInput) (*listStreamsOutput, error) {
	if err := k.within(&k.listing, listStreamsSecond, "ListStreams"); err != nil {
		return nil, err
	}
	limit := 100
	if in.Limit != nil {
		limit = *in.Limit
	}
	if limit < 1 || limit > 10_000 {
		return nil, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and 10000", limit)
	}
	after := cmp.Or(in.NextToken, in.ExclusiveStartStreamName)
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := &listStreamsOutput{StreamNames: []string{}, StreamSummaries: []streamSummary{}}
	for _, name := range slices.Sorted(maps.Keys(k.streams)) {
		if name <= after {
			continue
		}
		if len(out.StreamNames) == limit {
			out.HasMoreStreams, out.NextToken = true, out.StreamNames[limit-1]
			break
		}
		out.StreamNames = append(out.StreamNames, name)
		out.StreamSummaries = append(out.StreamSummaries, k.summary(k.streams[name]))
	}
	return out, nil
}

type shardFilter struct {
	Type      string
	ShardId   string //nolint:revive // spelled as on the wire
	Timestamp *epoch
}

type listShardsInput struct {
	streamRef
	NextToken               string
	MaxResults              *int
	ExclusiveStartShardId   string //nolint:revive // spelled as on the wire
	ShardFilter             *shardFilter
	StreamCreationTimestamp *epoch
}

type listShardsOutput struct {
	Shards    []shardDescription
	NextToken string `json:",omitempty"`
}

// nextToken is where a list of shards goes on, and what it was a list of.
type nextToken struct {
	Stream string
	Life   uint64
	After  string
	Filter *shardFilter
	Issued int64 // Unix nanoseconds
}

const nextTokenLifetime = 300 * time.Second

func (k *kinesisService) listShards(in *listShardsInput) (*listShardsOutput, error) {
	now := k.now()
	limit, err := k.pageSize(in.MaxResults, 1000)
	if err != nil {
		return nil, err
	}
	from, st, err := k.listStart(in, now)
	if err != nil {
		return nil, err
	}
	if !st.allowList(now, k.opts.EnforceLimits) {
		return nil, refuse(CodeLimitExceeded, "Rate exceeded for ListShards on stream %s under account %s.", st.name, accountID)
	}
	shards := st.list()
	if from.Filter != nil {
		selected, err := st.filter(shards, *from.Filter)
		if err != nil {
			return nil, err
		}
		shards = selected
	}
	shards, more := pageOf(shards, from.After, limit)
	out := &listShardsOutput{Shards: st.describeAll(shards)}
	if more {
		from.After, from.Issued = shards[len(shards)-1].id(), now.UnixNano()
		token, err := json.Marshal(from)
		if err != nil {
			return nil, err
		}
		out.NextToken = base64.StdEncoding.EncodeToString(token)
	}
	return out, nil
}

// listStart is where a page starts: after its token, which goes alone, or
// after what the request says.
func (k *kinesisService) listStart(in *listShardsInput, now time.Time) (*nextToken, *stream, error) {
	if in.NextToken == "" {
		st, err := k.ready(in.streamRef)
		if err != nil {
			return nil, nil, err
		}
		if in.StreamCreationTimestamp != nil && time.Time(*in.StreamCreationTimestamp).Unix() != st.created.Unix() {
			return nil, nil, refuse(CodeResourceNotFound, "Stream %s under account %s with that creation time not found.", st.name, accountID)
		}
		return &nextToken{Stream: st.name, Life: st.life, After: in.ExclusiveStartShardId, Filter: in.ShardFilter}, st, nil
	}
	if in.StreamName != "" || in.StreamARN != "" || in.ExclusiveStartShardId != "" || in.StreamCreationTimestamp != nil || in.ShardFilter != nil {
		return nil, nil, refuse(CodeInvalidArgument, "NextToken and StreamName cannot be provided together.")
	}
	from := &nextToken{}
	decoded, err := base64.StdEncoding.DecodeString(in.NextToken)
	if err != nil || json.Unmarshal(decoded, from) != nil {
		return nil, nil, refuse(CodeInvalidArgument, "NextToken is invalid.")
	}
	if now.Sub(time.Unix(0, from.Issued)) > nextTokenLifetime {
		return nil, nil, refuse("ExpiredNextTokenException", "NextToken has expired; it lives for %s.", nextTokenLifetime)
	}
	st, err := k.ready(streamRef{StreamName: from.Stream})
	if err != nil {
		return nil, nil, err
	}
	if st.life != from.Life {
		return nil, nil, refuse(CodeResourceNotFound, "Stream %s under account %s of that NextToken is gone.", from.Stream, accountID)
	}
	return from, st, nil
}

func (st *stream) allowList(now time.Time, limited bool) bool {
	if !limited {
		return true
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.lists.allow(now, listShardsSecond)
}

// filter selects shards as documented with ShardFilter.
func (st *stream) filter(shards []*shard, f shardFilter) ([]*shard, error) {
	var at time.Time
	switch f.Type {
	case "AT_TIMESTAMP", "FROM_TIMESTAMP":
		if f.Timestamp == nil {
			return nil, refuse(CodeInvalidArgument, "Timestamp is required for filter type %s.", f.Type)
		}
		at = time.Time(*f.Timestamp)
	case "AT_TRIM_HORIZON":
		// What was open when the oldest readable record could arrive.
		for i, sh := range shards {
			if i == 0 || sh.created.Before(at) {
				at = sh.created
			}
		}
	case "AFTER_SHARD_ID":
		if f.ShardId == "" {
			return nil, refuse(CodeInvalidArgument, "ShardId is required for filter type %s.", f.Type)
		}
	case "AT_LATEST", "FROM_TRIM_HORIZON":
	default:
		return nil, invalid("1 validation error detected: Value %q at 'shardFilter.type' failed to satisfy constraint", f.Type)
	}
	st.mu.RLock()
	defer st.mu.RUnlock()
	var selected []*shard
	for _, sh := range shards {
		keep := true
		switch f.Type {
		case "AT_LATEST":
			keep = sh.isOpen()
		case "AFTER_SHARD_ID":
			keep = sh.id() > f.ShardId
		case "AT_TIMESTAMP", "AT_TRIM_HORIZON":
			keep = !sh.created.After(at) && (sh.isOpen() || sh.closed.After(at))
		case "FROM_TIMESTAMP":
			keep = sh.isOpen() || !sh.closed.Before(at)
		}
		if keep {
			selected = append(selected, sh)
		}
	}
	return selected, nil
}

type splitShardInput struct {
	streamRef
	ShardToSplit, NewStartingHashKey string
}

func (k *kinesisService) splitShard(in *splitShardInput) (none, error) {
	st, err := k.find(in.streamRef)
	if err != nil {
		return none{}, err
	}
	at, ok := parseHashKey(in.NewStartingHashKey)
	if !ok {
		return none{}, invalid("1 validation error detected: Value %q at 'newStartingHashKey' failed to satisfy constraint", in.NewStartingHashKey)
	}
	_, _, err = st.split(in.ShardToSplit, at, k.now(), k.opts.StreamDelay)
	return none{}, err
}

type mergeShardsInput struct {
	streamRef
	ShardToMerge, AdjacentShardToMerge string
}

func (k *kinesisService) mergeShards(in *mergeShardsInput) (none, error) {
	st, err := k.find(in.streamRef)
	if err != nil {
		return none{}, err
	}
	_, err = st.merge(in.ShardToMerge, in.AdjacentShardToMerge, k.now(), k.opts.StreamDelay)
	return none{}, err
}

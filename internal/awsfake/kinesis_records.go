package awsfake

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

type putEntry struct {
	Data            []byte
	PartitionKey    *string
	ExplicitHashKey *string
}

type putRecordInput struct {
	streamRef
	putEntry
}

type putResult struct {
	SequenceNumber string `json:",omitempty"`
	ShardId        string `json:",omitempty"` //nolint:revive // spelled as on the wire
	ErrorCode      string `json:",omitempty"`
	ErrorMessage   string `json:",omitempty"`
}

func (k *kinesisService) putRecord(in *putRecordInput) (putResult, error) {
	st, err := k.ready(in.streamRef)
	if err != nil {
		return putResult{}, err
	}
	e, err := st.entry(in.putEntry)
	if err != nil {
		return putResult{}, err
	}
	sh, count, err := st.put(e, k.now(), k.opts.EnforceLimits)
	if err != nil {
		return putResult{}, err
	}
	return putResult{SequenceNumber: sequenceNumber(st.life, count, sh.index), ShardId: sh.id()}, nil
}

type putRecordsInput struct {
	streamRef
	Records []putEntry
}

type putRecordsOutput struct {
	FailedRecordCount int
	Records           []putResult
}

func (k *kinesisService) putRecords(in *putRecordsInput) (*putRecordsOutput, error) {
	st, err := k.ready(in.streamRef)
	if err != nil {
		return nil, err
	}
	if n := len(in.Records); n < 1 || n > maxPutRecords {
		return nil, invalid("1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length between 1 and %d", maxPutRecords)
	}
	entries := make([]entry, len(in.Records))
	total := 0
	for i, r := range in.Records {
		if entries[i], err = st.entry(r); err != nil {
			return nil, err
		}
		total += entries[i].size()
	}
	if total > maxPutBytes {
		return nil, refuse(CodeInvalidArgument, "Records size exceeds %d MiB limit", maxPutBytes>>20)
	}
	now := k.now()
	out := &putRecordsOutput{Records: make([]putResult, len(entries))}
	for i, e := range entries {
		sh, count, err := st.put(e, now, k.opts.EnforceLimits)
		if err != nil {
			refused := asError(err)
			out.FailedRecordCount++
			out.Records[i] = putResult{ErrorCode: refused.Code, ErrorMessage: refused.Message}
			continue
		}
		out.Records[i] = putResult{SequenceNumber: sequenceNumber(st.life, count, sh.index), ShardId: sh.id()}
	}
	return out, nil
}

// entry checks a record and finds its hash key.
func (st *stream) entry(r putEntry) (entry, error) {
	if r.Data == nil {
		return entry{}, invalid("1 validation error detected: Value at 'data' failed to satisfy constraint: Member must not be null")
	}
	e := entry{data: r.Data}
	if r.PartitionKey != nil {
		e.key, e.hasKey = *r.PartitionKey, true
		e.hash = hashOf(e.key)
	}
	if st.auto {
		// Keys are ignored; records go round the shards.
		return entry{data: r.Data}, checkSize(len(r.Data))
	}
	if n := utf8.RuneCountInString(e.key); n < 1 || n > maxPartitionKey {
		return e, invalid("1 validation error detected: Value at 'partitionKey' failed to satisfy constraint: Member must have length between 1 and %d", maxPartitionKey)
	}
	if r.ExplicitHashKey != nil {
		h, ok := parseHashKey(*r.ExplicitHashKey)
		if !ok {
			return e, refuse(CodeInvalidArgument, "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", *r.ExplicitHashKey)
		}
		e.hash = h
	}
	return e, checkSize(e.size())
}

func checkSize(n int) error {
	if n > maxRecordBytes {
		return invalid("1 validation error detected: Value at 'data' failed to satisfy constraint: Member must have length less than or equal to %d", maxRecordBytes)
	}
	return nil
}

type getShardIteratorInput struct {
	streamRef
	ShardId                string //nolint:revive // spelled as on the wire
	ShardIteratorType      string
	StartingSequenceNumber string
	Timestamp              *epoch
}

type getShardIteratorOutput struct{ ShardIterator string }

func (k *kinesisService) getShardIterator(in *getShardIteratorInput) (*getShardIteratorOutput, error) {
	st, err := k.ready(in.streamRef)
	if err != nil {
		return nil, err
	}
	id := in.ShardId
	if n, err := strconv.Atoi(id); err == nil && n >= 0 {
		id = shardID(n) // the service takes the bare number too
	}
	sh, err := st.find(id)
	if err != nil {
		return nil, err
	}
	now := k.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if k.opts.EnforceLimits && !sh.iterators.allow(now, iteratorsSecond) {
		return nil, refuse(CodeThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", id, st.name, accountID)
	}
	at, err := st.locate(sh, startingPosition{in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp}, "GetShardIterator", now)
	if err != nil {
		return nil, err
	}
	it := iterator{stream: st.name, life: st.life, shard: sh.index, next: at, issued: now}
	return &getShardIteratorOutput{it.String()}, nil
}

// startingPosition is where a request starts to read a shard.
type startingPosition struct {
	Type           string
	SequenceNumber string
	Timestamp      *epoch
}

// locate is the position at which an operation starts to read; needs sh.mu.
func (st *stream) locate(sh *shard, in startingPosition, operation string, now time.Time) (int64, error) {
	end := sh.first + int64(len(sh.records))
	switch in.Type {
	case "TRIM_HORIZON":
		return sh.first, nil
	case "LATEST":
		return end, nil
	case "AT_TIMESTAMP":
		if in.Timestamp == nil {
			return 0, refuse(CodeInvalidArgument, "Must specify timestampForShardIterator parameter for iterator of type AT_TIMESTAMP.")
		}
		millis := time.Time(*in.Timestamp).UnixMilli()
		if millis > now.UnixMilli() {
			return 0, refuse(CodeInvalidArgument, "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: %d, currentTimestampInMillis: %d", millis, now.UnixMilli())
		}
		// In order of sequence, as arrival times need not rise.
		i := slices.IndexFunc(sh.records, func(r record) bool { return r.millis >= millis })
		if i < 0 {
			return end, nil
		}
		return sh.first + int64(i), nil
	case "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER":
		count, ok := parseSequence(in.SequenceNumber, st.life, sh.index)
		if !ok {
			return 0, refuse(CodeInvalidArgument, "StartingSequenceNumber %s used in %s on shard %s in stream %s under account %s is invalid because it did not come from this stream.",
				in.SequenceNumber, operation, sh.id(), st.name, accountID)
		}
		if in.Type == "AFTER_SEQUENCE_NUMBER" {
			count++
		}
		return sh.position(count), nil
	}
	return 0, invalid("1 validation error detected: Value %q at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]", in.Type)
}

type getRecordsInput struct {
	ShardIterator string
	StreamARN     string
	Limit         *int
}

type childShard struct {
	ShardId      string //nolint:revive // spelled as on the wire
	ParentShards []string
	HashKeyRange hashKeyRange
}

// getRecords writes its answer by hand: it feeds benchmarks, and a page is
// already there in JSON.
func (k *kinesisService) getRecords(f Format, body []byte) ([][]byte, error) {
	in, err := decode[getRecordsInput](body)
	if err != nil {
		return nil, err
	}
	limit := maxPageRecords
	if in.Limit != nil {
		limit = *in.Limit
	}
	if limit < 1 || limit > maxPageRecords {
		return nil, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and %d", limit, maxPageRecords)
	}
	it, st, sh, err := k.resume(in)
	if err != nil {
		return nil, err
	}
	p, err := k.readPage(&it, st, sh, limit, f)
	if err != nil {
		return nil, err
	}
	if f != FormatJSON {
		return p.inCBOR(it, st, sh)
	}
	head := append(make([]byte, 0, 512), `{"MillisBehindLatest":`...)
	head = strconv.AppendInt(head, p.behind, 10)
	if p.ended {
		children, err := json.Marshal(st.childrenOf(sh))
		if err != nil {
			return nil, err
		}
		head = append(head, `,"ChildShards":`...)
		head = append(head, children...)
	} else {
		head = append(head, `,"NextShardIterator":"`...)
		head = append(head, it.String()...)
		head = append(head, '"')
	}
	head = append(head, `,"Records":[`...)
	parts := make([][]byte, 0, len(p.parts)+2)
	parts = append(parts, head)
	parts = append(parts, p.parts...)
	return append(parts, []byte("]}")), nil
}

// resume finds what an iterator stands in.
func (k *kinesisService) resume(in *getRecordsInput) (iterator, *stream, *shard, error) {
	it, err := parseIterator(in.ShardIterator)
	if err != nil {
		return it, nil, nil, err
	}
	st, err := k.ready(streamRef{StreamName: it.stream, StreamARN: in.StreamARN})
	if err != nil {
		return it, nil, nil, err
	}
	if st.life != it.life {
		return it, nil, nil, refuse(CodeResourceNotFound, "Stream %s under account %s of that ShardIterator is gone.", it.stream, accountID)
	}
	if age := k.now().Sub(it.issued); age > k.opts.IteratorLifetime {
		return it, nil, nil, refuse(CodeExpiredIterator, "Iterator expired. The iterator was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			it.issued.UTC().Format(time.RFC1123), k.now().UTC().Format(time.RFC1123), k.opts.IteratorLifetime.Milliseconds())
	}
	sh, err := st.find(shardID(it.shard))
	return it, st, sh, err
}

// readPage reads at an iterator and moves it on.
func (k *kinesisService) readPage(it *iterator, st *stream, sh *shard, limit int, f Format) (page, error) {
	now := k.now()
	empties := k.emptyPages(st.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if k.opts.EnforceLimits && !sh.allowRead(now) {
		return page{}, refuse(CodeThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", sh.id(), st.name, accountID)
	}
	it.issued = now
	p := sh.read(it.next, limit, maxPageBytes, now, f)
	if len(p.parts) > 0 && it.empties < empties {
		it.empties++
		behind := now.UnixMilli() - sh.records[max(it.next, sh.first)-sh.first].millis
		return page{next: it.next, behind: max(1, behind)}, nil
	}
	doubt := k.opts.IdleBehind && len(p.parts) == 0 && !p.ended && it.empties == 0
	it.next, it.empties = p.next, 0
	if doubt {
		it.empties, p.behind = 1, doubtfulBehind // and the next such page is not
	}
	if k.opts.ClosedBehind {
		p.closedBehind(sh, now)
	}
	if k.opts.EnforceLimits {
		sh.readBytes.take(p.bytes)
		if p.full {
			sh.blocked = now.Add(pageBytesPenalty)
		}
	}
	return p, nil
}

// doubtfulBehind is what a page without records says of an idle shard in milliseconds;
// see Options.IdleBehind.
const doubtfulBehind = 1000

// closedBehind has a page that ends its shard say how long ago that was closed; needs
// sh.mu.
func (p *page) closedBehind(sh *shard, now time.Time) {
	if p.ended {
		p.behind = max(0, now.Sub(sh.closed).Milliseconds())
	}
}

// allowRead counts a GetRecords call against the shard's quotas; needs sh.mu.
// A page may overdraw the bytes, and the next call then waits for the rest.
func (sh *shard) allowRead(now time.Time) bool {
	return !now.Before(sh.blocked) &&
		sh.readBytes.refill(now, readBytesSecond) > 0 &&
		sh.reads.allow(now, readsPerSecond)
}

func (k *kinesisService) emptyPages(stream string) int {
	k.emptyMu.Lock()
	defer k.emptyMu.Unlock()
	return k.empty[stream]
}

func (st *stream) childrenOf(sh *shard) []childShard {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return describeChildren(sh.children)
}

func describeChildren(shards []*shard) []childShard {
	children := make([]childShard, len(shards))
	for i, c := range shards {
		parents := []string{c.parent}
		if c.adjacent != "" {
			parents = append(parents, c.adjacent)
		}
		children[i] = childShard{c.id(), parents, hashKeyRange{c.start.String(), c.end.String()}}
	}
	return children
}

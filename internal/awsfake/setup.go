package awsfake

import (
	"encoding/json"
	"maps"
	"time"
)

// Shard is a shard as ListShards describes it.
type Shard struct {
	ID               string
	Parent, Adjacent string // ids of its parents; empty for none
	// StartHash and EndHash bound its range of hash keys, both included.
	StartHash, EndHash string
	// StartSequence is below all its records'; EndSequence is above them, and
	// empty while the shard is open.
	StartSequence, EndSequence string
}

// Closed reports whether a split or merge closed the shard.
func (s Shard) Closed() bool { return s.EndSequence != "" }

// Record is a stored record.
type Record struct {
	SequenceNumber string
	PartitionKey   *string // nil for a record without one
	Data           []byte
	Arrival        time.Time // to the millisecond
}

// CreateStream makes a stream that is ACTIVE at once.
func (s *Server) CreateStream(name string, shards int) error {
	return s.kinesis.create(name, shards, false, false, 0)
}

// DeleteStream removes a stream with its records and consumers.
func (s *Server) DeleteStream(name string) error {
	_, err := s.kinesis.deleteStream(&deleteStreamInput{streamRef: streamRef{StreamName: name}, EnforceConsumerDeletion: true})
	return err
}

// StreamARN is the ARN that a stream of this name has.
func (s *Server) StreamARN(name string) string { return s.kinesis.arn(name) }

// Put stores a record and returns where it is. An empty partition key stores
// one without a key, as automatic distribution does: such records go to the
// open shards in turn. Quotas do not apply.
func (s *Server) Put(stream, partitionKey string, data []byte) (shard, sequence string, err error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return "", "", err
	}
	e := entry{key: partitionKey, hasKey: partitionKey != "", data: data}
	if e.hasKey {
		e.hash = hashOf(partitionKey)
	}
	return s.put(st, e)
}

// PutTo stores a record in the open shard of that id, whatever its partition
// key; otherwise it is Put.
func (s *Server) PutTo(stream, shard, partitionKey string, data []byte) (sequence string, err error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return "", err
	}
	sh, err := st.find(shard)
	if err != nil {
		return "", err
	}
	_, sequence, err = s.put(st, entry{key: partitionKey, hasKey: partitionKey != "", into: sh, data: data})
	return sequence, err
}

func (s *Server) put(st *stream, e entry) (shard, sequence string, err error) {
	if err := checkSize(e.size()); err != nil {
		return "", "", err
	}
	sh, count, err := st.put(e, s.clock.Now(), false)
	if err != nil {
		return "", "", err
	}
	return sh.id(), sequenceNumber(st.life, count, sh.index), nil
}

// Split closes an open shard for two children of half its range each.
func (s *Server) Split(stream, shard string) (low, high string, err error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return "", "", err
	}
	sh, err := st.find(shard)
	if err != nil {
		return "", "", err
	}
	l, h, err := st.split(shard, between(sh.start, sh.end), s.clock.Now(), s.opts.StreamDelay)
	if err != nil {
		return "", "", err
	}
	return l.id(), h.id(), nil
}

// Merge closes two open neighbours for one child, whose parent is shard and
// whose adjacent parent is adjacent.
func (s *Server) Merge(stream, shard, adjacent string) (child string, err error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return "", err
	}
	sh, err := st.merge(shard, adjacent, s.clock.Now(), s.opts.StreamDelay)
	if err != nil {
		return "", err
	}
	return sh.id(), nil
}

// Trim drops the records of a stream that arrived before a time, as its
// retention does, and the shards that closed by then and have none left.
func (s *Server) Trim(stream string, before time.Time) error {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return err
	}
	st.trim(before, st.list()...)
	return nil
}

// TrimShard is Trim for one shard alone.
func (s *Server) TrimShard(stream, shard string, before time.Time) error {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return err
	}
	sh, err := st.find(shard)
	if err != nil {
		return err
	}
	st.trim(before, sh)
	return nil
}

// SetEmptyPages makes GetRecords answer n empty pages, with MillisBehindLatest
// above zero, before each page with records of a stream.
func (s *Server) SetEmptyPages(stream string, n int) {
	s.kinesis.emptyMu.Lock()
	defer s.kinesis.emptyMu.Unlock()
	s.kinesis.empty[stream] = n
}

// Shards returns all shards of a stream that have not been trimmed away, in
// order of their ids.
func (s *Server) Shards(stream string) ([]Shard, error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return nil, err
	}
	var shards []Shard
	for _, d := range st.describeAll(st.list()) {
		shards = append(shards, Shard{
			ID:            d.ShardId,
			Parent:        d.ParentShardId,
			Adjacent:      d.AdjacentParentShardId,
			StartHash:     d.HashKeyRange.StartingHashKey,
			EndHash:       d.HashKeyRange.EndingHashKey,
			StartSequence: d.SequenceNumberRange.StartingSequenceNumber,
			EndSequence:   d.SequenceNumberRange.EndingSequenceNumber,
		})
	}
	return shards, nil
}

// Records returns the records of a shard in order.
func (s *Server) Records(stream, shard string) ([]Record, error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return nil, err
	}
	sh, err := st.find(shard)
	if err != nil {
		return nil, err
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	records := make([]Record, len(sh.records))
	for i, r := range sh.records {
		records[i].Arrival = time.UnixMilli(r.millis)
		if err := json.Unmarshal(r.chunk.json[r.start:r.end], &records[i]); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// CreateTable makes a table that is ACTIVE at once, with string keys. An empty
// rangeKey makes a table without one.
func (s *Server) CreateTable(name, hashKey, rangeKey string) error {
	in := &createTableInput{TableName: name, BillingMode: billingOnDemand}
	in.addKey(hashKey, "HASH")
	if rangeKey != "" {
		in.addKey(rangeKey, "RANGE")
	}
	_, err := s.dynamodb.create(in, 0)
	return err
}

// PutItem stores a copy of an item, without any condition. Quotas do not apply, and
// no capacity is consumed.
func (s *Server) PutItem(table string, item Item) error {
	_, err := s.dynamodb.put(&putItemInput{TableName: table, Item: maps.Clone(item)}, payer{})
	return err
}

// DeleteItem removes an item by its key, without any condition. Quotas do not
// apply, and no capacity is consumed.
func (s *Server) DeleteItem(table string, key Item) error {
	_, err := s.dynamodb.remove(&deleteItemInput{TableName: table, Key: key}, payer{})
	return err
}

// Item returns the item with string keys hash and rng; nil when there is none.
// A table without range key ignores rng.
func (s *Server) Item(table, hash, rng string) (Item, error) {
	t, err := s.dynamodb.table(table)
	if err != nil {
		return nil, err
	}
	key := Item{t.keys[0].name: String(hash)}
	if len(t.keys) > 1 {
		key[t.keys[1].name] = String(rng)
	}
	k, err := t.primaryKey(key)
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.get(k, time.Time{}), nil
}

// Items returns all items of a table, ordered by hash and range key.
func (s *Server) Items(table string) ([]Item, error) {
	t, err := s.dynamodb.table(table)
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	var items []Item
	for _, hash := range t.hashes() {
		for _, r := range t.partitions[hash] {
			if item := r.at(time.Time{}); item != nil {
				items = append(items, item)
			}
		}
	}
	return items, nil
}

// OnWrite registers a watcher that sees each write of each table, also those
// of the setup methods. It runs while the table is locked, so it sees the
// writes of a table in their order; it must be quick and must not use the
// table.
func (s *Server) OnWrite(watcher func(Write)) (remove func()) {
	return s.dynamodb.watch(watcher)
}

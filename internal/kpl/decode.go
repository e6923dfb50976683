// Package kpl takes user records out of the records into which the Kinesis Producer
// Library (KPL) aggregates them, and tells to which shard a user record belongs.
//
// The format is published, in aggregation-format.md of awslabs/amazon-kinesis-producer.
// An aggregate is four bytes by which it is known, a message of protobuf, and the MD5 of
// the message. The message has a table of partition keys, one of explicit hash keys, and
// the user records, which name their keys by index.
//
// Protobuf is read as its libraries read it: fields in any order, the last one of those
// that may stand once, fields that nobody knows or that have another type are skipped,
// and a message without a field that it needs is broken. The fields are parsed by
// protobuf's own protowire. To have protobuf make the messages as well takes nearly twice
// the processor's time, MD5 included, for it allocates three times a user record and
// copies its data; see BenchmarkDecode.
//
// The package is pure: no goroutine, no clock, no state.
package kpl

import (
	"crypto/md5" //nolint:gosec // the format wants it
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Record is a user record.
type Record struct {
	Data            []byte // a part of the aggregate's bytes; not copied
	PartitionKey    string
	ExplicitHashKey string // decimal, empty when there is none; not checked
}

// magic is how an aggregate begins.
const magic = "\xf3\x89\x9a\xc2"

// maxRecords is how many user records a record of Kinesis can have, which has 10 MiB at
// most. The smallest takes 6 bytes: tag and length, tag and index of its partition key,
// tag and length of data that is empty. A Record takes 56, and a key in a table 16 for 2,
// so what is decoded takes ten times the memory of its aggregate at most.
const maxRecords = 10 << 20 / 6

// maxKeys is how many bytes the keys of one user record take where they are keys of
// Kinesis: 256 characters of four bytes, and 39 digits.
const maxKeys = 256*4 + 39

// Looks reports whether data begins like an aggregate and is long enough to be one.
func Looks(data []byte) bool {
	return len(data) >= len(magic)+md5.Size && string(data[:len(magic)]) == magic
}

// Decode returns the user records of an aggregate, one or more, in their order. An
// aggregate in a user record stays what it is.
//
// The error says what is wrong with data that looks like an aggregate and is none: the
// digest, the message, an index without a key, no user records, more than a record of
// Kinesis can have, or long keys shared by so many that they would take far more than
// the aggregate. There are no records then.
func Decode(data []byte) ([]Record, error) {
	if !Looks(data) {
		return nil, errors.New("it does not begin like an aggregate, or is too short for one")
	}
	message, digest := data[len(magic):len(data)-md5.Size], data[len(data)-md5.Size:]
	if md5.Sum(message) != [md5.Size]byte(digest) { //nolint:gosec // see above
		return nil, errors.New("the digest is not that of the message")
	}
	n, err := count(message)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the message: %w", err)
	case n.records == 0:
		return nil, errors.New("it has no user records")
	case n.records > maxRecords:
		return nil, fmt.Errorf("it has %d user records, and a record of Kinesis %d at most", n.records, maxRecords)
	}
	// The tables may stand behind the user records.
	keys := n.tables(message)
	records := make([]Record, 0, n.records)
	room := len(message) + n.records*maxKeys
	for top := (fields{rest: message[n.recordsBegin:]}); top.next(); {
		if top.tag != recordTag {
			continue
		}
		r, err := keys.record(top.bytes)
		if err != nil {
			return nil, fmt.Errorf("reading user record %d: %w", len(records), err)
		}
		if room -= len(r.PartitionKey) + len(r.ExplicitHashKey); room < 0 {
			return nil, errors.New("its user records share keys that are too long for Kinesis")
		}
		records = append(records, r)
	}
	return records, nil
}

// The fields of the messages: the number, and in the lowest three bits the type.
const (
	// AggregatedRecord
	partitionKeyTag    = 1<<3 | uint64(protowire.BytesType)
	explicitHashKeyTag = 2<<3 | uint64(protowire.BytesType)
	recordTag          = 3<<3 | uint64(protowire.BytesType)

	// Record
	partitionKeyIndexTag    = 1<<3 | uint64(protowire.VarintType)
	explicitHashKeyIndexTag = 2<<3 | uint64(protowire.VarintType)
	dataTag                 = 3<<3 | uint64(protowire.BytesType)
	tagTag                  = 4<<3 | uint64(protowire.BytesType)

	// Tag
	tagKeyTag = 1<<3 | uint64(protowire.BytesType)
)

// counts is what an AggregatedRecord has.
type counts struct {
	partitionKeys, explicitHashKeys, records int
	text                                     int // bytes of all keys

	// Where the last key ends, and from where on there are user records. All keys come
	// first as a rule, and nothing is looked at a third time then.
	keysEnd, recordsBegin int
}

func count(message []byte) (n counts, err error) {
	top := fields{rest: message}
	for top.next() {
		end := len(message) - len(top.rest)
		switch top.tag {
		case partitionKeyTag:
			n.partitionKeys++
			n.text += len(top.bytes)
			n.keysEnd = end
		case explicitHashKeyTag:
			n.explicitHashKeys++
			n.text += len(top.bytes)
			n.keysEnd = end
		case recordTag:
			n.records++
		}
		if n.records == 0 {
			n.recordsBegin = end
		}
	}
	return n, top.err
}

// tables are the keys that user records name by index.
type tables struct{ partitionKeys, explicitHashKeys []string }

// tables reads the tables of a message that was counted. All keys are parts of one
// string: producers may write one for each user record.
func (n counts) tables(message []byte) tables {
	t := tables{make([]string, 0, n.partitionKeys), make([]string, 0, n.explicitHashKeys)}
	var text strings.Builder
	text.Grow(n.text)
	add := func(table *[]string, key []byte) {
		start := text.Len()
		_, _ = text.Write(key) // never fails, by its documentation
		*table = append(*table, text.String()[start:])
	}
	for top := (fields{rest: message[:n.keysEnd]}); top.next(); {
		switch top.tag {
		case partitionKeyTag:
			add(&t.partitionKeys, top.bytes)
		case explicitHashKeyTag:
			add(&t.explicitHashKeys, top.bytes)
		}
	}
	return t
}

// record reads a Record.
func (t tables) record(message []byte) (r Record, err error) {
	var partitionKey, explicitHashKey uint64
	var hasPartitionKey, hasExplicitHashKey bool
	f := fields{rest: message}
	for f.next() {
		switch f.tag {
		case partitionKeyIndexTag:
			partitionKey, hasPartitionKey = f.integer, true
		case explicitHashKeyIndexTag:
			explicitHashKey, hasExplicitHashKey = f.integer, true
		case dataTag:
			r.Data = f.bytes
		case tagTag:
			if err := checkTag(f.bytes); err != nil {
				return Record{}, fmt.Errorf("reading a tag: %w", err)
			}
		}
	}
	switch {
	case f.err != nil:
		return Record{}, f.err
	case !hasPartitionKey:
		return Record{}, errors.New("it has no partition key")
	case r.Data == nil:
		return Record{}, errors.New("it has no data")
	case partitionKey >= uint64(len(t.partitionKeys)):
		return Record{}, fmt.Errorf("partition key %d is not among the %d of the aggregate", partitionKey, len(t.partitionKeys))
	case hasExplicitHashKey && explicitHashKey >= uint64(len(t.explicitHashKeys)):
		return Record{}, fmt.Errorf("explicit hash key %d is not among the %d of the aggregate", explicitHashKey, len(t.explicitHashKeys))
	}
	r.PartitionKey = t.partitionKeys[partitionKey]
	if hasExplicitHashKey {
		r.ExplicitHashKey = t.explicitHashKeys[explicitHashKey]
	}
	return r, nil
}

// checkTag holds that a Tag is one. What it says is of no use: no library writes any.
func checkTag(message []byte) error {
	hasKey := false
	f := fields{rest: message}
	for f.next() {
		hasKey = hasKey || f.tag == tagKeyTag
	}
	if f.err == nil && !hasKey {
		return errors.New("it has no key")
	}
	return f.err
}

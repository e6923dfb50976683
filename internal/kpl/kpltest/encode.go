// Package kpltest makes aggregates of user records, for tests and measurements.
package kpltest

import (
	"crypto/md5" //nolint:gosec // the format wants it

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
)

// Encode aggregates user records as KPL does: each key stands once in its table, in the
// order in which they are first used, and the tables stand before the records.
func Encode(records []kpl.Record) []byte {
	var partitionKeys, explicitHashKeys table
	var rest []byte
	for _, r := range records {
		var b []byte
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, partitionKeys.index(r.PartitionKey))
		if r.ExplicitHashKey != "" {
			b = protowire.AppendTag(b, 2, protowire.VarintType)
			b = protowire.AppendVarint(b, explicitHashKeys.index(r.ExplicitHashKey))
		}
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, r.Data)
		rest = protowire.AppendTag(rest, 3, protowire.BytesType)
		rest = protowire.AppendBytes(rest, b)
	}
	return Seal(append(explicitHashKeys.append(partitionKeys.append(nil, 1), 2), rest...))
}

// Seal makes an aggregate of a message, whatever that is: with the bytes by which an
// aggregate is known before it, and its digest after it.
func Seal(message []byte) []byte {
	digest := md5.Sum(message) //nolint:gosec // see above
	b := append([]byte{0xF3, 0x89, 0x9A, 0xC2}, message...)
	return append(b, digest[:]...)
}

// table is the keys that have been used.
type table struct {
	keys    []string
	indexes map[string]uint64
}

// index returns the index of a key, which it enters if need be.
func (t *table) index(key string) uint64 {
	if i, ok := t.indexes[key]; ok {
		return i
	}
	if t.indexes == nil {
		t.indexes = map[string]uint64{}
	}
	i := uint64(len(t.keys))
	t.indexes[key], t.keys = i, append(t.keys, key)
	return i
}

// append writes the table, each key as a field.
func (t *table) append(b []byte, field protowire.Number) []byte {
	for _, key := range t.keys {
		b = protowire.AppendTag(b, field, protowire.BytesType)
		b = protowire.AppendString(b, key)
	}
	return b
}

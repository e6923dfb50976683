package awsfake

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// A sequence number has 56 digits, as those of AWS mostly have: a prefix, the
// life of the stream (each stream that is made gets another), a count within
// that life over all its shards, and the shard. So numbers rise within a
// stream, leave gaps within a shard, are never used again by a stream of the
// same name, and tell where they belong.
const (
	sequencePrefix = "4959"
	lifeDigits     = 16
	countDigits    = 24
	shardDigits    = 12
	sequenceDigits = len(sequencePrefix) + lifeDigits + countDigits + shardDigits
)

func appendSequence(b []byte, life, count uint64, shard int) []byte {
	b = append(b, sequencePrefix...)
	b = appendPadded(b, life, lifeDigits)
	b = appendPadded(b, count, countDigits)
	return appendPadded(b, uint64(shard), shardDigits)
}

func sequenceNumber(life, count uint64, shard int) string {
	return string(appendSequence(make([]byte, 0, sequenceDigits), life, count, shard))
}

func appendPadded(b []byte, n uint64, digits int) []byte {
	var buf [20]byte
	s := strconv.AppendUint(buf[:0], n, 10)
	for range digits - len(s) {
		b = append(b, '0')
	}
	return append(b, s...)
}

// parseSequence returns the count of a sequence number of one shard of one
// life of a stream; ok is false for any other text.
func parseSequence(s string, life uint64, shard int) (count uint64, ok bool) {
	if len(s) != sequenceDigits || !isDigits(s) {
		return 0, false
	}
	at := len(sequencePrefix) + lifeDigits
	count, err := strconv.ParseUint(s[at:at+countDigits], 10, 64)
	if err != nil || sequenceNumber(life, count, shard) != s {
		return 0, false
	}
	return count, true
}

func shardID(index int) string {
	return string(appendPadded([]byte("shardId-"), uint64(index), shardDigits))
}

// shardIndex is the inverse of shardID.
func shardIndex(id string) (int, bool) {
	digits, ok := strings.CutPrefix(id, "shardId-")
	if !ok || len(digits) != shardDigits || !isDigits(digits) {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil
}

// iterator is what a ShardIterator holds: a place in a shard, and its age.
type iterator struct {
	stream  string
	life    uint64
	shard   int
	next    int64 // position of the next record, counted from the shard's first
	empties int   // empty pages answered at this place
	issued  time.Time
}

const iteratorVersion = "awsfake-iterator-1"

func (it iterator) String() string {
	b := make([]byte, 0, 160)
	b = append(b, iteratorVersion...)
	b = append(append(b, '|'), it.stream...)
	b = strconv.AppendUint(append(b, '|'), it.life, 10)
	b = strconv.AppendInt(append(b, '|'), int64(it.shard), 10)
	b = strconv.AppendInt(append(b, '|'), it.next, 10)
	b = strconv.AppendInt(append(b, '|'), int64(it.empties), 10)
	b = strconv.AppendInt(append(b, '|'), it.issued.UnixNano(), 10)
	return base64.StdEncoding.EncodeToString(b)
}

func parseIterator(s string) (iterator, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	fields := strings.Split(string(b), "|")
	if err != nil || len(fields) != 7 || fields[0] != iteratorVersion {
		return iterator{}, refuse(CodeInvalidArgument, "Invalid ShardIterator.")
	}
	var numbers [5]int64
	for i, f := range fields[2:] {
		if numbers[i], err = strconv.ParseInt(f, 10, 64); err != nil {
			return iterator{}, refuse(CodeInvalidArgument, "Invalid ShardIterator.")
		}
	}
	return iterator{
		stream:  fields[1],
		life:    uint64(numbers[0]),
		shard:   int(numbers[1]),
		next:    numbers[2],
		empties: int(numbers[3]),
		issued:  time.Unix(0, numbers[4]),
	}, nil
}

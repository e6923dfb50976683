// Package sequence compares the sequence numbers of Kinesis: decimal numbers that
// are too long for any integer type, and travel as text.
//
// The package is pure.
package sequence

import (
	"cmp"
	"strings"
)

// Compare orders two sequence numbers by value. The empty one, which stands for
// none, comes first.
func Compare(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// Valid reports whether s is a sequence number, as what else stands in its place
// is not: `null`, a word such as `SHARD_END`, or nothing.
func Valid(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

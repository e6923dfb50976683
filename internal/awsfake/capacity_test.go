package awsfake

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSizesCountAsDocumented(t *testing.T) {
	number := func(s string) Value { return Value{Type: typeNumber, Text: s} }
	for _, test := range []struct {
		value Value
		want  int
	}{
		{String(""), 0},
		{String("abc"), 3},
		{String("\u00e9\u20ac"), 5}, // bytes of UTF-8, not characters
		{Value{Type: typeBinary, Text: "\x00\xff"}, 2},
		{Bool(false), 1},
		{Value{Type: typeNull}, 1},
		{Number(0), 1},
		{Number(7), 2},
		{Number(42), 2},
		{Number(-427), 3},
		{Number(5_000_000), 2}, // zeros at the ends do not count
		{number("0.00015"), 2},
		{number("1.05"), 3},
		{number("12345678901234567890123456789012345678"), 20},
		{Value{Type: typeStringSet, List: []Value{String("a"), String("bc")}}, 3},
		{Value{Type: typeNumberSet, List: []Value{Number(1), Number(100)}}, 4},
		{Value{Type: typeList}, 3},
		{Value{Type: typeList, List: []Value{String("ab"), Bool(true)}}, 3 + 2 + 2 + 1},
		{Value{Type: typeMap}, 3},
		{Value{Type: typeMap, Map: Item{"key": String("ab")}}, 3 + 1 + 3 + 2},
		{Value{Type: typeList, List: []Value{{Type: typeMap}}}, 3 + 1 + 3},
	} {
		require.Equal(t, test.want, test.value.size(), "%+v", test.value)
	}
	require.Zero(t, Item(nil).size())
	require.Equal(t, 1+3+4+2, Item{"A": String("abc"), "N\u20ac": Number(12)}.size(), "names count too")
}

func TestUnitsAreRoundedUp(t *testing.T) {
	sized := func(bytes int) Item { return Item{"A": String(strings.Repeat("x", bytes-1))} }
	for _, test := range []struct {
		before, after Item
		want          int
	}{
		{nil, nil, 1},
		{nil, sized(1), 1},
		{nil, sized(1024), 1},
		{nil, sized(1025), 2},
		{sized(3000), sized(10), 3},
		{sized(10), sized(3000), 3},
		{sized(4096), nil, 4},
	} {
		require.Equal(t, test.want, writeUnits(test.before, test.after))
	}
}

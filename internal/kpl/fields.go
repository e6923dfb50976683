package kpl

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields goes over the fields of a message of protobuf.
type fields struct {
	rest []byte // what has not been read
	err  error  // why the rest cannot be read

	// The field that next has read.
	tag     uint64 // its number, and in the lowest three bits its type
	integer uint64 // its value, if that is a varint
	bytes   []byte // its value, if it has a length; never nil then, and without room to append
}

// next reads a field. It returns false at the end of the message, and where it cannot be
// read on, with err.
func (f *fields) next() bool {
	if len(f.rest) == 0 || f.err != nil {
		return false
	}
	tag, n := protowire.ConsumeVarint(f.rest)
	if n < 0 {
		f.err = protowire.ParseError(n)
		return false
	}
	if tag>>3 == 0 || tag>>3 > uint64(protowire.MaxValidNumber) { // protowire's own takes those of old message sets
		f.err = errors.New("invalid field number")
		return false
	}
	value := f.rest[n:]
	switch kind := protowire.Type(tag & 7); kind {
	case protowire.BytesType:
		var b []byte
		if b, n = protowire.ConsumeBytes(value); n >= 0 {
			f.bytes = slices.Clip(b)
		}
	case protowire.VarintType:
		f.integer, n = protowire.ConsumeVarint(value)
	default:
		n = protowire.ConsumeFieldValue(protowire.Number(tag>>3), kind, value)
	}
	if n < 0 {
		f.err = protowire.ParseError(n)
		return false
	}
	f.tag, f.rest = tag, value[n:]
	return true
}

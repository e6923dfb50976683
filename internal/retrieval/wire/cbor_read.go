package wire

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/document"
)

// errNoForm is for values that no shape of Kinesis has, and that have no form here.
var errNoForm = errors.New("it has no form in CBOR")

// readShape lets one of the SDK's types read itself from a body, whatever its shape. Of a
// member that comes twice it takes the last one, and null is as if there were none.
func readShape(body []byte, out smithy.Deserializable) error {
	if !wellFormed(body) {
		return fmt.Errorf("the answer is not one item of CBOR, at most %d deep", maxDepth)
	}
	return out.Deserialize(&shapeReader{cborReader: cborReader{body: body}})
}

// shapeReader implements [smithy.ShapeDeserializer] over a body that is well-formed.
type shapeReader struct {
	cborReader
	open []aggregate // from the outermost
}

// aggregate is a structure, list or map that is being read.
type aggregate struct {
	members []member // of a structure, those that are to come
	end     int      // of a structure: where it ends
	entries int      // of a list or map, see begin
}

type member struct {
	schema *smithy.Schema
	at     int // where its value begins
}

func unlike(what string, s *smithy.Schema) error {
	if s == nil || s.MemberName() == "" {
		return fmt.Errorf("the answer has something else where %s should stand", what)
	}
	return fmt.Errorf("the answer has something else where %s should stand, for %s", what, s.MemberName())
}

// is makes an error of what was not found.
func is(ok bool, what string, s *smithy.Schema) error {
	if ok {
		return nil
	}
	return unlike(what, s)
}

func (r *shapeReader) top() *aggregate { return &r.open[len(r.open)-1] }

func (r *shapeReader) pop() { r.open = r.open[:len(r.open)-1] }

// ReadStruct implements [smithy.ShapeDeserializer]. It looks for the members first, so
// that each is read once.
func (r *shapeReader) ReadStruct(s *smithy.Schema) error {
	n, ok := r.begin(cborMap)
	if !ok {
		return unlike("a map", s)
	}
	var members []member
	for r.more(&n) {
		name, ok := r.whole(cborText)
		if !ok {
			return unlike("the name of a member", s)
		}
		at := r.at
		r.skip(maxDepth)
		schema := s.Members()[string(name)]
		if schema == nil && string(name) == "Message" { // of an error, which some services spell so
			schema = s.Members()["message"]
		}
		if schema == nil {
			continue
		}
		if i := slices.IndexFunc(members, func(m member) bool { return m.schema == schema }); i >= 0 {
			members[i].at = at
		} else {
			members = append(members, member{schema, at})
		}
	}
	members = slices.DeleteFunc(members, func(m member) bool {
		return r.body[m.at] == cborNull || r.body[m.at] == cborUndefined
	})
	r.open = append(r.open, aggregate{members: members, end: r.at})
	return nil
}

// ReadStructMember implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadStructMember() (*smithy.Schema, error) {
	t := r.top()
	if len(t.members) == 0 {
		r.at = t.end
		r.pop()
		return nil, nil //nolint:nilnil // the interface has it so
	}
	m := t.members[0]
	t.members = t.members[1:]
	r.at = m.at
	return m.schema, nil
}

// ReadList implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadList(s *smithy.Schema) error {
	n, ok := r.begin(cborList)
	r.open = append(r.open, aggregate{entries: n})
	return is(ok, "a list", s)
}

// ReadListItem implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadListItem(*smithy.Schema) (bool, error) {
	more := r.more(&r.top().entries)
	if !more {
		r.pop()
	}
	return more, nil
}

// ReadMap implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadMap(s *smithy.Schema) error {
	n, ok := r.begin(cborMap)
	r.open = append(r.open, aggregate{entries: n})
	return is(ok, "a map", s)
}

// ReadMapKey implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadMapKey(s *smithy.Schema) (string, bool, error) {
	if !r.more(&r.top().entries) {
		r.pop()
		return "", false, nil
	}
	key, ok := r.whole(cborText)
	return string(key), true, is(ok, "a key", s) // with false the SDK would pass over the error
}

// ReadNil implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadNil(*smithy.Schema) (bool, error) { return r.null(), nil }

// ReadString implements [smithy.ShapeDeserializer]. As with JSON, bytes that are no UTF-8
// are taken as they are.
func (r *shapeReader) ReadString(s *smithy.Schema, v *string) error {
	text, ok := r.whole(cborText)
	*v = string(text)
	return is(ok, "a text", s)
}

// ReadBlob implements [smithy.ShapeDeserializer]. A text is base64, as in JSON: an emulator
// writes it so, and Amazon's client for Java takes it.
func (r *shapeReader) ReadBlob(s *smithy.Schema, v *[]byte) (err error) {
	if r.at < len(r.body) && r.body[r.at]>>5 == cborText {
		text, _ := r.whole(cborText)
		if *v, err = base64.StdEncoding.DecodeString(string(text)); err != nil {
			return fmt.Errorf("decoding the text of %s: %w", s.MemberName(), err)
		}
		return nil
	}
	data, ok := r.whole(cborBytes)
	*v = append([]byte{}, data...)
	return is(ok, "a byte string", s)
}

// ReadTime implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadTime(s *smithy.Schema, v *time.Time) (err error) {
	t, ok := r.time()
	*v = t
	return is(ok, "a time", s)
}

// ReadBool implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadBool(s *smithy.Schema, v *bool) error {
	*v = r.next(cborTrue)
	return is(*v || r.next(cborFalse), "true or false", s)
}

// ReadInt8 implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadInt8(s *smithy.Schema, v *int8) error { return readInteger(r, s, v) }

// ReadInt16 implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadInt16(s *smithy.Schema, v *int16) error { return readInteger(r, s, v) }

// ReadInt32 implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadInt32(s *smithy.Schema, v *int32) error { return readInteger(r, s, v) }

// ReadInt64 implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadInt64(s *smithy.Schema, v *int64) error { return readInteger(r, s, v) }

func readInteger[T int8 | int16 | int32 | int64](r *shapeReader, s *smithy.Schema, v *T) error {
	n, ok := r.integer()
	*v = T(n)
	return is(ok && int64(*v) == n, fmt.Sprintf("an integer of %d bits", binary.Size(*v)*8), s)
}

// ReadFloat32 implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadFloat32(s *smithy.Schema, v *float32) error {
	f, ok := r.float()
	*v = float32(f)
	return is(ok, "a float", s)
}

// ReadFloat64 implements [smithy.ShapeDeserializer].
func (r *shapeReader) ReadFloat64(s *smithy.Schema, v *float64) (err error) {
	f, ok := r.float()
	*v = f
	return is(ok, "a float", s)
}

// ReadBigInt implements [smithy.ShapeDeserializer].
func (*shapeReader) ReadBigInt(*smithy.Schema, *big.Int) error { return errNoForm }

// ReadBigFloat implements [smithy.ShapeDeserializer].
func (*shapeReader) ReadBigFloat(*smithy.Schema, *big.Float) error { return errNoForm }

// ReadUnion implements [smithy.ShapeDeserializer].
func (*shapeReader) ReadUnion(*smithy.Schema) (*smithy.Schema, error) { return nil, errNoForm }

// ReadDocument implements [smithy.ShapeDeserializer].
func (*shapeReader) ReadDocument(*smithy.Schema, *document.Value) error { return errNoForm }

package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"time"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/document"
)

// writeShape is what one of the SDK's types has to say, in CBOR.
func writeShape(in smithy.Serializable) ([]byte, error) {
	w := &shapeWriter{}
	in.Serialize(w)
	return w.b, w.err
}

// shapeWriter implements [smithy.ShapeSerializer]. Maps and lists have no length, for
// nobody tells it, as Amazon's client for Java writes them.
type shapeWriter struct {
	b   []byte
	err error // the first value that has no form

	// structures says of what is being written, from the outermost, whether it is a
	// structure, whose members have names.
	structures []bool
	named      bool // WriteKey has written the name of what comes
}

// Bytes implements [smithy.ShapeSerializer].
func (w *shapeWriter) Bytes() []byte { return w.b }

func (w *shapeWriter) head(major byte, n uint64) {
	major <<= 5
	switch {
	case n < 24:
		w.b = append(w.b, major|byte(n))
	case n <= math.MaxUint8:
		w.b = append(w.b, major|24, byte(n))
	case n <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, major|25), uint16(n))
	case n <= math.MaxUint32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, major|26), uint32(n))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, major|27), n)
	}
}

func (w *shapeWriter) text(s string) {
	w.head(cborText, uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *shapeWriter) integer(n int64) {
	if n < 0 {
		w.head(cborNegative, uint64(-1-n))
		return
	}
	w.head(cborUnsigned, uint64(n))
}

// name writes the name of a member, where a structure is being written.
func (w *shapeWriter) name(s *smithy.Schema) {
	if w.named {
		w.named = false
	} else if n := len(w.structures); n > 0 && w.structures[n-1] {
		w.text(s.MemberName())
	}
}

func (w *shapeWriter) begin(s *smithy.Schema, major byte, structure bool) {
	w.name(s)
	w.b = append(w.b, major<<5|indefinite)
	w.structures = append(w.structures, structure)
}

func (w *shapeWriter) end() {
	w.b = append(w.b, cborBreak)
	w.structures = w.structures[:len(w.structures)-1]
}

func (w *shapeWriter) refuse(s *smithy.Schema) {
	if w.err == nil {
		w.err = fmt.Errorf("writing %s: %w", s.ID(), errNoForm)
	}
}

// WriteStruct implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteStruct(s *smithy.Schema) { w.begin(s, cborMap, true) }

// CloseStruct implements [smithy.ShapeSerializer].
func (w *shapeWriter) CloseStruct() { w.end() }

// WriteList implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteList(s *smithy.Schema) { w.begin(s, cborList, false) }

// CloseList implements [smithy.ShapeSerializer].
func (w *shapeWriter) CloseList() { w.end() }

// WriteMap implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteMap(s *smithy.Schema) { w.begin(s, cborMap, false) }

// WriteKey implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteKey(_ *smithy.Schema, key string) {
	w.text(key)
	w.named = true
}

// CloseMap implements [smithy.ShapeSerializer].
func (w *shapeWriter) CloseMap() { w.end() }

// WriteString implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteString(s *smithy.Schema, v string) {
	w.name(s)
	w.text(v)
}

// WriteBlob implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteBlob(s *smithy.Schema, v []byte) {
	w.name(s)
	w.head(cborBytes, uint64(len(v)))
	w.b = append(w.b, v...)
}

// WriteTime implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteTime(s *smithy.Schema, v time.Time) {
	w.name(s)
	w.head(cborTag, epochTag)
	w.integer(v.UnixMilli())
}

// WriteBool implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteBool(s *smithy.Schema, v bool) {
	w.name(s)
	if v {
		w.b = append(w.b, cborTrue)
		return
	}
	w.b = append(w.b, cborFalse)
}

// WriteInt8 implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteInt8(s *smithy.Schema, v int8) { w.WriteInt64(s, int64(v)) }

// WriteInt16 implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteInt16(s *smithy.Schema, v int16) { w.WriteInt64(s, int64(v)) }

// WriteInt32 implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteInt32(s *smithy.Schema, v int32) { w.WriteInt64(s, int64(v)) }

// WriteInt64 implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteInt64(s *smithy.Schema, v int64) {
	w.name(s)
	w.integer(v)
}

// WriteFloat32 implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteFloat32(s *smithy.Schema, v float32) { w.WriteFloat64(s, float64(v)) }

// WriteFloat64 implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteFloat64(s *smithy.Schema, v float64) {
	w.name(s)
	w.b = binary.BigEndian.AppendUint64(append(w.b, cborOther<<5|27), math.Float64bits(v))
}

// WriteNil implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteNil(s *smithy.Schema) {
	w.name(s)
	w.b = append(w.b, cborNull)
}

// WriteBigInt implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteBigInt(s *smithy.Schema, _ *big.Int) { w.refuse(s) }

// WriteBigFloat implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteBigFloat(s *smithy.Schema, _ *big.Float) { w.refuse(s) }

// WriteUnion implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteUnion(s, _ *smithy.Schema) { w.refuse(s) }

// CloseUnion implements [smithy.ShapeSerializer].
func (*shapeWriter) CloseUnion() {}

// WriteDocument implements [smithy.ShapeSerializer].
func (w *shapeWriter) WriteDocument(s *smithy.Schema, _ document.Value) { w.refuse(s) }

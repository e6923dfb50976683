package kpl_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

// published decodes an aggregate in the plainest way: the whole message by protobuf, and
// then each user record by its indexes.
func published(data []byte) ([]kpl.Record, error) {
	if len(data) < 20 || !bytes.HasPrefix(data, []byte{0xF3, 0x89, 0x9A, 0xC2}) {
		return nil, errors.New("no aggregate")
	}
	end := len(data) - 16
	if sum := md5.Sum(data[4:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, errors.New("digest")
	}
	var a aggregatedRecord
	if err := proto.Unmarshal(data[4:end], &a); err != nil {
		return nil, err
	}
	if len(a.Records) == 0 || len(a.Records) > 10*1024*1024/6 {
		return nil, errors.New("number of user records")
	}
	var records []kpl.Record
	keys := 0
	for _, r := range a.Records {
		if *r.PartitionKeyIndex >= uint64(len(a.PartitionKeyTable)) {
			return nil, errors.New("partition key")
		}
		u := kpl.Record{Data: r.Data, PartitionKey: a.PartitionKeyTable[*r.PartitionKeyIndex]}
		if r.ExplicitHashKeyIndex != nil {
			if *r.ExplicitHashKeyIndex >= uint64(len(a.ExplicitHashKeyTable)) {
				return nil, errors.New("explicit hash key")
			}
			u.ExplicitHashKey = a.ExplicitHashKeyTable[*r.ExplicitHashKeyIndex]
		}
		keys += len(u.PartitionKey) + len(u.ExplicitHashKey)
		records = append(records, u)
	}
	if keys > end-4+len(records)*(4*256+39) {
		return nil, errors.New("keys")
	}
	return records, nil
}

// same holds that data is taken, or refused, as the plain decoder does.
func same(t require.TestingT, data []byte) {
	want, refused := published(data)
	got, err := kpl.Decode(data)
	require.Equal(t, refused == nil, err == nil, "%v, %v: %.2000x", refused, err, data)
	require.Equal(t, want, got, "%.2000x", data)
}

func FuzzDecode(f *testing.F) {
	for _, c := range oddities {
		f.Add(c.message)
	}
	for _, c := range broken {
		f.Add(c.data)
	}
	for _, v := range vectors(f) {
		f.Add(v.Aggregate[4 : len(v.Aggregate)-16])
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		same(t, message)
		same(t, kpltest.Seal(message)) // a digest is not found by trying
	})
}

// The types are what protoc-gen-go makes of the published messages, but for methods that
// nobody calls. Without these ProtoReflect protobuf would read them more slowly.

type aggregatedRecord struct {
	state                protoimpl.MessageState
	PartitionKeyTable    []string  `protobuf:"bytes,1,rep,name=partition_key_table"`
	ExplicitHashKeyTable []string  `protobuf:"bytes,2,rep,name=explicit_hash_key_table"`
	Records              []*record `protobuf:"bytes,3,rep,name=records"`
}

type record struct {
	state                protoimpl.MessageState
	PartitionKeyIndex    *uint64 `protobuf:"varint,1,req,name=partition_key_index"`
	ExplicitHashKeyIndex *uint64 `protobuf:"varint,2,opt,name=explicit_hash_key_index"`
	Data                 []byte  `protobuf:"bytes,3,req,name=data"`
	Tags                 []*tag  `protobuf:"bytes,4,rep,name=tags"`
}

type tag struct {
	state protoimpl.MessageState
	Key   *string `protobuf:"bytes,1,req,name=key"`
	Value *string `protobuf:"bytes,2,opt,name=value"`
}

func (m *aggregatedRecord) ProtoReflect() protoreflect.Message {
	if m == nil {
		return infos[0].MessageOf(m)
	}
	return reflected(protoimpl.X.MessageStateOf(protoimpl.Pointer(m)), &infos[0])
}

func (m *record) ProtoReflect() protoreflect.Message {
	if m == nil {
		return infos[1].MessageOf(m)
	}
	return reflected(protoimpl.X.MessageStateOf(protoimpl.Pointer(m)), &infos[1])
}

func (m *tag) ProtoReflect() protoreflect.Message {
	if m == nil {
		return infos[2].MessageOf(m)
	}
	return reflected(protoimpl.X.MessageStateOf(protoimpl.Pointer(m)), &infos[2])
}

func reflected(state interface {
	protoreflect.Message
	LoadMessageInfo() *protoimpl.MessageInfo
	StoreMessageInfo(info *protoimpl.MessageInfo)
}, info *protoimpl.MessageInfo,
) protoreflect.Message {
	if state.LoadMessageInfo() == nil {
		state.StoreMessageInfo(info)
	}
	return state
}

var infos [3]protoimpl.MessageInfo

func init() {
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(format), &file); err != nil {
		panic(err)
	}
	made, err := protodesc.NewFile(&file, nil)
	if err != nil {
		panic(err)
	}
	for i, message := range []any{(*aggregatedRecord)(nil), (*record)(nil), (*tag)(nil)} {
		infos[i] = protoimpl.MessageInfo{GoReflectType: reflect.TypeOf(message), Desc: made.Messages().Get(i)}
	}
}

// format is the published messages.
const format = `
name: "kpl.proto" syntax: "proto2"
message_type {
  name: "AggregatedRecord"
  field { name: "partition_key_table" number: 1 label: LABEL_REPEATED type: TYPE_STRING }
  field { name: "explicit_hash_key_table" number: 2 label: LABEL_REPEATED type: TYPE_STRING }
  field { name: "records" number: 3 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".Record" }
}
message_type {
  name: "Record"
  field { name: "partition_key_index" number: 1 label: LABEL_REQUIRED type: TYPE_UINT64 }
  field { name: "explicit_hash_key_index" number: 2 label: LABEL_OPTIONAL type: TYPE_UINT64 }
  field { name: "data" number: 3 label: LABEL_REQUIRED type: TYPE_BYTES }
  field { name: "tags" number: 4 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".Tag" }
}
message_type {
  name: "Tag"
  field { name: "key" number: 1 label: LABEL_REQUIRED type: TYPE_STRING }
  field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
}`

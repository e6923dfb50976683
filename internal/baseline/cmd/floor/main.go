// Command floor is Benthos with an input that hands out ready-made messages: what
// they cost the host alone, in the shape that an input of Kinesis gives them.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
	"github.com/benthosdev/benthos/v4/public/service"
)

func main() {
	if err := register(); err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}

func register() error {
	spec := service.NewConfigSpec().
		Field(service.NewIntField("records").Description("Messages until the input waits for its end.")).
		Field(service.NewIntField("size").Description("Bytes of a message.")).
		Field(service.NewIntField("batch").Description("Messages of a batch.")).
		Field(service.NewAutoRetryNacksToggleField())
	return service.RegisterBatchInput("floor", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
		f, err := parse(conf)
		if err != nil {
			return nil, err
		}
		return service.AutoRetryNacksBatchedToggled(conf, f)
	})
}

// floor is read by one goroutine, the host's.
type floor struct {
	left, batch int
	data        []byte
	// Metadata of every message, boxed once.
	stream, shard, sequence, key, arrived any
}

func parse(conf *service.ParsedConfig) (*floor, error) {
	records, err := conf.FieldInt("records")
	if err != nil {
		return nil, err
	}
	size, err := conf.FieldInt("size")
	if err != nil {
		return nil, err
	}
	batch, err := conf.FieldInt("batch")
	if err != nil {
		return nil, err
	}
	if records < 1 || size < 1 || batch < 1 {
		return nil, errors.New("records, size and batch: write 1 or more")
	}
	return &floor{
		left:     records,
		batch:    batch,
		data:     make([]byte, size),
		stream:   "orders",
		shard:    "shardId-000000000000",
		sequence: fmt.Sprintf("%056d", 1),
		key:      "key-0",
		arrived:  time.Now().UTC().Format(time.RFC3339Nano),
	}, nil
}

func (f *floor) Connect(context.Context) error { return nil }

func (f *floor) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	n := min(f.batch, f.left)
	if n == 0 {
		<-ctx.Done() // so that the process can be looked at before it ends
		return nil, nil, ctx.Err()
	}
	f.left -= n
	batch := make(service.MessageBatch, n)
	for i := range batch {
		m := service.NewMessage(f.data)
		m.MetaSetMut("kinesis_stream", f.stream)
		m.MetaSetMut("kinesis_shard", f.shard)
		m.MetaSetMut("kinesis_sequence_number", f.sequence)
		m.MetaSetMut("kinesis_partition_key", f.key)
		m.MetaSetMut("kinesis_approximate_arrival_timestamp", f.arrived)
		batch[i] = m
	}
	return batch, func(context.Context, error) error { return nil }, nil
}

func (f *floor) Close(context.Context) error { return nil }

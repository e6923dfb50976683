// Command floor is Benthos with an input that hands out ready-made messages: what
// they cost the host alone, in the shape that an input of Kinesis gives them. With a
// URL it reads the bytes of as many records first, in pages, and throws them away: what
// they cost to get here, on top of that.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
		Field(service.NewStringField("url").Description("Where a GET brings the bytes of a page; empty: nothing is read.").Default("")).
		Field(service.NewStringField("certificate").Description("File of the certificate to trust there.").Default("")).
		Field(service.NewIntField("page").Description("Records whose bytes a page has.").Default(1)).
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

	client         *http.Client
	url            string
	page, received int // records of a page, and those whose bytes are here and not handed out
	body           []byte
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
	f := &floor{
		left:     records,
		batch:    batch,
		data:     make([]byte, size),
		stream:   "orders",
		shard:    "shardId-000000000000",
		sequence: fmt.Sprintf("%056d", 1),
		key:      "key-0",
		arrived:  time.Now().UTC().Format(time.RFC3339Nano),
	}
	return f, f.parseSource(conf)
}

func (f *floor) parseSource(conf *service.ParsedConfig) (err error) {
	if f.url, err = conf.FieldString("url"); err != nil || f.url == "" {
		return err
	}
	if f.page, err = conf.FieldInt("page"); err != nil {
		return err
	}
	if f.page < 1 {
		return errors.New("page: write 1 or more")
	}
	file, err := conf.FieldString("certificate")
	if err != nil {
		return err
	}
	certificate, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(certificate) {
		return fmt.Errorf("%s has no certificate", file)
	}
	f.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}}
	return nil
}

// receive reads the bytes of so many records, if there is anything to read.
func (f *floor) receive(ctx context.Context, records int) error {
	for f.url != "" && f.received < records {
		if err := f.receivePage(ctx); err != nil {
			return fmt.Errorf("reading a page: %w", err)
		}
		f.received += f.page
	}
	f.received -= records
	return nil
}

func (f *floor) receivePage(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return err
	}
	res, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if f.body == nil {
		f.body = make([]byte, res.ContentLength)
	}
	_, err = io.ReadFull(res.Body, f.body)
	return err
}

func (f *floor) Connect(context.Context) error { return nil }

func (f *floor) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	n := min(f.batch, f.left)
	if n == 0 {
		<-ctx.Done() // so that the process can be looked at before it ends
		return nil, nil, ctx.Err()
	}
	if err := f.receive(ctx, n); err != nil {
		return nil, nil, err
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

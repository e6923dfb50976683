package awskinesis

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tableName = "leases"

// fanOutMode has every input of these tests read by enhanced fan-out that does not say itself
// how to read: what they promise holds however records come. Ask modeOf for it.
var fanOutMode = flag.String("fan-out", "", "mode of enhanced fan-out: always or auto; polling where it is empty")

// wireFormat is that of every client that polls in these tests.
var wireFormat = flag.String("wire-format", wireJSON, "format in which shards are polled: json or cbor")

// rig is a local AWS with inputs in front of it, all in one bubble of synctest,
// where time passes only when everything waits.
type rig struct {
	*testing.T
	aws *awsfake.Server
	// inputs has those that were opened, for the end of the test to close.
	inputs  []*process
	journal logbook
}

// logbook keeps what the inputs log above the level of debugging.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (j *logbook) note(template string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(template, args...))
}

func (j *logbook) Errorf(template string, args ...any) { j.note(template, args...) }
func (j *logbook) Warnf(template string, args ...any)  { j.note(template, args...) }
func (j *logbook) Infof(template string, args ...any)  { j.note(template, args...) }
func (*logbook) Debugf(string, ...any)                 {}

// logged returns the lines that contain a text.
func (j *logbook) logged(text string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.lines), func(line string) bool { return !strings.Contains(line, text) })
}

// bubble runs a test on a rig.
func bubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	bubbleOf(t, awsfake.Options{
		EnforceLimits: true,
		ShardsPerPage: 3, // a reader of first pages alone will not do
		ItemsPerPage:  3,
		StaleReads:    200 * time.Millisecond, // nor one that believes all reads
	}, test)
}

func bubbleOf(t *testing.T, aws awsfake.Options, test func(r *rig)) {
	t.Helper()
	t.Parallel() // it has a clock of its own
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, aws: awsfake.New(aws)}
		defer func() {
			for _, in := range r.inputs {
				in.close()
			}
			require.NoError(t, r.aws.Close())
		}()
		test(r)
	})
}

// pass lets time pass, which costs none.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

func (r *rig) stream(name string, shards int) {
	r.Helper()
	require.NoError(r, r.aws.CreateStream(name, shards))
}

func (r *rig) table() {
	r.Helper()
	require.NoError(r, r.aws.CreateTable(tableName, attrStream, attrShard))
}

// put stores n records with numbered contents, spread over all open shards.
func (r *rig) put(stream string, from, n int) {
	r.Helper()
	for i := from; i < from+n; i++ {
		_, _, err := r.aws.Put(stream, fmt.Sprint("key ", i), fmt.Append(nil, i))
		require.NoError(r, err)
	}
}

func shardName(i int) string { return fmt.Sprintf("shardId-%012d", i) }

func (r *rig) putTo(stream string, shard, from, n int) {
	r.Helper()
	for i := from; i < from+n; i++ {
		_, err := r.aws.PutTo(stream, shardName(shard), "key", fmt.Append(nil, i))
		require.NoError(r, err)
	}
}

func numbers(from, n int) []string {
	var all []string
	for i := from; i < from+n; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// items returns the items of all shards.
func (r *rig) items() []awsfake.Item {
	r.Helper()
	all, err := r.aws.Items(tableName)
	require.NoError(r, err)
	return slices.DeleteFunc(all, func(item awsfake.Item) bool { return isMembers(item[attrStream].Text) })
}

// isMembers reports whether the members of a group stand under a hash key.
func isMembers(hash string) bool { return strings.HasSuffix(hash, members) }

// item returns the item of a shard as the store reads it.
func (r *rig) item(stream, shard string) lease.Item {
	r.Helper()
	item, err := r.store().Get(r.Context(), lease.Key{Stream: stream, Shard: shard})
	require.NoError(r, err)
	return item
}

func (r *rig) store() *checkpointer { return r.storeOf("") }

// sequences returns the sequence numbers of a shard's records.
func (r *rig) sequences(stream, shard string) []string {
	r.Helper()
	records, err := r.aws.Records(stream, shard)
	require.NoError(r, err)
	var all []string
	for _, record := range records {
		all = append(all, record.SequenceNumber)
	}
	return all
}

// line is the connection of one process to the services. Cut, it stays so.
type line struct {
	service aws.HTTPClient
	cut     atomic.Bool
}

func (l *line) Do(req *http.Request) (*http.Response, error) {
	if l.cut.Load() {
		return nil, errors.New("the process is dead")
	}
	return l.service.Do(req)
}

// clients are as those of a real input, but for the sockets.
func (r *rig) clients() clients { return r.clientsOver(&line{service: r.aws.HTTPClient()}) }

func (r *rig) clientsOver(l aws.HTTPClient) clients {
	return r.clientsSigning(l, r.aws.AWSConfig().Credentials)
}

// clientsSigning are those of a process that has credentials of its own.
func (r *rig) clientsSigning(l aws.HTTPClient, by aws.CredentialsProvider) clients {
	conf := r.aws.AWSConfig()
	conf.HTTPClient, conf.Credentials = l, by
	conf.RetryMode = aws.RetryModeStandard
	conf.APIOptions = append(conf.APIOptions, session.WithAttemptTimeout(session.AttemptTimeout))
	lister := kinesis.NewFromConfig(conf)
	return clients{
		lister: lister, fanOut: lister, subscribe: newSubscribe(conf),
		reader:    newReader(conf, *wireFormat, session.AttemptTimeout, nil),
		table:     dynamodb.NewFromConfig(conf),
		closeIdle: func() {},
	}
}

// process is an input with what it has read.
type process struct {
	*rig
	service.BatchInput
	*input
	line *line
	ids  *ids
	// dying ends when what a crash left of the process has.
	dying sync.WaitGroup
}

// ids are the ids of a process in its group, one after the other.
type ids struct {
	mu   sync.Mutex
	last string
}

func (i *ids) next() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last = clientID()
	return i.last
}

// id returns the present one.
func (c *process) id() string {
	c.ids.mu.Lock()
	defer c.ids.mu.Unlock()
	return c.ids.last
}

// member returns what a process tells the others.
func (r *rig) member(c *process) lease.Member {
	r.Helper()
	m, _, err := r.store().Member(r.Context(), c.id())
	require.NoError(r, err)
	return m
}

// input makes an input that is not connected. The configuration is merged over
// one that names the table.
func (r *rig) input(conf string) *process {
	r.Helper()
	if table := "dynamodb: { table: " + tableName + " }"; !strings.Contains(conf, "dynamodb:") {
		if inside, flow := strings.CutPrefix(conf, "{"); flow {
			conf = "{ " + table + "," + inside
		} else {
			conf += "\n" + table
		}
	}
	conf = r.way(conf)
	parsed, err := configSpec().ParseYAML(conf, nil)
	require.NoError(r, err)
	in, err := newInput(parsed, service.MockResources())
	require.NoError(r, err)
	in.log = func(...any) logger { return &r.journal }
	c := &process{rig: r, BatchInput: in, input: in, line: &line{service: r.aws.HTTPClient()}, ids: &ids{}}
	in.newID = c.ids.next
	r.inputs = append(r.inputs, c)
	return c
}

// way has an input read as the flag, or the test, says.
func (r *rig) way(conf string) string {
	mode := modeOf(r)
	if mode == "" || strings.Contains(conf, "enhanced_fan_out") {
		return conf
	}
	field := "enhanced_fan_out: { enabled: true, mode: " + mode + " }"
	if inside, flow := strings.CutPrefix(strings.TrimSpace(conf), "{"); flow {
		return "{ " + field + "," + inside
	}
	return conf + "\n" + field + "\n"
}

// failReads has reads of shards fail, of all or of some, in whichever way they are read.
func (r *rig) failReads(f awsfake.Fault, which ...func(shard string) bool) (remove func()) {
	if len(which) > 0 {
		f.When = func(c *awsfake.Call) bool { return which[0](c.Shard()) }
	}
	f.Operation = "GetRecords"
	if modeOf(r) != "always" {
		return r.aws.Inject(f)
	}
	f.Operation = "SubscribeToShard"
	call := r.aws.Inject(f)
	inside := r.aws.InjectStream(awsfake.StreamFault{
		When:      func(sub awsfake.Subscription) bool { return len(which) == 0 || which[0](sub.Shard) },
		Exception: f.Refuse, Silence: f.Refuse == nil,
	})
	return func() {
		call()
		inside()
	}
}

// byPolling has a test read by polling, whose subject that is, whatever the flag says.
func byPolling(t *testing.T) { inMode(t, "") }

// modes are those of enhanced fan-out that tests have instead of the flag's, by their names.
var modes sync.Map

// inMode has a test, and all below it, read in a mode.
func inMode(t *testing.T, mode string) {
	t.Helper()
	modes.Store(t.Name(), mode)
	t.Cleanup(func() { modes.Delete(t.Name()) })
}

func modeOf(t interface{ Name() string }) string {
	for name, more := t.Name(), true; more; {
		if mode, ok := modes.Load(name); ok {
			return mode.(string)
		}
		end := strings.LastIndexByte(name, '/')
		if more = end > 0; more {
			name = name[:end]
		}
	}
	return *fanOutMode
}

// open makes an input and connects it.
func (r *rig) open(conf string) *process {
	r.Helper()
	c := r.input(conf)
	require.NoError(r, c.connect(r.Context(), r.clientsOver(c.line)))
	return c
}

func (c *process) close() {
	c.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(c, c.BatchInput.Close(ctx))
	c.dying.Wait()
}

// crash ends an input as SIGKILL does: nobody hears of it again.
func (c *process) crash() {
	c.line.cut.Store(true)
	c.dying.Go(func() { _ = c.BatchInput.Close(context.Background()) })
}

// received is a batch that was read and is yet to be acknowledged.
type received struct {
	messages service.MessageBatch
	ack      service.AckFunc
}

func (b received) contents() []string {
	var all []string
	for _, m := range b.messages {
		content, err := m.AsBytes()
		if err != nil {
			panic(err)
		}
		all = append(all, string(content))
	}
	return all
}

func (b received) meta(key string) string {
	value, _ := b.messages[0].MetaGet(key)
	return value
}

// batch reads one batch; ok is false when none came in time.
func (c *process) batch(within time.Duration) (b received, ok bool) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), within)
	defer cancel()
	messages, ack, err := readAsHost(ctx, c.BatchInput)
	if errors.Is(err, context.DeadlineExceeded) {
		return received{}, false
	}
	require.NoError(c, err)
	return received{messages, ack}, true
}

func (c *process) next() received {
	c.Helper()
	b, ok := c.batch(2 * time.Minute)
	require.True(c, ok, "a batch within two minutes")
	return b
}

func (c *process) ack(b received) {
	c.Helper()
	require.NoError(c, b.ack(c.Context(), nil))
}

// read reads and acknowledges until n messages have come, and returns their
// contents by shard.
func (c *process) read(n int) map[string][]string {
	c.Helper()
	got := map[string][]string{}
	for n > 0 {
		b := c.next()
		got[b.meta("kinesis_shard")] = append(got[b.meta("kinesis_shard")], b.contents()...)
		n -= len(b.messages)
		c.ack(b)
	}
	return got
}

// nothing checks that no batch comes for a while.
func (c *process) nothing(within time.Duration) {
	c.Helper()
	if b, ok := c.batch(within); ok {
		require.Fail(c, "nothing was to come", "%v", b.contents())
	}
}

func together(byShard map[string][]string) []string {
	var all []string
	for _, contents := range byShard {
		all = append(all, contents...)
	}
	return all
}

// neverBack watches the table for the rest of the test: no checkpoint goes back,
// and no item is deleted.
func (r *rig) neverBack() {
	r.aws.OnWrite(func(w awsfake.Write) {
		if isMembers(w.Key[attrStream].Text) {
			return
		}
		before, after := w.Before[attrSequence].Text, w.After[attrSequence].Text
		if w.Before != nil && (w.After == nil || sequence.Compare(before, after) > 0) {
			r.Errorf("checkpoint of %s went back from %q to %q", w.Before[attrShard].Text, before, after)
		}
	})
}

// tryRead is ReadBatch with a time-out.
func (c *process) tryRead(within time.Duration) (service.MessageBatch, service.AckFunc, error) {
	ctx, cancel := context.WithTimeout(c.Context(), within)
	defer cancel()
	return readAsHost(ctx, c.BatchInput)
}

func byNumber(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

// readAsHost reads a batch as the host does, which connects anew what says that it is not
// connected.
func readAsHost(ctx context.Context, in service.BatchInput) (service.MessageBatch, service.AckFunc, error) {
	for {
		batch, ack, err := in.ReadBatch(ctx)
		if !errors.Is(err, service.ErrNotConnected) {
			return batch, ack, err
		}
		if err := in.Connect(ctx); err != nil {
			return nil, nil, err
		}
	}
}

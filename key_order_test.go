package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// keyedOutput is where several pipelines write to, each many messages at once. It takes
// each for a while, rejects some, and checks that no message of a key comes beside
// another of it, nor before an earlier one or again once it was accepted.
type keyedOutput struct {
	mu       sync.Mutex
	inside   map[string]bool
	newest   map[string]int // of each key, the number of the last message that was accepted
	accepted int
	most     int // messages inside at once
	wrong    string
}

func (*keyedOutput) Connect(context.Context) error { return nil }
func (*keyedOutput) Close(context.Context) error   { return nil }

var errBusy = errors.New("the output is busy")

func (o *keyedOutput) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	for _, m := range batch {
		o.enter(m)
	}
	err := wait(ctx, rand.N(20*time.Millisecond))
	refused := service.NewBatchError(batch, errBusy)
	for i, m := range batch {
		rejects := err != nil || rand.IntN(20) == 0
		if o.leave(m, !rejects); rejects {
			refused = refused.Failed(i, errBusy)
		}
	}
	if refused.IndexedErrors() > 0 {
		return refused
	}
	return nil
}

func (o *keyedOutput) enter(m *service.Message) {
	key, _ := m.MetaGet("kinesis_partition_key")
	content, _ := m.AsBytes()
	n, err := strconv.Atoi(string(content))
	o.mu.Lock()
	defer o.mu.Unlock()
	newest, known := o.newest[key]
	switch {
	case o.wrong != "":
	case err != nil:
		o.wrong = err.Error()
	case o.inside[key]:
		o.wrong = fmt.Sprintf("record %d of %s came beside another of it", n, key)
	case known && n <= newest:
		o.wrong = fmt.Sprintf("record %d of %s came after record %d", n, key, newest)
	}
	o.inside[key] = true
	inside := 0
	for _, in := range o.inside {
		if in {
			inside++
		}
	}
	o.most = max(o.most, inside)
}

func (o *keyedOutput) leave(m *service.Message, accepted bool) {
	key, _ := m.MetaGet("kinesis_partition_key")
	content, _ := m.AsBytes()
	n, _ := strconv.Atoi(string(content))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inside[key] = false
	if accepted {
		o.newest[key] = n
		o.accepted++
	}
}

func (o *keyedOutput) state() (accepted, most int, wrong string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted, o.most, o.wrong
}

// pipeline runs a configuration of Benthos in an environment until the test stops it.
func pipeline(t *testing.T, env *service.Environment, yaml string) (stop func()) {
	t.Helper()
	b := env.NewStreamBuilder()
	require.NoError(t, b.SetYAML(yaml))
	stream, err := b.Build()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(t.Context()) }()
	return func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		require.NoError(t, stream.Stop(ctx))
		require.NoError(t, <-ended)
	}
}

func TestKeysKeepTheirOrderInTwoPipelinesThroughASplit(t *testing.T) {
	const keys, half = 40, 2000
	for name, batching := range map[string]string{"unbatched": "{}", "batches": "{ count: 10, period: 20ms }"} {
		t.Run(name, func(t *testing.T) {
			server := awsfake.New(awsfake.Options{EnforceLimits: true})
			t.Cleanup(func() { require.NoError(t, server.Close()) })
			url, err := server.Listen()
			require.NoError(t, err)
			require.NoError(t, server.CreateStream("orders", 2))
			require.NoError(t, server.CreateTable(tableName, attrStream, attrShard))
			r := &rig{T: t, aws: server}
			r.neverBack()
			put := func(from int) {
				for i := from; i < from+half; i++ {
					_, _, err := server.Put("orders", fmt.Sprint("key ", rand.IntN(keys)), strconv.AppendInt(nil, int64(i), 10))
					require.NoError(t, err)
				}
			}

			out := &keyedOutput{inside: map[string]bool{}, newest: map[string]int{}}
			env := service.NewEnvironment()
			require.NoError(t, Register(env))
			require.NoError(t, env.RegisterBatchOutput("keyed", service.NewConfigSpec(),
				func(*service.ParsedConfig, *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
					return out, service.BatchPolicy{}, 64, nil
				}))
			yaml := `
logger: { level: OFF }
http: { enabled: false }
input:
  aws_kinesis:
    streams: [ orders ]
    dynamodb: { table: ` + tableName + ` }
    region: us-east-1
    endpoint: ` + url + `
    credentials: { id: id, secret: secret }
    ordering: partition_key
    batching: ` + batching + `
pipeline:
  threads: 4
  processors: [ { mapping: 'root = content()' } ]
output: { keyed: {} }
`
			await := func(n int) {
				t.Helper()
				require.Eventually(t, func() bool {
					accepted, _, wrong := out.state()
					return accepted >= n || wrong != ""
				}, 2*time.Minute, 10*time.Millisecond)
				_, _, wrong := out.state()
				require.Empty(t, wrong)
			}
			put(0)
			stopFirst := pipeline(t, env, yaml)
			defer stopFirst()
			await(half / 4)
			stopSecond := pipeline(t, env, yaml)
			defer stopSecond()
			require.Eventually(t, func() bool { return len(r.shares()) == 2 }, time.Minute, 10*time.Millisecond)
			_, _, err = server.Split("orders", shardName(0))
			require.NoError(t, err)
			put(half)
			await(2 * half)
			accepted, most, _ := out.state()
			require.Equal(t, 2*half, accepted)
			require.Greater(t, most, keys/4, "keys go beside one another")
		})
	}
}

// joinParallel is join with an output that has many batches at once, takes each for a
// while, and rejects some.
func (f *fleet) joinParallel() *member {
	f.Helper()
	in := f.open(f.conf)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{process: in, stop: cancel, stopped: make(chan struct{})}
	number := len(f.inputs)
	handle := func(b received) {
		rejects := rand.IntN(20) == 0
		if wait(ctx, rand.N(100*time.Millisecond)) != nil {
			return // it was killed
		}
		if rejects {
			_ = b.ack(ctx, errBusy) // it comes again
			return
		}
		f.mu.Lock()
		for _, content := range b.contents() {
			f.seen = append(f.seen, seen{time.Now(), number, b.meta("kinesis_shard"), content})
		}
		f.mu.Unlock()
		_ = b.ack(ctx, nil) // it never fails
	}
	go func() {
		defer close(m.stopped)
		var handling sync.WaitGroup
		defer handling.Wait()
		for {
			messages, ack, err := readAsHost(ctx, in.BatchInput)
			if err != nil {
				return
			}
			handling.Go(func() { handle(received{messages, ack}) })
		}
	}()
	return m
}

func TestKeysKeepTheirOrderThroughReshardingAndCrashes(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(r *rig) {
				dice := rand.New(rand.NewPCG(seed, 0))
				r.table()
				r.neverBack()
				r.stream("orders", 3)
				f := &fleet{rig: r, conf: `{ streams: [ orders ], ordering: partition_key, commit_period: 1s, lease_period: 5s, rebalance_period: 5s }`}
				if seed > 0 {
					f.conf = strings.Replace(f.conf, "ordering", "batching: { count: 20, period: 50ms }, ordering", 1)
				}
				members := []*member{f.joinParallel(), f.joinParallel()}
				const step = 100 * time.Millisecond
				n := 0
				for i := range 600 { // a minute
					r.putKeyed(n, 40, 200)
					n += 40
					pass(step)
					if i%40 == 20 {
						r.reshard(dice)
					}
					if i%97 == 96 {
						m := dice.IntN(2)
						if dice.IntN(2) == 0 {
							members[m].kill()
						} else {
							members[m].leave()
						}
						members[m] = f.joinParallel()
					}
				}
				pass(time.Minute)
				for _, m := range members {
					m.leave()
				}
				missing := map[string]bool{}
				for _, content := range r.puts(0, n, 200) {
					missing[content] = true
				}
				for _, content := range f.contents() {
					delete(missing, content)
				}
				require.Empty(r, missing)
				require.Zero(r, f.inversions())
			})
		})
	}
}

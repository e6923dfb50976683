//go:build integration && browser

package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/node"
	"github.com/benthos-plugins/aws-kinesis/internal/leasepage"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	program "github.com/benthos-plugins/aws-kinesis/internal/measure/child"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
)

// pageSeen is what clients/page.mjs says of the page at each step.
type pageSeen struct {
	Step   string
	Owners map[string][]string // shards by member, those that are done left out
	Lives  map[string]string   // by member, those that have gone too
	Nodes  map[string]string   // what a box of the lineage shows, by shard
	Kinds  []string            // of events, the latest first
	Wrong  []string            // what the browser complained of
	// Elsewhere are requests to other hosts than that of the page.
	Elsewhere []string
}

// pageGroup is a group of real processes on the local AWS.
type pageGroup struct {
	*testing.T
	fake    *awsfake.Server
	url     string
	benthos string
	browser *child.Process
	hears   chan pageSeen
}

// TestPageShowsAGroupThatIsReshardedAndLosesAProcess looks at the page in chromium, whose
// pictures of it are in internal/integration/pictures afterwards.
func TestPageShowsAGroupThatIsReshardedAndLosesAProcess(t *testing.T) {
	g := newPageGroup(t)
	members := []*program.Process{g.join()}
	page := g.start("leases", "serve", "--address", "127.0.0.1:0", "--interval", "500ms", "--table", "leases",
		"--region", "us-east-1", "--endpoint", g.url)
	g.look(<-page.Lines(), "story")
	go drain(page)
	time.Sleep(4 * time.Second) //nolint:forbidigo // real processes: the first is to have all shards, to hand over some
	members = append(members, g.join(), g.join())
	for _, m := range members {
		go drain(m)
	}
	seen := g.await("shared")
	require.Len(t, seen.Owners, 3)
	require.Len(t, seen.Nodes, 6)

	low, high, err := g.fake.Split("orders", shardID(1))
	require.NoError(t, err)
	merged, err := g.fake.Merge("orders", shardID(3), shardID(4))
	require.NoError(t, err)
	seen = g.await("resharded")
	require.Equal(t, map[string]string{
		shardID(0): "read", shardID(1): "done", shardID(2): "read", shardID(3): "done", shardID(4): "done", shardID(5): "read",
		low: "read", high: "read", merged: "read",
	}, seen.Nodes)
	require.Contains(t, seen.Kinds, "finished")

	g.await("kill")
	require.NoError(t, members[0].Signal(syscall.SIGKILL))
	g.await("dying")
	after := g.await("taken over")
	var lost []string
	for id, life := range after.Lives {
		if life == "evicted" {
			lost = append(lost, id)
		}
	}
	require.Len(t, lost, 1)
	require.NotEmpty(t, seen.Owners[lost[0]])
	require.NotContains(t, after.Owners, lost[0])
	require.Contains(t, after.Kinds, "evicted")
	require.Contains(t, after.Kinds, "taken over")
	for _, shard := range seen.Owners[lost[0]] {
		require.Equal(t, "read", after.Nodes[shard])
	}

	g.await("deny")
	remove := g.fake.Inject(awsfake.Fault{Service: "dynamodb", Operation: "Query", Refuse: &awsfake.Error{Code: "AccessDeniedException", Message: "not allowed <b>at all</b>", Status: 400}})
	g.await("denied")
	g.await("allow")
	remove()
	g.await("allowed")
	last := g.await("end")
	require.Empty(t, last.Wrong)
	require.Empty(t, last.Elsewhere)
	page.Close()
	g.await("lost")
}

// TestPageShowsAThousandShards and one: rows are those in trouble, until all are asked for.
func TestPageShowsAThousandShards(t *testing.T) {
	for name, shards := range map[string]int{"one": 1, "thousand": 1000} {
		t.Run(name, func(t *testing.T) {
			page := leasepage.New(leasepage.Options{
				Table: "leases", Group: `<img src=x onerror="document.title='broken'">`, Interval: 500 * time.Millisecond, Loopback: true,
				Read: func(context.Context) (leases.View, error) { return crowd(shards), nil },
			})
			ctx, end := context.WithCancel(t.Context())
			var reading sync.WaitGroup
			reading.Go(func() { page.Run(ctx) })
			server := httptest.NewServer(page)
			t.Cleanup(func() {
				server.Close()
				end()
				reading.Wait()
			})
			g := &pageGroup{T: t, hears: make(chan pageSeen, 100)}
			g.look(server.URL+"/", name)
			seen := g.await(name)
			require.Empty(t, seen.Wrong)
			require.Empty(t, seen.Elsewhere)
			require.Len(t, seen.Nodes, shards+2*(shards/10))
			rows := 0
			for _, shown := range seen.Owners {
				rows += len(shown)
			}
			require.LessOrEqual(t, rows, 200)
		})
	}
}

// crowd is a group of 20 members, of which one is dead and one late. Every tenth shard was
// split.
func crowd(shards int) leases.View {
	v := leases.View{Table: "leases", Group: `<img src=x onerror="document.title='broken'">`, At: time.Now()}
	members := min(20, shards)
	for i := range members {
		m := leases.Member{ID: fmt.Sprintf("host-%02d-ABCDEFGHJKLM", i), Life: leases.Alive, LeasePeriod: 30}
		if shards > 1 && i < 2 {
			m.Life, m.Still = []leases.Life{leases.Dead, leases.Late}[i], 34
		}
		v.Members = append(v.Members, m)
	}
	width := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(shards)))
	stream := leases.Stream{Name: "orders"}
	add := func(first, last *big.Int, parents ...string) *leases.Shard {
		i := len(stream.Shards)
		owner := v.Members[i%members]
		s := leases.Shard{
			Stream: "orders", Shard: shardID(i), State: leases.Reading, Owner: owner.ID, Life: owner.Life, Parents: parents, Sequence: "495900000000000000001",
			FirstKey: first.String(), LastKey: last.String(), Listed: true, Lag: new(leases.Seconds(i % 17)),
		}
		if owner.Life == leases.Dead {
			s.State, s.Lag = leases.Orphaned, new(leases.Seconds(95))
		}
		stream.Shards = append(stream.Shards, s)
		return &stream.Shards[i]
	}
	for i := range shards {
		first := new(big.Int).Mul(width, big.NewInt(int64(i)))
		add(first, new(big.Int).Add(first, width))
	}
	for i := range shards / 10 {
		parent := stream.Shards[10*i]
		first, _ := new(big.Int).SetString(parent.FirstKey, 10)
		last, _ := new(big.Int).SetString(parent.LastKey, 10)
		middle := new(big.Int).Rsh(new(big.Int).Add(first, last), 1)
		low, high := add(first, middle, parent.Shard).Shard, add(middle, last, parent.Shard).Shard
		stream.Shards[10*i].Children, stream.Shards[10*i].Closed = []string{low, high}, true
		if i%3 > 0 {
			stream.Shards[10*i].State, stream.Shards[10*i].Owner = leases.Finished, ""
		} else {
			for n := range 2 {
				child := &stream.Shards[len(stream.Shards)-1-n]
				child.State, child.Owner, child.Life, child.Lag = leases.Waiting, "", "", nil
			}
		}
	}
	v.Streams = []leases.Stream{stream}
	return v
}

func newPageGroup(t *testing.T) *pageGroup {
	t.Helper()
	g := &pageGroup{T: t, fake: awsfake.New(awsfake.Options{}), hears: make(chan pageSeen, 100), benthos: filepath.Join(t.TempDir(), "benthos-kinesis")}
	t.Cleanup(func() { require.NoError(t, g.fake.Close()) })
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", g.benthos, "../../cmd/benthos-kinesis").CombinedOutput()
	require.NoError(t, err, string(out))
	g.url, err = g.fake.Listen()
	require.NoError(t, err)
	require.NoError(t, g.fake.CreateStream("orders", 6))
	for i := range 600 {
		_, _, err := g.fake.Put("orders", fmt.Sprint("key ", i), []byte("{}"))
		require.NoError(t, err)
	}
	return g
}

// start starts a process, which ends with the test.
func (g *pageGroup) start(args ...string) *program.Process {
	g.Helper()
	p, err := program.Start(context.WithoutCancel(g.Context()), g.benthos, args, trial.Environment("orders", "leases", g.url))
	require.NoError(g, err)
	g.Cleanup(p.Close)
	return p
}

func (g *pageGroup) join() *program.Process {
	g.Helper()
	return g.start("-c", filepath.Join(child.Folder(g), "..", "..", "docs", "examples", "quickstart.yaml"),
		"--set", "input.aws_kinesis.lease_period=5s", "--set", "input.aws_kinesis.rebalance_period=1s", "--set", "input.aws_kinesis.commit_period=500ms")
}

func drain(p *program.Process) {
	for range p.Lines() {
		// A process whose output is not read stands still.
	}
}

// look has the browser look at a page, for the whole story or one picture.
func (g *pageGroup) look(url, what string) {
	g.Helper()
	node.Package(g, "playwright-core")
	chromium, err := exec.LookPath("chromium")
	require.NoError(g, err)
	folder := child.Folder(g)
	g.browser = node.Start(g, filepath.Join(folder, "clients"), nil, func(line string) {
		var seen pageSeen
		if json.Unmarshal([]byte(line), &seen) != nil {
			g.Log(line)
			return
		}
		g.hears <- seen
	}, "page.mjs", url, filepath.Join(folder, "pictures"), chromium, what)
}

// await waits for what the browser is to say next.
func (g *pageGroup) await(step string) pageSeen {
	g.Helper()
	ctx, cancel := context.WithTimeout(g.Context(), 2*time.Minute)
	defer cancel()
	select {
	case seen := <-g.hears:
		require.Equal(g, step, seen.Step, "%+v", seen)
		return seen
	case <-g.browser.Exited:
		require.Fail(g, "the browser has ended", "awaiting %s", step)
	case <-ctx.Done():
		require.Fail(g, "nothing was seen", step)
	}
	return pageSeen{}
}

func shardID(n int) string { return fmt.Sprintf("shardId-%012d", n) }

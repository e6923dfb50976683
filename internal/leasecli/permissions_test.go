package leasecli_test

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// permission is an action on the ARN of something.
type permission struct{ action, resource string }

// enforce refuses what policies of docs/iam do not allow, as IAM does, and returns them and
// what is asked for from now on.
func (r *rig) enforce(names ...string) (p awsfake.Policy, used func() map[permission]bool) {
	r.Helper()
	var files []string
	for _, name := range names {
		files = append(files, filepath.Join("..", "..", "docs", "iam", name+".json"))
	}
	p, err := awsfake.ReadPolicy(files...)
	require.NoError(r, err)
	ours := strings.NewReplacer("111122223333", "123456789012", "stream/foo", "stream/orders", "table/leases", "table/checkpoints", "table/kcl-application", "table/app")
	for _, s := range p.Statement {
		for i, resource := range s.Resource {
			s.Resource[i] = ours.Replace(resource)
		}
	}
	var mu sync.Mutex
	asked := map[permission]bool{}
	r.aws.OnCall(func(c *awsfake.Call) {
		mu.Lock()
		defer mu.Unlock()
		asked[permission{c.Action(), c.Resource()}] = true
	})
	r.aws.Inject(awsfake.Fault{
		When:   func(c *awsfake.Call) bool { return !p.Allows(c.Action(), c.Resource()) },
		Refuse: awsfake.NewError("AccessDeniedException", "not authorized"),
	})
	return p, func() map[permission]bool {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

// requireEachUsed fails for what policies allow and nothing asked for, and the reverse.
func requireEachUsed(t *testing.T, p awsfake.Policy, used map[permission]bool) {
	t.Helper()
	for u := range used {
		require.True(t, p.Allows(u.action, u.resource), "the policy does not allow %s on %s", u.action, u.resource)
	}
	for _, s := range p.Statement {
		for _, action := range s.Action {
			for _, resource := range s.Resource {
				require.True(t, used[permission{action, resource}], "the policy allows %s on %s, which is never called", action, resource)
			}
		}
	}
}

func TestPolicyToReadIsWhatReadingCommandsCall(t *testing.T) {
	r := newRig(t)
	left := r.half()
	require.NotEmpty(t, left)
	p, used := r.enforce("tools-read")
	r.view()
	r.view("--stream", "orders")
	for _, c := range [][]string{{"explain", "--watch", "0s", "orders:0"}, {"export"}, {"list"}} {
		_, errOut, code := r.leases(c[0], c[1:]...)
		require.Zero(t, code, "%s: %s", c, errOut)
	}
	requireEachUsed(t, p, used())
}

func TestPolicyToWriteIsWhatWritingCommandsCall(t *testing.T) {
	r := newRig(t)
	r.half()
	first, _ := r.putAggregate(shards(1)[0], 0, 5)
	app := r.application("")
	app.lease(shards(1)[0], first, 1)
	require.NoError(t, r.aws.PutItem("checkpoints", awsfake.Item{
		table.AttrStream: awsfake.String(table.MembersStream), table.AttrShard: awsfake.String("b"), table.AttrToken: awsfake.String(lease.Evicted),
	}))
	r.dead("a")
	p, used := r.enforce("tools-read", "tools-write", "tools-import-kcl")
	r.writes(0, "prune", "--watch", "2s") // while a is there, whose lease period is short
	r.writes(0, "evict", "a")
	r.writes(0, "reset", "--stream", "orders", "--to", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	r.writes(0, "release")
	r.writes(0, "copy", "--stream", "orders", "--to-group", "c")
	require.Equal(t, 4, r.writes(0, "import-kcl", "--group", "d", "--stream", "orders", "--kcl-table", "app", "--kcl-watch", "10ms").Done)
	requireEachUsed(t, p, used())
}

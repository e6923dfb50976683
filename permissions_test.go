package awskinesis

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// permission is an action on the ARN of something.
type permission struct{ action, resource string }

// policy reads documents of docs/iam for what the tests have in place of their
// placeholders.
func policy(t require.TestingT, names ...string) awsfake.Policy {
	var files []string
	for _, name := range names {
		files = append(files, filepath.Join("docs", "iam", name+".json"))
	}
	p, err := awsfake.ReadPolicy(files...)
	require.NoError(t, err)
	ours := strings.NewReplacer("111122223333", "123456789012", "stream/foo", "stream/orders")
	for _, s := range p.Statement {
		for i, resource := range s.Resource {
			s.Resource[i] = ours.Replace(resource)
		}
	}
	return p
}

// recordPermissions keeps what requests ask for from now on, each once.
func (r *rig) recordPermissions() (used func() []permission) {
	var mu sync.Mutex
	asked := map[permission]bool{}
	r.aws.OnCall(func(c *awsfake.Call) {
		mu.Lock()
		defer mu.Unlock()
		asked[permission{c.Action(), c.Resource()}] = true
	})
	return func() []permission {
		mu.Lock()
		defer mu.Unlock()
		var all []permission
		for p := range asked {
			all = append(all, p)
		}
		return all
	}
}

// enforce refuses what a policy does not allow, as IAM does.
func (r *rig) enforce(p awsfake.Policy) {
	r.aws.Inject(awsfake.Fault{
		When:   func(c *awsfake.Call) bool { return !p.Allows(c.Action(), c.Resource()) },
		Refuse: awsfake.NewError("AccessDeniedException", "not authorized"),
	})
}

// capability is something that the input does under policies of docs/iam.
type capability struct {
	policies []string
	do       func(r *rig)
}

// byBothForms are configurations that read a stream by its name and by its ARN.
func byBothForms(more string) []string {
	return []string{
		`{ streams: [ orders ], commit_period: 1s, lease_period: 5s, rebalance_period: 5s` + more + ` }`,
		`{ streams: [ 'arn:aws:kinesis:us-east-1:123456789012:stream/orders' ], commit_period: 1s, lease_period: 5s, rebalance_period: 5s` + more + ` }`,
	}
}

// live has a group go through what groups go through: members that join, stop and die,
// a shard that is split.
func (r *rig) live(conf string) {
	r.Helper()
	f := &fleet{rig: r, conf: conf}
	survivor, victim, leaver := f.join(), f.join(), f.join()
	defer survivor.leave()
	r.put("orders", 0, 50)
	pass(30 * time.Second)
	r.split(shardName(0))
	leaver.leave()
	r.put("orders", 50, 50)
	pass(30 * time.Second)
	victim.kill()
	pass(2 * time.Minute)
	r.put("orders", 100, 50)
	pass(30 * time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	came := map[string]bool{}
	for _, s := range f.seen {
		came[s.content] = true
	}
	for _, content := range numbers(0, 150) {
		require.True(r, came[content], "record %s is lost", content)
	}
}

var capabilities = map[string]capability{
	"polling": {[]string{"polling"}, func(r *rig) {
		r.table()
		for i, conf := range byBothForms("") {
			r.streamOf(i)
			r.live(conf)
		}
	}},
	"fan-out": {[]string{"fan-out"}, func(r *rig) {
		r.table()
		for i, conf := range byBothForms(", enhanced_fan_out: { enabled: true, deregister_on_close: true }") {
			r.streamOf(i)
			for other := range 20 {
				_, err := r.aws.RegisterConsumer("orders", fmt.Sprint("other-", other))
				require.NoError(r, err)
			}
			in := r.open(conf)
			pass(2 * time.Minute)
			require.NotEmpty(r, r.journal.logged("takes no more"))
			in.close()
			require.NoError(r, r.aws.DeregisterConsumer("orders", "other-7"))
			r.live(conf)
		}
	}},
	"auto": {[]string{"polling", "fan-out"}, func(r *rig) {
		r.table()
		for i, conf := range byBothForms(", enhanced_fan_out: { enabled: true, mode: auto, deregister_on_close: true }") {
			r.streamOf(i)
			for other := range 20 {
				_, err := r.aws.RegisterConsumer("orders", fmt.Sprint("other-", other))
				require.NoError(r, err)
			}
			r.put("orders", 1000, 10)
			// Others take what the stream can give, and those who poll see little of it.
			remove := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "others")})
			f := &fleet{rig: r, conf: conf}
			m := f.join()
			pass(3 * time.Minute)
			require.NotEmpty(r, r.journal.logged("takes no more"))
			require.NoError(r, r.aws.DeregisterConsumer("orders", "other-7"))
			r.until(10*time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) > 0 })
			remove()
			m.leave()
			r.live(conf)
		}
	}},
	"create": {[]string{"polling", "create"}, func(r *rig) {
		r.streamOf(0)
		r.live(`{ streams: [ orders ], commit_period: 1s, lease_period: 5s, rebalance_period: 5s, dynamodb: { table: leases, create: true } }`)
	}},
}

// streamOf makes the stream, which for all times but the first is there.
func (r *rig) streamOf(time int) {
	r.Helper()
	if time > 0 {
		require.NoError(r, r.aws.DeleteStream("orders"))
	}
	r.stream("orders", 5)
}

// TestPoliciesAllowWhatIsCalledAndNoMore runs each capability under its policies, which are
// enforced. What they allow without need has its reason here.
func TestPoliciesAllowWhatIsCalledAndNoMore(t *testing.T) {
	consumer := []string{"kinesis:SubscribeToShard", "kinesis:DescribeStreamConsumer", "kinesis:DeregisterStreamConsumer"}
	unneeded := func(p permission) bool {
		// AWS may check an action that names a consumer against its stream too.
		return slices.Contains(consumer, p.action) && !strings.Contains(p.resource, "/consumer/")
	}
	for name, c := range capabilities {
		t.Run(name, func(t *testing.T) {
			byPolling(t)
			bubbleOf(t, awsfake.Options{ShardsPerPage: 3, ItemsPerPage: 3, StaleReads: 200 * time.Millisecond, TableDelay: 3 * time.Second, ConsumerDelay: 3 * time.Second}, func(r *rig) {
				p := policy(r, c.policies...)
				used := r.recordPermissions()
				r.enforce(p)
				c.do(r)

				for _, u := range used() {
					require.True(r, p.Allows(u.action, u.resource), "%s does not allow %s on %s", c.policies, u.action, u.resource)
				}
				for _, s := range p.Statement {
					for _, action := range s.Action {
						for _, resource := range s.Resource {
							wanted := permission{action, resource}
							require.True(r, unneeded(wanted) || slices.ContainsFunc(used(), func(u permission) bool {
								return u.action == action && awsfake.Covers(resource, u.resource)
							}), "%s allow %s on %s, which is never called", c.policies, action, resource)
						}
					}
				}
			})
		})
	}
}

// documented are the rows of the reference's table of permissions.
type documented struct {
	action, need string
	on, policies []string
}

func permissionsInReference(t *testing.T) []documented {
	t.Helper()
	page, err := os.ReadFile("docs/aws_kinesis.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "## Permissions\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []documented
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+:[A-Za-z]+)` \\| (.+?) \\| (.+?) \\| (.+) \\|$").FindAllStringSubmatch(section, -1) {
		rows = append(rows, documented{m[1], m[4], strings.Split(m[2], ", "), strings.Split(m[3], ", ")})
	}
	for _, action := range regexp.MustCompile("`[a-z0-9]+:[A-Z][A-Za-z]+`").FindAllString(section, -1) {
		require.True(t, slices.ContainsFunc(rows, func(d documented) bool { return "`"+d.action+"`" == action }), "%s has no row", action)
	}
	return rows
}

// kindOf is what the reference calls that which an ARN is of.
func kindOf(t *testing.T, resource string) string {
	t.Helper()
	for _, kind := range []string{"consumer", "stream", "table", "key", "role"} {
		if regexp.MustCompile("[:/]" + kind + "/").MatchString(resource) {
			return kind
		}
	}
	require.Fail(t, "an ARN of something else", resource)
	return ""
}

// TestReferenceAndPoliciesSayTheSame compares the table of the reference with the files.
func TestReferenceAndPoliciesSayTheSame(t *testing.T) {
	var said, written []string
	for _, row := range permissionsInReference(t) {
		for _, name := range row.policies {
			for _, kind := range row.on {
				said = append(said, fmt.Sprintf("%s allows %s on %s", name, row.action, kind))
			}
		}
	}
	files, err := filepath.Glob("docs/iam/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		for _, s := range policy(t, name).Statement {
			for _, action := range s.Action {
				for _, resource := range s.Resource {
					written = append(written, fmt.Sprintf("%s allows %s on %s", name, action, kindOf(t, resource)))
				}
			}
		}
	}
	slices.Sort(written)
	require.ElementsMatch(t, slices.Compact(written), said)
}

// TestOptionalActionsAreOptional reads without what the reference calls optional.
func TestOptionalActionsAreOptional(t *testing.T) {
	optional := 0
	for _, row := range permissionsInReference(t) {
		if !strings.Contains(row.need, "optional") {
			continue
		}
		optional++
		t.Run(row.action, func(t *testing.T) {
			byPolling(t)
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 5)
				arn, err := r.aws.RegisterConsumer("orders", "c")
				require.NoError(r, err)
				r.aws.Inject(awsfake.Fault{
					When:   func(c *awsfake.Call) bool { return c.Action() == row.action },
					Refuse: awsfake.NewError("AccessDeniedException", "not authorized"),
				})
				conf := ""
				if slices.Contains(row.policies, "fan-out") && !slices.Contains(row.policies, "polling") {
					conf = ", enhanced_fan_out: { enabled: true, consumer_arn: '" + arn + "' }"
				}
				r.live(byBothForms(conf)[0])
			})
		})
	}
	require.GreaterOrEqual(t, optional, 4)
}

// TestTemplateHasThePolicies compares the policies of the CloudFormation template with the
// files. Those of Terraform are made from the files.
func TestTemplateHasThePolicies(t *testing.T) {
	content, err := os.ReadFile("docs/cloudformation/aws_kinesis.yaml")
	require.NoError(t, err)
	var template struct {
		Resources map[string]struct {
			Type       string `yaml:"Type"`
			Properties struct {
				PolicyDocument struct {
					Statement []struct {
						Sid      string    `yaml:"Sid"`
						Effect   string    `yaml:"Effect"`
						Action   yaml.Node `yaml:"Action"`
						Resource yaml.Node `yaml:"Resource"`
					} `yaml:"Statement"`
				} `yaml:"PolicyDocument"`
			} `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	require.NoError(t, yaml.Unmarshal(content, &template))
	list := func(n yaml.Node) (entries []string) {
		if n.Kind != yaml.SequenceNode {
			return []string{n.Value}
		}
		for _, entry := range n.Content {
			entries = append(entries, entry.Value)
		}
		return entries
	}
	files := map[string]string{
		"PollingPolicy": "polling", "FanOutPolicy": "fan-out", "StreamKeyPolicy": "kms",
		"ToolsReadPolicy": "tools-read", "ToolsWritePolicy": "tools-write",
	}
	for name, resource := range template.Resources {
		if resource.Type != "AWS::IAM::ManagedPolicy" {
			continue
		}
		require.Contains(t, files, name)
		want := policy(t, files[name]).Statement
		if name == "StreamKeyPolicy" {
			want = want[:1] // the table of the template is encrypted under the key that AWS manages
		}
		have := resource.Properties.PolicyDocument.Statement
		require.Len(t, have, len(want), name)
		for i, s := range have {
			require.Equal(t, want[i].Sid, s.Sid)
			require.Equal(t, want[i].Effect, s.Effect)
			require.EqualValues(t, want[i].Action, list(s.Action), s.Sid)
			resources := list(s.Resource)
			require.Len(t, resources, len(want[i].Resource), s.Sid)
			for j, r := range resources {
				require.Equal(t, strings.Contains(want[i].Resource[j], "/consumer/"), strings.Contains(r, "/consumer/"), s.Sid)
			}
		}
		delete(files, name)
	}
	require.Empty(t, files, "the template lacks some")
}

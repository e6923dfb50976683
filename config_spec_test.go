package awskinesis

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// fieldSpec is what the registered specification says of one field.
type fieldSpec struct {
	path     string
	typ      string // with [] for lists
	def      string // JSON, "" for none
	flags    string // of advanced, optional, secret, bloblang, in this order
	version  string
	options  string
	examples string // JSON
}

// specFields are all fields in order. But for those that are marked as ours, they
// are those of Benthos' own input, whose example of an ARN has a region that the
// SDK refuses, and whose token is not marked as the secret that it is.
var specFields = []fieldSpec{
	{path: "streams", typ: "string[]", examples: `[["foo","arn:aws:kinesis:us-east-1:111122223333:stream/my-stream"]]`},
	{path: "dynamodb", typ: "object"},
	{path: "dynamodb.table", typ: "string", def: `""`},
	{path: "dynamodb.create", typ: "bool", def: `false`},
	{path: "dynamodb.billing_mode", typ: "string", def: `"PAY_PER_REQUEST"`, flags: "advanced", options: "PROVISIONED,PAY_PER_REQUEST"},
	{path: "dynamodb.read_capacity_units", typ: "int", def: `0`, flags: "advanced"},
	{path: "dynamodb.write_capacity_units", typ: "int", def: `0`, flags: "advanced"},
	{path: "dynamodb.region", typ: "string", def: `""`, flags: "advanced"},   // ours
	{path: "dynamodb.endpoint", typ: "string", def: `""`, flags: "advanced"}, // ours
	{path: "dynamodb.credentials", typ: "object", flags: "advanced"},         // ours
	{path: "dynamodb.credentials.profile", typ: "string", def: `""`, flags: "advanced"},
	{path: "dynamodb.credentials.id", typ: "string", def: `""`, flags: "advanced"},
	{path: "dynamodb.credentials.secret", typ: "string", def: `""`, flags: "advanced,secret"},
	{path: "dynamodb.credentials.token", typ: "string", def: `""`, flags: "advanced,secret"},
	{path: "dynamodb.credentials.from_ec2_role", typ: "bool", def: `false`, flags: "advanced", version: "4.2.0"},
	{path: "dynamodb.credentials.role", typ: "string", def: `""`, flags: "advanced"},
	{path: "dynamodb.credentials.role_external_id", typ: "string", def: `""`, flags: "advanced"},
	{path: "group", typ: "string", def: `""`, flags: "advanced", examples: `["replay-2024-05-01"]`}, // ours
	{path: "checkpoint_limit", typ: "int", def: `1024`},
	{path: "ordering", typ: "string", def: `"shard"`, options: "shard,partition_key"}, // ours
	{path: "commit_period", typ: "string", def: `"5s"`},
	{path: "rebalance_period", typ: "string", def: `"30s"`, flags: "advanced"},
	{path: "lease_period", typ: "string", def: `"30s"`, flags: "advanced"},
	{path: "steal_grace_period", typ: "string", def: `"2s"`, flags: "advanced"}, // ours
	{path: "poll_period", typ: "string", def: `"0s"`, flags: "advanced"},        // ours
	{path: "enhanced_fan_out", typ: "object", flags: "advanced"},                // ours, with its fields
	{path: "enhanced_fan_out.enabled", typ: "bool", def: `false`, flags: "advanced"},
	{path: "enhanced_fan_out.mode", typ: "string", def: `"always"`, flags: "advanced", options: "always,auto"},
	{path: "enhanced_fan_out.consumer_name", typ: "string", def: `""`, flags: "advanced", examples: `["orders-archive"]`},
	{path: "enhanced_fan_out.consumer_arn", typ: "string", def: `""`, flags: "advanced", examples: `["arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/orders-archive:1714564800"]`},
	{path: "enhanced_fan_out.consumer_activation_timeout", typ: "string", def: `"1m"`, flags: "advanced"},
	{path: "enhanced_fan_out.max_resubscribe_interval", typ: "string", def: `"30s"`, flags: "advanced"},
	{path: "enhanced_fan_out.deregister_on_close", typ: "bool", def: `false`, flags: "advanced"},
	{path: "max_buffered_bytes", typ: "string", def: `"256MiB"`, flags: "advanced"}, // ours
	{path: "start_from_oldest", typ: "bool", def: `true`},
	{path: "start_from_timestamp", typ: "string", def: `""`, flags: "advanced", examples: `["2024-05-01T12:00:00Z"]`},   // ours
	{path: "end_at_timestamp", typ: "string", def: `""`, flags: "advanced", examples: `["2024-05-01T13:00:00Z","now"]`}, // ours
	{path: "max_record_age", typ: "string", def: `"0s"`, flags: "advanced"},                                             // ours
	{path: "deaggregate", typ: "bool", def: `false`},                                                                    // ours
	{path: "deaggregate_foreign", typ: "string", def: `"keep"`, flags: "advanced", options: "keep,drop"},                // ours
	{path: "region", typ: "string", def: `""`, flags: "advanced"},
	{path: "endpoint", typ: "string", def: `""`, flags: "advanced"},
	{path: "credentials", typ: "object", flags: "advanced"},
	{path: "credentials.profile", typ: "string", def: `""`, flags: "advanced"},
	{path: "credentials.id", typ: "string", def: `""`, flags: "advanced"},
	{path: "credentials.secret", typ: "string", def: `""`, flags: "advanced,secret"},
	{path: "credentials.token", typ: "string", def: `""`, flags: "advanced,secret"},
	{path: "credentials.from_ec2_role", typ: "bool", def: `false`, flags: "advanced", version: "4.2.0"},
	{path: "credentials.role", typ: "string", def: `""`, flags: "advanced"},
	{path: "credentials.role_external_id", typ: "string", def: `""`, flags: "advanced"},
	{path: "wire_format", typ: "string", def: `"json"`, flags: "advanced", options: "json,cbor"}, // ours
	{path: "batching", typ: "object", examples: `[{"byte_size":5000,"count":0,"period":"1s"},{"count":10,"period":"1s"},{"check":"this.contains(\"END BATCH\")","count":0,"period":"1m"}]`},
	{path: "batching.count", typ: "int", def: `0`},
	{path: "batching.byte_size", typ: "int", def: `0`},
	{path: "batching.period", typ: "string", def: `""`, examples: `["1s","1m","500ms"]`},
	{path: "batching.check", typ: "string", def: `""`, flags: "bloblang", examples: `["this.type == \"end_of_transaction\""]`},
	{path: "batching.processors", typ: "processor[]", flags: "advanced,optional", examples: `[[{"archive":{"format":"concatenate"}}],[{"archive":{"format":"lines"}}],[{"archive":{"format":"json_array"}}]]`},
	{path: "auto_replay_nacks", typ: "bool", def: `true`, flags: "advanced"}, // ours
	{path: "shard_metrics", typ: "bool", def: `true`, flags: "advanced"},     // ours
}

// registeredField is a field as Benthos writes it to JSON.
type registeredField struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Kind        string            `json:"kind"`
	Description string            `json:"description"`
	Advanced    bool              `json:"is_advanced"`
	Deprecated  bool              `json:"is_deprecated"`
	Optional    bool              `json:"is_optional"`
	Secret      bool              `json:"is_secret"`
	Bloblang    bool              `json:"bloblang"`
	Default     json.RawMessage   `json:"default"`
	Examples    json.RawMessage   `json:"examples"`
	Options     []string          `json:"options"`
	Version     string            `json:"version"`
	Children    []registeredField `json:"children"`
}

type registeredComponent struct {
	Status     string          `json:"status"`
	Plugin     bool            `json:"plugin"`
	Version    string          `json:"version"`
	Categories []string        `json:"categories"`
	Config     registeredField `json:"config"`
}

func registered(t *testing.T) registeredComponent {
	t.Helper()
	var found *registeredComponent
	service.GlobalEnvironment().WalkInputs(func(name string, view *service.ConfigView) {
		if name != "aws_kinesis" {
			return
		}
		raw, err := view.FormatJSON()
		require.NoError(t, err)
		found = &registeredComponent{}
		require.NoError(t, json.Unmarshal(raw, found))
	})
	require.NotNil(t, found, "aws_kinesis is registered")
	return *found
}

func flatten(prefix string, fields []registeredField) []fieldSpec {
	var specs []fieldSpec
	for _, f := range fields {
		s := fieldSpec{
			path: prefix + f.Name, typ: f.Type, def: string(f.Default), version: f.Version,
			options: strings.Join(f.Options, ","), examples: string(f.Examples),
		}
		if f.Kind == "array" {
			s.typ += "[]"
		}
		var flags []string
		for _, flag := range []struct {
			name string
			set  bool
		}{{"advanced", f.Advanced}, {"deprecated", f.Deprecated}, {"optional", f.Optional}, {"secret", f.Secret}, {"bloblang", f.Bloblang}} {
			if flag.set {
				flags = append(flags, flag.name)
			}
		}
		s.flags = strings.Join(flags, ",")
		specs = append(specs, s)
		specs = append(specs, flatten(s.path+".", f.Children)...)
	}
	return specs
}

func TestEveryFieldIsThatOfTheReference(t *testing.T) {
	require.Equal(t, specFields, flatten("", registered(t).Config.Children))
}

func TestComponentIsDescribed(t *testing.T) {
	c := registered(t)
	require.Equal(t, "stable", c.Status)
	require.Equal(t, "3.36.0", c.Version)
	require.Equal(t, []string{"Services", "AWS"}, c.Categories)

	var undescribed []string
	var walk func(fields []registeredField)
	walk = func(fields []registeredField) {
		for _, f := range fields {
			if f.Description == "" {
				undescribed = append(undescribed, f.Name)
			}
			walk(f.Children)
		}
	}
	walk(c.Config.Children)
	require.Empty(t, undescribed)
}

// oneSpec spares tests the parsing of all rules for each configuration.
var oneSpec = sync.OnceValue(configSpec)

// parsed is the YAML as the constructor of the component gets it.
func parsed(t require.TestingT, yaml string) *service.ParsedConfig {
	conf, err := oneSpec().ParseYAML(yaml, nil)
	require.NoError(t, err)
	return conf
}

const minimal = "streams: [ foo ]\ndynamodb: { table: leases }\n"

func TestDefaults(t *testing.T) {
	c, err := parseConfig(parsed(t, minimal))
	require.NoError(t, err)

	procs, err := c.newProcessors()
	require.NoError(t, err)
	require.Nil(t, procs)

	c.newProcessors = nil
	require.Equal(t, config{
		streams:          []stream{{id: "foo"}},
		table:            tableConfig{name: "leases", billingMode: types.BillingModePayPerRequest},
		checkpointLimit:  1024,
		commitPeriod:     5 * time.Second,
		rebalancePeriod:  30 * time.Second,
		leasePeriod:      30 * time.Second,
		stealGracePeriod: 2 * time.Second,
		fanOut:           fanOutConfig{name: "benthos-leases", activation: time.Minute, resubscribe: 30 * time.Second},
		maxBufferedBytes: 256 << 20,
		startFromOldest:  true,
		wireFormat:       "json",
		batching:         service.BatchPolicy{Count: 1},
		autoReplayNacks:  true,
		shardMetrics:     true,
	}, c)
}

func TestEveryFieldIsRead(t *testing.T) {
	c, err := parseConfig(parsed(t, `
streams: [ "foo:0", " bar:shardId-000000000001 , foo:2" ]
dynamodb:
  table: leases
  create: true
  billing_mode: provisioned
  read_capacity_units: 3
  write_capacity_units: 4
  region: r2
  endpoint: http://e2
  credentials: { profile: p2, id: i2, secret: s2, token: t2, from_ec2_role: true, role: r2, role_external_id: x2 }
group: a.B_c-1
checkpoint_limit: 1
ordering: Partition_Key
commit_period: 1m30s
rebalance_period: 1.5s
lease_period: 2m
steal_grace_period: 3s
poll_period: 4s
enhanced_fan_out:
  enabled: true
  mode: Auto
  consumer_name: c
  consumer_activation_timeout: 1h
  max_resubscribe_interval: 5m
  deregister_on_close: true
max_buffered_bytes: 5
start_from_oldest: false
end_at_timestamp: 2024-05-01T13:00:00.5Z
max_record_age: 10m
region: r1
endpoint: http://e1
credentials: { profile: p1, id: i1, secret: s1, token: t1, from_ec2_role: true, role: r1, role_external_id: x1 }
batching:
  count: 7
  byte_size: 8
  period: 9s
  check: this.end
  processors: [ { archive: { format: lines } }, { noop: {} } ]
auto_replay_nacks: false
shard_metrics: false
wire_format: CBOR
deaggregate: true
deaggregate_foreign: Drop
`))
	require.NoError(t, err)

	first, err := c.newProcessors()
	require.NoError(t, err)
	second, err := c.newProcessors()
	require.NoError(t, err)
	require.Len(t, first, 2)
	require.Len(t, second, 2)
	require.NotSame(t, first[0], second[0], "each call makes processors of its own")
	for _, p := range slices.Concat(first, second) {
		require.NoError(t, p.Close(t.Context()))
	}

	c.newProcessors = nil
	require.Equal(t, config{
		streams: []stream{{id: "foo", shards: []string{"0", "2"}}, {id: "bar", shards: []string{"shardId-000000000001"}}},
		table: tableConfig{
			name: "leases", create: true, billingMode: types.BillingModeProvisioned, readCapacity: 3, writeCapacity: 4,
		},
		group:            "a.B_c-1",
		checkpointLimit:  1,
		orderByKey:       true,
		commitPeriod:     90 * time.Second,
		rebalancePeriod:  1500 * time.Millisecond,
		leasePeriod:      2 * time.Minute,
		stealGracePeriod: 3 * time.Second,
		pollPeriod:       4 * time.Second,
		fanOut:           fanOutConfig{enabled: true, auto: true, name: "c", activation: time.Hour, resubscribe: 5 * time.Minute, deregister: true},
		maxBufferedBytes: 5,
		endAt:            time.Date(2024, 5, 1, 13, 0, 0, 500_000_000, time.UTC),
		maxRecordAge:     10 * time.Minute,
		wireFormat:       wireCBOR,
		deaggregate:      true,
		dropForeign:      true,
		batching:         service.BatchPolicy{Count: 7, ByteSize: 8, Period: "9s", Check: "this.end"},
		kinesis: session.Options{Region: "r1", Endpoint: "http://e1", Credentials: session.Credentials{
			Profile: "p1", ID: "i1", Secret: "s1", Token: "t1", FromEC2Role: true, Role: "r1", RoleExternalID: "x1",
		}},
		dynamodb: session.Options{Region: "r2", Endpoint: "http://e1", TableEndpoint: "http://e2", Credentials: session.Credentials{
			Profile: "p2", ID: "i2", Secret: "s2", Token: "t2", FromEC2Role: true, Role: "r2", RoleExternalID: "x2",
		}},
	}, c)
}

func TestDynamoDBSharesTheSessionOfKinesisUnlessItHasItsOwn(t *testing.T) {
	const kinesis = minimal + "region: r\nendpoint: http://e\ncredentials: { id: i, secret: s }\n"
	c, err := parseConfig(parsed(t, kinesis))
	require.NoError(t, err)
	require.Equal(t, c.kinesis, c.dynamodb)

	c, err = parseConfig(parsed(t, strings.Replace(kinesis, "table: leases", "table: leases, region: other", 1)))
	require.NoError(t, err)
	require.Equal(t, session.Options{Region: "other", Endpoint: "http://e", Credentials: c.kinesis.Credentials}, c.dynamodb)
	require.Equal(t, "r", c.kinesis.Region)

	c, err = parseConfig(parsed(t, strings.Replace(kinesis, "table: leases", "table: leases, endpoint: 'http://t'", 1)))
	require.NoError(t, err)
	require.Equal(t, session.Options{Region: "r", Endpoint: "http://e", TableEndpoint: "http://t", Credentials: c.kinesis.Credentials}, c.dynamodb)
	require.Equal(t, "http://e", c.kinesis.Endpoint)
	require.Empty(t, c.kinesis.TableEndpoint)
}

func TestConsumerGivenByItsARNHasNoName(t *testing.T) {
	const arn = "arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1"
	c, err := parseConfig(parsed(t, minimal+"enhanced_fan_out: { enabled: true, consumer_arn: '"+arn+"' }\n"))
	require.NoError(t, err)
	require.Equal(t, fanOutConfig{enabled: true, arn: arn, activation: time.Minute, resubscribe: 30 * time.Second}, c.fanOut)
}

func TestFanOutThatIsSwitchedOffKeepsWhatIsWritten(t *testing.T) {
	c, err := parseConfig(parsed(t, minimal+"enhanced_fan_out: { enabled: false, mode: auto, consumer_name: c, deregister_on_close: true }\n"))
	require.NoError(t, err)
	require.Equal(t, fanOutConfig{auto: true, name: "c", activation: time.Minute, resubscribe: 30 * time.Second, deregister: true}, c.fanOut)
}

func TestConsumerIsNamedAfterTheTable(t *testing.T) {
	longest := strings.Repeat("x", 120) // with benthos- as many characters as Kinesis takes
	for _, c := range []struct{ table, want string }{
		{"leases", "benthos-leases"},
		{" a.B_c-1 ", "benthos-a.B_c-1"},
		{"arn:aws:dynamodb:us-east-1:111122223333:table/leases", "benthos-leases"},
		{longest, "benthos-" + longest},
		{longest + "y", "benthos-" + longest[:111] + "-9b75394e"},
		{longest + "z", "benthos-" + longest[:111] + "-b3b5066d"},
		{"arn:aws:dynamodb:us-east-1:111122223333:table/" + longest + "y", "benthos-" + longest[:111] + "-9b75394e"},
	} {
		conf, err := parseConfig(parsed(t, "streams: [ foo ]\ndynamodb: { table: '"+c.table+"' }\n"))
		require.NoError(t, err)
		require.Equal(t, c.want, conf.fanOut.name, c.table)
	}
	conf, err := parseConfig(parsed(t, minimal+"group: nightly\n"))
	require.NoError(t, err)
	require.Equal(t, "benthos-leases-nightly-e2f08564", conf.fanOut.name)
}

// TestConsumerNamedAfterATableIsOneThatMayBeWritten holds too that no two groups in
// tables of one account and region share a consumer.
func TestConsumerNamedAfterATableIsOneThatMayBeWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := rapid.StringMatching(`[a-zA-Z0-9_.-]{3,255}`)
		one, other := table.Draw(t, "one"), table.Draw(t, "other")
		if n := rapid.IntRange(0, len(one)).Draw(t, "common"); rapid.Bool().Draw(t, "alike") {
			other = one[:n] + other[:min(len(other), 255-n)]
		}
		group := rapid.StringMatching(`|[a-zA-Z0-9_.-]{1,128}`)
		ours, theirs := group.Draw(t, "group of one"), group.Draw(t, "group of the other")
		if first, rest, ok := strings.Cut(ours, "-"); ok && rapid.Bool().Draw(t, "same words") {
			other, theirs = one+"-"+first, rest
		}
		require.Regexp(t, `\A[a-zA-Z0-9_.-]{1,128}\z`, consumerName(one, ours))
		require.Equal(t, one == other && ours == theirs, consumerName(one, ours) == consumerName(other, theirs))
		require.Equal(t, consumerName(one, ours), consumerName("arn:aws:dynamodb:us-east-1:111122223333:table/"+one, ours))
	})
}

func TestEachTriggerAloneMakesAPolicy(t *testing.T) {
	for yaml, want := range map[string]service.BatchPolicy{
		"count: 5":                     {Count: 5},
		"byte_size: 5":                 {ByteSize: 5},
		"period: 5s":                   {Period: "5s"},
		"check: this.ok":               {Check: "this.ok"},
		"processors: []":               {Count: 1},
		"processors: [ { noop: {} } ]": {Count: 1}, // the processors run on each record alone
	} {
		c, err := parseConfig(parsed(t, minimal+"batching: { "+yaml+" }\n"))
		require.NoError(t, err)
		require.Equal(t, want, c.batching, yaml)
	}
}

func TestShardIDIsTheFullOne(t *testing.T) {
	var s stream
	for written, want := range map[string]string{
		"0":                    "shardId-000000000000",
		"00":                   "shardId-000000000000",
		"17":                   "shardId-000000000017",
		"017":                  "shardId-000000000017",
		"123456789012":         "shardId-123456789012",
		"shardId-000000000017": "shardId-000000000017",
	} {
		require.Equal(t, want, s.shardID(written), written)
	}
}

// entry is one entry of the field streams, taken apart.
type entry struct{ id, shard string }

func (e entry) String() string {
	if e.shard == "" {
		return e.id
	}
	return e.id + ":" + e.shard
}

func genID() *rapid.Generator[string] {
	name := rapid.StringMatching(`[a-zA-Z0-9_.-]{1,20}`)
	arn := rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprintf("arn:%s:kinesis:%s:%s:stream/%s",
			rapid.SampledFrom([]string{"aws", "aws-cn", "aws-us-gov"}).Draw(t, "partition"),
			rapid.SampledFrom([]string{"*", "us-east-1", "cn-north-1", "us-gov-west-1"}).Draw(t, "region"),
			rapid.StringMatching(`[0-9]{12}`).Draw(t, "account"), name.Draw(t, "name"))
	})
	return rapid.OneOf(name, arn)
}

// TestStreamsAreReadAsWritten spreads entries over elements, commas and blanks
// in any way, and compares with the entries that went in.
func TestStreamsAreReadAsWritten(t *testing.T) {
	spec := configSpec()
	rapid.Check(t, func(t *rapid.T) {
		explicit := rapid.Bool().Draw(t, "explicit")
		entries := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) entry {
			e := entry{id: genID().Draw(t, "id")}
			if explicit {
				n := rapid.IntRange(0, 999_999_999_999).Draw(t, "shard")
				e.shard = rapid.SampledFrom([]string{strconv.Itoa(n), fmt.Sprintf("shardId-%012d", n)}).Draw(t, "form")
			}
			return e
		}), 1, 6).Draw(t, "entries")

		var elements []string
		for _, e := range entries {
			pad := rapid.SampledFrom([]string{"", " ", "\t", " , ,"}).Draw(t, "pad")
			text := pad + e.String() + " "
			if len(elements) > 0 && rapid.Bool().Draw(t, "same element") {
				elements[len(elements)-1] += "," + text
			} else {
				elements = append(elements, text)
			}
		}

		var want []stream
		seen := map[string]bool{}
		repeated := false
		for _, e := range entries {
			i := slices.IndexFunc(want, func(s stream) bool { return s.id == e.id })
			if i < 0 {
				i = len(want)
				want = append(want, stream{id: e.id})
			}
			if e.shard != "" {
				want[i].shards = append(want[i].shards, e.shard)
				full := e.id + want[i].shardID(e.shard)
				repeated = repeated || seen[full]
				seen[full] = true
			}
		}

		list, err := json.Marshal(elements)
		require.NoError(t, err)
		conf, err := spec.ParseYAML("streams: "+string(list)+"\ndynamodb: { table: leases }\nendpoint: http://localhost", nil) // which takes ARNs of any region
		require.NoError(t, err)
		got, err := parseConfig(conf)
		if repeated {
			require.ErrorContains(t, err, "an earlier entry names already")
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got.streams)
	})
}

// soundEntry is an entry of streams that its rule lets pass, as configlint's own
// fuzzing holds: the stream, and perhaps a shard.
var soundEntry = regexp.MustCompile(`\A((?:arn:aws[a-z-]*:kinesis:(?:\*|[a-z0-9-]+):[0-9]{12}:stream/)?[a-zA-Z0-9_.-]{1,128})(?::(shardId-[0-9]{12}|[0-9]{1,12}))?\z`)

// FuzzStreamEntry holds that a sound entry is read as its stream and its shard.
func FuzzStreamEntry(f *testing.F) {
	for _, seed := range []string{
		"foo", "foo:0", "foo:shardId-000000000000", "foo:012", "a_b.c-D:999999999999", "foo:0:1",
		"arn:aws:kinesis:*:111122223333:stream/my-stream", "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/a:7",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		parts := soundEntry.FindStringSubmatch(entry)
		if parts == nil {
			return
		}
		want := stream{id: parts[1]}
		if parts[2] != "" {
			want.shards = []string{parts[2]}
			require.Regexp(t, `\AshardId-[0-9]{12}\z`, want.shardID(parts[2]))
		}
		require.Equal(t, []stream{want}, parseStreams([]string{entry}))
	})
}

// TestARNThatLeavesTheRegionOpenSaysWhatToWrite is about the form that Benthos'
// documentation shows. The SDK takes it for an endpoint, and for AWS it does not.
func TestARNThatLeavesTheRegionOpenSaysWhatToWrite(t *testing.T) {
	server := awsfake.New(awsfake.Options{})
	defer func() { require.NoError(t, server.Close()) }()
	url, err := server.Listen()
	require.NoError(t, err)
	require.NoError(t, server.CreateTable("leases", attrStream, attrShard))
	in, err := newInput(parsed(t, `
streams: [ "arn:aws:kinesis:*:111122223333:stream/my-stream" ]
dynamodb: { table: leases, endpoint: "`+url+`" }
region: us-east-1
credentials: { id: i, secret: s }
`), service.MockResources())
	require.NoError(t, err)
	err = in.Connect(t.Context())
	require.ErrorContains(t, err, "field `streams`: the region of `arn:aws:kinesis:*:111122223333:stream/my-stream` is `*`: write that of the stream, such as `us-east-1`: ")
	require.ErrorContains(t, err, "Invalid region")
	require.NoError(t, in.Close(t.Context()))
}

// Where the region is not written, lint does not know it. No call is made for a stream
// that cannot be where it would go.
func TestARNOfAnotherRegionThanTheEnvironmentsIsAnErrorOfConnect(t *testing.T) {
	const (
		west     = "arn:aws:kinesis:eu-west-1:111122223333:stream/foo"
		table    = "arn:aws:dynamodb:eu-west-1:111122223333:table/leases"
		consumer = "arn:aws:kinesis:eu-west-1:111122223333:stream/foo/consumer/c:1"
		stream   = "field `region`: us-east-1, which is that of AWS_REGION, is not the region of `%s`: write `eu-west-1`, and use an input for each region; the table is looked for there too, unless `dynamodb.region` says otherwise"
	)
	for name, c := range map[string]struct{ yaml, err string }{
		"streams": {
			"streams: [ '" + west + ":0', '" + west + "2:0' ]\ndynamodb: { table: leases }\n",
			fmt.Sprintf(stream, west) + "\n" + fmt.Sprintf(stream, west+"2"),
		},
		"table": {
			"streams: [ foo ]\ndynamodb: { table: '" + table + "' }\n",
			"field `dynamodb.region`: us-east-1, which is that of AWS_REGION, is not the region of `dynamodb.table`, which is in eu-west-1: write `eu-west-1` in `dynamodb.region`",
		},
		"consumer": {
			"streams: [ foo ]\ndynamodb: { table: leases }\nenhanced_fan_out: { enabled: true, consumer_arn: '" + consumer + "' }\n",
			fmt.Sprintf(stream, consumer),
		},
		"partition": {
			"streams: [ 'arn:aws-cn:kinesis:us-east-1:111122223333:stream/foo' ]\ndynamodb: { table: leases }\n",
			"field `streams`: `arn:aws-cn:kinesis:us-east-1:111122223333:stream/foo` is of partition aws-cn, and us-east-1 is a region of aws: write the ARN as AWS shows it, which begins with `arn:aws:` there",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_REGION", "us-east-1")
			in, err := newInput(parsed(t, c.yaml+"credentials: { id: i, secret: s }\n"), service.MockResources())
			require.NoError(t, err)
			require.EqualError(t, in.Connect(t.Context()), c.err)
			require.NoError(t, in.Close(t.Context()))
		})
	}
}

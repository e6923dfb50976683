package awskinesis

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const table = "dynamodb: { table: t }\n"

// configMistakes are all mistakes that a configuration can show by itself, each with
// the message that both lint and the component's constructor give.
var configMistakes = []struct {
	name, yaml string
	want       []string
}{
	{"nothing", "{}", []string{noStream, noTable}},
	{"no streams", table, []string{noStream}},
	{"empty list", "streams: []\n" + table, []string{noStream}},
	{"list of blanks", "streams: [ '', ' , ,' ]\n" + table, []string{noStream}},
	{"no table", "streams: [ foo ]\n", []string{noTable}},
	{"empty table", "streams: [ foo ]\ndynamodb: { table: '' }\n", []string{noTable}},
	{"blank table", "streams: [ foo ]\ndynamodb: { table: ' ' }\n", []string{noTable}},

	{"DynamoDB stream", entries("arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020-01-01T00:00:00.000"), []string{
		"field `streams`: `arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020-01-01T00:00:00.000` is a DynamoDB stream: write the name or ARN of a Kinesis data stream, such as `arn:aws:kinesis:us-east-1:111122223333:stream/foo`",
	}},
	{"ARN of another service", entries("arn:aws:sqs:us-east-1:111122223333:foo"), []string{malformedARN("arn:aws:sqs:us-east-1:111122223333:foo")}},
	{"ARN of a consumer", entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1"), []string{malformedARN("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1")}},
	{"ARN with a short account", entries("arn:aws:kinesis:us-east-1:1111:stream/foo"), []string{malformedARN("arn:aws:kinesis:us-east-1:1111:stream/foo")}},
	{"ARN without a name", entries("arn:aws:kinesis:us-east-1:111122223333:stream/"), []string{malformedARN("arn:aws:kinesis:us-east-1:111122223333:stream/")}},
	{"name with a space", entries("foo bar"), []string{malformedName("foo bar")}},
	{"name too long", entries(strings.Repeat("x", 129)), []string{malformedName(strings.Repeat("x", 129))}},
	{"shard without a name", entries(":0"), []string{malformedName(":0")}},
	{"two shards in one entry", entries("foo:0:1"), []string{
		"field `streams`: `foo:0:1` names more than one shard: write an entry for each shard, such as `foo:0,foo:1`",
	}},
	{"two shards after an ARN", entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo:0:1"), []string{
		"field `streams`: `arn:aws:kinesis:us-east-1:111122223333:stream/foo:0:1` names more than one shard: write an entry for each shard, such as `foo:0,foo:1`",
	}},
	{"shard is no number", entries("foo:one"), []string{malformedShard("foo:one")}},
	{"shard is missing", entries("foo:"), []string{malformedShard("foo:")}},
	{"shard is negative", entries("foo:-1"), []string{malformedShard("foo:-1")}},
	{"shard id is short", entries("foo:shardId-0"), []string{malformedShard("foo:shardId-0")}},
	{"shard id has letters after an ARN", entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo:x"), []string{malformedShard("arn:aws:kinesis:us-east-1:111122223333:stream/foo:x")}},
	{"two mistakes in one list", entries("foo bar, foo:x"), []string{malformedName("foo bar"), malformedShard("foo:x")}},
	{"balanced and explicit entries", entries("foo, bar:0"), []string{
		"field `streams`: `bar:0` names a shard and `foo` does not: write a shard with every entry or with none, and use two inputs for both",
	}},
	{"the same shard twice", entries("foo:0, foo:1, foo:0"), []string{repeatedShard("foo:0")}},
	{"the same shard in both forms", entries("foo:0, foo:shardId-000000000000"), []string{repeatedShard("foo:shardId-000000000000")}},
	{"the same shard with more zeros", entries("foo:12, foo:012"), []string{repeatedShard("foo:012")}},

	{"billing mode", "streams: [ foo ]\ndynamodb: { table: t, billing_mode: FREE }\n", []string{
		"field `dynamodb.billing_mode`: `FREE` is no billing mode: write `PAY_PER_REQUEST` or `PROVISIONED`",
	}},
	{"PROVISIONED without capacities", "streams: [ foo ]\ndynamodb: { table: t, create: true, billing_mode: PROVISIONED }\n", []string{
		"field `dynamodb.read_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`",
		"field `dynamodb.write_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`",
	}},
	{"PROVISIONED without one capacity", "streams: [ foo ]\ndynamodb: { table: t, create: true, billing_mode: provisioned, read_capacity_units: 1 }\n", []string{
		"field `dynamodb.write_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`",
	}},
	{"negative capacities", "streams: [ foo ]\ndynamodb: { table: t, read_capacity_units: -1, write_capacity_units: -2 }\n", []string{
		"field `dynamodb.read_capacity_units`: -1 is negative: write 1 or more",
		"field `dynamodb.write_capacity_units`: -2 is negative: write 1 or more",
	}},

	{"checkpoint limit", minimal + "checkpoint_limit: 0\n", []string{
		"field `checkpoint_limit`: 0 lets no message through: write 1 for strict order, or more, such as 1024",
	}},
	{"negative checkpoint limit", minimal + "checkpoint_limit: -5\n", []string{
		"field `checkpoint_limit`: -5 lets no message through: write 1 for strict order, or more, such as 1024",
	}},

	{"zero commit period", minimal + "commit_period: 0s\n", []string{notAboveZero("commit_period", "0s", "5s")}},
	{"negative commit period", minimal + "commit_period: -1m\n", []string{notAboveZero("commit_period", "-1m", "5s")}},
	{"commit period without a unit", minimal + "commit_period: 5\n", []string{notADuration("commit_period", "5", "5s")}},
	{"empty commit period", minimal + "commit_period: ''\n", []string{notADuration("commit_period", "", "5s")}},
	{"zero rebalance period", minimal + "rebalance_period: 0\n", []string{notAboveZero("rebalance_period", "0", "30s")}},
	{"negative rebalance period", minimal + "rebalance_period: -1s\n", []string{notAboveZero("rebalance_period", "-1s", "30s")}},
	{"unknown unit", minimal + "rebalance_period: 1d\n", []string{notADuration("rebalance_period", "1d", "30s")}},
	{"zero lease period", minimal + "lease_period: 0s\n", []string{notAboveZero("lease_period", "0s", "30s")}},
	{"zero grace period", minimal + "steal_grace_period: 0s\n", []string{notAboveZero("steal_grace_period", "0s", "2s")}},
	{"negative lease period", minimal + "lease_period: -30s\n", []string{notAboveZero("lease_period", "-30s", "30s")}},
	{"lease period beyond 292 years", minimal + "lease_period: 9999999h\n", []string{notADuration("lease_period", "9999999h", "30s")}},
	{"commit period not below the lease period", minimal + "commit_period: 30s\n", []string{
		"field `commit_period`: 30s is not below `lease_period` (30s): write a shorter commit_period, such as a sixth of lease_period",
	}},
	{"commit period above a lease period in another unit", minimal + "lease_period: 4900ms\n", []string{
		"field `commit_period`: 5s is not below `lease_period` (4900ms): write a shorter commit_period, such as a sixth of lease_period",
	}},

	{"no room for a record", minimal + "max_buffered_bytes: 0\n", []string{
		"field `max_buffered_bytes`: 0 leaves no room for a record: write the number of bytes to hold at most, such as 268435456",
	}},
	{"poll period beyond the lease period", minimal + "poll_period: 31s\n", []string{
		"field `poll_period`: 31s is longer than `lease_period` (30s): write a shorter poll_period, such as `1s`",
	}},
	{"negative poll period", minimal + "poll_period: -1s\n", []string{
		"field `poll_period`: -1s is below zero: write `0s`, or the least time between two reads of a shard, such as `1s`",
	}},
	{"poll period that is none", minimal + "poll_period: often\n", []string{
		"field `poll_period`: `often` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `1s`, or `0s`",
	}},
	{"start in no known form", minimal + "start_from_timestamp: yesterday\n", []string{
		"field `start_from_timestamp`: `yesterday` is not a time in RFC 3339: write one such as `2024-05-01T12:00:00Z`",
	}},
	{"two starts", minimal + "start_from_oldest: false\nstart_from_timestamp: 2024-05-01T12:00:00Z\n", []string{
		"field `start_from_timestamp`: `start_from_oldest: false` says to start from now on: write one of the two",
	}},

	{"external id without role", minimal + "credentials: { role_external_id: x }\n", []string{
		"field `credentials.role_external_id`: an external id is of use only when a role is assumed: write the ARN of the role in `credentials.role`, or leave both out",
	}},
	{"id without secret", minimal + "credentials: { id: x }\n", []string{
		"field `credentials.secret`: `credentials.id` is set without its secret: write both or neither",
	}},
	{"secret without id", minimal + "credentials: { secret: x }\n", []string{
		"field `credentials.id`: `credentials.secret` is set without its id: write both or neither",
	}},
	{"id without secret for DynamoDB", "streams: [ foo ]\ndynamodb: { table: t, credentials: { id: x } }\n", []string{
		"field `dynamodb.credentials.secret`: `dynamodb.credentials.id` is set without its secret: write both or neither",
	}},
	{"external id without role for DynamoDB", "streams: [ foo ]\ndynamodb: { table: t, credentials: { role_external_id: x } }\n", []string{
		"field `dynamodb.credentials.role_external_id`: an external id is of use only when a role is assumed: write the ARN of the role in `dynamodb.credentials.role`, or leave both out",
	}},

	{"negative batch count", minimal + "batching: { count: -1 }\n", []string{
		"field `batching.count`: -1 is negative: write the number of messages that ends a batch, or 0 for none",
	}},
	{"negative batch size", minimal + "batching: { byte_size: -1 }\n", []string{
		"field `batching.byte_size`: -1 is negative: write the number of bytes that ends a batch, or 0 for none",
	}},
	{"zero batch period", minimal + "batching: { period: 0s }\n", []string{notAboveZero("batching.period", "0s", "1s")}},
	{"unparsable batch period", minimal + "batching: { period: soon }\n", []string{notADuration("batching.period", "soon", "1s")}},
}

const (
	noStream = "field `streams`: no stream is named: write a stream's name or ARN, such as `foo`"
	noTable  = "field `dynamodb.table`: no table is named: write the name of a DynamoDB table, such as `kinesis-checkpoints`"
)

// entries is a configuration with the entries in one element of streams.
func entries(list string) string { return "streams: [ '" + list + "' ]\n" + table }

func malformedARN(entry string) string {
	return "field `streams`: `" + entry + "` is not the ARN of a Kinesis data stream: write one such as `arn:aws:kinesis:us-east-1:111122223333:stream/foo`"
}

func malformedName(entry string) string {
	return "field `streams`: `" + entry + "` is not a stream's name, which has 1 to 128 letters, digits, dots, dashes and underscores: write a name or ARN, such as `foo`"
}

func malformedShard(entry string) string {
	return "field `streams`: the shard of `" + entry + "` is neither a number nor `shardId-` with twelve digits: write `foo:0` or `foo:shardId-000000000000`"
}

func repeatedShard(entry string) string {
	return "field `streams`: `" + entry + "` names a shard that an earlier entry names already: write each shard once"
}

func notAboveZero(field, value, example string) string {
	return "field `" + field + "`: " + value + " is not above zero: write a longer period, such as `" + example + "`"
}

func notADuration(field, value, example string) string {
	return "field `" + field + "`: `" + value + "` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `" + example + "`"
}

// lint is what Benthos' linter says of the input's configuration.
func lint(t *testing.T, yaml string) []string {
	t.Helper()
	indented := strings.ReplaceAll(strings.TrimSpace(yaml), "\n", "\n  ")
	err := service.NewStreamBuilder().AddInputYAML("aws_kinesis:\n  " + indented)
	if err == nil {
		return nil
	}
	lints, ok := errors.AsType[service.LintError](err)
	require.True(t, ok, "%v", err)
	var messages []string
	for _, l := range lints {
		messages = append(messages, l.What)
	}
	return messages
}

func TestEveryMistakeIsFoundByLintAndByTheConstructor(t *testing.T) {
	for _, m := range configMistakes {
		t.Run(m.name, func(t *testing.T) {
			require.ElementsMatch(t, m.want, lint(t, m.yaml))

			_, err := parseConfig(parsed(t, m.yaml))
			require.Error(t, err)
			require.ElementsMatch(t, m.want, strings.Split(err.Error(), "\n"))
		})
	}
}

func TestBatchProcessorsAndCheckFailAtTheConstructor(t *testing.T) {
	_, err := parseConfig(parsed(t, minimal+"batching: { check: 'this.' }\n"))
	require.ErrorContains(t, err, "field `batching.check`: ")

	_, err = parseConfig(parsed(t, minimal+"batching: { processors: [ { bloblang: 'root = ' } ] }\n"))
	require.ErrorContains(t, err, "field `batching.processors`: ")
}

func TestSoundConfigurationsPassBoth(t *testing.T) {
	for _, yaml := range []string{
		minimal,
		entries("foo"), entries("foo, foo"), entries("a_b.c-D"), entries("foo:0, foo:1, bar:0"),
		entries("foo:shardId-000000000000"),
		entries("arn:aws:kinesis:*:111122223333:stream/my-stream"),
		entries("arn:aws-cn:kinesis:cn-north-1:111122223333:stream/foo:3"),
		entries("arn:aws-us-gov:kinesis:us-gov-west-1:111122223333:stream/foo"),
		"streams: [ foo ]\ndynamodb: { table: t, create: true, billing_mode: PROVISIONED, read_capacity_units: 1, write_capacity_units: 1 }\n",
		"streams: [ foo ]\ndynamodb: { table: t, billing_mode: PROVISIONED }\n", // creates no table
		minimal + "checkpoint_limit: 1\n",
		minimal + "commit_period: 29.999s\nrebalance_period: 1h2m3.5s4ms\nlease_period: 30s\n",
		minimal + "credentials: { id: x, secret: y }\n",
		minimal + "credentials: { role: x, role_external_id: y }\n",
		minimal + "batching: { count: 1, byte_size: 0, period: 1us }\n",
	} {
		require.Empty(t, lint(t, yaml), yaml)
		_, err := parseConfig(parsed(t, yaml))
		require.NoError(t, err, yaml)
	}
}

// TestRuleKnowsDurationsAsGoDoes compares the rule's arithmetic with
// time.ParseDuration.
func TestRuleKnowsDurationsAsGoDoes(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringMatching(`[-+]?([0-9]{0,4}\.?[0-9]{0,3}(ns|us|µs|ms|s|m|h|d)?){1,3}`),
		rapid.Custom(func(t *rapid.T) string { return time.Duration(rapid.Int64().Draw(t, "ns")).String() }),
	)
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "duration")
		d, err := time.ParseDuration(s)
		var want []error
		switch {
		case err != nil:
			want = []error{errors.New(notADuration("rebalance_period", s, "30s"))}
		case d <= 0 && !strings.ContainsAny(strings.TrimLeft(s, "+-"), "123456789"), d < 0:
			want = []error{errors.New(notAboveZero("rebalance_period", s, "30s"))}
		case d == 0: // above zero, but by less than a nanosecond
			return
		}
		require.Equal(t, want, runRule(t, "rebalance_period", s))
	})
}

// runRule is what the lint rule of a field says of a value.
func runRule(t require.TestingT, field string, value any) []error {
	rules, err := compiledRules()
	require.NoError(t, err)
	for i, r := range lintRules {
		if r.field == field {
			found, err := rules[i].Query(value)
			require.NoError(t, err)
			return mistakes(found)
		}
	}
	require.Fail(t, "no rule", field)
	return nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// program is the distribution, built once for all tests.
var program string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "benthos-kinesis")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	program = filepath.Join(dir, "benthos-kinesis")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-X main.version=v0.0.0-test", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // static, as it is released
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the distribution: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// run is what the program writes, and whether it succeeds, with vars added to
// the environment.
func run(t *testing.T, vars []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), vars...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err())
	return string(out), err
}

func TestInputIsThatOfThisProject(t *testing.T) {
	out, err := run(t, nil, "list", "inputs")
	require.NoError(t, err, out)
	require.Equal(t, 1, strings.Count(out, "aws_kinesis\n"), out)

	// Benthos' own input has neither these fields nor the others of AWS here.
	out, err = run(t, nil, "create", "aws_kinesis")
	require.NoError(t, err, out)
	require.Contains(t, out, "  aws_kinesis:\n    streams: [] # No default (required)\n    dynamodb:\n      table: \"\"\n")
	require.Contains(t, out, "    auto_replay_nacks: true\n")
	require.Contains(t, out, "    start_from_timestamp: \"\"\n", "what is to be filled in, if anything")
	out, err = run(t, nil, "list")
	require.NoError(t, err, out)
	require.Equal(t, 1, strings.Count(out, "- aws_"), out)
}

func TestVersionIsThatOfThisProjectAndThatOfBenthos(t *testing.T) {
	for _, flag := range []string{"--version", "-v"} {
		out, err := run(t, nil, flag)
		require.NoError(t, err, out)
		require.Regexp(t, `\AVersion: v0\.0\.0-test \(Benthos v4\.27\.0\)\nDate: \S+\n\z`, out)
	}
	info := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Deps:     []*debug.Module{{Path: "github.com/benthosdev/benthos/v4", Version: "v4.27.0"}},
		Settings: []debug.BuildSetting{{Key: "vcs.time", Value: "2026-11-24T12:00:00Z"}},
	}
	require.Equal(t, "Version: v1.2.3 (Benthos v4.27.0)\nDate: 2026-11-24T12:00:00Z\n", versions("", "", info))
	require.Equal(t, "Version: v2.0.0 (Benthos v4.27.0)\nDate: 2026-11-25T12:00:00Z\n", versions("v2.0.0", "2026-11-25T12:00:00Z", info))
	require.Equal(t, "Version: unknown (Benthos unknown)\nDate: unknown\n", versions("", "", nil))
}

func TestLintShowsEachMistakeWithItsLine(t *testing.T) {
	const table = "    dynamodb:\n      table: leases\n"
	mistakes := []struct{ name, fields, want string }{
		{"no stream", table, "(3,1) field `streams`: no stream is named: write a stream's name or ARN, such as `foo`"},
		{"no list", "    streams: foo\n" + table, "(3,1) expected array value"},
		{"DynamoDB stream", "    streams: [ 'arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020' ]\n" + table, "(3,1) field `streams`: `arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020` is a DynamoDB stream: write the name or ARN of a Kinesis data stream, such as `arn:aws:kinesis:us-east-1:111122223333:stream/foo`"},
		{"malformed ARN", "    streams: [ 'arn:aws:kinesis:us-east-1:1:stream/foo' ]\n" + table, "(3,1) field `streams`: `arn:aws:kinesis:us-east-1:1:stream/foo` is not the ARN of a Kinesis data stream: write one such as `arn:aws:kinesis:us-east-1:111122223333:stream/foo`"},
		{"mixed entries", "    streams: [ foo, 'bar:0' ]\n" + table, "(3,1) field `streams`: `bar:0` names a shard and `foo` does not: write a shard with every entry or with none, and use two inputs for both"},
		{"two shards", "    streams: [ 'foo:0:1' ]\n" + table, "(3,1) field `streams`: `foo:0:1` names more than one shard: write an entry for each shard, such as `foo:0,foo:1`"},
		{"same shard twice", "    streams: [ 'foo:0', 'foo:shardId-000000000000' ]\n" + table, "(3,1) field `streams`: `foo:shardId-000000000000` names a shard that an earlier entry names already: write each shard once"},
		{"malformed shard", "    streams: [ 'foo:x' ]\n" + table, "(3,1) field `streams`: the shard of `foo:x` is neither a number nor `shardId-` with twelve digits: write `foo:0` or `foo:shardId-000000000000`"},
		{"no table", "    streams: [ foo ]\n", "(3,1) field `dynamodb.table`: no table is named: write the name of a DynamoDB table, such as `kinesis-checkpoints`"},
		{"table name", "    streams: [ foo ]\n    dynamodb:\n      table: t\n", "(5,1) field `dynamodb.table`: `t` is not a table's name, which has 3 to 255 letters, digits, dots, dashes and underscores: write a name or ARN, such as `kinesis-checkpoints`"},
		{"endpoint", "    streams: [ foo ]\n" + table + "    endpoint: localhost:4566\n", "(6,1) field `endpoint`: `localhost:4566` is not a URL with a scheme and a host: write one such as `http://localhost:4566`"},
		{"region", "    streams: [ foo ]\n" + table + "    region: us-east1\n", "(3,1) field `region`: `us-east1` is not a region of AWS: write one such as `us-east-1`"},
		{"region of the ARN", "    streams: [ 'arn:aws:kinesis:eu-west-1:111122223333:stream/foo' ]\n" + table + "    region: us-east-1\n", "(3,1) field `region`: us-east-1 is not the region of `arn:aws:kinesis:eu-west-1:111122223333:stream/foo`: write `eu-west-1`, and use an input for each region"},
		{"memory", "    streams: [ foo ]\n" + table + "    max_buffered_bytes: lots\n", "(6,1) field `max_buffered_bytes`: `lots` is not a size: write a number of bytes, or one with kB, MB, GB, KiB, MiB or GiB, such as `256MiB`"},
		{"month", "    streams: [ foo ]\n" + table + "    start_from_timestamp: '2024-13-01T12:00:00Z'\n", "(3,1) field `start_from_timestamp`: `2024-13-01T12:00:00Z` is not a time in RFC 3339: write one such as `2024-05-01T12:00:00Z`"},
		{"rebalance period too short", "    streams: [ foo ]\n" + table + "    rebalance_period: 1ns\n", "(6,1) field `rebalance_period`: 1ns is too short, for the table is read so often: write `1s` or more, such as `30s`"},
		{"lease period too long", "    streams: [ foo ]\n" + table + "    lease_period: 25h\n", "(6,1) field `lease_period`: 25h is longer than a day: write `24h` or less, such as `30s`"},
		{"consumer", "    streams: [ foo ]\n" + table + "    enhanced_fan_out:\n      enabled: true\n      consumer_name: my consumer\n", "(8,1) field `enhanced_fan_out.consumer_name`: `my consumer` is not a consumer's name, which has 1 to 128 letters, digits, dots, dashes and underscores: write one such as `orders-archive`"},
		{"mode of fan-out", "    streams: [ foo ]\n" + table + "    enhanced_fan_out:\n      mode: sometimes\n", "(7,1) field `enhanced_fan_out.mode`: `sometimes` is no mode of enhanced fan-out: write `always` or `auto`"},
		{"consumer of another stream", "    streams: [ foo, bar ]\n" + table + "    enhanced_fan_out:\n      consumer_arn: arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1\n", "(3,1) field `enhanced_fan_out.consumer_arn`: a consumer belongs to one stream, and `streams` names `foo` and `bar`: write a name for the consumers of all streams in `enhanced_fan_out.consumer_name` instead, or use an input for each stream"},
		{"no capacity", "    streams: [ foo ]\n" + table + "      create: true\n      billing_mode: PROVISIONED\n      read_capacity_units: 1\n", "(5,1) field `dynamodb.write_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`"},
		{"negative capacity", "    streams: [ foo ]\n" + table + "      read_capacity_units: -1\n", "(5,1) field `dynamodb.read_capacity_units`: -1 is negative: write 1 or more"},
		{"billing mode", "    streams: [ foo ]\n" + table + "      billing_mode: FREE\n", "(5,1) field `dynamodb.billing_mode`: `FREE` is no billing mode: write `PAY_PER_REQUEST` or `PROVISIONED`"},
		{"checkpoint limit", "    streams: [ foo ]\n" + table + "    checkpoint_limit: 0\n", "(6,1) field `checkpoint_limit`: 0 lets no message through: write 1 for strict order, or more, such as 1024"},
		{"commit period", "    streams: [ foo ]\n" + table + "    commit_period: 0s\n", "(6,1) field `commit_period`: 0s is not above zero: write a longer period, such as `5s`"},
		{"rebalance period", "    streams: [ foo ]\n" + table + "    rebalance_period: -30s\n", "(6,1) field `rebalance_period`: -30s is not above zero: write a longer period, such as `30s`"},
		{"lease period", "    streams: [ foo ]\n" + table + "    lease_period: soon\n", "(6,1) field `lease_period`: `soon` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `30s`"},
		{"commit not below lease", "    streams: [ foo ]\n" + table + "    commit_period: 30s\n", "(3,1) field `commit_period`: 30s is not below `lease_period` (30s): write a shorter commit_period, such as a sixth of lease_period"},
		{"external id without role", "    streams: [ foo ]\n" + table + "    credentials:\n      role_external_id: x\n", "(7,1) field `credentials.role_external_id`: an external id is of use only when a role is assumed: write the ARN of the role in `credentials.role`, or leave both out"},
		{"id without secret", "    streams: [ foo ]\n" + table + "    credentials:\n      id: x\n", "(7,1) field `credentials.secret`: `credentials.id` is set without its secret: write both or neither"},
		{"secret without id", "    streams: [ foo ]\n" + table + "    credentials:\n      secret: x\n", "(7,1) field `credentials.id`: `credentials.secret` is set without its id: write both or neither"},
		{"batching", "    streams: [ foo ]\n" + table + "    batching:\n      count: -1\n", "(7,1) field `batching.count`: -1 is negative: write the number of messages that ends a batch, or 0 for none"},
	}
	dir := t.TempDir()
	args := []string{"lint"}
	var want []string
	for _, m := range mistakes {
		file := filepath.Join(dir, m.name+".yaml")
		require.NoError(t, os.WriteFile(file, []byte("input:\n  aws_kinesis:\n"+m.fields), 0o600))
		args = append(args, file)
		want = append(want, file+m.want)
	}
	out, err := run(t, nil, args...)
	require.Error(t, err)
	require.ElementsMatch(t, want, strings.Split(strings.TrimSpace(out), "\n"))
}

func TestConstructorStopsTheProgramWithTheSameMessage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("http: { enabled: false }\ninput:\n  aws_kinesis:\n    streams: [ foo ]\n    dynamodb: { table: leases }\n    checkpoint_limit: 0\noutput: { drop: {} }\n"), 0o600))
	out, err := run(t, nil, "--chilled", "-c", file)
	require.Error(t, err)
	require.Contains(t, out, "failed to init input <no label> path root.input: field `checkpoint_limit`: 0 lets no message through: write 1 for strict order, or more, such as 1024")
}

// TestVariablesAreLintedByTheirValues holds what a user needs to know of lint
// and the environment: Benthos puts the values in first, "" for a variable that
// is not set, of which it complains by itself unless it is told not to.
func TestVariablesAreLintedByTheirValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("input:\n  aws_kinesis:\n    streams: [ '${LINT_STREAM}' ]\n    dynamodb: { table: '${LINT_TABLE:leases}' }\n    checkpoint_limit: ${LINT_LIMIT:5}\n"), 0o600))

	out, err := run(t, []string{"LINT_STREAM=foo,bar"}, "lint", file)
	require.NoError(t, err, out)

	out, err = run(t, []string{"LINT_STREAM=foo", "LINT_LIMIT=0"}, "lint", file)
	require.Error(t, err)
	require.Equal(t, file+"(5,1) field `checkpoint_limit`: 0 lets no message through: write 1 for strict order, or more, such as 1024\n", out)

	out, err = run(t, nil, "lint", file)
	require.Error(t, err)
	require.Equal(t, file+"(1,1) required environment variables were not set: [LINT_STREAM]\n", out)
	out, err = run(t, nil, "lint", "--skip-env-var-check", file)
	require.NoError(t, err, out)
	require.Empty(t, out)
}

func TestExamplesPassLint(t *testing.T) {
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 6)
	out, err := run(t, []string{
		"STREAM=foo", "TABLE=leases", "REGION=us-east-1", "ENDPOINT=http://127.0.0.1:1", "URL=http://127.0.0.1:1",
		"STREAM_ARN=arn:aws:kinesis:us-east-1:111122223333:stream/foo", "STREAM_ROLE=arn:aws:iam::111122223333:role/reader",
		"TABLE_ROLE=arn:aws:iam::444455556666:role/checkpoints", "EXTERNAL_ID=x", "ARCHIVE=archive",
	}, append([]string{"lint", "--deprecated"}, files...)...)
	require.NoError(t, err, out)
	require.Empty(t, out)
}

func TestExamplesPassLintWithoutTheirVariables(t *testing.T) {
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	require.NoError(t, err)
	out, err := run(t, nil, append([]string{"lint", "--deprecated", "--skip-env-var-check"}, files...)...)
	require.NoError(t, err, out)
	require.Empty(t, out)
}

// In the guide, `yaml` is for configurations of Benthos, and `yml` for those of others.
func TestSnippetsOfTheGuidePassLint(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	require.NoError(t, err)
	snippets := regexp.MustCompile("(?s)\n```yaml\n(.*?\n)```\n").FindAllSubmatch(page, -1)
	require.GreaterOrEqual(t, len(snippets), 3)
	require.Len(t, snippets, strings.Count(string(page), "```yaml"))
	args, dir := []string{"lint", "--deprecated"}, t.TempDir()
	for i, snippet := range snippets {
		file := filepath.Join(dir, fmt.Sprintf("%d.yaml", i))
		require.NoError(t, os.WriteFile(file, snippet[1], 0o600))
		args = append(args, file)
	}
	out, err := run(t, nil, args...)
	require.NoError(t, err, out)
	require.Empty(t, out)
}

// TestValueOfAnotherTypeStopsTheStart is about numbers and booleans: Benthos reads
// them before any rule sees them, and its linter passes over those that it cannot
// read, with all rules for the input as a whole.
func TestValueOfAnotherTypeStopsTheStart(t *testing.T) {
	for fields, want := range map[string]string{
		"checkpoint_limit: many":                "field 'checkpoint_limit': yaml: unmarshal errors:\\n  line 6: cannot unmarshal !!str `many` into int",
		"credentials: { from_ec2_role: '' }":    "field 'credentials': field 'from_ec2_role': yaml: unmarshal errors:\\n  line 6: cannot unmarshal !!str `` into bool",
		"credentials: { from_ec2_role: maybe }": "field 'credentials': field 'from_ec2_role': yaml: unmarshal errors:\\n  line 6: cannot unmarshal !!str `maybe` into bool",
	} {
		file := filepath.Join(t.TempDir(), "c.yaml")
		require.NoError(t, os.WriteFile(file, []byte("http: { enabled: false }\ninput:\n  aws_kinesis:\n    streams: [ foo ]\n    dynamodb: { table: leases }\n    "+fields+"\noutput: { drop: {} }\n"), 0o600))
		out, err := run(t, nil, "-c", file)
		require.Error(t, err)
		require.Contains(t, out, "failed to init input <no label> path root.input: "+want)
	}
}

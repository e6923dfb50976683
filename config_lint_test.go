package awskinesis

import (
	"errors"
	"strings"
	"testing"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

const leasesTable = "dynamodb: { table: leases }\n"

// configMistakes are the mistakes that a configuration can show by itself, each with
// the message that both lint and the component's constructor give.
var configMistakes = []struct {
	name, yaml string
	want       []string
}{
	{"DynamoDB stream", entries("arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020-01-01T00:00:00.000"), []string{
		"field `streams`: `arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020-01-01T00:00:00.000` is a DynamoDB stream: write the name or ARN of a Kinesis data stream, such as `arn:aws:kinesis:us-east-1:111122223333:stream/foo`",
	}},
	{"ARN of another service", entries("arn:aws:sqs:us-east-1:111122223333:foo"), []string{malformedARN("arn:aws:sqs:us-east-1:111122223333:foo")}},
	{"ARN of a consumer", entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1"), []string{malformedARN("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1")}},
	{"ARN with a short account", entries("arn:aws:kinesis:us-east-1:1111:stream/foo"), []string{malformedARN("arn:aws:kinesis:us-east-1:1111:stream/foo")}},
	{"name with a space", entries("foo bar"), []string{malformedName("foo bar")}},
	{"name too long", entries(strings.Repeat("x", 129)), []string{malformedName(strings.Repeat("x", 129))}},
	{"two shards in one entry", entries("foo:0:1"), []string{
		"field `streams`: `foo:0:1` names more than one shard: write an entry for each shard, such as `foo:0,foo:1`",
	}},
	{"two shards after an ARN", entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo:0:1"), []string{
		"field `streams`: `arn:aws:kinesis:us-east-1:111122223333:stream/foo:0:1` names more than one shard: write an entry for each shard, such as `foo:0,foo:1`",
	}},
	{"shard is no number", entries("foo:one"), []string{malformedShard("foo:one")}},
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

	{"table name too short", "streams: [ foo ]\ndynamodb: { table: ab }\n", []string{malformedTable("ab")}},
	{"table name too long", "streams: [ foo ]\ndynamodb: { table: " + strings.Repeat("x", 256) + " }\n", []string{malformedTable(strings.Repeat("x", 256))}},
	{"table name with a space", "streams: [ foo ]\ndynamodb: { table: my table }\n", []string{malformedTable("my table")}},
	{"table name with a slash", "streams: [ foo ]\ndynamodb: { table: my/table }\n", []string{malformedTable("my/table")}},
	{"ARN of a stream for the table", "streams: [ foo ]\ndynamodb: { table: 'arn:aws:kinesis:us-east-1:111122223333:stream/foo' }\n", []string{malformedTableARN("arn:aws:kinesis:us-east-1:111122223333:stream/foo")}},
	{"ARN of an index", "streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:us-east-1:111122223333:table/foo/index/bar' }\n", []string{malformedTableARN("arn:aws:dynamodb:us-east-1:111122223333:table/foo/index/bar")}},

	{"endpoint without a scheme", minimal + "endpoint: localhost:4566\n", []string{malformedURL("endpoint", "localhost:4566")}},
	{"endpoint of another scheme", minimal + "endpoint: tcp://localhost:4566\n", []string{malformedURL("endpoint", "tcp://localhost:4566")}},
	{"endpoint that is a path", minimal + "endpoint: /localhost\n", []string{malformedURL("endpoint", "/localhost")}},
	{"endpoint for DynamoDB", "streams: [ foo ]\ndynamodb: { table: leases, endpoint: 'localhost:8000' }\n", []string{malformedURL("dynamodb.endpoint", "localhost:8000")}},
	{"region of another cloud", minimal + "region: us-east1\n", []string{malformedRegion("region", "us-east1")}},
	{"availability zone", minimal + "region: us-east-1a\n", []string{malformedRegion("region", "us-east-1a")}},
	{"city", minimal + "region: Frankfurt\n", []string{malformedRegion("region", "Frankfurt")}},
	{"region with blanks behind an endpoint", minimal + "region: my region\nendpoint: http://localhost:4566\n", []string{malformedRegion("region", "my region")}},
	{"region with FIPS", "streams: [ foo ]\nregion: fips-us-east-1\ndynamodb: { table: leases, region: us-east-1-fips }\n", []string{
		"field `region`: `fips-us-east-1` is an address of FIPS and not a region: write the region alone, and set AWS_USE_FIPS_ENDPOINT=true",
		"field `dynamodb.region`: `us-east-1-fips` is an address of FIPS and not a region: write the region alone, and set AWS_USE_FIPS_ENDPOINT=true",
	}},
	{"region for DynamoDB", "streams: [ foo ]\ndynamodb: { table: leases, region: us_east_1 }\n", []string{malformedRegion("dynamodb.region", "us_east_1")}},
	{"ARN of another region", entries("foo, arn:aws:kinesis:eu-west-1:111122223333:stream/foo:0") + "region: us-east-1\n", []string{
		"field `region`: us-east-1 is not the region of `arn:aws:kinesis:eu-west-1:111122223333:stream/foo:0`: write `eu-west-1`, and use an input for each region",
		"field `streams`: `arn:aws:kinesis:eu-west-1:111122223333:stream/foo:0` names a shard and `foo` does not: write a shard with every entry or with none, and use two inputs for both",
	}},
	{"ARNs of two regions", entries("arn:aws:kinesis:eu-west-1:111122223333:stream/foo, arn:aws:kinesis:us-east-1:111122223333:stream/foo"), []string{
		"field `streams`: `arn:aws:kinesis:us-east-1:111122223333:stream/foo` is in another region than `arn:aws:kinesis:eu-west-1:111122223333:stream/foo`: use an input for each region",
	}},
	{"table of another region", "streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:eu-west-1:111122223333:table/leases' }\nregion: us-east-1\n", []string{
		"field `region`: us-east-1 is not the region of `dynamodb.table`, which is in eu-west-1: write `eu-west-1` in `dynamodb.region`",
	}},
	{"table of another region than its own", "streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:eu-west-1:111122223333:table/leases', region: us-east-1 }\nregion: eu-west-1\n", []string{
		"field `dynamodb.region`: us-east-1 is not the region of `dynamodb.table`, which is in eu-west-1: write `eu-west-1` in `dynamodb.region`",
	}},

	{"billing mode", "streams: [ foo ]\ndynamodb: { table: leases, billing_mode: FREE }\n", []string{
		"field `dynamodb.billing_mode`: `FREE` is no billing mode: write `PAY_PER_REQUEST` or `PROVISIONED`",
	}},
	{"PROVISIONED without capacities", "streams: [ foo ]\ndynamodb: { table: leases, create: true, billing_mode: PROVISIONED }\n", []string{
		"field `dynamodb.read_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`",
		"field `dynamodb.write_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`",
	}},
	{"PROVISIONED without one capacity", "streams: [ foo ]\ndynamodb: { table: leases, create: true, billing_mode: provisioned, read_capacity_units: 1 }\n", []string{
		"field `dynamodb.write_capacity_units`: a table cannot be created as `PROVISIONED` without it: write 1 or more, or leave `dynamodb.billing_mode` at `PAY_PER_REQUEST`",
	}},
	{"negative capacities", "streams: [ foo ]\ndynamodb: { table: leases, read_capacity_units: -1, write_capacity_units: -2 }\n", []string{
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
	{"zero rebalance period", minimal + "rebalance_period: 0\n", []string{notAboveZero("rebalance_period", "0", "30s")}},
	{"negative rebalance period", minimal + "rebalance_period: -1s\n", []string{notAboveZero("rebalance_period", "-1s", "30s")}},
	{"unknown unit", minimal + "rebalance_period: 1d\n", []string{notADuration("rebalance_period", "1d", "30s")}},
	{"zero lease period", minimal + "lease_period: 0s\n", []string{notAboveZero("lease_period", "0s", "30s")}},
	{"zero grace period", minimal + "steal_grace_period: 0s\n", []string{notAboveZero("steal_grace_period", "0s", "2s")}},
	{"negative lease period", minimal + "lease_period: -30s\n", []string{notAboveZero("lease_period", "-30s", "30s")}},
	{"lease period beyond 292 years", minimal + "lease_period: 9999999h\n", []string{notADuration("lease_period", "9999999h", "30s")}},
	{"commit period too short", minimal + "commit_period: 99ms\n", []string{
		"field `commit_period`: 99ms is too short, for each shard's item is written so often: write `100ms` or more, such as `5s`",
	}},
	{"rebalance period too short", minimal + "rebalance_period: 1ns\n", []string{
		"field `rebalance_period`: 1ns is too short, for the table is read so often: write `1s` or more, such as `30s`",
	}},
	{"lease period too short", minimal + "commit_period: 100ms\nlease_period: 999ms\n", []string{
		"field `lease_period`: 999ms is too short, for a lease is renewed several times in it: write `1s` or more, such as `30s`",
	}},
	{"commit period too long", minimal + "commit_period: 25h\nlease_period: 24h\n", []string{
		tooLong("commit_period", "25h", "5s"),
		"field `commit_period`: 25h is not below `lease_period` (24h): write a shorter commit_period, such as a sixth of lease_period",
	}},
	{"rebalance period too long", minimal + "rebalance_period: 24h1ns\n", []string{tooLong("rebalance_period", "24h1ns", "30s")}},
	{"lease period too long", minimal + "lease_period: 2562047h\n", []string{tooLong("lease_period", "2562047h", "30s")}},
	{"grace period too long", minimal + "steal_grace_period: 48h\n", []string{tooLong("steal_grace_period", "48h", "2s")}},
	{"commit period not below the lease period", minimal + "commit_period: 30s\n", []string{
		"field `commit_period`: 30s is not below `lease_period` (30s): write a shorter commit_period, such as a sixth of lease_period",
	}},
	{"commit period above a lease period in another unit", minimal + "lease_period: 4900ms\n", []string{
		"field `commit_period`: 5s is not below `lease_period` (4900ms): write a shorter commit_period, such as a sixth of lease_period",
	}},

	{"no room for a record", minimal + "max_buffered_bytes: 0\n", []string{
		"field `max_buffered_bytes`: 0 leaves no room for a record: write how much to hold at most, such as `256MiB`",
	}},
	{"less than no room", minimal + "max_buffered_bytes: -5MB\n", []string{
		"field `max_buffered_bytes`: -5MB leaves no room for a record: write how much to hold at most, such as `256MiB`",
	}},
	{"more room than there is", minimal + "max_buffered_bytes: 99999999GiB\n", []string{
		"field `max_buffered_bytes`: 99999999GiB is more than any machine has: write how much to hold at most, such as `256MiB`",
	}},
	{"size in no known unit", minimal + "max_buffered_bytes: 256mb\n", []string{notASize("256mb")}},
	{"size that is none", minimal + "max_buffered_bytes: lots\n", []string{notASize("lots")}},
	{"poll period beyond the lease period", minimal + "poll_period: 31s\n", []string{
		"field `poll_period`: 31s is longer than `lease_period` (30s): write a shorter poll_period, such as `1s`",
	}},
	{"negative poll period", minimal + "poll_period: -1s\n", []string{
		"field `poll_period`: -1s is below zero: write `0s`, or the least time between two reads of a shard, such as `1s`",
	}},
	{"poll period that is none", minimal + "poll_period: often\n", []string{
		"field `poll_period`: `often` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `1s`, or `0s`",
	}},
	{"negative age", minimal + "max_record_age: -1m\n", []string{
		"field `max_record_age`: -1m is below zero: write `0s` to skip nothing, or the age from which on records are skipped, such as `10m`",
	}},
	{"age that is none", minimal + "max_record_age: 1d\n", []string{notAnAge("1d")}},
	{"age without a unit", minimal + "max_record_age: 10\n", []string{notAnAge("10")}},
	{"age of which no record is", minimal + "max_record_age: 8760h1s\n", []string{
		"field `max_record_age`: 8760h1s is longer than Kinesis keeps a record: write `8760h` or less, such as `10m`, or `0s` to skip nothing",
	}},
	{"age up to which records may wait to be read", minimal + "poll_period: 10s\nmax_record_age: 10s\n", []string{
		"field `max_record_age`: 10s is not above `poll_period` (10s), for which a record may wait to be read: write a longer age, such as `10m`",
	}},
	{"age beside a poll period that is none", minimal + "poll_period: often\nmax_record_age: 1s\n", []string{
		"field `poll_period`: `often` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `1s`, or `0s`",
	}},
	{"group with a slash", minimal + "group: a/b\n", []string{malformedGroup("a/b")}},
	{"group with a space", minimal + "group: my group\n", []string{malformedGroup("my group")}},
	{"group too long", minimal + "group: " + strings.Repeat("x", 129) + "\n", []string{malformedGroup(strings.Repeat("x", 129))}},
	{"ordering", minimal + "ordering: key\n", []string{
		"field `ordering`: `key` is nothing that messages are kept in order by: write `shard` or `partition_key`",
	}},
	{"format on the wire", minimal + "wire_format: protobuf\n", []string{
		"field `wire_format`: `protobuf` is no format of Kinesis: write `json` or `cbor`",
	}},
	{"fate of foreign user records", minimal + "deaggregate_foreign: move\n", []string{
		"field `deaggregate_foreign`: `move` says nothing of user records in the wrong shard: write `keep` or `drop`",
	}},
	{"mode of fan-out", fanOut("mode: sometimes"), []string{
		"field `enhanced_fan_out.mode`: `sometimes` is no mode of enhanced fan-out: write `always` or `auto`",
	}},
	{"consumer's name with a space", fanOut("consumer_name: my consumer"), []string{malformedConsumer("my consumer")}},
	{"consumer's name too long", fanOut("consumer_name: " + strings.Repeat("x", 129)), []string{malformedConsumer(strings.Repeat("x", 129))}},
	{"ARN for the consumer's name", fanOut("consumer_name: '" + consumerARN + "'"), []string{
		"field `enhanced_fan_out.consumer_name`: `" + consumerARN + "` is an ARN: write it in `enhanced_fan_out.consumer_arn`",
	}},
	{"ARN of the stream for the consumer", fanOut("consumer_arn: 'arn:aws:kinesis:us-east-1:111122223333:stream/foo'"), []string{malformedConsumerARN("arn:aws:kinesis:us-east-1:111122223333:stream/foo")}},
	{"ARN of a consumer without its time", fanOut("consumer_arn: 'arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c'"), []string{malformedConsumerARN("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c")}},
	{"ARN of a consumer that leaves the region open", fanOut("consumer_arn: 'arn:aws:kinesis:*:111122223333:stream/foo/consumer/c:1'"), []string{malformedConsumerARN("arn:aws:kinesis:*:111122223333:stream/foo/consumer/c:1")}},
	{"name for the consumer's ARN", fanOut("consumer_arn: c"), []string{malformedConsumerARN("c")}},
	{"consumer by name and by ARN", fanOut("consumer_name: c, consumer_arn: '" + consumerARN + "'"), []string{
		"field `enhanced_fan_out.consumer_arn`: `enhanced_fan_out.consumer_name` names a consumer too: write one of the two",
	}},
	{"deregistering what was given by its ARN", fanOut("consumer_arn: '" + consumerARN + "', deregister_on_close: true"), []string{
		"field `enhanced_fan_out.deregister_on_close`: a consumer that is given by its ARN was not registered by this input: leave deregister_on_close at `false`, or write a name in `enhanced_fan_out.consumer_name` instead of `enhanced_fan_out.consumer_arn`",
	}},
	{"one consumer for two streams", entries("foo, bar") + consumerOfFoo, []string{severalStreams("foo", "bar")}},
	{"one consumer for a stream by name and by ARN", entries("foo:0, arn:aws:kinesis:us-east-1:111122223333:stream/foo:1") + consumerOfFoo, []string{severalStreams("foo", "arn:aws:kinesis:us-east-1:111122223333:stream/foo")}},
	{"consumer of another stream", entries("bar") + consumerOfFoo, []string{otherStream("bar")}},
	{"consumer of another stream with shards", entries("bar:0, bar:shardId-000000000001") + consumerOfFoo, []string{otherStream("bar")}},
	{"consumer of a stream of another account", entries("arn:aws:kinesis:us-east-1:444455556666:stream/foo") + consumerOfFoo, []string{otherStream("arn:aws:kinesis:us-east-1:444455556666:stream/foo")}},
	{"consumer of a stream of another region", entries("arn:aws:kinesis:eu-west-1:111122223333:stream/foo") + "region: eu-west-1\n" + consumerOfFoo, []string{otherStream("arn:aws:kinesis:eu-west-1:111122223333:stream/foo")}},
	{"consumer of another region", entries("foo") + "region: eu-west-1\n" + consumerOfFoo, []string{
		"field `region`: eu-west-1 is not the region of `enhanced_fan_out.consumer_arn`, which is in us-east-1: write `us-east-1`, or the ARN of a consumer of the stream in eu-west-1",
	}},
	{"consumer beside a stream that is malformed", entries("foo, bar baz") + consumerOfFoo, []string{malformedName("bar baz")}},
	{"activation time-out too short", fanOut("consumer_activation_timeout: 999ms"), []string{
		"field `enhanced_fan_out.consumer_activation_timeout`: 999ms is too short, for a consumer takes some seconds to be registered: write `1s` or more, such as `1m`",
	}},
	{"activation time-out too long", fanOut("consumer_activation_timeout: 61m"), []string{
		"field `enhanced_fan_out.consumer_activation_timeout`: 61m is longer than an hour: write `1h` or less, such as `1m`",
	}},
	{"activation time-out that is none", fanOut("consumer_activation_timeout: 60"), []string{notADuration("enhanced_fan_out.consumer_activation_timeout", "60", "1m")}},
	{"resubscribe interval too short", fanOut("max_resubscribe_interval: 999ms"), []string{
		"field `enhanced_fan_out.max_resubscribe_interval`: 999ms is too short, for Kinesis lets a consumer subscribe to a shard once a second: write `1s` or more, such as `30s`",
	}},
	{"resubscribe interval too long", fanOut("max_resubscribe_interval: 5m1ns"), []string{
		"field `enhanced_fan_out.max_resubscribe_interval`: 5m1ns is longer than five minutes: write `5m` or less, such as `30s`",
	}},
	{"zero resubscribe interval", fanOut("max_resubscribe_interval: 0s"), []string{notAboveZero("enhanced_fan_out.max_resubscribe_interval", "0s", "30s")}},
	{"mistakes of a fan-out that is switched off", fanOut("enabled: false, mode: never, consumer_name: 'c!'"), []string{
		"field `enhanced_fan_out.mode`: `never` is no mode of enhanced fan-out: write `always` or `auto`",
		malformedConsumer("c!"),
	}},
	{"start in no known form", minimal + "start_from_timestamp: yesterday\n", []string{notATime("yesterday")}},
	{"start in a thirteenth month", minimal + "start_from_timestamp: '2024-13-01T12:00:00Z'\n", []string{notATime("2024-13-01T12:00:00Z")}},
	{"start on a day that there is not", minimal + "start_from_timestamp: '2023-02-29T12:00:00Z'\n", []string{notATime("2023-02-29T12:00:00Z")}},
	{"end in no known form", minimal + "end_at_timestamp: tomorrow\n", []string{notAnEnd("tomorrow")}},
	{"end that is almost now", minimal + "end_at_timestamp: NOW\n", []string{notAnEnd("NOW")}},
	{"end on a day that there is not", minimal + "end_at_timestamp: '2023-02-29T12:00:00Z'\n", []string{notAnEnd("2023-02-29T12:00:00Z")}},
	{"end before the start", minimal + "start_from_timestamp: '2024-05-01T12:00:00Z'\nend_at_timestamp: '2024-05-01T13:59:59.999+02:00'\n", []string{
		"field `end_at_timestamp`: 2024-05-01T13:59:59.999+02:00 is before `start_from_timestamp` (2024-05-01T12:00:00Z): write a time after it",
	}},
	{"malformed start and an end", minimal + "start_from_timestamp: yesterday\nend_at_timestamp: '2024-05-01T13:00:00Z'\n", []string{notATime("yesterday")}},
	{"start and end now", minimal + "start_from_oldest: false\nend_at_timestamp: now\n", []string{
		"field `end_at_timestamp`: `start_from_oldest: false` says to start now, and so there is nothing to read up to `now`: write a time to come, or leave start_from_oldest at `true`",
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
	{"id without secret for DynamoDB", "streams: [ foo ]\ndynamodb: { table: leases, credentials: { id: x } }\n", []string{
		"field `dynamodb.credentials.secret`: `dynamodb.credentials.id` is set without its secret: write both or neither",
	}},
	{"external id without role for DynamoDB", "streams: [ foo ]\ndynamodb: { table: leases, credentials: { role_external_id: x } }\n", []string{
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

// The mistakes of a configuration that names no stream or no table.
const (
	noStream = "field `streams`: no stream is named: write a stream's name or ARN, such as `foo`"
	noTable  = "field `dynamodb.table`: no table is named: write the name of a DynamoDB table, such as `kinesis-checkpoints`"
)

// entries is a configuration with the entries in one element of streams.
func entries(list string) string { return "streams: [ '" + list + "' ]\n" + leasesTable }

// A consumer of the stream foo.
const (
	consumerARN   = "arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1714564800"
	consumerOfFoo = "enhanced_fan_out: { enabled: true, consumer_arn: '" + consumerARN + "' }\n"
)

// fanOut is a configuration with fields of enhanced_fan_out.
func fanOut(fields string) string { return minimal + "enhanced_fan_out: { " + fields + " }\n" }

func notAnAge(age string) string {
	return "field `max_record_age`: `" + age + "` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `10m`, or `0s` to skip nothing"
}

func notAnEnd(at string) string {
	return "field `end_at_timestamp`: `" + at + "` is neither a time in RFC 3339 nor `now`: write one such as `2024-05-01T13:00:00Z`"
}

func malformedGroup(name string) string {
	return "field `group`: `" + name + "` is not a group's name, which has 1 to 128 letters, digits, dots, dashes and underscores: write one such as `replay-2024-05-01`"
}

func malformedConsumer(name string) string {
	return "field `enhanced_fan_out.consumer_name`: `" + name + "` is not a consumer's name, which has 1 to 128 letters, digits, dots, dashes and underscores: write one such as `orders-archive`"
}

func malformedConsumerARN(arn string) string {
	return "field `enhanced_fan_out.consumer_arn`: `" + arn + "` is not the ARN of a consumer of a Kinesis data stream: write one such as `arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/orders-archive:1714564800`"
}

func severalStreams(one, other string) string {
	return "field `enhanced_fan_out.consumer_arn`: a consumer belongs to one stream, and `streams` names `" + one + "` and `" + other + "`: write a name for the consumers of all streams in `enhanced_fan_out.consumer_name` instead, or use an input for each stream"
}

// otherStream is about consumerARN beside another stream than its own.
func otherStream(stream string) string {
	return "field `enhanced_fan_out.consumer_arn`: `" + consumerARN + "` is a consumer of `arn:aws:kinesis:us-east-1:111122223333:stream/foo`, and `streams` names `" + stream + "`: write the ARN of a consumer of that stream, or a name in `enhanced_fan_out.consumer_name` instead"
}

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

func malformedTable(name string) string {
	return "field `dynamodb.table`: `" + name + "` is not a table's name, which has 3 to 255 letters, digits, dots, dashes and underscores: write a name or ARN, such as `kinesis-checkpoints`"
}

func malformedTableARN(arn string) string {
	return "field `dynamodb.table`: `" + arn + "` is not the ARN of a DynamoDB table: write one such as `arn:aws:dynamodb:us-east-1:111122223333:table/kinesis-checkpoints`"
}

func malformedURL(field, url string) string {
	return "field `" + field + "`: `" + url + "` is not a URL with a scheme and a host: write one such as `http://localhost:4566`"
}

func malformedRegion(field, region string) string {
	return "field `" + field + "`: `" + region + "` is not a region of AWS: write one such as `us-east-1`"
}

func tooLong(field, value, example string) string {
	return "field `" + field + "`: " + value + " is longer than a day: write `24h` or less, such as `" + example + "`"
}

func notASize(size string) string {
	return "field `max_buffered_bytes`: `" + size + "` is not a size: write a number of bytes, or one with kB, MB, GB, KiB, MiB or GiB, such as `256MiB`"
}

func notATime(at string) string {
	return "field `start_from_timestamp`: `" + at + "` is not a time in RFC 3339: write one such as `2024-05-01T12:00:00Z`"
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

// TestUnsetVariableIsNoMistakeOfTheFileButOneAtTheStart has what variables of the
// environment leave where they are not set: empty texts, and empty parts of texts.
func TestUnsetVariableIsNoMistakeOfTheFileButOneAtTheStart(t *testing.T) {
	for _, c := range []struct{ yaml, start string }{
		{entries(":0"), malformedName(":0")},
		{entries("foo:"), malformedShard("foo:")},
		{entries(":0,:0"), malformedName(":0") + "\n" + malformedName(":0")},
		{entries("arn:aws:kinesis:us-east-1:111122223333:stream/"), malformedARN("arn:aws:kinesis:us-east-1:111122223333:stream/")},
		{entries("arn:aws:kinesis:::stream/foo"), malformedARN("arn:aws:kinesis:::stream/foo")},
		{"streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:us-east-1::table/leases' }\n", malformedTableARN("arn:aws:dynamodb:us-east-1::table/leases")},
		{"streams: [ foo ]\ndynamodb: { table: leases, billing_mode: '' }\n", "field `dynamodb.billing_mode`: `` is no billing mode: write `PAY_PER_REQUEST` or `PROVISIONED`"},
		{minimal + "endpoint: http://:4566\n", malformedURL("endpoint", "http://:4566")},
		{minimal + "endpoint: ://localhost\n", malformedURL("endpoint", "://localhost")},
		{"streams: [ foo ]\ndynamodb: { table: leases, endpoint: 'https://' }\n", malformedURL("dynamodb.endpoint", "https://")},
		{minimal + "commit_period: ''\n", notADuration("commit_period", "", "5s")},
		{minimal + "rebalance_period:\n", notADuration("rebalance_period", "", "30s")},
		{minimal + "lease_period: ''\n", notADuration("lease_period", "", "30s")},
		{minimal + "steal_grace_period: ''\n", notADuration("steal_grace_period", "", "2s")},
		{minimal + "poll_period: ''\n", "field `poll_period`: `` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `1s`, or `0s`"},
		{minimal + "max_record_age: ''\n", notAnAge("")},
		{minimal + "max_buffered_bytes: ''\n", notASize("")},
		{minimal + "ordering: ''\n", "field `ordering`: `` is nothing that messages are kept in order by: write `shard` or `partition_key`"},
		{minimal + "wire_format: ''\n", "field `wire_format`: `` is no format of Kinesis: write `json` or `cbor`"},
		{minimal + "deaggregate_foreign: ''\n", "field `deaggregate_foreign`: `` says nothing of user records in the wrong shard: write `keep` or `drop`"},
		{fanOut("mode: ''"), "field `enhanced_fan_out.mode`: `` is no mode of enhanced fan-out: write `always` or `auto`"},
		{fanOut("consumer_arn: 'arn:aws:kinesis:us-east-1::stream/foo/consumer/c:1'"), malformedConsumerARN("arn:aws:kinesis:us-east-1::stream/foo/consumer/c:1")},
		{fanOut("consumer_arn: 'arn:aws:kinesis:us-east-1:111122223333:stream//consumer/c:1'"), malformedConsumerARN("arn:aws:kinesis:us-east-1:111122223333:stream//consumer/c:1")},
		{fanOut("consumer_arn: 'arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:'"), malformedConsumerARN("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:")},
		{fanOut("consumer_activation_timeout: ''"), notADuration("enhanced_fan_out.consumer_activation_timeout", "", "1m")},
		{fanOut("max_resubscribe_interval: "), notADuration("enhanced_fan_out.max_resubscribe_interval", "", "30s")},
		{entries(":0") + consumerOfFoo, malformedName(":0")},
	} {
		require.Empty(t, lint(t, c.yaml), c.yaml)
		_, err := parseConfig(parsed(t, c.yaml))
		require.EqualError(t, err, c.start, c.yaml)
	}
	for _, yaml := range []string{
		minimal + "region: ''\nendpoint: ''\ncredentials: { id: '', secret: '', role: '' }\nstart_from_timestamp: ''\nbatching: { period: '', check: '' }\n",
		minimal + "credentials: { from_ec2_role: }\n",
		fanOut("enabled: , consumer_name: '', consumer_arn: '', deregister_on_close: "),
		fanOut("enabled: true, consumer_name: '', consumer_arn: '" + consumerARN + "'"),
		"streams: [ '' ]\n" + leasesTable + consumerOfFoo, // does not connect
	} {
		require.Empty(t, lint(t, yaml), yaml)
		_, err := parseConfig(parsed(t, yaml))
		require.NoError(t, err, yaml)
	}
}

// TestInputThatNamesNoStreamOrTableIsBuiltAndDoesNotConnect holds for what is absent,
// which lint finds, as for what a variable left empty, which it does not.
func TestInputThatNamesNoStreamOrTableIsBuiltAndDoesNotConnect(t *testing.T) {
	for _, c := range []struct {
		yaml          string
		lint, connect []string
	}{
		{"{}", []string{noStream, noTable}, []string{noStream, noTable}},
		{leasesTable, []string{noStream}, []string{noStream}},
		{"streams: []\n" + leasesTable, nil, []string{noStream}}, // [ ${STREAM} ]
		{"streams: [ '', ' , ,' ]\n" + leasesTable, nil, []string{noStream}},
		{"streams:\n  -\n" + leasesTable, nil, []string{noStream}},
		{"streams: [ foo ]\n", []string{noTable}, []string{noTable}},
		{"streams: [ foo ]\ndynamodb: { create: true }\n", []string{noTable}, []string{noTable}},
		{"streams: [ foo ]\ndynamodb: { table: }\n", nil, []string{noTable}},
		{"streams: [ foo ]\ndynamodb: { table: '' }\n", nil, []string{noTable}},
		{"streams: [ foo ]\ndynamodb: { table: ' ' }\n", nil, []string{noTable}},
		{"streams: [ '' ]\ndynamodb: { table: '' }\n", nil, []string{noStream, noTable}},
	} {
		require.ElementsMatch(t, c.lint, lint(t, c.yaml), c.yaml)
		in, err := newInput(parsed(t, c.yaml), service.MockResources())
		require.NoError(t, err, c.yaml)
		require.EqualError(t, in.Connect(t.Context()), strings.Join(c.connect, "\n"), c.yaml)
		require.NoError(t, in.Close(t.Context()))
	}
}

func TestWhatIsNoListGetsOneMessage(t *testing.T) {
	require.Equal(t, []string{"expected array value"}, lint(t, "streams: s1\n"+leasesTable))
	require.Equal(t, []string{"expected array value"}, lint(t, "streams:\n"+leasesTable))
	require.Equal(t, []string{"expected array value"}, lint(t, "streams: s1\n"+leasesTable+consumerOfFoo))
	require.Equal(t, []string{"expected object value, got !!bool"}, lint(t, minimal+"enhanced_fan_out: true\n"))
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
		entries("arn:aws:kinesis:*:111122223333:stream/my-stream"), // for an emulator
		entries("arn:aws:kinesis:*:111122223333:stream/my-stream") + "region: us-east-1\n",
		entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo") + "region: us-east-1\n",
		entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo") + "region: local-1\nendpoint: http://localhost:4566\n",
		"streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:us-east-1:111122223333:table/leases' }\nregion: us-east-1\n",
		"streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:eu-west-1:111122223333:table/leases', region: eu-west-1 }\nregion: us-east-1\n",
		"streams: [ foo ]\ndynamodb: { table: 'arn:aws:dynamodb:ddblocal:000000000000:table/leases', endpoint: 'http://localhost:8000' }\nregion: us-east-1\n",
		"streams: [ foo ]\ndynamodb: { table: a.B_c-1 }\n",
		"streams: [ foo ]\ndynamodb: { table: ' " + strings.Repeat("x", 255) + " ' }\n",
		minimal + "region: us-gov-west-1\n",
		minimal + "region: us-isob-east-1\n",
		minimal + "region: ap-southeast-7\n",
		minimal + "region: local\n",
		minimal + "endpoint: HTTPS://kinesis.example.com/path?query\n",
		minimal + "endpoint: http://127.0.0.1:4566\n",
		minimal + "endpoint: 'http://[::1]:4566/'\n",
		entries("arn:aws-cn:kinesis:cn-north-1:111122223333:stream/foo:3"),
		entries("arn:aws-us-gov:kinesis:us-gov-west-1:111122223333:stream/foo"),
		"streams: [ foo ]\ndynamodb: { table: leases, create: true, billing_mode: PROVISIONED, read_capacity_units: 1, write_capacity_units: 1 }\n",
		"streams: [ foo ]\ndynamodb: { table: leases, billing_mode: PROVISIONED }\n", // creates no table
		minimal + "checkpoint_limit: 1\n",
		minimal + "commit_period: 29.999s\nrebalance_period: 1h2m3.5s4ms\nlease_period: 30s\n",
		minimal + "commit_period: 100ms\nrebalance_period: 1s\nlease_period: 1s\nsteal_grace_period: 1ns\npoll_period: 1ns\n",
		minimal + "commit_period: 23h\nrebalance_period: 24h\nlease_period: 24h\nsteal_grace_period: 24h\npoll_period: 24h\n",
		minimal + "max_record_age: 0\n", minimal + "max_record_age: 8760h\n", minimal + "poll_period: 10s\nmax_record_age: 10001ms\n",
		fanOut("enabled: true"), fanOut("enabled: true, mode: auto"), fanOut("mode: ALWAYS"),
		fanOut("enabled: true, consumer_name: a.B_c-1, deregister_on_close: true"),
		fanOut("consumer_name: " + strings.Repeat("x", 128)),
		fanOut("consumer_activation_timeout: 1s, max_resubscribe_interval: 1s"),
		fanOut("consumer_activation_timeout: 1h, max_resubscribe_interval: 5m"),
		entries("foo, bar") + "enhanced_fan_out: { enabled: true, consumer_name: c }\n",
		entries("foo") + consumerOfFoo, entries("foo, foo") + consumerOfFoo, entries("foo:0, foo:shardId-000000000001") + consumerOfFoo,
		entries("foo") + "region: us-east-1\n" + consumerOfFoo,
		entries("foo") + "region: local\nendpoint: http://localhost:4566\n" + consumerOfFoo,
		entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo") + consumerOfFoo,
		entries("arn:aws:kinesis:us-east-1:111122223333:stream/foo:0, arn:aws:kinesis:us-east-1:111122223333:stream/foo:1") + consumerOfFoo,
		"streams: [ 'foo:0', 'foo:1' ]\n" + leasesTable + consumerOfFoo,
		"streams: [ consumer ]\n" + leasesTable + "enhanced_fan_out: { consumer_arn: 'arn:aws-cn:kinesis:cn-north-1:111122223333:stream/consumer/consumer/consumer:1' }\n",
		strings.Replace(entries("foo")+consumerOfFoo, "enabled: true", "enabled: false", 1),
		minimal + "start_from_timestamp: '2024-02-29T23:59:59.123456789+14:00'\n",
		minimal + "start_from_timestamp: '2024-05-01T12:00:00Z'\nend_at_timestamp: '2024-05-01T12:00:00Z'\n",
		minimal + "start_from_timestamp: '2024-05-01T12:00:00Z'\nend_at_timestamp: now\n",
		minimal + "start_from_oldest: false\nend_at_timestamp: '2024-05-01T12:00:00Z'\n",
		minimal + "end_at_timestamp: ''\n",
		minimal + "credentials: { id: x, secret: y }\n",
		minimal + "credentials: { role: x, role_external_id: y }\n",
		minimal + "batching: { count: 1, byte_size: 0, period: 1us }\n",
	} {
		require.Empty(t, lint(t, yaml), yaml)
		_, err := parseConfig(parsed(t, yaml))
		require.NoError(t, err, yaml)
	}
}

func TestSizesAreReadInTheirUnits(t *testing.T) {
	for written, want := range map[string]int64{
		"1": 1, "268435456": 256 << 20, "'268435456'": 256 << 20, "100B": 100, "1.5kB": 1500, "1K": 1000, "1KB": 1000, "2KiB": 2048,
		"256MB": 256e6, "256 MB": 256e6, "256M": 256e6, "256MiB": 256 << 20, "256Mi": 256 << 20, "1GB": 1e9, "0.5GiB": 512 << 20, "1048576GiB": 1 << 50,
	} {
		yaml := minimal + "max_buffered_bytes: " + written + "\n"
		require.Empty(t, lint(t, yaml), yaml)
		c, err := parseConfig(parsed(t, yaml))
		require.NoError(t, err, yaml)
		require.Equal(t, want, c.maxBufferedBytes, yaml)
	}
}

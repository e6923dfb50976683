package awskinesis

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/configlint"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// closeTimeout bounds the closing of the processors that parseConfig makes to
// see whether they can be made.
const closeTimeout = 5 * time.Second

// What becomes of user records of an aggregate that belong to another shard.
const (
	foreignKeep = "keep"
	foreignDrop = "drop"
)

// How Kinesis is asked for records.
const (
	wireJSON = "json"
	wireCBOR = "cbor"
)

// What messages of a shard are kept in order by.
const (
	orderShard = "shard"
	orderKey   = "partition_key"
)

//go:embed config_spec.md
var description string

func configSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("3.36.0").
		Categories("Services", "AWS").
		Summary("Reads records from one or more Kinesis data streams, and shares their shards with other instances of this input.").
		Description(strings.Replace(description, "{{metrics}}", metricsReference(), 1)).
		LintRule(configlint.Rule("")).
		Fields(
			service.NewStringListField("streams").
				Description("The streams to read: each a name or a full ARN in the `region` of this input, and optionally a shard after a colon, as a number or in full (`foo:0`, `foo:shardId-000000000000`). An element may hold several, separated by commas. Without shards, the shards of each stream are balanced over all instances of the group; with shards, exactly those are read. An input has either kind of entries, not both.").
				Examples([]any{"foo", "arn:aws:kinesis:us-east-1:111122223333:stream/my-stream"}).
				LintRule(configlint.Rule("streams")),
			service.NewObjectField("dynamodb",
				service.NewStringField("table").
					Description("The table: its name or its full ARN.").
					Default(configlint.Unwritten("")).
					LintRule(configlint.Rule("dynamodb.table")),
				service.NewBoolField("create").
					Description("Whether to create the table when it does not exist. Otherwise a missing table is an error.").
					Default(false),
				service.NewStringEnumField("billing_mode", "PROVISIONED", "PAY_PER_REQUEST").
					Description("How a table that this input creates is billed.").
					Default("PAY_PER_REQUEST").
					LintRule(""). // the rule of dynamodb says what to write instead
					Advanced(),
				service.NewIntField("read_capacity_units").
					Description("The read capacity of a table that this input creates, 1 or more. Required by a `billing_mode` of `PROVISIONED`, and unused by the other.").
					Default(0).
					Advanced(),
				service.NewIntField("write_capacity_units").
					Description("The write capacity of a table that this input creates, 1 or more. Required by a `billing_mode` of `PROVISIONED`, and unused by the other. An item is written at most once each `commit_period` for each shard in use, and each instance writes an item of its own five or six times a minute, and up to five times a second for some seconds when it joins, waits for shards, or gains or loses some.").
					Default(0).
					Advanced(),
				service.NewStringField("region").
					Description("The region of the table, where it differs from that of the streams. Empty: the `region` of this input.").
					Default("").
					Advanced(),
				service.NewStringField("endpoint").
					Description("The URL at which to reach DynamoDB, where it differs from that of Kinesis. Empty: see [Where calls go](#where-calls-go).").
					Default("").
					LintRule(configlint.Rule("dynamodb.endpoint")).
					Advanced(),
				credentialsField("Credentials for the table, where they differ from those for the streams. When none of these fields is set, the `credentials` of this input are used.").
					LintRule(configlint.Rule("dynamodb.credentials")),
			).
				Description("The table that stores how far each shard has been read, and through which instances agree on who reads which shard.").
				LintRule(configlint.Rule("dynamodb")),
			service.NewStringField("group").
				Description("The name of the consumer group in the table, 1 to 128 letters, digits, dots, dashes and underscores. Instances with the same table and the same group divide the shards among themselves; groups of different names know nothing of each other, and each sees all records. Empty: the table is the group, which is the one that Benthos' own input is in. See [Consumer groups](#consumer-groups).").
				Example("replay-2024-05-01").
				Default("").
				LintRule(configlint.Rule("group")).
				Advanced(),
			service.NewIntField("checkpoint_limit").
				Description("The number of messages of one shard that may be under way at once, read but not yet acknowledged; a whole number, 1 or more (of 1.5 Benthos takes the 1). A higher limit allows more parallel processing and batching at the output. 1 keeps strict order, see [Ordering](#ordering). A batch larger than the limit goes alone. Whatever the limit, a sequence number is stored only when all before it are acknowledged.").
				Default(1024).
				LintRule(configlint.Rule("checkpoint_limit")),
			service.NewStringEnumField("ordering", orderShard, orderKey).
				Description("What keeps its order: `shard` hands on the records of a shard in order, and up to `checkpoint_limit` of them are under way at once, which may overtake one another. With `partition_key` a message is handed on when those before it of its partition key are acknowledged, and different keys go beside one another, as many as `checkpoint_limit` allows. See [Ordering](#ordering).").
				Default(orderShard).
				LintRule(configlint.Rule("ordering")),
			service.NewDurationField("commit_period").
				Description("How often the progress of a shard is stored in the table. Records acknowledged since then come again after a crash. It must be shorter than `lease_period`, and 100 ms or longer.").
				Default("5s").
				LintRule(configlint.Rule("commit_period")),
			service.NewDurationField("rebalance_period").
				Description("How often, at least, an instance reads the leases of all shards: a second to a day. What another instance changes it learns of within seconds all the same. In a group so large that this would cost the table much, it reads them more rarely, every four lease periods at least.").
				Default("30s").
				LintRule(configlint.Rule("rebalance_period")).
				Advanced(),
			service.NewDurationField("lease_period").
				Description("How long an instance may go without a sign of life before others count it as gone and take its shards over: a second to a day. It should be the same in all instances.").
				Default("30s").
				LintRule(configlint.Rule("lease_period")).
				Advanced(),
			service.NewDurationField("steal_grace_period").
				Description("How long past its next commit another instance is waited for whose shard is stolen because it cannot be asked for it, as with Benthos' built-in input. What that instance has read and not stored by then comes again.").
				Default("2s").
				LintRule(configlint.Rule("steal_grace_period")).
				Advanced(),
			service.NewDurationField("poll_period").
				Description("The least time between two reads of a shard, at most `lease_period`. With `0s` a shard is read five times a second while it has a backlog, four times a second while it has records now and then, and less and less when it has none, down to once in two seconds. A longer period costs fewer calls, and leaves more of them to other readers of the stream.").
				Default("0s").
				Advanced(),
			fanOutField(),
			service.NewStringField("max_buffered_bytes").
				Description("The most of the heap that this input takes at once, over all shards, for records that are being read, wait for a batch to fill up, or are not acknowledged yet. Each byte of a record counts twice, for the heap gathers as much garbage as it holds before it is collected (`GOGC=100`), and each record has an allowance of 1 KiB. When it is used up, shards are read on as acknowledgements come, in turn. A page of records that is larger goes alone. A number of bytes, or one with `kB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`.").
				Default("256MiB").
				LintRule(configlint.Rule("max_buffered_bytes")).
				Advanced(),
			service.NewBoolField("start_from_oldest").
				Description("Where to start when the table knows nothing of a stream: at its oldest record, or (`false`) with records that arrive from now on. Once started, every record is read, those of shards that appear later too.").
				Default(true),
			service.NewStringField("start_from_timestamp").
				Description("Where to start when the table knows nothing of a stream: with the records that arrived at this time or later, in RFC 3339. Empty: `start_from_oldest` says where. It excludes `start_from_oldest: false`. Once started, every record is read.").
				Example("2024-05-01T12:00:00Z").
				Default("").
				Advanced(),
			service.NewStringField("end_at_timestamp").
				Description("Where to end: a time in RFC 3339, or `now`, the moment at which the group was first started. Each shard is read up to its first record that arrived after that time, and the pipeline ends when all have been, and all is acknowledged. Empty: it does not end. Write a `group` of its own beside it, see [Replays](#replays).").
				Examples("2024-05-01T13:00:00Z", "now").
				Default("").
				Advanced(),
		).
		Fields(maxRecordAgeField()).
		Fields(deaggregationFields()...).
		Fields(sessionFields()...).
		Fields(wireFormatField()).
		Fields(
			service.NewBatchPolicyField("batching").
				Description("A [batching policy](/docs/configuration/batching), applied to each shard on its own. Unset, each record is a batch of one.").
				LintRule(configlint.Rule("batching")),
			service.NewAutoRetryNacksToggleField().
				Description("Whether batches that the output rejects are delivered again until they are accepted, which holds the shard back while they are not. With `false` they count as handled: logged, counted and not read again.").
				Advanced(),
			service.NewBoolField("shard_metrics").
				Description("Whether metrics are written for each shard, some twenty series a shard, see [Metrics](#metrics). With `false` those of streams and of the input remain, of which `kinesis_ready`, `kinesis_max_lag_milliseconds` and `kinesis_unread_shards` are enough to page somebody.").
				Default(true).
				Advanced(),
		)
}

func wireFormatField() *service.ConfigField {
	return service.NewStringEnumField("wire_format", wireJSON, wireCBOR).
		Description("How shards that are polled are asked for and answered: `json`, or `cbor`, in which records are not encoded in base64. At records of 1 KB an answer in `cbor` has a quarter fewer bytes, and takes a quarter less of the processor to decode. Amazon's client for Java speaks it by default, but AWS does not document it, and here it was tried with emulators alone: see in a test that your endpoint, and proxies before it, let it pass. Enhanced fan-out and the table are in JSON in any case.").
		Default(wireJSON).
		LintRule(configlint.Rule("wire_format")).
		Advanced()
}

func maxRecordAgeField() *service.ConfigField {
	return service.NewDurationField("max_record_age").
		Description("How old a record may be, since it arrived in the stream, when its turn comes to enter the pipeline: longer than `poll_period`, and at most `8760h`, for which Kinesis keeps one at the longest. One that is older is skipped, counted and lost to this pipeline: its position is stored as that of an acknowledged one, and it is not read again. With `0s` nothing is skipped. See [Old records](#old-records).").
		Default("0s").
		Advanced()
}

func deaggregationFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewBoolField("deaggregate").
			Description("Whether records that the Kinesis Producer Library has aggregated come out as the user records that were put into them, see [Aggregated records](#aggregated-records). With `false` they come as they are, as with Benthos' built-in input.").
			Default(false),
		service.NewStringEnumField("deaggregate_foreign", foreignKeep, foreignDrop).
			Description("What becomes of user records that are in the wrong shard, which happens around splits and merges: `keep` delivers them with the others; `drop` drops every aggregate that has one, with all its user records, as Amazon's own client does. Both count them. Without `deaggregate` it has no effect.").
			Default(foreignKeep).
			LintRule(configlint.Rule("deaggregate_foreign")).
			Advanced(),
	}
}

func fanOutField() *service.ConfigField {
	return service.NewObjectField("enhanced_fan_out",
		service.NewBoolField("enabled").
			Description("Whether shards are read by enhanced fan-out, for which AWS charges extra. With `false` all shards are polled, and the other fields of `enhanced_fan_out` are checked and have no effect.").
			Default(false),
		service.NewStringEnumField("mode", "always", "auto").
			Description("Which shards are read by enhanced fan-out: `always` all of them. `auto` polls, subscribes to a shard that has been far behind or throttled for a while, and goes back to polling it when it has been caught up for long.").
			Default("always").
			LintRule(configlint.Rule("enhanced_fan_out.mode")),
		service.NewStringField("consumer_name").
			Description("The name of the consumer, 1 to 128 letters, digits, dots, dashes and underscores. It is registered with each stream where it is missing, and all instances of a group share it. Empty, with an empty `consumer_arn`: `benthos-` and the name of the table, with a `group` its name too. One that is long, or has a group, ends in a hash.").
			Example("orders-archive").
			Default("").
			LintRule(configlint.Rule("enhanced_fan_out.consumer_name")),
		service.NewStringField("consumer_arn").
			Description("The ARN of a consumer that exists already, instead of a name. It is never registered or deregistered here. A consumer belongs to one stream, so that `streams` may name that one alone, or shards of it.").
			Example("arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/orders-archive:1714564800").
			Default("").
			LintRule(configlint.Rule("enhanced_fan_out.consumer_arn")),
		service.NewDurationField("consumer_activation_timeout").
			Description("How long a consumer that is being registered is waited for until it can be used: a second to an hour.").
			Default("1m").
			LintRule(configlint.Rule("enhanced_fan_out.consumer_activation_timeout")),
		service.NewDurationField("max_resubscribe_interval").
			Description("The longest pause between two attempts to subscribe to a shard after failures: a second to five minutes. The pauses grow up to it.").
			Default("30s").
			LintRule(configlint.Rule("enhanced_fan_out.max_resubscribe_interval")),
		service.NewBoolField("deregister_on_close").
			Description("Whether an instance that stops, and finds no other in its group, deregisters the consumer. The next start registers it again, which takes some seconds. It excludes `consumer_arn`.").
			Default(false),
	).
		Description("Reads shards by enhanced fan-out instead of polling: Kinesis pushes the records over HTTP/2, with 2 MB a second of each shard for this group alone. See [Enhanced fan-out](#enhanced-fan-out).").
		LintRule(configlint.Rule("enhanced_fan_out")).
		Advanced()
}

// sessionFields are the fields that reach AWS, for Kinesis, and for DynamoDB
// unless its own say otherwise.
func sessionFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewStringField("region").
			Description("The AWS region of the streams and the table. Empty: the region of the environment (`AWS_REGION`) or of the profile.").
			Default("").
			Advanced(),
		service.NewStringField("endpoint").
			Description("The URL at which to reach Kinesis, such as that of a VPC endpoint, or of an emulator of AWS, which is asked for DynamoDB and STS as well. See [Where calls go](#where-calls-go).").
			Default("").
			LintRule(configlint.Rule("endpoint")).
			Advanced(),
		credentialsField("The credentials to use. When none of these fields is set, they are found in the usual places: environment, shared configuration, web identity, container and instance.").
			LintRule(configlint.Rule("credentials")),
	}
}

func credentialsField(description string) *service.ConfigField {
	return service.NewObjectField("credentials",
		service.NewStringField("profile").
			Description("The profile of `~/.aws/config` and `~/.aws/credentials` to use, for its region and other settings too.").
			Default(""),
		service.NewStringField("id").
			Description("The access key id. It takes precedence over `from_ec2_role` and the credentials of `profile`.").
			Default(""),
		service.NewStringField("secret").
			Description("The secret access key, required with `id`.").
			Default("").
			Secret(),
		service.NewStringField("token").
			Description("The session token, required when `id` and `secret` are short-term credentials.").
			Default("").
			Secret(),
		service.NewBoolField("from_ec2_role").
			Description("Use the [role of the EC2 instance](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_switch-role-ec2.html) that this runs on. It takes precedence over the credentials of `profile`.").
			Default(false).
			Version("4.2.0"),
		service.NewStringField("role").
			Description("The ARN of a role to assume, with whichever credentials the other fields give.").
			Default(""),
		service.NewStringField("role_external_id").
			Description("The external id to send when assuming `role`, for a role of another account that demands one.").
			Default(""),
	).Description(description).Advanced()
}

// config is the input's configuration, checked by parseConfig.
type config struct {
	// unnamed is what Connect fails with where no stream or no table is named.
	unnamed error

	streams          []stream // in the order written, repeated entries folded
	table            tableConfig
	group            string // in the table; empty where the table is the group
	checkpointLimit  int    // messages of a shard; at least 1
	orderByKey       bool
	commitPeriod     time.Duration
	rebalancePeriod  time.Duration
	stealGracePeriod time.Duration
	maxBufferedBytes int64         // at least 1
	pollPeriod       time.Duration // 0 to leasePeriod; 0: adaptive
	fanOut           fanOutConfig
	leasePeriod      time.Duration // Invariant: 0 < commitPeriod < leasePeriod
	startFromOldest  bool
	startFrom        time.Time     // zero when there is none
	endAt            time.Time     // zero when there is none, or with endNow
	endNow           bool          // the end is the first start of the group
	maxRecordAge     time.Duration // 0: any age; Invariant: otherwise > pollPeriod

	// batching has the triggers alone; without any its Count is 1. The
	// processors stand apart because Benthos' batcher drops a batch on which
	// they fail, which must not happen to records that are not stored elsewhere.
	batching service.BatchPolicy
	// newProcessors makes the batch processors, nil when there are none. Each
	// call makes a set of its own, which the caller closes.
	newProcessors func() ([]*service.OwnedProcessor, error)

	autoReplayNacks bool
	shardMetrics    bool
	wireFormat      string // wireJSON or wireCBOR

	deaggregate bool
	dropForeign bool // of no effect without deaggregate

	// Equal when DynamoDB is reached through the session of Kinesis.
	kinesis, dynamodb session.Options
}

// stream is a stream to read.
type stream struct {
	id     string   // exactly as configured, name or ARN: the table's StreamID
	shards []string // explicit shards, exactly as written; empty: all shards, balanced
}

// checkARNs finds what is named by its ARN and cannot be where calls go, now that it is
// known where that is: the environment and the profile may say so too.
func (c *config) checkARNs(about map[string]session.About) error {
	var errs []error
	for _, s := range c.streams {
		errs = append(errs, about[serviceKinesis].CheckARN("streams", s.id))
	}
	if len(c.streams) == 1 && !strings.HasPrefix(c.streams[0].id, "arn:") { // else it is that of the stream
		errs = append(errs, about[serviceKinesis].CheckARN("enhanced_fan_out.consumer_arn", c.fanOut.arn))
	}
	return errors.Join(append(errs, about[serviceTable].CheckARN("dynamodb.table", c.table.name))...)
}

// reads says what the input reads.
func (c *config) reads() string {
	var all, some []string
	for _, s := range c.streams {
		if len(s.shards) == 0 {
			all = append(all, s.id)
		}
		for _, shard := range s.shards {
			some = append(some, s.id+":"+shard)
		}
	}
	if len(all) > 0 {
		return "its share of " + strings.Join(all, ", ")
	}
	return "the shards " + strings.Join(some, ", ")
}

// groupName says which group the input is in.
func (c *config) groupName() string {
	if c.group == "" {
		return "the group of table " + c.table.name
	}
	return "group " + c.group + " of table " + c.table.name
}

// shardID is the shard's id in Kinesis, shardId-000000000000 for a shard that is
// written as 0 or in full.
func (stream) shardID(written string) string { return lineage.ShardID(written) }

type tableConfig struct {
	name          string
	create        bool
	billingMode   types.BillingMode
	readCapacity  int64 // units; at least 1 to create a provisioned table
	writeCapacity int64
}

// fanOutConfig says whether shards are read by enhanced fan-out, and as which
// consumer. Where it is not enabled the other fields are as they are written.
type fanOutConfig struct {
	enabled     bool
	auto        bool          // only shards that need it
	name        string        // of the consumer; derived from table and group where none is written, empty with arn
	arn         string        // of a consumer of the only stream; empty with name
	activation  time.Duration // how long to wait for a consumer that is being registered; a second to an hour
	resubscribe time.Duration // the longest pause between attempts; a second to five minutes
	deregister  bool          // Invariant: false with arn
}

// parseConfig reads the configuration and finds every mistake that needs no call
// to AWS. Its error lists all mistakes, one a line, each with the field, what is
// wrong and what to write instead.
func parseConfig(conf *service.ParsedConfig) (config, error) {
	if err := configlint.Check(conf); err != nil {
		return config{}, err
	}

	r := &reader{conf: conf}
	c := config{
		unnamed: configlint.Unnamed(conf),
		streams: parseStreams(read(r, conf.FieldStringList, "streams")),
		table: tableConfig{
			name:          r.table(),
			create:        read(r, conf.FieldBool, "dynamodb", "create"),
			billingMode:   types.BillingMode(strings.ToUpper(read(r, conf.FieldString, "dynamodb", "billing_mode"))),
			readCapacity:  int64(read(r, conf.FieldInt, "dynamodb", "read_capacity_units")),
			writeCapacity: int64(read(r, conf.FieldInt, "dynamodb", "write_capacity_units")),
		},
		group:            read(r, conf.FieldString, "group"),
		checkpointLimit:  read(r, conf.FieldInt, "checkpoint_limit"),
		orderByKey:       strings.EqualFold(read(r, conf.FieldString, "ordering"), orderKey),
		commitPeriod:     read(r, conf.FieldDuration, "commit_period"),
		rebalancePeriod:  read(r, conf.FieldDuration, "rebalance_period"),
		leasePeriod:      read(r, conf.FieldDuration, "lease_period"),
		stealGracePeriod: read(r, conf.FieldDuration, "steal_grace_period"),
		pollPeriod:       read(r, conf.FieldDuration, "poll_period"),
		fanOut:           r.fanOut(),
		maxBufferedBytes: r.size("max_buffered_bytes"),
		startFromOldest:  read(r, conf.FieldBool, "start_from_oldest"),
		startFrom:        r.time("start_from_timestamp"),
		endAt:            r.time("end_at_timestamp"),
		endNow:           read(r, conf.FieldString, "end_at_timestamp") == endNow,
		maxRecordAge:     read(r, conf.FieldDuration, "max_record_age"),
		batching:         r.batching(),
		newProcessors:    r.processors(),
		autoReplayNacks:  read(r, conf.FieldBool, service.AutoRetryNacksToggleFieldName),
		shardMetrics:     read(r, conf.FieldBool, "shard_metrics"),
		wireFormat:       strings.ToLower(read(r, conf.FieldString, "wire_format")),
		deaggregate:      read(r, conf.FieldBool, "deaggregate"),
		dropForeign:      strings.EqualFold(read(r, conf.FieldString, "deaggregate_foreign"), foreignDrop),
		kinesis:          r.session(),
	}
	c.dynamodb = r.session("dynamodb")
	c.dynamodb.Endpoint, c.dynamodb.TableEndpoint = "", c.dynamodb.Endpoint
	c.dynamodb = c.dynamodb.Or(c.kinesis)
	if r.errs != nil {
		return config{}, errors.Join(r.errs...)
	}
	return c, nil
}

// reader reads fields, and keeps the errors for parseConfig to return.
type reader struct {
	conf *service.ParsedConfig
	errs []error
}

func (r *reader) fail(err error) {
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// read is the field at path by one of the methods of a *service.ParsedConfig.
func read[T any](r *reader, get func(...string) (T, error), path ...string) T {
	v, err := get(path...)
	r.fail(err)
	return v
}

// table is the name of the table, "" when there is none.
func (r *reader) table() string {
	switch written := read(r, r.conf.FieldAny, "dynamodb", "table").(type) {
	case string:
		return strings.TrimSpace(written)
	default: // configlint.Unwritten
		return ""
	}
}

func (r *reader) fanOut() fanOutConfig {
	const field = "enhanced_fan_out"
	f := fanOutConfig{
		enabled:     read(r, r.conf.FieldBool, field, "enabled"),
		auto:        strings.EqualFold(read(r, r.conf.FieldString, field, "mode"), "auto"),
		name:        read(r, r.conf.FieldString, field, "consumer_name"),
		arn:         read(r, r.conf.FieldString, field, "consumer_arn"),
		activation:  read(r, r.conf.FieldDuration, field, "consumer_activation_timeout"),
		resubscribe: read(r, r.conf.FieldDuration, field, "max_resubscribe_interval"),
		deregister:  read(r, r.conf.FieldBool, field, "deregister_on_close"),
	}
	if f.name == "" && f.arn == "" {
		f.name = consumerName(r.table(), read(r, r.conf.FieldString, "group"))
	}
	return f
}

// maxConsumerName is how many characters Kinesis takes.
const maxConsumerName = 128

// consumerName is the name of the consumer of a group in a table, a name or an ARN. All
// instances come to the same one, and those of two groups to different ones: with the
// same name, each would take the subscriptions of the other away. Names of tables may be
// longer than those of consumers: two that differ only in what is cut off differ in the
// hash. So do `a` with the group `b-c` and `a-b` with the group `c`.
func consumerName(of, group string) string {
	if _, name, ok := strings.Cut(of, ":table/"); ok {
		of = name
	}
	name, whole := "benthos-"+of, "benthos-"+of
	if group != "" {
		name, whole = name+"-"+group, whole+table.GroupPrefix+group
	} else if len(name) <= maxConsumerName {
		return name
	}
	sum := sha256.Sum256([]byte(whole))
	tail := "-" + hex.EncodeToString(sum[:4])
	return name[:min(len(name), maxConsumerName-len(tail))] + tail
}

// size is a field that has passed its rule, in bytes.
func (r *reader) size(field string) int64 {
	bytes, err := configlint.Bytes(read(r, r.conf.FieldString, field))
	if err != nil {
		r.fail(fmt.Errorf("reading field `%s`: %w", field, err))
	}
	return bytes
}

// endNow is an `end_at_timestamp` that is no time.
const endNow = "now"

// time is a field that has passed its rule; zero where it has no time.
func (r *reader) time(field string) time.Time {
	written := read(r, r.conf.FieldString, field)
	if written == "" || written == endNow {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, written)
	r.fail(err)
	return at
}

func (r *reader) batching() service.BatchPolicy {
	policy := service.BatchPolicy{
		Count:    read(r, r.conf.FieldInt, "batching", "count"),
		ByteSize: read(r, r.conf.FieldInt, "batching", "byte_size"),
		Period:   read(r, r.conf.FieldString, "batching", "period"),
		Check:    read(r, r.conf.FieldString, "batching", "check"),
	}
	if policy.Check != "" {
		if _, err := r.conf.FieldBloblang("batching", "check"); err != nil {
			r.fail(fmt.Errorf("field `batching.check`: %w", err))
		}
	}
	if policy.Count == 0 && policy.ByteSize == 0 && policy.Period == "" && policy.Check == "" {
		policy.Count = 1
	}
	return policy
}

// processors is config.newProcessors. It makes one set and closes it, to find
// now what would fail at the first shard.
func (r *reader) processors() func() ([]*service.OwnedProcessor, error) {
	conf := r.conf
	newProcessors := func() ([]*service.OwnedProcessor, error) {
		procs, err := conf.FieldProcessorList("batching", "processors")
		if err != nil {
			return nil, fmt.Errorf("field `batching.processors`: %w", err)
		}
		if len(procs) == 0 {
			return nil, nil
		}
		return procs, nil
	}

	procs, err := newProcessors()
	r.fail(err)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout) //nolint:forbidigo // Benthos gives constructors no context
	defer cancel()
	for _, proc := range procs {
		if err := proc.Close(ctx); err != nil {
			r.fail(fmt.Errorf("field `batching.processors`: closing a processor: %w", err))
		}
	}
	return newProcessors
}

// session reads the fields region, endpoint and credentials under path.
func (r *reader) session(path ...string) session.Options {
	at := func(name ...string) []string { return slices.Concat(path, name) }
	str := func(name ...string) string { return read(r, r.conf.FieldString, at(name...)...) }
	return session.Options{
		Region:   str("region"),
		Endpoint: str("endpoint"),
		Credentials: session.Credentials{
			Profile:        str("credentials", "profile"),
			ID:             str("credentials", "id"),
			Secret:         str("credentials", "secret"),
			Token:          str("credentials", "token"),
			FromEC2Role:    read(r, r.conf.FieldBool, at("credentials", "from_ec2_role")...),
			Role:           str("credentials", "role"),
			RoleExternalID: str("credentials", "role_external_id"),
		},
	}
}

// explicitShard is the end of an entry that names a shard.
var explicitShard = regexp.MustCompile(`:(shardId-\d{12}|\d{1,12})$`)

// parseStreams reads the elements of the field streams, which have passed its
// rule.
func parseStreams(elements []string) []stream {
	var streams []stream
	for _, element := range elements {
		for entry := range strings.SplitSeq(element, ",") {
			entry = strings.TrimSpace(entry)
			if entry == "" {
				continue
			}
			id, shard := entry, ""
			if at := explicitShard.FindStringIndex(entry); at != nil {
				id, shard = entry[:at[0]], entry[at[0]+1:]
			}
			i := slices.IndexFunc(streams, func(s stream) bool { return s.id == id })
			if i < 0 {
				i = len(streams)
				streams = append(streams, stream{id: id})
			}
			if shard != "" {
				streams[i].shards = append(streams[i].shards, shard)
			}
		}
	}
	return streams
}

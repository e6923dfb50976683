// Package contract states what the component takes for granted about Kinesis
// and DynamoDB, as tests against any server that speaks their protocols: the
// local AWS of this repository, so that it cannot drift from the services, and
// emulators that others wrote. The whole input runs against each of them too.
package contract

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// Region is where requests to a target are signed for.
const Region = "us-east-1"

// patience bounds each test of the contract; the slowest takes two seconds
// against the slowest emulator.
const patience = 60 * time.Second

// Target is a pair of servers and what is known to be wrong with them.
type Target struct {
	Kinesis    string // URL
	DynamoDB   string // URL, which may be the same
	Deviations Deviations
}

// Deviations are the points in which a target is known to differ from the
// services; none, the zero value, for a faithful one. A test that meets one
// requires the deviation instead, so that it is taken off this list when it is
// gone.
type Deviations struct {
	// A closed shard ends before the last record that was put into it.
	EarlyEndingSequence bool
	// A stream that is deleted and made anew within the same second gives the
	// same sequence numbers.
	SequencesBySecond bool
	// A sequence number that the stream never gave is not found, rather than
	// an invalid argument.
	ForeignSequenceNotFound bool
	// A broken iterator is an internal failure, rather than an invalid
	// argument.
	BrokenIteratorFails bool
	// Each shard of each stream gives the sequence numbers 1, 2 and so on, so that
	// none is foreign to a shard and those of a child do not follow its parents'.
	// The service's are unique within a shard and rise from parents to children; one
	// that "did not come from this stream" is an invalid argument
	// (API_GetShardIterator, "Data record" in the developer guide's key concepts).
	SequencesCountFromOne bool
	// The highest hash key of a shard is in no shard, and a record that is put there
	// an internal failure. EndingHashKey is the end of the range, itself included:
	// the ranges of a stream's shards have no gap (API_HashKeyRange, API_SplitShard).
	EndingHashKeyNowhere bool
	// An iterator may start at a timestamp that is yet to come. The service refuses it
	// as an invalid argument: "the timestampInMillis parameter cannot be greater than
	// the currentTimestampInMillis". That is not in the reference, and quoted by those
	// who met it (aws/aws-sdk-java issue 2588, harlow/kinesis-consumer issue 116).
	FutureTimestampTaken bool
	// ExclusiveStartShardId is not looked at (API_ListShards, API_DescribeStream).
	ExclusiveStartIgnored bool
	// A next token of ListShards goes with the stream's name, and is refused alone.
	// The service refuses the name beside it as an invalid argument: the token says
	// which stream it is of (API_ListShards, NextToken and StreamName).
	TokenNeedsName bool
	// Shards that were split or merged take records all the same, are polled on for
	// ever, and have no last page that names their children. The service routes
	// records to the children, and "if the shard has been closed, the shard iterator
	// can't return more data", and is null (API_GetRecords, NextShardIterator and
	// ChildShards; API_SplitShard).
	ReshardingClosesNothing bool
	// A request in CBOR is an internal failure.
	NoCBOR bool

	// The answer to SubscribeToShard begins with an event, rather than with the
	// initial response. The SDK's client cannot read that, so that the rest is
	// required of the target behind a proxy.
	NoInitialResponse bool
	// A subscription is refused by an exception in its stream, rather than by the
	// answer.
	RefusalsInStream bool
	// A subscription to a shard that there is not brings nothing for ever, rather
	// than being refused as not found.
	MissingShardSubscribed bool
	// A subscription starts after a sequence number that the shard never gave,
	// rather than being refused as an invalid argument.
	ForeignSequenceSubscribed bool
	// A subscription lasts until its client goes: another one of the same consumer
	// is refused also when the five seconds are over.
	NoTakeOver bool
	// A subscription to a closed shard goes on, and names no children, after the
	// last record.
	ClosedShardGoesOn bool
	// A page of consumers has no token for the next one where that is not full.
	ConsumersCutOff bool
	// The ARN of a consumer does not end with the time of its registration, so that
	// one that is registered again under its name has the ARN of the first
	// (API_Consumer, ConsumerARN).
	ConsumerARNByName bool
	// A consumer may be registered twice. "Each consumer must have a unique name" in
	// its stream; the second is refused with ResourceInUseException
	// (API_RegisterStreamConsumer, ConsumerName and errors).
	ConsumerRegisteredTwice bool
	// To register a consumer with a stream that there is not is an internal failure,
	// rather than not found (API_RegisterStreamConsumer, errors).
	MissingStreamFailsConsumer bool
	// There are consumers, and no SubscribeToShard.
	NoSubscriptions bool

	// A value that an expression uses and nobody defines is an internal failure,
	// rather than a ValidationException (API_UpdateItem; "Expression attribute
	// values" in the developer guide).
	UndefinedValueFails bool
	// The filter of a query may name key attributes, which is for its key condition
	// (API_Query, FilterExpression).
	KeysFiltered bool
}

// Config returns what a client of either service needs for a server at url.
func Config(url string) aws.Config {
	return aws.Config{
		Region:       Region,
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider("contract", "contract", ""),
	}
}

// Run holds target to the whole contract, and the input to what it promises when
// it meets the target.
func Run(t *testing.T, target Target) {
	t.Run("Kinesis", func(t *testing.T) {
		runKinesis(t, kinesis.NewFromConfig(Config(target.Kinesis)), target.Deviations)
	})
	t.Run("KinesisInCBOR", func(t *testing.T) {
		client := kinesis.NewFromConfig(Config(target.Kinesis), wire.InstallCBOR)
		if target.Deviations.NoCBOR {
			thereIsNoCBOR(t, client)
			return
		}
		runKinesis(t, client, target.Deviations)
	})
	t.Run("FanOut", func(t *testing.T) {
		runFanOut(t, target)
	})
	t.Run("DynamoDB", func(t *testing.T) {
		runDynamoDB(t, dynamodb.NewFromConfig(Config(target.DynamoDB)), target.Deviations)
	})
	t.Run("Input", func(t *testing.T) {
		runInput(t, target)
	})
}

func thereIsNoCBOR(t *testing.T, client *kinesis.Client) {
	_, err := client.ListShards(bounded(t), &kinesis.ListShardsInput{StreamName: aws.String(unique())}, once)
	refusedOtherwise[*types.ResourceNotFoundException](t, err)
}

var names atomic.Int64

// unique returns a name for a stream or a table that no other test has.
func unique() string { return "contract-" + strconv.FormatInt(names.Add(1), 10) }

// bounded returns the test's context with a time-out.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await asks every 20 ms whether what is true by now, until ctx ends.
func await(ctx context.Context, t *testing.T, what string, isTrue func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !isTrue() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "waiting until %s", what)
		}
	}
}

// refused requires that err is the service's E.
func refused[E error](t *testing.T, err error) {
	t.Helper()
	var e E
	require.ErrorAs(t, err, &e)
}

// refusedOtherwise requires that err is an error, and not the service's E.
func refusedOtherwise[E error](t *testing.T, err error) {
	t.Helper()
	var e E
	require.Error(t, err)
	require.NotErrorAs(t, err, &e)
}

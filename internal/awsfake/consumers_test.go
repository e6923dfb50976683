package awsfake

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

func register(t *testing.T, s *Server, c *kinesis.Client, name string) (*types.Consumer, error) {
	t.Helper()
	out, err := c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: aws.String(s.StreamARN("s")), ConsumerName: &name})
	if err != nil {
		return nil, err
	}
	return out.Consumer, nil
}

func TestStatesOfAConsumer(t *testing.T) {
	inBubble(t, Options{ConsumerDelay: 30 * time.Second}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.NoError(t, s.CreateStream("s", 1))
		made, err := register(t, s, c, "c")
		require.NoError(t, err)
		require.Equal(t, s.StreamARN("s")+"/consumer/c:"+strconv.FormatInt(time.Now().Unix(), 10), *made.ConsumerARN)
		require.Equal(t, types.ConsumerStatusCreating, made.ConsumerStatus)
		require.True(t, made.ConsumerCreationTimestamp.Equal(time.Now()))
		_, err = register(t, s, c, "c")
		requireCode(t, CodeResourceInUse, err)

		byARN := &kinesis.DescribeStreamConsumerInput{ConsumerARN: made.ConsumerARN}
		byName := &kinesis.DescribeStreamConsumerInput{StreamARN: aws.String(s.StreamARN("s")), ConsumerName: aws.String("c")}
		status := func(in *kinesis.DescribeStreamConsumerInput) types.ConsumerStatus {
			out, err := c.DescribeStreamConsumer(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, s.StreamARN("s"), *out.ConsumerDescription.StreamARN)
			require.Equal(t, *made.ConsumerARN, *out.ConsumerDescription.ConsumerARN)
			return out.ConsumerDescription.ConsumerStatus
		}
		require.Equal(t, types.ConsumerStatusCreating, status(byName))
		pass(t, 30*time.Second)
		require.Equal(t, types.ConsumerStatusActive, status(byARN))
		es := subscribe(t, c, *made.ConsumerARN, shard0, latest())

		_, err = c.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: made.ConsumerARN})
		require.NoError(t, err)
		require.Equal(t, types.ConsumerStatusDeleting, status(byARN))
		requireCode(t, CodeResourceNotFound, requireEnd(t, es))
		_, err = trySubscribe(t.Context(), c, *made.ConsumerARN, shard0, latest())
		requireCode(t, CodeResourceNotFound, err)
		_, err = c.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: made.ConsumerARN})
		require.NoError(t, err, "once more changes nothing")
		list, err := s.Consumers("s")
		require.NoError(t, err)
		require.Equal(t, []Consumer{{Name: "c", ARN: *made.ConsumerARN, Status: "DELETING", Created: list[0].Created}}, list)
		pass(t, 30*time.Second)
		_, err = c.DescribeStreamConsumer(t.Context(), byARN)
		requireCode(t, CodeResourceNotFound, err)

		again, err := s.RegisterConsumer("s", "c")
		require.NoError(t, err)
		require.NotEqual(t, *made.ConsumerARN, again)
		_, err = c.DescribeStreamConsumer(t.Context(), byARN)
		requireCode(t, CodeResourceNotFound, err)
	})
}

func TestConsumerOfANameIsNeverTheOneBefore(t *testing.T) {
	s := newServer(t, Options{Clock: NewManualClock(time.Unix(1_700_000_000, 0))})
	require.NoError(t, s.CreateStream("s", 1))
	first, err := s.RegisterConsumer("s", "c")
	require.NoError(t, err)
	require.NoError(t, s.DeregisterConsumer("s", "c"))
	second, err := s.RegisterConsumer("s", "c")
	require.NoError(t, err)
	require.NoError(t, s.DeleteStream("s"))
	require.NoError(t, s.CreateStream("s", 1))
	third, err := s.RegisterConsumer("s", "c")
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NotEqual(t, second, third)
}

func TestWaysToNameAConsumer(t *testing.T) {
	s := newServer(t, Options{})
	c := kinesis.NewFromConfig(once(s.AWSConfig()))
	arn := fanout(t, s)
	stream := s.StreamARN("s")
	for _, test := range []struct {
		in   kinesis.DescribeStreamConsumerInput
		code string // empty: found
	}{
		{kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn}, ""},
		{kinesis.DescribeStreamConsumerInput{StreamARN: &stream, ConsumerName: aws.String("c")}, ""},
		{kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn, StreamARN: &stream, ConsumerName: aws.String("c")}, ""},
		{kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn, ConsumerName: aws.String("d")}, CodeInvalidArgument},
		{kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn, StreamARN: aws.String(stream + "x")}, CodeInvalidArgument},
		{kinesis.DescribeStreamConsumerInput{StreamARN: &stream}, CodeInvalidArgument},
		{kinesis.DescribeStreamConsumerInput{}, CodeInvalidArgument},
		{kinesis.DescribeStreamConsumerInput{StreamARN: &stream, ConsumerName: aws.String("d")}, CodeResourceNotFound},
		{kinesis.DescribeStreamConsumerInput{StreamARN: aws.String(stream + "x"), ConsumerName: aws.String("c")}, CodeResourceNotFound},
		{kinesis.DescribeStreamConsumerInput{ConsumerARN: &stream}, CodeValidation},
	} {
		_, err := c.DescribeStreamConsumer(t.Context(), &test.in)
		if test.code == "" {
			require.NoError(t, err)
			continue
		}
		requireCode(t, test.code, err)
	}
}

func TestNumberOfConsumersIsLimited(t *testing.T) {
	inBubble(t, Options{ConsumerDelay: time.Minute}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.NoError(t, s.CreateStream("s", 1))
		for i := range 20 {
			if i > 0 && i%5 == 0 {
				_, err := register(t, s, c, "sixth")
				requireCode(t, CodeLimitExceeded, err)
				require.ErrorContains(t, err, "CREATING")
				pass(t, time.Minute)
			}
			_, err := register(t, s, c, fmt.Sprintf("c%02d", i))
			require.NoError(t, err)
		}
		pass(t, time.Minute)
		_, err := register(t, s, c, "one more")
		requireCode(t, CodeValidation, err)
		_, err = register(t, s, c, "more")
		requireCode(t, CodeLimitExceeded, err)

		sum, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("s")})
		require.NoError(t, err)
		require.EqualValues(t, 20, *sum.StreamDescriptionSummary.ConsumerCount)
	})
}

func TestListOfConsumersComesInPages(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.NoError(t, s.CreateStream("s", 1))
		arn := s.StreamARN("s")
		empty, err := c.ListStreamConsumers(t.Context(), &kinesis.ListStreamConsumersInput{StreamARN: &arn})
		require.NoError(t, err)
		require.Empty(t, empty.Consumers)
		for i := range 12 {
			_, err := s.RegisterConsumer("s", fmt.Sprintf("c%02d", i))
			require.NoError(t, err)
		}
		pages := kinesis.NewListStreamConsumersPaginator(c, &kinesis.ListStreamConsumersInput{StreamARN: &arn, MaxResults: aws.Int32(5)})
		var names []string
		var sizes []int
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			require.NoError(t, err)
			sizes = append(sizes, len(page.Consumers))
			for _, consumer := range page.Consumers {
				names = append(names, *consumer.ConsumerName)
				require.Equal(t, types.ConsumerStatusActive, consumer.ConsumerStatus)
			}
		}
		require.Equal(t, []int{5, 5, 2}, sizes)
		require.Len(t, names, 12)
		require.IsIncreasing(t, names)

		first, err := c.ListStreamConsumers(t.Context(), &kinesis.ListStreamConsumersInput{StreamARN: &arn, MaxResults: aws.Int32(5)})
		require.NoError(t, err)
		require.NoError(t, s.CreateStream("other", 1))
		_, err = c.ListStreamConsumers(t.Context(), &kinesis.ListStreamConsumersInput{StreamARN: aws.String(s.StreamARN("other")), NextToken: first.NextToken})
		requireCode(t, CodeInvalidArgument, err)
		pass(t, 301*time.Second)
		_, err = c.ListStreamConsumers(t.Context(), &kinesis.ListStreamConsumersInput{StreamARN: &arn, NextToken: first.NextToken})
		requireCode(t, "ExpiredNextTokenException", err)
	})
}

func TestQuotasOfConsumerOperations(t *testing.T) {
	inBubble(t, Options{EnforceLimits: true}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.NoError(t, s.CreateStream("s", 1))
		arn := aws.String(s.StreamARN("s"))
		name := func(i int) *string { return aws.String(fmt.Sprintf("c%02d", i)) }
		register := func(i int) error {
			_, err := c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: arn, ConsumerName: name(i)})
			return err
		}
		describe := func(int) error {
			_, err := c.DescribeStreamConsumer(t.Context(), &kinesis.DescribeStreamConsumerInput{StreamARN: arn, ConsumerName: name(0)})
			return err
		}
		list := func(int) error {
			_, err := c.ListStreamConsumers(t.Context(), &kinesis.ListStreamConsumersInput{StreamARN: arn})
			return err
		}
		deregister := func(i int) error {
			_, err := c.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{StreamARN: arn, ConsumerName: name(i)})
			return err
		}
		for _, quota := range []struct {
			call   func(int) error
			second int
		}{{register, 5}, {describe, 20}, {list, 5}, {deregister, 5}} {
			for i := range quota.second {
				require.NoError(t, quota.call(i))
			}
			requireCode(t, CodeLimitExceeded, quota.call(quota.second))
		}
		pass(t, time.Second)
		require.NoError(t, register(0))
	})
}

func TestStreamWithConsumersIsDeletedOnlyWithThem(t *testing.T) {
	s := newServer(t, Options{})
	c := kinesis.NewFromConfig(once(s.AWSConfig()))
	fanout(t, s)
	_, err := c.DeleteStream(t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String("s")})
	requireCode(t, CodeResourceInUse, err)
	_, err = c.DeleteStream(t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String("s"), EnforceConsumerDeletion: aws.Bool(true)})
	require.NoError(t, err)
	require.NoError(t, s.CreateStream("s", 1))
	list, err := s.Consumers("s")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestStreamThatIsCreatingTakesNoConsumers(t *testing.T) {
	inBubble(t, Options{StreamDelay: time.Minute}, func(t *testing.T, s *Server, c *kinesis.Client) {
		_, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String("s"), ShardCount: aws.Int32(1)})
		require.NoError(t, err)
		_, err = register(t, s, c, "c")
		requireCode(t, CodeResourceInUse, err)
		pass(t, time.Minute)
		_, err = register(t, s, c, "c")
		require.NoError(t, err)
	})
}

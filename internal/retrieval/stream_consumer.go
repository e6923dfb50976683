package retrieval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// This is how FanOut finds the consumer that is registered with the stream.

// Consumer returns the ARN of the consumer, when it is active.
func (f *FanOut) Consumer(ctx context.Context) (arn string, err error) {
	for {
		arn, found, err := f.consumerNow()
		if found == nil {
			return arn, err
		}
		select {
		case <-found:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// consumerNow returns what is known of the consumer or, while nothing is, has it looked for and
// returns what is closed when that has ended.
func (f *FanOut) consumerNow() (arn string, found <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.arn != "":
		return f.arn, nil, nil
	case f.searching != nil:
		return "", f.searching, nil
	case f.err != nil && time.Now().Before(f.retry):
		return "", nil, f.err
	case f.life.Err() != nil:
		return "", nil, f.life.Err()
	}
	done := make(chan struct{})
	f.searching = done
	f.searches.Go(func() {
		arn, err := f.search()
		if f.conf.OnSearch != nil {
			f.conf.OnSearch(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.arn, f.err, f.searching = arn, err, nil
		if err == nil {
			f.failures = 0
		} else {
			f.failures++
			f.retry = time.Now().Add(doubled(searchPause, f.failures, f.conf.Longest, rand.Float64())) //nolint:gosec // spreads load, guards nothing
		}
		close(done)
	})
	return "", done, nil
}

// searchPause is the first pause after a search that failed: longer than the time between
// two polls of an idle shard, so that each source hears of the failure.
const searchPause = 2 * idlePoll

// forget has the consumer looked for again, of which the service has said that it does
// not exist. Somebody may have deregistered it.
func (f *FanOut) forget(arn string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.arn == arn {
		f.arn = ""
	}
}

// search finds the consumer, registers it if need be, and waits until it is active.
func (f *FanOut) search() (arn string, err error) {
	ctx, cancel := context.WithTimeout(f.life, f.conf.Activation)
	defer cancel()
	var who *kinesis.DescribeStreamConsumerInput
	limits := 0 // refusals in a row for the number of consumers
	for n := 1; ; n++ {
		var state string
		if who == nil {
			who, err = f.identify(ctx)
		}
		if who != nil {
			arn, state, err = f.describe(ctx, who)
			if codeOf(err) == "ResourceNotFoundException" && f.conf.ARN == "" {
				state, err = f.register(ctx, *who.StreamARN, &limits)
			}
		}
		switch {
		case err != nil && !errors.Is(err, ErrThrottled) && ctx.Err() == nil:
			return "", err
		case err == nil && state == string(types.ConsumerStatusActive):
			return arn, nil
		}
		if waitUntil(ctx, time.Now().Add(doubled(time.Second/2, n, 5*time.Second, rand.Float64()))) != nil { //nolint:gosec // spreads load, guards nothing
			if f.life.Err() != nil {
				return "", f.life.Err()
			}
			if errors.Is(err, ErrThrottled) {
				err = errors.New(err.Error()) // or it would be told that reads are slow, where there are none
			}
			return "", fmt.Errorf("consumer %s of stream %s is not active after %s, which `enhanced_fan_out.consumer_activation_timeout` allows: %w",
				f.name(), f.conf.Stream, f.conf.Activation, cmp.Or(err, fmt.Errorf("it is %s", state)))
		}
	}
}

// name is what messages call the consumer.
func (f *FanOut) name() string {
	if f.conf.Name != "" {
		return f.conf.Name
	}
	_, name, _ := strings.Cut(f.conf.ARN, "/consumer/")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// identify returns how to ask for the consumer.
func (f *FanOut) identify(ctx context.Context) (*kinesis.DescribeStreamConsumerInput, error) {
	if f.conf.ARN != "" {
		return &kinesis.DescribeStreamConsumerInput{ConsumerARN: &f.conf.ARN}, nil
	}
	stream, err := f.streamARN(ctx)
	if err != nil {
		return nil, err
	}
	return &kinesis.DescribeStreamConsumerInput{StreamARN: &stream, ConsumerName: &f.conf.Name}, nil
}

func (f *FanOut) streamARN(ctx context.Context) (string, error) {
	if _, arn := StreamParameters(f.conf.Stream); arn != nil {
		return *arn, nil
	}
	out, err := f.api.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &f.conf.Stream})
	if err != nil {
		return "", fmt.Errorf("finding the ARN of stream %s, under which its consumers are registered: %w", f.conf.Stream, classify(err))
	}
	if out.StreamDescriptionSummary == nil || aws.ToString(out.StreamDescriptionSummary.StreamARN) == "" {
		return "", fmt.Errorf("finding the ARN of stream %s: the answer has none", f.conf.Stream)
	}
	return *out.StreamDescriptionSummary.StreamARN, nil
}

// describe returns the ARN of the consumer and its state. One that was given by its ARN is
// taken to be active where it may not be described.
func (f *FanOut) describe(ctx context.Context, who *kinesis.DescribeStreamConsumerInput) (arn, state string, err error) {
	out, err := f.api.DescribeStreamConsumer(ctx, who)
	switch {
	case err != nil && f.conf.ARN != "" && isDenied(err):
		return f.conf.ARN, string(types.ConsumerStatusActive), nil
	case err != nil && f.conf.ARN != "" && codeOf(err) == "ResourceNotFoundException":
		return "", "", fmt.Errorf("there is no consumer %s: write the ARN of one that there is in `enhanced_fan_out.consumer_arn`, or a `consumer_name`, under which one is registered", f.conf.ARN)
	case err != nil:
		return "", "", fmt.Errorf("looking for consumer %s of stream %s: %w", f.name(), f.conf.Stream, throttledOr(err))
	case out.ConsumerDescription == nil || aws.ToString(out.ConsumerDescription.ConsumerARN) == "":
		return "", "", fmt.Errorf("looking for consumer %s of stream %s: the answer describes nothing", f.name(), f.conf.Stream)
	}
	return *out.ConsumerDescription.ConsumerARN, string(out.ConsumerDescription.ConsumerStatus), nil
}

const (
	// consumersOfStream is how many consumers a stream may have, 50 of them in some modes;
	// see "RegisterStreamConsumer" in the Kinesis API reference.
	consumersOfStream = 20
	// limitsNeeded is how often a registration has to be refused, with so many there and
	// none of them on its way, before it is given up: the same error is for a rate of
	// five a second, and for five that are being registered.
	limitsNeeded = 3
)

// register registers the consumer, and returns its state. Where another process was
// first, that is as good.
func (f *FanOut) register(ctx context.Context, stream string, limits *int) (state string, err error) {
	out, err := f.api.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: &stream, ConsumerName: &f.conf.Name})
	if err == nil {
		if out.Consumer != nil {
			f.mu.Lock()
			f.made = aws.ToString(out.Consumer.ConsumerARN)
			f.mu.Unlock()
		}
		if f.conf.OnRegister != nil && out.Consumer != nil {
			f.conf.OnRegister(f.conf.Name, aws.ToString(out.Consumer.ConsumerARN))
		}
		return string(types.ConsumerStatusCreating), nil
	}
	if _, first := errors.AsType[*types.ResourceInUseException](err); first {
		return string(types.ConsumerStatusCreating), nil
	}
	err = fmt.Errorf("registering consumer %s of stream %s: %w", f.conf.Name, f.conf.Stream, throttledOr(err))
	if _, limit := errors.AsType[*types.LimitExceededException](err); !limit {
		return "", err
	}
	names, full := f.consumers(ctx, stream)
	if !full {
		*limits = 0
		return "", err
	}
	if *limits++; *limits < limitsNeeded {
		return "", err
	}
	return "", fmt.Errorf("stream %s has %d consumers, and takes no more: deregister one that no group uses any more, or write the name of one in `enhanced_fan_out.consumer_name`. They are %s",
		f.conf.Stream, len(names), strings.Join(names, ", "))
}

// consumers lists the consumers of a stream, and reports whether there are as many as
// there may be. Where they may not be listed, none are known.
func (f *FanOut) consumers(ctx context.Context, stream string) (names []string, full bool) {
	in := &kinesis.ListStreamConsumersInput{StreamARN: &stream}
	for {
		out, err := f.api.ListStreamConsumers(ctx, in)
		if err != nil {
			return nil, false // the refusal of the registration tells what matters
		}
		for _, c := range out.Consumers {
			if c.ConsumerStatus == types.ConsumerStatusCreating {
				return nil, false
			}
			names = append(names, aws.ToString(c.ConsumerName))
		}
		if out.NextToken == nil {
			return names, len(names) >= consumersOfStream
		}
		in.NextToken = out.NextToken
	}
}

// Deregister removes the consumer, if this process has found or registered it. Whoever subscribes as it
// then has to register it anew.
func (f *FanOut) Deregister(ctx context.Context) error {
	f.mu.Lock()
	arn := cmp.Or(f.arn, f.made)
	f.arn, f.made = "", ""
	f.mu.Unlock()
	if arn == "" {
		return nil
	}
	_, err := f.api.DeregisterStreamConsumer(ctx, &kinesis.DeregisterStreamConsumerInput{ConsumerARN: &arn})
	if _, gone := errors.AsType[*types.ResourceNotFoundException](err); gone || err == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arn = cmp.Or(f.arn, arn) // it is there, and the call may be made again
	return fmt.Errorf("deregistering consumer %s of stream %s: %w", f.name(), f.conf.Stream, err)
}

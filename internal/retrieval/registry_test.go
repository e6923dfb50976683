package retrieval_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// registry has the consumers of a stream.
type registry struct {
	// refuse answers the nth call of an operation, from 1; nil for no refusal.
	refuse func(ctx context.Context, operation string, n int) error
	// took is how long a registration takes; below zero is for ever.
	took time.Duration
	most int

	mu        sync.Mutex
	consumers []*registered
	calls     map[string][]time.Time
	made      int
}

type registered struct {
	name, arn string
	status    types.ConsumerStatus
	until     time.Time // when the status passes; zero for never
}

func newRegistry() *registry {
	return &registry{took: 10 * time.Second, most: 20, calls: map[string][]time.Time{}}
}

func (r *registry) add(name string, status types.ConsumerStatus) *registered {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	c := &registered{name: name, arn: fmt.Sprintf("%s/consumer/%s:%d", streamARN, name, r.made), status: status}
	r.consumers = append(r.consumers, c)
	return c
}

func (r *registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.consumers = slices.DeleteFunc(r.consumers, func(c *registered) bool { return c.name == name })
}

// pass lets what is under way come about.
func (r *registry) pass() {
	r.consumers = slices.DeleteFunc(r.consumers, func(c *registered) bool {
		if c.until.IsZero() || time.Now().Before(c.until) {
			return false
		}
		if c.status == types.ConsumerStatusCreating {
			c.status, c.until = types.ConsumerStatusActive, time.Time{}
			return false
		}
		return true
	})
}

func (r *registry) active(arn string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pass()
	return slices.ContainsFunc(r.consumers, func(c *registered) bool { return c.arn == arn && c.status == types.ConsumerStatusActive })
}

func (r *registry) count(operation string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls[operation])
}

func (r *registry) call(ctx context.Context, operation string) error {
	r.mu.Lock()
	r.calls[operation] = append(r.calls[operation], time.Now())
	n := len(r.calls[operation])
	r.pass()
	r.mu.Unlock()
	if r.refuse != nil {
		return r.refuse(ctx, operation, n)
	}
	return nil
}

func (r *registry) DescribeStreamSummary(ctx context.Context, _ *kinesis.DescribeStreamSummaryInput, _ ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	if err := r.call(ctx, "DescribeStreamSummary"); err != nil {
		return nil, err
	}
	return &kinesis.DescribeStreamSummaryOutput{StreamDescriptionSummary: &types.StreamDescriptionSummary{StreamARN: aws.String(streamARN)}}, nil
}

func (r *registry) DescribeStreamConsumer(ctx context.Context, in *kinesis.DescribeStreamConsumerInput, _ ...func(*kinesis.Options)) (*kinesis.DescribeStreamConsumerOutput, error) {
	if err := r.call(ctx, "DescribeStreamConsumer"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.consumers {
		if in.ConsumerARN != nil && *in.ConsumerARN == c.arn || in.ConsumerName != nil && *in.ConsumerName == c.name {
			return &kinesis.DescribeStreamConsumerOutput{ConsumerDescription: &types.ConsumerDescription{ConsumerARN: &c.arn, ConsumerStatus: c.status}}, nil
		}
	}
	return nil, &types.ResourceNotFoundException{}
}

func (r *registry) RegisterStreamConsumer(ctx context.Context, in *kinesis.RegisterStreamConsumerInput, _ ...func(*kinesis.Options)) (*kinesis.RegisterStreamConsumerOutput, error) {
	if err := r.call(ctx, "RegisterStreamConsumer"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	creating, exists := 0, false
	for _, c := range r.consumers {
		exists = exists || c.name == *in.ConsumerName
		if c.status == types.ConsumerStatusCreating {
			creating++
		}
	}
	full := len(r.consumers) >= r.most
	r.mu.Unlock()
	if exists {
		return nil, &types.ResourceInUseException{}
	}
	if full || creating >= 5 {
		return nil, &types.LimitExceededException{}
	}
	c := r.add(*in.ConsumerName, types.ConsumerStatusCreating)
	if r.took >= 0 {
		c.until = time.Now().Add(r.took)
	}
	return &kinesis.RegisterStreamConsumerOutput{Consumer: &types.Consumer{ConsumerARN: &c.arn, ConsumerName: &c.name, ConsumerStatus: c.status}}, nil
}

func (r *registry) ListStreamConsumers(ctx context.Context, in *kinesis.ListStreamConsumersInput, _ ...func(*kinesis.Options)) (*kinesis.ListStreamConsumersOutput, error) {
	if err := r.call(ctx, "ListStreamConsumers"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &kinesis.ListStreamConsumersOutput{}
	first := 0
	if in.NextToken != nil {
		first = 8
	}
	for i, c := range r.consumers {
		if i >= first && len(out.Consumers) < 8 || first > 0 && i >= first {
			out.Consumers = append(out.Consumers, types.Consumer{ConsumerName: &c.name, ConsumerStatus: c.status})
		}
	}
	if first == 0 && len(r.consumers) > 8 {
		out.NextToken = aws.String("more")
	}
	return out, nil
}

func (r *registry) DeregisterStreamConsumer(ctx context.Context, in *kinesis.DeregisterStreamConsumerInput, _ ...func(*kinesis.Options)) (*kinesis.DeregisterStreamConsumerOutput, error) {
	if err := r.call(ctx, "DeregisterStreamConsumer"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.consumers {
		if c.arn == *in.ConsumerARN {
			c.status, c.until = types.ConsumerStatusDeleting, time.Now().Add(5*time.Second)
			return &kinesis.DeregisterStreamConsumerOutput{}, nil
		}
	}
	return nil, &types.ResourceNotFoundException{}
}

package awskinesis

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/eventstream"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// The service's side of enhanced fan-out: consumers, and the subscriptions of each.

// What the service keeps to; see SubscribeToShard in the Kinesis API reference.
const (
	subscriptionLasts = 5 * time.Minute
	subscriptionHolds = 5 * time.Second // before another one takes over
	subscriptionSpace = time.Second     // between two calls
	idleEvent         = 5 * time.Second
)

// streamARNs precedes the name of a stream in its ARN.
const streamARNs = "arn:aws:kinesis:us-east-1:123456789012:stream/"

// simulatedConsumer is a consumer that is registered with a stream. The simulation's lock
// guards it, and what it has.
type simulatedConsumer struct {
	name, arn string
	active    time.Time // CREATING before
	readings  map[string]*simulatedReading
}

// simulatedReading is what the service knows of a consumer's reading of a shard.
type simulatedReading struct {
	called, opened time.Time // the last call, and the last that succeeded
	open           *simulatedSubscription
	last           int // index of the first record of the last event that had any
}

// simulatedSubscription is an open one. Its goroutine, which runs serve, sends what turn
// makes.
type simulatedSubscription struct {
	client   *simulatedClient
	stream   *simulatedStream
	shard    *simulatedShard
	consumer *simulatedConsumer
	reading  *simulatedReading

	next         int // index of the next record
	expires, due time.Time
	over         string // the exception with which it ends before its time
}

// wake has all look at a shard again that have subscribed to it.
func (sh *simulatedShard) wake() {
	if sh.changed != nil {
		close(sh.changed)
		sh.changed = nil
	}
}

// change is closed when something has changed of which a subscription should tell.
func (sh *simulatedShard) change() <-chan struct{} {
	if sh.changed == nil {
		sh.changed = make(chan struct{})
	}
	return sh.changed
}

func unknownConsumer(what string) error { return &types.ResourceNotFoundException{Message: &what} }

// consumerOf finds a consumer by its ARN, or by its name and its stream's ARN.
func (s *simulation) consumerOf(arn, stream, name *string) (*simulatedStream, *simulatedConsumer, error) {
	of, _, _ := strings.Cut(strings.TrimPrefix(aws.ToString(arn)+aws.ToString(stream), streamARNs), "/")
	st := s.streams[of]
	if st == nil {
		return nil, nil, unknownConsumer("no such stream")
	}
	i := slices.IndexFunc(st.consumers, func(c *simulatedConsumer) bool {
		return c.arn == aws.ToString(arn) || arn == nil && c.name == aws.ToString(name)
	})
	if i < 0 {
		return st, nil, unknownConsumer("no such consumer")
	}
	return st, st.consumers[i], nil
}

// register registers a consumer with a stream.
func (s *simulation) register(in *kinesis.RegisterStreamConsumerInput, delay time.Duration) (*kinesis.RegisterStreamConsumerOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, there, _ := s.consumerOf(nil, in.StreamARN, in.ConsumerName)
	switch {
	case st == nil:
		return nil, unknownConsumer("no such stream")
	case there != nil:
		return nil, &types.ResourceInUseException{Message: aws.String("it is there")}
	}
	s.registered++
	c := &simulatedConsumer{
		name: *in.ConsumerName, arn: *in.StreamARN + "/consumer/" + *in.ConsumerName + ":" + strconv.Itoa(s.registered),
		active: time.Now().Add(delay), readings: map[string]*simulatedReading{},
	}
	st.consumers = append(st.consumers, c)
	s.tally.add("consumers registered")
	return &kinesis.RegisterStreamConsumerOutput{Consumer: &types.Consumer{ConsumerARN: &c.arn, ConsumerName: &c.name, ConsumerStatus: types.ConsumerStatusCreating}}, nil
}

func (s *simulation) describeConsumer(in *kinesis.DescribeStreamConsumerInput) (*kinesis.DescribeStreamConsumerOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, c, err := s.consumerOf(in.ConsumerARN, in.StreamARN, in.ConsumerName)
	if err != nil {
		return nil, err
	}
	d := &types.ConsumerDescription{ConsumerARN: &c.arn, ConsumerName: &c.name, ConsumerStatus: types.ConsumerStatusActive}
	if time.Now().Before(c.active) {
		d.ConsumerStatus = types.ConsumerStatusCreating
	}
	return &kinesis.DescribeStreamConsumerOutput{ConsumerDescription: d}, nil
}

// deregister removes a consumer and ends its subscriptions.
func (s *simulation) deregister(arn string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, c, err := s.consumerOf(&arn, nil, nil)
	if err != nil {
		return err
	}
	st.consumers = slices.DeleteFunc(st.consumers, func(other *simulatedConsumer) bool { return other == c })
	for _, sh := range st.shards {
		if r := c.readings[sh.key.Shard]; r != nil && r.open != nil {
			r.open.over = "ResourceNotFoundException"
		}
		sh.wake()
	}
	s.tally.add("consumers deregistered")
	return nil
}

// meddle has somebody deregister a consumer now and then.
func (s *simulation) meddle() {
	s.mu.Lock()
	var arns []string
	if s.meddler != nil && s.meddler.IntN(12) == 0 {
		if st := s.streams[s.names[s.meddler.IntN(len(s.names))]]; st != nil {
			for _, c := range st.consumers {
				arns = append(arns, c.arn)
			}
		}
	}
	s.mu.Unlock()
	for _, arn := range arns {
		_ = s.deregister(arn) // it is there, or was a moment ago
	}
}

// subscribe opens a subscription, of which nothing is sent before it is served.
func (s *simulation) subscribe(c *simulatedClient, in *kinesis.SubscribeToShardInput) (*simulatedSubscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	st, consumer, err := s.consumerOf(in.ConsumerARN, nil, nil)
	if err != nil {
		return nil, err
	}
	sh := st.byID[*in.ShardId]
	if sh == nil {
		return nil, unknownConsumer("no such shard")
	}
	r := consumer.readings[*in.ShardId]
	if r == nil {
		r = &simulatedReading{}
		consumer.readings[*in.ShardId] = r
	}
	called := r.called
	r.called = now
	switch {
	case now.Before(consumer.active):
		return nil, &types.ResourceInUseException{Message: aws.String("it is not active")}
	case s.weather(sh.key) == fanOutIsDown:
		s.tally.add("fault: subscribing is down")
		return nil, &types.LimitExceededException{Message: aws.String("too many calls")}
	case !called.IsZero() && now.Sub(called) < subscriptionSpace:
		s.tally.add("refused: a second has not passed")
		return nil, &types.LimitExceededException{Message: aws.String("a second has not passed")}
	case !r.opened.IsZero() && now.Sub(r.opened) < subscriptionHolds:
		s.tally.add("refused: another one was opened just now")
		return nil, &types.ResourceInUseException{Message: aws.String("another one was opened just now")}
	}
	sub := &simulatedSubscription{client: c, stream: st, shard: sh, consumer: consumer, reading: r, expires: now.Add(subscriptionLasts), due: now.Add(idleEvent)}
	if sub.next, err = s.startOf(c, sh, r, in.StartingPosition); err != nil {
		return nil, err
	}
	if r.open != nil {
		r.open.over = "ResourceInUseException"
		sh.wake()
	}
	r.open, r.opened = sub, now
	return sub, nil
}

// startOf is the index of the first record of a subscription. Under faults the last event
// is repeated at times, and a sequence number refused that no record has, as it always is
// in some of the seeds.
func (s *simulation) startOf(c *simulatedClient, sh *simulatedShard, r *simulatedReading, from *types.StartingPosition) (int, error) {
	switch from.Type {
	case types.ShardIteratorTypeTrimHorizon:
		return 0, nil
	case types.ShardIteratorTypeAtTimestamp:
		return sh.arrivedBy(*from.Timestamp), nil
	case types.ShardIteratorTypeAfterSequenceNumber:
	default:
		panic(from.Type)
	}
	after := *from.SequenceNumber
	if sequence.Compare(after, sh.first) < 0 || sequence.Compare(after, sh.last) > 0 {
		return 0, &types.InvalidArgumentException{Message: &after}
	}
	index, _ := slices.BinarySearchFunc(sh.records, after, func(r simulatedRecord, after string) int {
		return cmp.Or(sequence.Compare(r.sequence, after), -1) // that of an aggregate stands several times
	})
	if known := index > 0 && sh.records[index-1].sequence == after; !known && (s.seed%5 == 3 || c.strikes("place "+sh.key.Shard, 0.5)) {
		s.tally.add("fault: continuation refused")
		return 0, &types.InvalidArgumentException{Message: &after}
	}
	if r.last < index && c.strikes("repeat "+sh.key.Shard, 0.5) {
		s.tally.add("fault: event repeated")
		return r.last, nil
	}
	return index, nil
}

// serve sends the frames of a subscription until it ends.
func (sub *simulatedSubscription) serve(ctx context.Context, frames chan<- []byte) {
	defer close(frames)
	s := sub.client.sim
	frame, last := encodeFrame("event", ":event-type", "initial-response", []byte("{}")), false
	for {
		if frame != nil {
			select {
			case frames <- frame:
			case <-ctx.Done():
				return
			}
		}
		if last {
			return
		}
		s.mu.Lock()
		frame, last = sub.turn()
		changed, due := sub.shard.change(), sub.due
		s.mu.Unlock()
		if frame != nil || last {
			continue
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// turn makes the next frame that is due, and reports whether it is the last one. Without a
// frame that is the end that each subscription comes to.
func (sub *simulatedSubscription) turn() (frame []byte, last bool) {
	s, now, sh := sub.client.sim, time.Now(), sub.shard
	switch {
	case sub.over != "":
		s.tally.add("ended by " + sub.over)
		return encodeException(sub.over), true
	case s.streams[sub.stream.name] != sub.stream:
		s.tally.add("ended with the stream")
		return encodeException("ResourceNotFoundException"), true
	case !now.Before(sub.expires):
		s.tally.add("ended after five minutes")
		return nil, true
	}
	to := sh.whole(sub.next + simulatedPage)
	ended := sh.closed && to == len(sh.records)
	if to == sub.next && !ended && now.Before(sub.due) {
		return nil, false
	}
	sub.due = now.Add(idleEvent)
	if sub.expires.Before(sub.due) {
		sub.due = sub.expires
	}
	event := fanOutEvent{Records: []fanOutRecord{}}
	switch fault := sub.fault(); fault {
	case "":
	case "behind":
		// It has nothing to send at the moment, and tells that there is more.
		ended, to, event.MillisBehindLatest = false, sub.next, 20_000
	case "end":
		return nil, true
	default:
		return encodeException(fault), true
	}
	for i := sub.next; i < to; i++ {
		if r := &sh.records[i]; r.last() {
			event.Records = append(event.Records, fanOutRecord{Data: sh.data(i), SequenceNumber: r.sequence, PartitionKey: r.key, ApproximateArrivalTimestamp: float64(r.arrived.UnixMilli()) / 1000})
		}
	}
	if to > sub.next {
		sub.reading.last = sub.next
	}
	sub.next = to
	switch {
	case ended:
		event.childrenOf(sh)
	case to == len(sh.records):
		event.ContinuationSequenceNumber = sub.stream.sequence()
	default:
		// As far as it can be without skipping a record.
		n, err := strconv.Atoi(sh.records[to].sequence)
		if err != nil {
			panic(err)
		}
		event.ContinuationSequenceNumber = strconv.Itoa(n - 1)
		event.MillisBehindLatest = max(event.MillisBehindLatest, serviceTime().Sub(sh.records[to].arrived).Milliseconds(), 1)
	}
	payload, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	return encodeFrame("event", ":event-type", "SubscribeToShardEvent", payload), ended
}

// fault is what happens in the place of the next event: an exception by its name, or
// something else; empty for nothing.
func (sub *simulatedSubscription) fault() string {
	s, c, shard := sub.client.sim, sub.client, sub.shard.key.Shard
	if s.weather(sub.shard.key) == fanOutIsDown {
		return "InternalFailureException"
	}
	if !c.strikes("event "+shard, 0.1) {
		return ""
	}
	kinds := []string{"behind", "behind", "end", "InternalFailureException", "KMSThrottlingException", "ResourceInUseException", "ResourceNotFoundException"}
	kind := kinds[c.roll("kind "+shard).IntN(len(kinds))]
	s.tally.add("fault: in the stream: " + kind)
	return kind
}

// fanOutEvent is a SubscribeToShardEvent as it is written.
type fanOutEvent struct {
	Records                    []fanOutRecord
	ContinuationSequenceNumber string `json:",omitempty"`
	MillisBehindLatest         int64
	ChildShards                []fanOutChild `json:",omitempty"`
}

type fanOutRecord struct {
	Data                        []byte
	SequenceNumber              string
	PartitionKey                string
	ApproximateArrivalTimestamp float64
}

type fanOutChild struct {
	ShardId      string //nolint:revive // spelled as on the wire
	ParentShards []string
}

func (e *fanOutEvent) childrenOf(sh *simulatedShard) {
	for _, child := range sh.children {
		c := fanOutChild{ShardId: child.key.Shard}
		for _, parent := range child.parents {
			c.ParentShards = append(c.ParentShards, parent.key.Shard)
		}
		e.ChildShards = append(e.ChildShards, c)
	}
}

func encodeException(name string) []byte {
	return encodeFrame("exception", ":exception-type", name, []byte(`{"message":"as it is simulated"}`))
}

func encodeFrame(message, header, kind string, payload []byte) []byte {
	var frame bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&frame, eventstream.Message{
		Headers: eventstream.Headers{
			{Name: ":message-type", Value: eventstream.StringValue(message)},
			{Name: header, Value: eventstream.StringValue(kind)},
			{Name: ":content-type", Value: eventstream.StringValue("application/x-amz-json-1.1")},
		},
		Payload: payload,
	}); err != nil {
		panic(err)
	}
	return frame.Bytes()
}

// weather is what ails the reading of a shard for a while, whoever reads it: the choice
// between the two ways goes by what lasts, and not by single calls.
type weather int

const (
	fair            weather = iota
	pollsThrottled          // other readers poll it
	pollsLate               // polling brings little, and late
	fanOutIsDown            // no subscription can be had
	weatherLasts    = 90 * time.Second
	someWeather     = 0.5
	crowdedThrottle = 0.95 // of the polls of a shard that other readers poll
)

func (s *simulation) weather(key lease.Key) weather {
	switch {
	case s.crowded != fair:
		return s.crowded
	case !s.fanned || !s.faulty:
		return fair
	}
	d := seeded(s.seed, fmt.Sprint(key, int(time.Since(s.began)/weatherLasts)))
	if d.Float64() > someWeather {
		return fair
	}
	return pollsThrottled + weather(d.IntN(3))
}

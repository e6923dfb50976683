package awsfake

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Quotas of stream consumers as of 2026, from the pages of the operations.
const (
	maxConsumers         = 20 // of a stream
	maxCreatingConsumers = 5  // of a stream
	maxConsumersPage     = 100
	registersSecond      = 5 // of the account
	deregistersSecond    = 5 // of a stream, as those below
	describesConsumer    = 20
	listConsumersSecond  = 5
)

const (
	consumerCreating = "CREATING"
	consumerActive   = "ACTIVE"
	consumerDeleting = "DELETING"
)

// consumers are those of one stream, guarded by kinesisService.consumersMu,
// which comes before stream.mu.
type consumers struct {
	list []*consumer // by name
	gone bool        // the stream was deleted
	// Quotas, counted with EnforceLimits.
	describes, lists, deregisters window
}

// consumer is registered by kinesisService.register, and leaves its stream when
// its deletion is over. kinesisService.consumersMu guards it.
type consumer struct {
	name, arn string
	created   time.Time // to the second, as in the ARN
	active    time.Time // CREATING before
	deleted   time.Time // DELETING before; zero while it was not deregistered
	readings  map[int]*reading
}

// reading is what is known of the subscriptions of one consumer to one shard.
type reading struct {
	calls window
	last  time.Time     // of the last successful call; zero for none
	open  *subscription // of that call; it may have ended
}

// reading of a shard, made at the first call for it.
func (c *consumer) reading(shard int) *reading {
	r := c.readings[shard]
	if r == nil {
		r = &reading{}
		c.readings[shard] = r
	}
	return r
}

func (c *consumer) status(now time.Time) string {
	switch {
	case !c.deleted.IsZero():
		return consumerDeleting
	case now.Before(c.active):
		return consumerCreating
	}
	return consumerActive
}

// end ends all subscriptions of a consumer.
func (c *consumer) end(cause *Error) {
	for _, r := range c.readings {
		if r.open != nil {
			r.open.end(cause)
		}
	}
}

// prune forgets the consumers whose deletion is over.
func (cs *consumers) prune(now time.Time) {
	cs.list = slices.DeleteFunc(cs.list, func(c *consumer) bool { return !c.deleted.IsZero() && !now.Before(c.deleted) })
}

func (cs *consumers) find(match func(*consumer) bool) *consumer {
	if i := slices.IndexFunc(cs.list, match); i >= 0 {
		return cs.list[i]
	}
	return nil
}

// end is the end of the stream.
func (cs *consumers) end(cause *Error) {
	for _, c := range cs.list {
		c.end(cause)
	}
	cs.list, cs.gone = nil, true
}

// parseConsumerARN returns the names of the stream and the consumer of an ARN,
// and the ARN of the stream.
func parseConsumerARN(arn string) (streamARN, stream, name string, ok bool) {
	streamARN, tail, ok := strings.Cut(arn, "/consumer/")
	if !ok {
		return "", "", "", false
	}
	_, stream, ok = strings.Cut(streamARN, ":stream/")
	name, stamp, stamped := strings.Cut(tail, ":")
	return streamARN, stream, name, ok && stamped && isDigits(stamp)
}

var consumerNames = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// register adds a consumer that is CREATING for a delay.
func (k *kinesisService) register(st *stream, name string, delay time.Duration) (*consumer, error) {
	if !consumerNames.MatchString(name) {
		return nil, invalid("1 validation error detected: Value %q at 'consumerName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+", name)
	}
	now := k.now()
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	cs := &st.consumers
	cs.prune(now)
	if cs.gone {
		return nil, refuse(CodeResourceNotFound, "Stream %s under account %s not found.", st.name, accountID)
	}
	if cs.find(func(c *consumer) bool { return c.name == name }) != nil {
		return nil, refuse(CodeResourceInUse, "Consumer %s under stream %s already exists for account %s.", name, st.name, accountID)
	}
	creating := 0
	for _, c := range cs.list {
		if c.status(now) == consumerCreating {
			creating++
		}
	}
	if len(cs.list) >= maxConsumers {
		return nil, refuse(CodeLimitExceeded, "Exceeded maximum number of registered consumers: %d for stream %s under account %s.", maxConsumers, st.name, accountID)
	}
	if creating >= maxCreatingConsumers {
		return nil, refuse(CodeLimitExceeded, "Exceeded maximum number of consumers in CREATING status: %d for stream %s under account %s.", maxCreatingConsumers, st.name, accountID)
	}
	// An ARN is never used again, not even by a test whose clock stands still.
	stamp := max(now.Unix(), k.consumerStamp[st.name+"/"+name]+1)
	k.consumerStamp[st.name+"/"+name] = stamp
	c := &consumer{
		name:     name,
		arn:      st.arn + "/consumer/" + name + ":" + strconv.FormatInt(stamp, 10),
		created:  time.Unix(stamp, 0),
		active:   now.Add(delay),
		readings: map[int]*reading{},
	}
	cs.list = append(cs.list, c)
	slices.SortFunc(cs.list, func(a, b *consumer) int { return strings.Compare(a.name, b.name) })
	return c, nil
}

// deregister ends a consumer's subscriptions at once and the consumer after a
// delay. What is being deleted already stays so.
func (k *kinesisService) deregister(st *stream, c *consumer, delay time.Duration) {
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	if !c.deleted.IsZero() {
		return
	}
	now := k.now()
	c.deleted = now.Add(delay)
	c.end(refuse(CodeResourceNotFound, "Consumer %s under stream %s under account %s was deregistered.", c.name, st.name, accountID))
	st.consumers.prune(now)
}

type consumerOutput struct {
	ConsumerName, ConsumerARN, ConsumerStatus string
	ConsumerCreationTimestamp                 epoch
	StreamARN                                 string `json:",omitempty"` // of DescribeStreamConsumer alone
}

// describe needs kinesisService.consumersMu.
func (c *consumer) describe(now time.Time) consumerOutput {
	return consumerOutput{ConsumerName: c.name, ConsumerARN: c.arn, ConsumerStatus: c.status(now), ConsumerCreationTimestamp: epoch(c.created)}
}

type registerConsumerInput struct{ StreamARN, ConsumerName string }

type registerConsumerOutput struct{ Consumer consumerOutput }

func (k *kinesisService) registerStreamConsumer(in *registerConsumerInput) (*registerConsumerOutput, error) {
	if err := k.within(&k.registers, registersSecond, "RegisterStreamConsumer"); err != nil {
		return nil, err
	}
	st, err := k.find(streamRef{StreamARN: in.StreamARN})
	if err != nil {
		return nil, err
	}
	if status := st.status(k.now()); status == "CREATING" {
		return nil, refuse(CodeResourceInUse, "Stream %s under account %s not ACTIVE, instead in state %s", st.name, accountID, status)
	}
	c, err := k.register(st, in.ConsumerName, k.opts.ConsumerDelay)
	if err != nil {
		return nil, err
	}
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	return &registerConsumerOutput{c.describe(k.now())}, nil
}

// consumerRef is how a request names a consumer: by its ARN, by its name and
// its stream's ARN, or by all of them.
type consumerRef struct{ ConsumerARN, StreamARN, ConsumerName string }

// findConsumer finds one and counts the call against a quota of its stream.
func (k *kinesisService) findConsumer(ref consumerRef, quota func(*consumers) *window, perSecond int) (*stream, *consumer, error) {
	streamARN, name := ref.StreamARN, ref.ConsumerName
	switch {
	case ref.ConsumerARN != "":
		ofARN, _, named, ok := parseConsumerARN(ref.ConsumerARN)
		if !ok {
			return nil, nil, invalid("1 validation error detected: Value %q at 'consumerARN' failed to satisfy constraint", ref.ConsumerARN)
		}
		if streamARN != "" && streamARN != ofARN || name != "" && name != named {
			return nil, nil, refuse(CodeInvalidArgument, "ConsumerARN %s does not belong to the given StreamARN and ConsumerName.", ref.ConsumerARN)
		}
		streamARN, name = ofARN, named
	case streamARN == "" || name == "":
		return nil, nil, refuse(CodeInvalidArgument, "Either ConsumerARN or both StreamARN and ConsumerName must be provided.")
	}
	st, err := k.find(streamRef{StreamARN: streamARN})
	if err != nil {
		return nil, nil, err
	}
	now := k.now()
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	if quota != nil && k.opts.EnforceLimits && !quota(&st.consumers).allow(now, perSecond) {
		return nil, nil, refuse(CodeLimitExceeded, "Rate exceeded for stream %s under account %s.", st.name, accountID)
	}
	st.consumers.prune(now)
	c := st.consumers.find(func(c *consumer) bool {
		return c.name == name && (ref.ConsumerARN == "" || c.arn == ref.ConsumerARN)
	})
	if c == nil {
		return nil, nil, refuse(CodeResourceNotFound, "Consumer %s under stream %s not found for account %s.", name, st.name, accountID)
	}
	return st, c, nil
}

type describeConsumerOutput struct{ ConsumerDescription consumerOutput }

func (k *kinesisService) describeStreamConsumer(in *consumerRef) (*describeConsumerOutput, error) {
	st, c, err := k.findConsumer(*in, func(cs *consumers) *window { return &cs.describes }, describesConsumer)
	if err != nil {
		return nil, err
	}
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	out := &describeConsumerOutput{c.describe(k.now())}
	out.ConsumerDescription.StreamARN = st.arn
	return out, nil
}

func (k *kinesisService) deregisterStreamConsumer(in *consumerRef) (none, error) {
	st, c, err := k.findConsumer(*in, func(cs *consumers) *window { return &cs.deregisters }, deregistersSecond)
	if err != nil {
		return none{}, err
	}
	k.deregister(st, c, k.opts.ConsumerDelay)
	return none{}, nil
}

type listConsumersInput struct {
	StreamARN               string
	NextToken               string
	MaxResults              *int
	StreamCreationTimestamp *epoch
}

type listConsumersOutput struct {
	Consumers []consumerOutput
	NextToken string `json:",omitempty"`
}

func (k *kinesisService) listStreamConsumers(in *listConsumersInput) (*listConsumersOutput, error) {
	limit := maxConsumersPage
	if in.MaxResults != nil {
		limit = min(*in.MaxResults, maxConsumersPage)
	}
	if limit < 1 {
		return nil, invalid("1 validation error detected: Value '%d' at 'maxResults' failed to satisfy constraint: Member must have value greater than or equal to 1", limit)
	}
	now := k.now()
	from, st, err := k.listConsumersStart(in, now)
	if err != nil {
		return nil, err
	}
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	if k.opts.EnforceLimits && !st.consumers.lists.allow(now, listConsumersSecond) {
		return nil, refuse(CodeLimitExceeded, "Rate exceeded for ListStreamConsumers on stream %s under account %s.", st.name, accountID)
	}
	st.consumers.prune(now)
	out := &listConsumersOutput{Consumers: []consumerOutput{}}
	for _, c := range st.consumers.list {
		if c.name <= from.After {
			continue
		}
		if len(out.Consumers) == limit {
			from.After, from.Issued = out.Consumers[limit-1].ConsumerName, now.UnixNano()
			token, err := json.Marshal(from)
			if err != nil {
				return nil, err
			}
			out.NextToken = base64.StdEncoding.EncodeToString(token)
			break
		}
		out.Consumers = append(out.Consumers, c.describe(now))
	}
	return out, nil
}

// listConsumersStart is where a page starts. A token may go with the stream's
// ARN, which requests must have, if it is the one of the list's first page.
func (k *kinesisService) listConsumersStart(in *listConsumersInput, now time.Time) (*nextToken, *stream, error) {
	if in.NextToken != "" {
		from, st, err := k.listStart(&listShardsInput{NextToken: in.NextToken, StreamCreationTimestamp: in.StreamCreationTimestamp}, now)
		if err == nil && in.StreamARN != "" && in.StreamARN != st.arn {
			err = refuse(CodeInvalidArgument, "NextToken is of another stream than %s.", in.StreamARN)
		}
		return from, st, err
	}
	return k.listStart(&listShardsInput{streamRef: streamRef{StreamARN: in.StreamARN}, StreamCreationTimestamp: in.StreamCreationTimestamp}, now)
}

// Consumer is a stream consumer as DescribeStreamConsumer describes it.
type Consumer struct {
	Name, ARN string
	Status    string // CREATING, ACTIVE or DELETING
	Created   time.Time
}

// RegisterConsumer registers a consumer that is ACTIVE at once, and returns its
// ARN. Quotas do not apply, except for the number of consumers.
func (s *Server) RegisterConsumer(stream, name string) (arn string, err error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return "", err
	}
	c, err := s.kinesis.register(st, name, 0)
	if err != nil {
		return "", err
	}
	return c.arn, nil
}

// DeregisterConsumer removes a consumer at once and ends its subscriptions.
func (s *Server) DeregisterConsumer(stream, name string) error {
	st, c, err := s.kinesis.findConsumer(consumerRef{StreamARN: s.StreamARN(stream), ConsumerName: name}, nil, 0)
	if err != nil {
		return err
	}
	s.kinesis.deregister(st, c, 0)
	return nil
}

// Consumers returns the consumers of a stream, in order of their names.
func (s *Server) Consumers(stream string) ([]Consumer, error) {
	st, err := s.kinesis.find(streamRef{StreamName: stream})
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	s.kinesis.consumersMu.Lock()
	defer s.kinesis.consumersMu.Unlock()
	st.consumers.prune(now)
	var list []Consumer
	for _, c := range st.consumers.list {
		list = append(list, Consumer{Name: c.name, ARN: c.arn, Status: c.status(now), Created: c.created})
	}
	return list, nil
}

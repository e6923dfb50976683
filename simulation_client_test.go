package awskinesis

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// simulatedClient is a real input with the world as one process sees it: its
// network, its clock, and an output that reads from it.
type simulatedClient struct {
	sim    *simulation
	name   string
	skew   time.Duration // of its clock
	limit  int           // checkpoint_limit
	output outputKind
	pinned bool // to shards that are named
	input  service.BatchInput

	life, ack context.Context //nolint:containedctx // of its reading, and of its acknowledgements: a process has them as long as it lives
	stop, die context.CancelFunc
	reader    sync.WaitGroup
	acks      sync.WaitGroup

	// Guarded by the simulation's lock.
	sessions int                // that were begun
	id       string             // of the last one
	standing map[string]*tenure // of each id
	tenures  map[lease.Key]*tenure
	dead     bool
	left     bool
	halted   chan struct{}      // closed when a pause ends; nil while there is none
	apart    chan struct{}      // the same for being cut off from the table
	yielding context.CancelFunc // of the ReadBatch under way
	dice     map[string]*rand.Rand

	way     readingWay               // as it is configured
	ways    map[lease.Key]readingWay // in which it reads shards under the leases that it has
	severed bool                     // it is cut off from subscriptions too, as long as from the table
	// subscribing is what it knows of its subscriptions, and connections are those open.
	subscribing map[lease.Key]*subscribing
	connections map[lease.Key]*connection
}

// reading reports whether a client should have a share of the shards.
func (c *simulatedClient) reading() bool { return !c.dead && !c.left }

// outputKind is how an output acknowledges.
type outputKind int

const (
	promptOutput   outputKind = iota // at once
	slowOutput                       // one batch at a time, each after a while
	parallelOutput                   // many at a time, in any order
)

var (
	errRefused   = errors.New("the service refused")
	errNoAnswer  = errors.New("no answer")
	errRejected  = errors.New("the output rejected")
	errTooMany   = &types.ProvisionedThroughputExceededException{Message: aws.String("too many calls")}
	errOutOfDate = &types.ExpiredIteratorException{Message: aws.String("too old")}
)

// roll returns the client's dice for one purpose, so that what happens for one
// does not depend on how many goroutines came first for another.
func (c *simulatedClient) roll(purpose string) *rand.Rand {
	d := c.dice[purpose]
	if d == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(c.name + "/" + purpose))
		d = rand.New(rand.NewPCG(c.sim.seed, h.Sum64()))
		c.dice[purpose] = d
	}
	return d
}

// fault is what the network does to one request.
type fault struct {
	kind          faultKind
	before, after time.Duration // on the way there and back
	late          time.Duration // until a late request takes effect
}

type faultKind int

const (
	faultNone    faultKind = iota
	faultRefused           // at once, without effect
	faultLost              // on the way there
	faultMuted             // the answer is lost, the effect is there
	faultLate              // the effect is there long after the client has given up
	faultEndless           // nothing happens until the client gives up
)

// fault rolls the dice for a request.
func (c *simulatedClient) fault(purpose string) fault {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	d := c.roll(purpose)
	f := fault{before: time.Duration(d.Int64N(int64(10 * time.Millisecond))), after: time.Duration(d.Int64N(int64(10 * time.Millisecond)))}
	if !s.faulty || d.Float64() >= s.faultRate {
		return f
	}
	period := float64(s.leasePeriod)
	f.kind = faultKind(d.IntN(int(faultEndless) + 1))
	f.before = time.Duration(d.Float64() * d.Float64() * period / 2)
	f.after = time.Duration(d.Float64() * d.Float64() * period / 2)
	f.late = time.Duration(d.Float64() * 2 * period)
	return f
}

// wait lets time pass, unless ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passable waits while the process stands still, or while another gate is shut.
func (c *simulatedClient) passable(ctx context.Context, gate func(*simulatedClient) chan struct{}) error {
	for {
		c.sim.mu.Lock()
		shut := cmp.Or(c.halted, gate(c))
		c.sim.mu.Unlock()
		if shut == nil {
			return ctx.Err()
		}
		select {
		case <-shut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func toTable(c *simulatedClient) chan struct{} { return c.apart }
func toStream(*simulatedClient) chan struct{}  { return nil }

// request sends one request through the client's network.
func request[T any](ctx context.Context, c *simulatedClient, purpose string, serve func() (T, error)) (answer T, err error) {
	if err := c.passable(ctx, toTable); err != nil {
		return answer, err
	}
	f := c.fault(purpose)
	var none T
	switch f.kind {
	case faultRefused:
		return none, errRefused
	case faultEndless:
		<-ctx.Done()
		return none, ctx.Err()
	case faultLate:
		c.sim.network.Go(func() {
			_ = wait(context.Background(), f.late)
			_, _ = serve()
		})
		<-ctx.Done()
		return none, ctx.Err()
	case faultNone, faultLost, faultMuted:
	}
	if err := wait(ctx, f.before); err != nil {
		return none, err
	}
	if f.kind == faultLost {
		return none, errNoAnswer
	}
	answer, err = serve()
	if waited := wait(ctx, f.after); waited != nil {
		return none, waited
	}
	if f.kind == faultMuted {
		return none, errNoAnswer
	}
	if err := c.passable(ctx, toTable); err != nil { // the answer finds nobody
		return none, err
	}
	return answer, err
}

// simulatedStore is the table as one client reaches it. Tokens of a client bear
// its own clock's time.
type simulatedStore struct{ *simulatedClient }

var _ leaseTable = simulatedStore{}

// written turns a token that the client has made into what it writes by its
// clock, and own does the opposite.
func (c simulatedStore) written(token string) string { return shifted(token, c.skew) }
func (c simulatedStore) own(token string) string     { return shifted(token, -c.skew) }

func shifted(token string, by time.Duration) string {
	at, err := time.Parse(time.RFC3339Nano, token)
	if err != nil {
		panic(err)
	}
	return at.Add(by).Format(time.RFC3339Nano)
}

// outbound and inbound translate what the client sends and receives. Those of
// others are to it what they are.
func (c simulatedStore) outbound(link lease.Link) lease.Link {
	if c.owns(link.Owner) && link.Token != "" {
		link.Token = c.written(link.Token)
	}
	return link
}

func (c simulatedStore) outboundItem(item lease.Item) lease.Item {
	item.Token = c.outbound(item.Link()).Token
	return item
}

func (c simulatedStore) inbound(item lease.Item) lease.Item {
	if c.owns(item.Owner) {
		item.Token = c.own(item.Token)
	}
	return item
}

func (c simulatedStore) item(ctx context.Context, key lease.Key, op string, serve func(context.Context) (lease.Item, error)) (lease.Item, error) {
	item, err := request(ctx, c.simulatedClient, op+key.Shard, func() (lease.Item, error) {
		return serve(context.WithoutCancel(ctx))
	})
	if err != nil {
		return lease.Item{}, err
	}
	item = c.inbound(item)
	c.learns(item)
	return item, nil
}

func (c simulatedStore) do(ctx context.Context, key lease.Key, op string, serve func(context.Context) error) error {
	_, err := request(ctx, c.simulatedClient, op+key.Shard, func() (struct{}, error) {
		return struct{}{}, serve(context.WithoutCancel(ctx))
	})
	return err
}

func (c simulatedStore) Get(ctx context.Context, key lease.Key) (lease.Item, error) {
	return c.item(ctx, key, "get", func(ctx context.Context) (lease.Item, error) { return c.sim.table.Get(ctx, key) })
}

func (c simulatedStore) Claim(ctx context.Context, seen lease.Item, grant lease.Grant) (lease.Item, error) {
	c.begins(seen, grant.Owner)
	c.attempts(seen.Key, grant.Token)
	seen, grant.Link = c.outboundItem(seen), c.outbound(grant.Link)
	return c.item(ctx, seen.Key, "claim", func(ctx context.Context) (lease.Item, error) { return c.sim.table.Claim(ctx, seen, grant) })
}

func (c simulatedStore) Renew(ctx context.Context, key lease.Key, link lease.Link, token string, position lease.Move) (lease.Item, error) {
	c.attempts(key, token)
	link, token = c.outbound(link), c.written(token)
	return c.item(ctx, key, "renew", func(ctx context.Context) (lease.Item, error) {
		return c.sim.table.Renew(ctx, key, link, token, position)
	})
}

func (c simulatedStore) Release(ctx context.Context, key lease.Key, link lease.Link, position lease.Move) error {
	link = c.outbound(link)
	return c.do(ctx, key, "release", func(ctx context.Context) error { return c.sim.table.Release(ctx, key, link, position) })
}

func (c simulatedStore) Finish(ctx context.Context, key lease.Key, link lease.Link, position lease.Move) error {
	link = c.outbound(link)
	return c.do(ctx, key, "finish", func(ctx context.Context) error { return c.sim.table.Finish(ctx, key, link, position) })
}

func (c simulatedStore) Cut(ctx context.Context, key lease.Key, link lease.Link, position lease.Move, end time.Time) error {
	link = c.outbound(link)
	return c.do(ctx, key, "cut", func(ctx context.Context) error { return c.sim.table.Cut(ctx, key, link, position, end) })
}

func (c simulatedStore) HandOver(ctx context.Context, key lease.Key, link lease.Link, position lease.Move, to lease.Link) error {
	c.passes(to.Term)
	link, to.Token = c.outbound(link), c.written(to.Token)
	return c.do(ctx, key, "hand over", func(ctx context.Context) error { return c.sim.table.HandOver(ctx, key, link, position, to) })
}

func (c simulatedStore) Yield(ctx context.Context, stolen lease.Item, sequence string) error {
	stolen = c.outboundItem(stolen)
	return c.do(ctx, stolen.Key, "yield", func(ctx context.Context) error { return c.sim.table.Yield(ctx, stolen, sequence) })
}

func (c simulatedStore) RemoveItem(ctx context.Context, seen lease.Item) (removed bool, err error) {
	seen = c.outboundItem(seen)
	err = c.do(ctx, seen.Key, "remove", func(ctx context.Context) error {
		removed, err = c.sim.table.RemoveItem(ctx, seen)
		return err
	})
	return removed && err == nil, err
}

func (c simulatedStore) Vacate(ctx context.Context, literal lease.Item) (lease.Item, error) {
	literal = c.outboundItem(literal)
	return c.item(ctx, literal.Key, "vacate", func(ctx context.Context) (lease.Item, error) { return c.sim.table.Vacate(ctx, literal) })
}

func (c simulatedStore) Mirror(ctx context.Context, literal lease.Item, sequence string) (lease.Item, error) {
	return c.item(ctx, literal.Key, "mirror", func(ctx context.Context) (lease.Item, error) {
		return c.sim.table.Mirror(ctx, literal, sequence)
	})
}

func (simulatedStore) ensureTable(context.Context) (bool, error) { return false, nil }

func (c simulatedStore) List(ctx context.Context, stream string, consistent bool) (table.ItemList, error) {
	l, err := request(ctx, c.simulatedClient, "list", func() (table.ItemList, error) { return c.sim.table.List(ctx, stream, consistent) })
	for i, item := range l.Items {
		l.Items[i] = c.inbound(item)
	}
	return l, err
}

func (c simulatedStore) ListMembers(ctx context.Context, consistent bool) ([]lease.Member, error) {
	members, err := request(ctx, c.simulatedClient, "members", func() ([]lease.Member, error) { return c.sim.table.ListMembers(ctx, consistent) })
	for i, m := range members {
		members[i] = c.inboundMember(m)
	}
	return members, err
}

// inboundMember and outboundMember are as inbound and outbound.
func (c simulatedStore) inboundMember(m lease.Member) lease.Member {
	if c.owns(m.ID) && m.Token != "" && !m.Gone() {
		m.Token = c.own(m.Token)
	}
	return m
}

func (c simulatedStore) outboundMember(m lease.Member) lease.Member {
	if m.Gone() {
		return m
	}
	m.Token = c.outbound(lease.Link{Owner: m.ID, Token: m.Token}).Token
	return m
}

func (c simulatedStore) Member(ctx context.Context, id string) (lease.Member, bool, error) {
	type answer struct {
		m  lease.Member
		ok bool
	}
	a, err := request(ctx, c.simulatedClient, "member "+id, func() (answer, error) {
		m, ok, err := c.sim.table.Member(ctx, id)
		return answer{m, ok}, err
	})
	a.m = c.inboundMember(a.m)
	if err == nil && c.owns(id) {
		c.stands(id, a.m.Token)
	}
	return a.m, a.ok, err
}

func (c simulatedStore) Join(ctx context.Context, m lease.Member) error {
	return c.beats(ctx, "join", m, func(ctx context.Context, m lease.Member) error { return c.sim.table.Join(ctx, m) })
}

func (c simulatedStore) Beat(ctx context.Context, m lease.Member, at string) error {
	at = c.written(at)
	return c.beats(ctx, "beat", m, func(ctx context.Context, m lease.Member) error { return c.sim.table.Beat(ctx, m, at) })
}

func (c simulatedStore) beats(ctx context.Context, op string, m lease.Member, serve func(context.Context, lease.Member) error) error {
	c.beatsNow(m)
	out := c.outboundMember(m)
	err := c.do(ctx, lease.Key{Shard: m.ID}, op, func(ctx context.Context) error { return serve(ctx, out) })
	if err == nil {
		c.stands(m.ID, m.Token)
	}
	return err
}

func (c simulatedStore) Evict(ctx context.Context, m lease.Member) error {
	out := c.outboundMember(m)
	return c.do(ctx, lease.Key{Shard: m.ID}, "evict ", func(ctx context.Context) error { return c.sim.table.Evict(ctx, out) })
}

func (c simulatedStore) Remove(ctx context.Context, m lease.Member) error {
	c.leaves(m.ID)
	out := c.outboundMember(m)
	return c.do(ctx, lease.Key{Shard: m.ID}, "remove member ", func(ctx context.Context) error { return c.sim.table.Remove(ctx, out) })
}

// simulatedKinesis is the streams as one client reaches them.
type simulatedKinesis struct{ *simulatedClient }

// read makes one call, with the faults of the network and, as all errors of a
// read are retried, no effect to lose.
func (c simulatedKinesis) read(ctx context.Context, shard string) error {
	if err := c.passable(ctx, toStream); err != nil {
		return err
	}
	s := c.sim
	s.mu.Lock()
	idle, faulty := s.idle, s.faulty
	var roll, length float64
	if faulty {
		d := c.roll("read" + shard)
		roll, length = d.Float64()/max(s.faultRate, 1e-9), d.Float64()
	}
	s.mu.Unlock()
	switch {
	case idle > 0:
		// Where nothing is left to read a slow service saves real time.
		return wait(ctx, idle)
	case !faulty || roll >= 1:
		return nil
	case roll < 0.2:
		return errTooMany
	case roll < 0.4:
		return errRefused
	case roll < 0.5:
		return errOutOfDate
	case roll < 0.9:
		slow := time.Duration(length * float64(s.leasePeriod))
		if s.remade {
			slow = min(slow, session.AttemptTimeout)
		}
		return wait(ctx, slow)
	}
	if err := wait(ctx, session.AttemptTimeout); err != nil {
		return err
	}
	return errNoAnswer
}

func (c simulatedKinesis) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	if err := c.read(ctx, *in.ShardIterator); err != nil {
		return nil, err
	}
	if c.emptied("GetRecords", *in.ShardIterator) {
		return &kinesis.GetRecordsOutput{}, nil
	}
	s := c.sim
	at := strings.Split(*in.ShardIterator, "/")
	key := lease.Key{Stream: at[0], Shard: at[1]}
	s.mu.Lock()
	c.reads(key, polls)
	ails := s.weather(key)
	throttled := ails == pollsThrottled && c.roll("crowd "+key.Shard).Float64() < crowdedThrottle
	s.mu.Unlock()
	if throttled {
		s.tally.add("fault: poll throttled by other readers")
		return nil, errTooMany
	}
	return s.records(*in.ShardIterator, ails == pollsLate)
}

func (c simulatedKinesis) GetShardIterator(ctx context.Context, in *kinesis.GetShardIteratorInput, _ ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error) {
	if err := c.read(ctx, *in.ShardId); err != nil {
		return nil, err
	}
	if c.emptied("GetShardIterator", *in.ShardId) {
		return &kinesis.GetShardIteratorOutput{}, nil
	}
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[*in.StreamName].iterate(in)
}

func (c simulatedKinesis) ListShards(ctx context.Context, in *kinesis.ListShardsInput, _ ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	if c.sim.remade || c.sim.fanned { // where single shards are looked up, with no bound but that of the SDK's client
		limited, cancel := context.WithTimeout(ctx, session.AttemptTimeout)
		defer cancel()
		ctx = limited
	}
	if c.emptied("ListShards", "") {
		return &kinesis.ListShardsOutput{}, nil
	}
	return request(ctx, c.simulatedClient, "shards", func() (*kinesis.ListShardsOutput, error) {
		s := c.sim
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ofList(in).list(in)
	})
}

func (c simulatedKinesis) DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	return nil, errRefused
}

// read is the output: it takes batches and acknowledges them.
func (c *simulatedClient) read() {
	for {
		ctx, err := c.turn()
		if err != nil {
			return
		}
		batch, ack, err := readAsHost(ctx, c.input)
		c.yielding()
		switch {
		case err == nil:
			c.handle(batch, c.sim.delivered(c, batch), ack)
		case c.life.Err() != nil:
			return
		case errors.Is(err, service.ErrEndOfInput):
			c.sim.ended(c)
			return
		case ctx.Err() == nil || !errors.Is(err, context.Canceled):
			c.sim.mu.Lock()
			c.sim.broken(nil, "%s cannot read: %v", c.name, err)
			c.sim.mu.Unlock()
			return
		}
	}
}

// turn returns the context of the next read, which ends when the process is
// stopped, once it is not.
func (c *simulatedClient) turn() (context.Context, error) {
	for {
		if err := c.passable(c.life, toStream); err != nil {
			return nil, err
		}
		c.sim.mu.Lock()
		if c.halted == nil {
			ctx, yield := context.WithCancel(c.life)
			c.yielding = yield
			c.sim.mu.Unlock()
			return ctx, nil
		}
		c.sim.mu.Unlock()
	}
}

// handle acknowledges a batch in its time, or rejects it or some of it.
func (c *simulatedClient) handle(batch service.MessageBatch, d delivery, ack service.AckFunc) {
	s := c.sim
	s.mu.Lock()
	dice := c.roll("ack")
	var delay time.Duration
	if c.output != promptOutput {
		delay = time.Duration(dice.Float64() * dice.Float64() * float64(s.leasePeriod) / 8)
		if !s.faulty {
			delay /= 20 // what is left is to be read in time
		}
	}
	if s.faulty && dice.Float64() < s.faultRate/8 {
		delay = time.Duration(dice.Float64() * 4 * float64(s.leasePeriod))
	}
	rejected := c.rejects(d, dice)
	s.mu.Unlock()

	settle := func() {
		if wait(c.ack, delay) != nil || c.passable(c.ack, toStream) != nil {
			return
		}
		s.settled(c, d, rejected)
		if err := ack(c.ack, rejection(batch, d, rejected)); err != nil {
			s.mu.Lock()
			s.broken(d.shard, "acknowledging at %s failed: %v", c.name, err)
			s.mu.Unlock()
		}
	}
	if c.output == parallelOutput {
		c.acks.Go(settle)
	} else {
		settle()
	}
}

// rejects returns the indexes of those records of a batch that the output rejects: mostly
// none, and none that it has rejected once. Benthos' replays pause from the third on, which
// takes long.
func (c *simulatedClient) rejects(d delivery, dice *rand.Rand) []int {
	s, before := c.sim, d.shard.rejected
	if !s.faulty || slices.ContainsFunc(d.indexes, func(index int) bool { return before[index] }) || dice.Float64() >= s.faultRate/2 {
		return nil
	}
	rejected := d.indexes
	if parts := c.roll("part"); len(rejected) > 1 && parts.IntN(2) == 0 {
		rejected = nil
		for _, place := range parts.Perm(len(d.indexes))[:1+parts.IntN(len(d.indexes)-1)] {
			rejected = append(rejected, d.indexes[place])
		}
		s.tally.add("batches rejected in part")
	}
	for _, index := range rejected {
		before[index] = true
	}
	return rejected
}

// rejection is the error for a batch of which records were rejected. Where all were it does
// not tell which.
func rejection(batch service.MessageBatch, d delivery, rejected []int) error {
	switch len(rejected) {
	case 0:
		return nil
	case len(batch):
		return errRejected
	}
	err := service.NewBatchError(batch, errRejected)
	for i, index := range d.indexes {
		if slices.Contains(rejected, index) {
			err = err.Failed(i, errRejected)
		}
	}
	return err
}

// healthyLister lists shards without faults, as an input does that could connect.
type healthyLister struct{ *simulation }

func (s healthyLister) ListShards(_ context.Context, in *kinesis.ListShardsInput, _ ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofList(in).list(in)
}

func (healthyLister) DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	return nil, errRefused
}

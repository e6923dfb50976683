package awskinesis

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "replay the simulation of this seed, above 0")
	simCount = flag.Uint64("sim.count", 0, "simulate the seeds from 1 to this; 0 for as many as each test has by itself")
	simFull  = flag.Bool("sim.full", false, "simulate the largest fleet in full size, and for an hour")
)

// world is what the groups of a simulation have in common: streams, the network, time. What
// happens in it follows from its seed, but for the order of goroutines that are ready at the
// same moment: a seed that broke a promise may need a few runs to break it again.
type world struct {
	seed        uint64
	began       time.Time
	names       []string // of the streams
	groups      []*simulation
	leasePeriod time.Duration

	// network has the requests that outlive their clients, departures the
	// clients that are on their way out.
	network, departures sync.WaitGroup

	// dice are the director's own.
	dice *rand.Rand

	mu      sync.Mutex // guards what follows, and all of the groups
	streams map[string]*simulatedStream
	laggard *rand.Rand
	verdict string // the first broken promise
	behind  behindWays

	// fanned is whether some clients read by enhanced fan-out, registered the number of
	// consumers that ever were, and crowded the weather at all shards; fair where each has
	// its own. meddler has the dice of who deregisters consumers.
	fanned     bool
	registered int
	crowded    weather
	meddler    *rand.Rand
	tally      *tally // of all seeds

	// producers put the records.
	producers producers
	// remade is whether streams are deleted and made anew, and past has those that were,
	// by name and oldest first. While there is none of a name, its stream is nil.
	remade bool
	past   map[string][]*simulatedStream
	// mixed is whether the built-in input takes part, builtIns are its instances that
	// ever joined, by name, and writer is the one that makes the write of which the
	// table tells at this moment, under whose lock it is.
	mixed    bool
	builtIns map[string]*builtIn
	writer   *builtIn
}

// simulation is a group of real inputs around one table, in memory and in virtual time. Most
// worlds have one.
type simulation struct {
	*world
	group string // its name, empty for that of the table itself
	table *memoryTable

	// What the clients have in common.
	conf            config
	startFromOldest bool
	autoReplay      bool
	// from and end are the moments from which and up to which it reads, by the service's
	// clock; zero where it goes by startFromOldest, and where it does not end.
	from, end time.Time

	// joined is the number of clients so far.
	joined int

	clients  map[string]*simulatedClient // all that ever joined, by name
	present  map[string]bool             // ids whose items are in the table
	passed   map[string]time.Time        // when shards were handed over, by their terms
	progress map[*simulatedShard]*progress
	// claimed is when, by the service's clock, a shard of a stream was claimed for the
	// first time, in an earlier stream of the name perhaps.
	claimed map[string]time.Time
	// guilty is the shard of which unsettled has told last, nil for none.
	guilty *progress
	// faulty is whether there are faults, and faultRate how many of the requests
	// meet one.
	faulty    bool
	faultRate float64
	// idle is how long a read of a shard takes while nothing is left to read.
	idle time.Duration
	// moves counts how often a shard came to another client than before.
	moves int
	// still is whether all shards should stay where they are.
	still bool
}

// simulatedConfig is parsed but once, since thousands of fleets use it.
var simulatedConfig = sync.OnceValue(func() config {
	parsed, err := configSpec().ParseYAML("{ streams: [ unused ], dynamodb: { table: unused } }", nil)
	if err != nil {
		panic(err)
	}
	conf, err := parseConfig(parsed)
	if err != nil {
		panic(err)
	}
	return conf
})

// addGroup adds a group that has nothing yet.
func (w *world) addGroup(name string) *simulation {
	s := &simulation{
		world: w, group: name, table: newMemoryTable(), clients: map[string]*simulatedClient{}, present: map[string]bool{},
		passed: map[string]time.Time{}, progress: map[*simulatedShard]*progress{}, claimed: map[string]time.Time{},
	}
	w.groups = append(w.groups, s)
	remember, rememberMember := s.table.Wrote, s.table.Beaten
	s.table.Wrote = func(before, after lease.Item) { remember(before, after); s.wrote(before, after) }
	s.table.Beaten = func(before, after lease.Member) { rememberMember(before, after); s.beaten(before, after) }
	s.table.lag = s.lag
	return s
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	t.Helper()
	w := &world{
		tally: &tally{of: map[string]int{}}, meddler: rand.New(rand.NewPCG(seed, 2)),
		seed: seed, began: time.Now(), streams: map[string]*simulatedStream{},
		builtIns: map[string]*builtIn{}, past: map[string][]*simulatedStream{},
		dice: rand.New(rand.NewPCG(seed, 0)), behind: newBehindWays(seed),
	}
	s := w.addGroup("")
	s.autoReplay = s.dice.IntN(4) > 0
	s.conf = simulatedConfig()
	s.conf.streams = nil
	s.conf.autoReplayNacks = s.autoReplay
	s.leasePeriod = []time.Duration{5 * time.Second, 5 * time.Second, 30 * time.Second}[s.dice.IntN(3)]
	s.startFromOldest = s.dice.IntN(3) > 0
	s.conf.leasePeriod = s.leasePeriod
	s.conf.rebalancePeriod = s.leasePeriod
	s.conf.commitPeriod = s.leasePeriod / time.Duration(4+s.dice.IntN(4))
	s.conf.startFromOldest = s.startFromOldest
	if packer := rand.New(rand.NewPCG(seed, 3)); packer.IntN(2) == 0 {
		s.producers.packer, s.conf.deaggregate = packer, true
	}
	s.conf.batching.Count = 1 + s.dice.IntN(5)
	if s.conf.batching.Count > 1 {
		s.conf.batching.Period = "300ms"
	}
	return s
}

func (s *simulation) addStream(shards int) {
	st := newSimulatedStream(fmt.Sprint("stream-", len(s.names)), shards, s.remade)
	st.producers = s.producers
	s.names = append(s.names, st.name)
	s.streams[st.name] = st
	s.conf.streams = append(s.conf.streams, stream{id: st.name})
}

// lag is how old a read is that is not consistent: mostly hardly, and rarely a second.
func (s *simulation) lag() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.laggard == nil {
		s.laggard = rand.New(rand.NewPCG(s.seed, 1))
	}
	roll := s.laggard.Float64()
	return time.Duration(roll * roll * roll * roll * float64(time.Second))
}

// ofList is the stream that a request to list shards is about.
func (s *simulation) ofList(in *kinesis.ListShardsInput) *simulatedStream {
	if in.StreamName != nil {
		return s.streams[*in.StreamName]
	}
	name, _, _ := strings.Cut(*in.NextToken, "/")
	return s.streams[name]
}

// skew is how far a clock is off: by up to an hour. The built-in input goes by the
// clocks of others, which are nearly right where it takes part.
func (s *simulation) skew() time.Duration {
	skew := time.Duration(s.dice.Int64N(int64(2*time.Hour))) - time.Hour
	if s.mixed {
		skew = time.Duration(float64(skew) / float64(time.Hour) * float64(s.leasePeriod) / 10)
	}
	return skew
}

// join starts a client.
func (s *simulation) join(t *testing.T) *simulatedClient {
	t.Helper()
	return s.joinWith(t, s.conf.streams)
}

// joinWith starts a client that reads what it is told to.
func (s *simulation) joinWith(t *testing.T, streams []stream) *simulatedClient {
	t.Helper()
	s.joined++
	c := &simulatedClient{
		sim: s, name: s.clientNamed(s.joined),
		skew:     s.skew(),
		limit:    []int{1, 5, 20, 1024}[s.dice.IntN(4)],
		output:   outputKind(s.dice.IntN(3)),
		standing: map[string]*tenure{}, tenures: map[lease.Key]*tenure{}, dice: map[string]*rand.Rand{},
		ways: map[lease.Key]readingWay{}, subscribing: map[lease.Key]*subscribing{}, connections: map[lease.Key]*connection{},
	}
	c.life, c.stop = context.WithCancel(t.Context())
	c.ack, c.die = context.WithCancel(t.Context())

	res := service.MockResources()
	in := assemble(s.drawWay(c), res)
	in.newID = c.nextID
	in.conf.checkpointLimit, in.conf.streams = c.limit, streams
	in.bound.end = s.end
	c.input, c.pinned = in, len(streams[0].shards) > 0

	var lists []group.StreamSnapshot
	s.mu.Lock()
	s.clients[c.name] = c
	s.mu.Unlock()
	for _, name := range s.names {
		shards, at, err := retrieval.ListShards(t.Context(), healthyLister{s}, name)
		if !s.remade {
			require.NoError(t, err)
		}
		in.signals.clockIs(at, time.Now(), time.Now())
		lists = append(lists, group.StreamSnapshot{Stream: name, Shards: shards, Listed: time.Now(), ServerTime: at, Err: err})
	}
	api, fanOut := simulatedKinesis{c}, simulatedFanOut{c}
	require.NoError(t, in.start(clients{lister: api, reader: api, fanOut: fanOut, subscribe: fanOut.subscribe, closeIdle: func() {}}, simulatedStore{c}, lists, func(context.Context, string) error { return nil }))
	c.reader.Go(c.read)
	return c
}

// leave ends a client in order: it reads no more, acknowledges what it has, or
// nothing of it when it is in a hurry, and closes.
func (s *simulation) leave(c *simulatedClient, hurry bool) {
	s.mu.Lock()
	c.left = true
	s.mu.Unlock()
	s.resume(c)
	c.stop()
	if hurry {
		c.die()
	}
	s.departures.Go(func() {
		s.drain(c)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.input.Close(ctx); err != nil {
			s.mu.Lock()
			s.broken(nil, "%s cannot close: %v", c.name, err)
			s.mu.Unlock()
		}
		c.die()
		c.reader.Wait()
		c.acks.Wait()
	})
}

// drain waits for a client's acknowledgements. A reader that does not end is not
// waited for: the call that it is in ends with Close at the latest.
func (s *simulation) drain(c *simulatedClient) {
	drained := make(chan struct{})
	s.departures.Go(func() {
		defer close(drained)
		c.reader.Wait()
		c.acks.Wait()
	})
	patience := time.NewTimer(5 * s.leasePeriod)
	defer patience.Stop()
	select {
	case <-drained:
	case <-patience.C:
	}
}

// crash ends a client as SIGKILL does. What it has on the network arrives.
func (s *simulation) crash(c *simulatedClient) {
	s.mu.Lock()
	c.dead = true
	if c.halted == nil {
		c.halted = make(chan struct{})
	}
	s.mu.Unlock()
	c.stop()
	c.die()
	s.departures.Go(func() {
		_ = c.input.Close(context.Background()) // it is dead, and only its goroutines are to end
		c.reader.Wait()
		c.acks.Wait()
	})
}

// pause stops a client as SIGSTOP does: none of its requests is sent or answered,
// nothing is read from it, and nothing acknowledged.
func (s *simulation) pause(c *simulatedClient, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.halted != nil {
		return
	}
	c.halted = make(chan struct{})
	if c.yielding != nil {
		c.yielding()
	}
	s.later(c.life, d, func() { s.resume(c) })
}

func (s *simulation) resume(c *simulatedClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.halted != nil && !c.dead {
		close(c.halted)
		c.halted = nil
	}
}

// part cuts a client off from the table.
func (s *simulation) part(c *simulatedClient, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.apart != nil {
		return
	}
	c.apart = make(chan struct{})
	s.sever(c)
	s.later(c.life, d, func() { s.unite(c) })
}

func (s *simulation) unite(c *simulatedClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.apart != nil {
		close(c.apart)
		c.apart = nil
	}
}

// later does something when d has passed, and at the end of ctx at the latest.
func (s *simulation) later(ctx context.Context, d time.Duration, do func()) {
	s.departures.Go(func() {
		_ = wait(ctx, d)
		do()
	})
}

// clientNamed is the name of a client that has a number.
func (s *simulation) clientNamed(number int) string { return fmt.Sprint(s.group, "c", number) }

// living returns the clients that are there, in the order of their joining.
func (s *simulation) living() []*simulatedClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*simulatedClient
	for n := range s.joined {
		if c := s.clients[s.clientNamed(n+1)]; c.reading() {
			all = append(all, c)
		}
	}
	return all
}

// Whatever happens up to the end of the faults, the promises of the design hold
// at every moment; after it all is read, stored and shared equally, and stays so.
func TestSimulation(t *testing.T) {
	simulateSeeds(t, manySeeds, (*simulation).direct)
}

// How many seeds a test has by itself: each takes seconds under the race detector.
const (
	manySeeds = 30
	fewSeeds  = 5
)

// simulateSeeds has a director run each seed, of which there are usually so many.
func simulateSeeds(t *testing.T, usual uint64, direct func(*simulation, *testing.T)) {
	t.Helper()
	simulatedConfig()
	counts := &tally{of: map[string]int{}}
	if *simSeed > 0 {
		simulateSeed(t, *simSeed, counts, direct)
		counts.report(t, 1)
		return
	}
	count := cmp.Or(*simCount, usual)
	t.Cleanup(func() { counts.report(t, count) }) // after all seeds
	for seed := uint64(1); seed <= count; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			simulateSeed(t, seed, counts, direct)
		})
	}
}

func simulateSeed(t *testing.T, seed uint64, counts *tally, direct func(*simulation, *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, seed)
		s.tally, s.fanned = counts, true
		direct(s, t)
		if s.verdict != "" {
			test, _, _ := strings.Cut(t.Name(), "/")
			t.Errorf("seed %d: %s\nreplay it with: go test -run '%s$' . -sim.seed=%d -count=5", seed, s.verdict, test, seed)
		}
	})
}

// direct is a whole run.
func (s *simulation) direct(t *testing.T) {
	t.Helper()
	clients := s.begin(t)
	for range 30 + s.dice.IntN(30) {
		pass(time.Duration(s.dice.Int64N(int64(s.leasePeriod))))
		s.scene(t, 2*clients)
		if s.failed() {
			break
		}
	}
	s.calm(t)
	s.linger(t)
	s.stay(t, 5*time.Minute)
	s.finish(t)
}

// begin makes streams and clients, and returns how many these are.
func (s *simulation) begin(t *testing.T) (clients int) {
	t.Helper()
	large := s.seed%100 == 0
	streams, shards, clients := 1+s.dice.IntN(2), 2+s.dice.IntN(10), 1+s.dice.IntN(4)
	if large {
		shards, clients = 60+s.dice.IntN(60), 8+s.dice.IntN(8)
	}
	for range streams {
		s.addStream(shards)
	}
	s.feed()
	s.faultRate = s.dice.Float64() * s.dice.Float64() / 2
	s.faulty = true
	for range clients {
		s.join(t)
	}
	return clients
}

func (s *simulation) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict != ""
}

// scene is one event of a run.
func (s *simulation) scene(t *testing.T, most int) {
	s.meddle()
	living := s.living()
	var c *simulatedClient
	if len(living) > 0 {
		c = living[s.dice.IntN(len(living))]
	}
	span := time.Duration(s.dice.Float64() * 3 * float64(s.leasePeriod))
	switch event := s.dice.IntN(14); {
	case event < 4:
		s.feed()
	case event < 6:
		s.reshard()
	case event < 8 && len(living) < most || c == nil:
		s.join(t)
	case event == 8:
		s.leave(c, s.dice.IntN(2) == 0)
	case event == 9:
		s.crash(c)
	case event < 12:
		s.pause(c, span)
	default:
		s.part(c, span)
	}
}

// feed puts records into some of the shards.
func (s *simulation) feed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names {
		if s.streams[name] == nil {
			continue
		}
		for _, sh := range s.streams[name].open() {
			if s.dice.IntN(3) > 0 {
				s.streams[name].putTo(sh, s.dice.IntN(12))
			}
		}
	}
}

// reshard splits a shard or merges two, and feeds those that come of it.
func (s *simulation) reshard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[s.names[s.dice.IntN(len(s.names))]]
	if st == nil {
		return
	}
	open := st.open()
	if s.mixed {
		// The built-in input takes a closed shard that nobody has begun for read.
		open = slices.DeleteFunc(open, func(sh *simulatedShard) bool { return !s.of(sh).claimed })
		if len(open) == 0 {
			return
		}
	}
	i := s.dice.IntN(len(open))
	if s.dice.IntN(2) == 0 && len(open) > 1 {
		j := (i + 1 + s.dice.IntN(len(open)-1)) % len(open)
		st.add(open[i], open[j])
	} else {
		st.add(open[i])
		st.add(open[i])
	}
	for _, sh := range st.open() {
		if len(sh.records) == 0 {
			st.putTo(sh, s.dice.IntN(8))
		}
	}
}

// heal ends all faults, and sees to it that there is a client.
func (s *simulation) heal(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	s.faulty = false
	s.mu.Unlock()
	for _, c := range s.living() {
		s.resume(c)
		s.unite(c)
	}
	if len(s.living()) == 0 {
		s.join(t)
	}
}

// calm ends all faults and waits until all is read, stored and shared equally.
func (s *simulation) calm(t *testing.T) {
	t.Helper()
	s.heal(t)
	missing := "unknown"
	for begun := time.Now(); time.Since(begun) < 20*s.leasePeriod+s.patience(); {
		pass(s.leasePeriod / 4)
		if missing = s.unsettled(); missing == "" || s.failed() {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken(s.guilty, "%s after the last fault: %s", 20*s.leasePeriod+s.patience(), missing)
}

// stay checks that a fleet which is balanced leaves its shards alone.
func (s *simulation) stay(t *testing.T, d time.Duration) {
	if s.failed() {
		return
	}
	// The last of what the network had arrives, such as the request for a shard of
	// a client that is gone, from which the shard then has to be taken back.
	pass(3 * s.leasePeriod)
	if s.calm(t); s.failed() {
		return
	}
	s.mu.Lock()
	s.still, s.idle = true, 10*time.Minute
	s.mu.Unlock()
	pass(d)
	s.mu.Lock()
	s.still, s.idle = false, 0
	s.mu.Unlock()
}

// finish has every client leave, after which nothing is to be left behind.
func (w *world) finish(t *testing.T) {
	t.Helper()
	for _, s := range w.groups {
		for _, c := range s.living() {
			s.leave(c, false)
		}
	}
	w.departures.Wait()
	w.network.Wait()
	for _, s := range w.groups {
		if left := s.leftover(); left != "" {
			s.mu.Lock()
			s.broken(nil, "after all have left: %s", left)
			s.mu.Unlock()
		}
	}
}

// idleFleet has clients with default periods that join at once, without faults, and
// a stream without records. Reading its shards every two seconds is no part of it.
func idleFleet(t *testing.T, clients, shards int) *simulation {
	t.Helper()
	s := newSimulation(t, 1)
	s.leasePeriod = 30 * time.Second
	s.conf.leasePeriod, s.conf.rebalancePeriod, s.conf.commitPeriod = s.leasePeriod, s.leasePeriod, 5*time.Second
	s.addStream(shards)
	s.idle = 10 * time.Minute
	for range clients {
		s.join(t)
	}
	return s
}

// In full size it is the largest fleet that the input is made for, which takes a
// minute or two of real time.
func TestClientsThatJoinAtOnceShareThousandsOfShards(t *testing.T) {
	simulatedConfig()
	clients, shards, still := 15, 400, 2*time.Minute
	if *simFull {
		clients, shards, still = 50, 2000, time.Hour
	}
	synctest.Test(t, func(t *testing.T) {
		s := idleFleet(t, clients, shards)
		const look = 10 * time.Second // a third of the lease period
		pass(3 * look)
		require.Empty(t, s.unsettled(), "after three rounds")
		require.LessOrEqual(t, s.moves, shards*3/2, "each shard has to move once")
		s.stay(t, still)
		s.finish(t)
		require.Empty(t, s.verdict)
		t.Logf("%d moves of %d shards", s.moves, shards)
	})
}

// Processes that are started together do not come at the same instant. Each shard
// moves once, to whom it belongs when all have come.
func TestClientsThatJoinOneAfterTheOtherGetTheirSharesInOneMove(t *testing.T) {
	simulatedConfig()
	clients, shards := 15, 400
	if *simFull {
		clients, shards = 50, 2000
	}
	for name, there := range map[string]int{"one was there": 1, "half were there": clients / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleFleet(t, there, shards)
				pass(time.Minute)
				require.Empty(t, s.unsettled())
				before, random := s.moves, rand.New(rand.NewPCG(1, 1))
				for range clients - there {
					pass(time.Duration(random.Int64N(int64(6*time.Second) / int64(clients)))) // 3 s in all
					s.join(t)
				}
				// An eventually consistent reading may hide the last hand-over to a member, which
				// then learns of it by the next reading that is due for the time alone.
				for begin := time.Now(); len(s.unsettled()) > 0 && time.Since(begin) < 10*time.Second+s.conf.rebalancePeriod; {
					pass(time.Second)
				}
				require.Empty(t, s.unsettled())
				require.LessOrEqual(t, s.moves-before, shards*(clients-there)/clients+clients)
				s.stay(t, time.Minute)
				s.finish(t)
				require.Empty(t, s.verdict)
			})
		})
	}
}

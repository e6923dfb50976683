package awskinesis

import (
	"strconv"
	"testing"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// deleteStream deletes a stream with all that is in it, and makes one anew under its
// name a while later. Its sequence numbers are higher than all of the old one.
func (s *simulation) deleteStream(t *testing.T, name string, anew time.Duration, shards, reshards int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.streams[name]
	s.past[name] = append(s.past[name], old)
	s.streams[name] = nil
	for _, sh := range old.shards {
		sh.wake()
	}
	s.later(t.Context(), anew, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		st := &simulatedStream{
			name: name, byID: map[string]*simulatedShard{}, ranged: true,
			life: old.life + 1, put: old.put + 10, producers: old.producers,
		}
		for range shards {
			st.add()
		}
		s.streams[name] = st
		for i := range reshards {
			sh := st.open()[i%len(st.open())]
			st.putTo(sh, i%3*4) // none at all at times
			st.add(sh)
			st.add(sh)
		}
	})
}

// pin starts a client that reads shards by their names, as "0" or in full.
func (s *simulation) pin(t *testing.T) *simulatedClient {
	t.Helper()
	var streams []stream
	for _, name := range s.names {
		pinned := stream{id: name}
		for i := range 4 {
			if s.dice.IntN(2) == 0 && len(pinned.shards) > 0 {
				continue
			}
			written := strconv.Itoa(i)
			if s.dice.IntN(2) == 0 {
				written = shardName(i)
			}
			pinned.shards = append(pinned.shards, written)
		}
		streams = append(streams, pinned)
	}
	return s.joinWith(t, streams)
}

// Of a stream that was deleted and made anew under its name all is read, parents first,
// whatever the table tells of the earlier one, and whoever reads shards by their names.
func TestSimulationOfStreamsMadeAnew(t *testing.T) {
	simulateSeeds(t, manySeeds, (*simulation).directRemade)
}

// directRemade is a whole run with streams that are made anew.
func (s *simulation) directRemade(t *testing.T) {
	t.Helper()
	s.remade = true
	clients := 1 + s.dice.IntN(3)
	for range 1 + s.dice.IntN(2) {
		s.addStream(1 + s.dice.IntN(6))
	}
	s.feed()
	s.faultRate = s.dice.Float64() * s.dice.Float64() / 2
	s.faulty = true
	for range clients {
		s.join(t)
	}
	for range 30 + s.dice.IntN(30) {
		pass(time.Duration(s.dice.Int64N(int64(s.leasePeriod))))
		s.remadeScene(t, 2*clients)
		if s.failed() {
			break
		}
	}
	for _, c := range s.living() {
		if c.pinned && s.dice.IntN(2) == 0 {
			s.crash(c)
		} else if c.pinned {
			s.leave(c, false)
		}
	}
	for s.missing() {
		pass(s.leasePeriod)
	}
	s.calm(t)
	s.linger(t)
	s.stay(t, 5*time.Minute)
	s.finish(t)
}

func (s *simulation) remadeScene(t *testing.T, most int) {
	t.Helper()
	switch event := s.dice.IntN(10); event {
	case 0:
		name := s.names[s.dice.IntN(len(s.names))]
		// The service takes longer for both than two calls can be on their way: that
		// which finds the shard of the old stream, and that which reads it by its id.
		anew := 2*session.AttemptTimeout + time.Duration(s.dice.Float64()*s.dice.Float64()*3*float64(s.leasePeriod))
		shards, reshards := 1+s.dice.IntN(6), s.dice.IntN(3)
		s.mu.Lock()
		there := s.streams[name] != nil
		s.mu.Unlock()
		if there {
			s.deleteStream(t, name, anew, shards, reshards)
		}
	case 1:
		if len(s.living()) <= most {
			s.pin(t)
		}
	default:
		s.scene(t, most)
	}
}

// missing reports whether there is no stream of some name.
func (s *simulation) missing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names {
		if s.streams[name] == nil {
			return true
		}
	}
	return false
}

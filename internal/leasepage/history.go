package leasepage

import (
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

const (
	// resolution is how long a slot of the history is, and slots how many an hour has.
	resolution = 10 * time.Second
	slots      = int64(remembered / resolution)
	// maxSeries bounds of how many shards the lag is kept: 1,440 bytes each.
	maxSeries = 2000
	// unknown is the lag of a slot in which nothing was read, or nobody knew it.
	unknown = -1
)

// history is the lag of each shard in the last hour. Slots are numbered from the start of
// the server on.
type history struct {
	newest int64 // -1 before the first
	series map[shardKey]*series
	// Without is how many shards had no place at the last reading.
	without int
}

type shardKey struct{ stream, shard string }

// series is the lag of a shard in whole seconds, the greatest of each slot, at the number
// of the slot modulo slots. Slots after newest have not been.
type series struct {
	lag  [slots]int32
	last int64 // the last slot in which it was known
}

func newHistory() *history { return &history{newest: -1, series: map[shardKey]*series{}} }

// record notes the lag of all shards that are not done, so long after the start.
func (h *history) record(at time.Duration, v leases.View) {
	slot := int64(at / resolution)
	h.advance(slot)
	h.without = 0
	for _, stream := range v.Streams {
		for _, s := range stream.Shards {
			if s.Lag == nil || done(s) {
				continue
			}
			key := shardKey{stream.Name, s.Shard}
			one := h.series[key]
			if one == nil {
				if len(h.series) >= maxSeries {
					h.without++
					continue
				}
				one = &series{}
				for i := range one.lag {
					one.lag[i] = unknown
				}
				h.series[key] = one
			}
			one.last = slot
			one.lag[slot%slots] = max(one.lag[slot%slots], int32(min(s.Lag.Duration()/time.Second, 1<<30)))
		}
	}
}

// advance makes slots up to this one, of which nothing is known, and forgets shards of
// which nothing is known in the last hour.
func (h *history) advance(slot int64) {
	for next := max(h.newest+1, slot-slots+1); next <= slot; next++ {
		for _, one := range h.series {
			one.lag[next%slots] = unknown
		}
	}
	h.newest = max(h.newest, slot)
	for key, one := range h.series {
		if one.last <= h.newest-slots {
			delete(h.series, key)
		}
	}
}

// History is the answer of /api/history.
type History struct {
	Resolution leases.Seconds `json:"resolution_seconds"`
	Slots      int64          `json:"slots"` // that are kept
	// From and To are the first and the last slot of the answer. The last one grows until
	// its time is over. To is less than From where there is none.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Lag is in whole seconds, by stream, shard and slot; -1 where it is not known.
	Lag     map[string]map[string][]int32 `json:"lag"`
	Without int                           `json:"without,omitempty"` // shards whose lag is not kept, since they are too many
}

// after returns the slots after this one.
func (h *history) after(slot int64) History {
	from := max(slot+1, h.newest-slots+1, 0)
	if slot > h.newest {
		from = max(h.newest-slots+1, 0) // asked of an earlier process
	}
	a := History{
		Resolution: leases.SecondsOf(resolution), Slots: slots, From: from, To: h.newest,
		Lag: map[string]map[string][]int32{}, Without: h.without,
	}
	for key, one := range h.series {
		lag := make([]int32, 0, max(h.newest-from+1, 0))
		for n := from; n <= h.newest; n++ {
			lag = append(lag, one.lag[n%slots])
		}
		if a.Lag[key.stream] == nil {
			a.Lag[key.stream] = map[string][]int32{}
		}
		a.Lag[key.stream][key.shard] = lag
	}
	return a
}

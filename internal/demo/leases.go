package main

import (
	"maps"
	"sync"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

const (
	// members is the StreamID of the items that say who is in the group, and
	// evicted what stands in one whose process was taken for dead, as
	// docs/aws_kinesis.md has it.
	members = "/clients"
	evicted = "evicted"
)

// leases follows the table write by write. The server's goroutines write it, the
// story reads it.
type leases struct {
	mu      sync.Mutex
	shards  map[string]lease
	joined  []string // member ids since the last news
	evicted []string // the same
	// lost has what each evicted member had then.
	lost map[string]map[string]string
}

// lease is what the table has of a shard.
type lease struct {
	owner    string // a member id; empty for none
	sequence string // up to which the shard is committed; empty for nothing
}

func newLeases() *leases {
	return &leases{shards: map[string]lease{}, lost: map[string]map[string]string{}}
}

// write is a watcher of awsfake.Server.OnWrite.
func (l *leases) write(w awsfake.Write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := w.Key["ShardID"].Text
	switch w.Key["StreamID"].Text {
	case members:
		if w.Before == nil {
			l.joined = append(l.joined, id)
		}
		if w.After["LeaseTimeout"].Text == evicted {
			l.evicted = append(l.evicted, id)
			l.lost[id] = l.ownedBy(id)
		}
	case stream:
		l.shards[id] = lease{owner: w.After["ClientID"].Text, sequence: w.After["SequenceNumber"].Text}
	}
}

// all returns the leases of all shards.
func (l *leases) all() map[string]lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.shards)
}

// of returns the shards of a member and how far each is committed: now, or when it
// was evicted. From then on others claim them.
func (l *leases) of(id string) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lost, ok := l.lost[id]; ok {
		return lost
	}
	return l.ownedBy(id)
}

// ownedBy needs l.mu.
func (l *leases) ownedBy(id string) map[string]string {
	owned := map[string]string{}
	for shard, lease := range l.shards {
		if lease.owner == id {
			owned[shard] = lease.sequence
		}
	}
	return owned
}

// news returns who has joined and who was evicted since it was last called.
func (l *leases) news() (joined, evicted []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	joined, evicted, l.joined, l.evicted = l.joined, l.evicted, nil, nil
	return joined, evicted
}

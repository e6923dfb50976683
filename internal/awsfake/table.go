package awsfake

import (
	"crypto/md5" //nolint:gosec // spreads partitions, as a scan of the service sees them
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"
)

// Quotas of DynamoDB, from "Quotas in Amazon DynamoDB" of its developer guide.
const (
	maxItemBytes           = 400 << 10
	maxTablePageBytes      = 1 << 20
	partitionWritesSeconds = 1_000 // write units of 1 KiB for one hash key
	maxBatchGets           = 100
	maxBatchWrites         = 25
	maxSegments            = 1_000_000
)

// table is made by CreateTable. Its key is fixed; mu guards the rest, but for
// the meter, which has its own lock.
//
// Lock order: table.mu, dynamoService.mu; table.mu, meter.mu.
type table struct {
	name    string
	arn     string
	keys    []keyAttribute // hash, and range if there is one
	billing string
	reads   int64 // provisioned units; 0 on demand
	writes  int64
	created time.Time
	active  time.Time
	stale   time.Duration // how long old versions are kept
	notify  func(Write)
	meter   meter

	mu         sync.RWMutex
	partitions map[string][]*row // by hash key, each ordered by range key
	budgets    map[string]*bucket
	indexes    []*index
	protected  bool // against its deletion
}

type keyAttribute struct{ name, typ string }

// row is an item and, for stale reads, what it was before.
type row struct {
	key      primaryKey
	versions []version // in order of time. Invariant: at least one
}

type version struct {
	item Item // nil when deleted
	at   time.Time
}

type primaryKey struct{ hash, rng Value }

// Write is one change of a table.
type Write struct {
	Table     string
	Operation string // "PutItem", "UpdateItem" or "DeleteItem"
	Key       Item
	// Before and After are the whole item; nil where there is none.
	Before, After Item
}

// primaryKey checks that key has the attributes of the table's key and no
// others.
func (t *table) primaryKey(key Item) (primaryKey, error) {
	if len(key) != len(t.keys) {
		return primaryKey{}, invalid("The provided key element does not match the schema")
	}
	for _, k := range t.keys {
		if v, ok := key[k.name]; !ok || v.Type != k.typ {
			return primaryKey{}, invalid("The provided key element does not match the schema")
		}
	}
	return t.keyIn(key)
}

// keyIn finds the key in a whole item.
func (t *table) keyIn(item Item) (primaryKey, error) {
	var found [2]Value
	for i, k := range t.keys {
		v, ok := item[k.name]
		switch {
		case !ok:
			return primaryKey{}, invalid("One or more parameter values were invalid: Missing the key %s in the item", k.name)
		case v.Type != k.typ:
			return primaryKey{}, invalid("One or more parameter values were invalid: Type mismatch for key %s expected: %s actual: %s", k.name, k.typ, v.Type)
		case v.Text == "":
			return primaryKey{}, invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: %s", k.name)
		}
		found[i] = v
	}
	return primaryKey{found[0], found[1]}, nil
}

// keyOf is the part of an item that is its key.
func (t *table) keyOf(item Item) Item {
	key := Item{}
	for _, k := range t.keys {
		if v, ok := item[k.name]; ok {
			key[k.name] = v
		}
	}
	return key
}

func (t *table) keyItem(k primaryKey) Item {
	key := Item{t.keys[0].name: k.hash}
	if len(t.keys) > 1 {
		key[t.keys[1].name] = k.rng
	}
	return key
}

func byRange(r *row, rng Value) int {
	order, _ := r.key.rng.compare(rng) // of a table without range key all are equal
	return order
}

// at is the item as it was at a time; the zero time means now.
func (r *row) at(when time.Time) Item {
	for _, v := range slices.Backward(r.versions) {
		if when.IsZero() || !v.at.After(when) {
			return v.item
		}
	}
	return nil
}

// get needs t.mu.
func (t *table) get(k primaryKey, when time.Time) Item {
	rows := t.partitions[k.hash.Text]
	if i, ok := slices.BinarySearchFunc(rows, k.rng, byRange); ok {
		return rows[i].at(when)
	}
	return nil
}

// set stores an item, or removes one if item is nil; needs t.mu.
func (t *table) set(k primaryKey, item Item, now time.Time) {
	rows := t.partitions[k.hash.Text]
	i, ok := slices.BinarySearchFunc(rows, k.rng, byRange)
	if !ok {
		rows = slices.Insert(rows, i, &row{key: k})
		t.partitions[k.hash.Text] = rows
	}
	r := rows[i]
	// The last version that a stale read can still see is the newest one that
	// is old enough; those before it go.
	for len(r.versions) > 1 && !r.versions[1].at.After(now.Add(-t.stale)) {
		r.versions = slices.Delete(r.versions, 0, 1)
	}
	if t.stale == 0 {
		r.versions = nil
		if item == nil {
			if rows = slices.Delete(rows, i, i+1); len(rows) > 0 {
				t.partitions[k.hash.Text] = rows
			} else {
				delete(t.partitions, k.hash.Text)
			}
			return
		}
	}
	r.versions = append(r.versions, version{item, now})
}

// changed is what a write made of an item, which is nil where there is none.
type changed struct {
	old, stored Item
	units       float64 // that it consumed
}

// change is every write: it checks a condition and stores what edit makes of
// the old item, in one step that watchers see before any later one. edit gets
// nil for an item that is not there and returns nil to remove it; it also runs
// where the condition fails, since the item that would have been counts then.
func (t *table) change(w Write, cond *condition, now time.Time, by payer, edit func(old Item) (Item, error)) (changed, error) {
	k, err := t.keyIn(w.Key)
	if err != nil {
		return changed{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.get(k, time.Time{})
	if by.limited {
		if err := t.spend(k.hash.Text, old, now); err != nil {
			return changed{}, err
		}
	}
	stored, err := edit(old)
	if !cond.holds(old) {
		t.meter.write(by, old, stored)
		return changed{old: old}, NewError(CodeConditionalCheckFailed, "The conditional request failed")
	}
	if err != nil {
		return changed{}, err
	}
	if stored.size() > maxItemBytes {
		return changed{}, invalid("Item size has exceeded the maximum allowed size")
	}
	for _, x := range t.indexes {
		if err := x.takes(stored); err != nil {
			return changed{}, err
		}
	}
	c := changed{old, stored, t.meter.write(by, old, stored)}
	if old == nil && stored == nil {
		return c, nil
	}
	t.set(k, stored, now)
	w.Table, w.Before, w.After = t.name, old, stored
	t.notify(w)
	return c, nil
}

// spend takes write units for a hash key; needs t.mu. The size before the
// write stands for the larger of both, which are near in the tables here.
func (t *table) spend(hash string, old Item, now time.Time) error {
	rate, code := float64(partitionWritesSeconds), CodeThrottling
	if t.billing == billingProvisioned {
		rate, code = min(rate, float64(t.writes)), CodeThroughputExceeded
	}
	b := t.budgets[hash]
	if b == nil {
		b = &bucket{}
		t.budgets[hash] = b
	}
	if b.refill(now, rate) < 1 {
		return refuse(code, "Throughput exceeds the current capacity for one or more partitions of table %s.", t.name)
	}
	b.take(writeUnits(old))
	return nil
}

// hashes returns the hash keys in order; needs t.mu.
func (t *table) hashes() []string { return slices.Sorted(maps.Keys(t.partitions)) }

// scanOrder returns all rows as a scan passes them: partitions in the order of
// a hash, which looks like none; needs t.mu.
func (t *table) scanOrder() []*row {
	hashes := slices.Collect(maps.Keys(t.partitions))
	slices.SortFunc(hashes, func(a, b string) int { return strings.Compare(spread(a), spread(b)) })
	var rows []*row
	for _, h := range hashes {
		rows = append(rows, t.partitions[h]...)
	}
	return rows
}

func spread(hash string) string {
	sum := md5.Sum([]byte(hash)) //nolint:gosec // see above
	return string(sum[:])
}

// segmentOf is where a hash key is in a scan by so many. Each segment is a part of the
// order in which a scan passes the partitions.
func segmentOf(hash string, segments int) int {
	high, _ := bits.Mul64(binary.BigEndian.Uint64([]byte(spread(hash))), uint64(segments))
	return int(high)
}

// behind reports whether a scan passes r after k, which need not exist.
func (r *row) behind(k primaryKey) bool {
	if r.key.hash.Text != k.hash.Text {
		return spread(r.key.hash.Text) > spread(k.hash.Text)
	}
	return byRange(r, k.rng) > 0
}

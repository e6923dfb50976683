package awsfake

import (
	"maps"
	"sync"
)

// Bytes of one unit, from "DynamoDB read and write operations" of the developer
// guide.
const (
	readUnitBytes  = 4 << 10
	writeUnitBytes = 1 << 10
)

// Capacity is what requests consumed of a table, in capacity units. The rules
// are those of "DynamoDB read and write operations" in the developer guide of
// DynamoDB; a KB has 1,024 bytes.
//
// A consistent read of up to 4 KB is one read unit, any other read half of that.
// GetItem rounds up the size of its item, Query and Scan the sum of the items
// that a page evaluates, before any filter or projection. What finds nothing
// still costs the least, half a unit or one; the service charges a Scan so for
// each partition of the table, of which there is one here.
//
// A write of up to 1 KB is one write unit. It counts the larger of the item
// before and after it, also where only a part changes, the item is deleted, or
// there is none to delete. A failed condition costs what the write would have.
//
// The items of a batch are rounded up one by one. Requests that are refused with
// any other error cost nothing.
type Capacity struct {
	ReadUnits  float64 // a multiple of 0.5
	WriteUnits float64 // whole
	// Operations has the units of each operation that was called, such as
	// "Query": read units of those that read, write units of the others.
	Operations map[string]float64
}

// Capacity is what the requests for a table consumed since it was created, also
// of those whose answers were lost. The setup methods consume nothing. It is an
// error if there is no such table.
func (s *Server) Capacity(table string) (Capacity, error) {
	t, err := s.dynamodb.lookup(table)
	if err != nil {
		return Capacity{}, err
	}
	return t.meter.total(), nil
}

// consuming are requests that can ask for the units that they consume.
type consuming struct{ ReturnConsumedCapacity string }

// consumedCapacity is how an answer tells them.
type consumedCapacity struct {
	TableName     string // or its ARN, as the request named it
	CapacityUnits float64
	Table         *tableCapacity `json:",omitempty"`
}

type tableCapacity struct{ CapacityUnits float64 }

func (c consuming) check() error {
	switch c.ReturnConsumedCapacity {
	case "", "NONE", "TOTAL", "INDEXES":
		return nil
	}
	return invalid("1 validation error detected: Value '%s' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]", c.ReturnConsumedCapacity)
}

// consumed is nil when the request did not ask.
func (c consuming) consumed(table string, units float64) *consumedCapacity {
	switch c.ReturnConsumedCapacity {
	case "TOTAL":
		return &consumedCapacity{TableName: table, CapacityUnits: units}
	case "INDEXES":
		return &consumedCapacity{TableName: table, CapacityUnits: units, Table: &tableCapacity{units}}
	}
	return nil
}

// appendConsumed is consumed for the tables of a batch.
func (c consuming) appendConsumed(all []consumedCapacity, table string, units float64) []consumedCapacity {
	if one := c.consumed(table, units); one != nil {
		all = append(all, *one)
	}
	return all
}

// payer is the operation that pays for what is done to a table. The zero value
// is that of the setup methods, which consume no units and spend no quota.
type payer struct {
	operation string
	limited   bool // by the quota of a hash key
}

func (d *dynamoService) payer(operation string) payer {
	return payer{operation, d.opts.EnforceLimits}
}

// meter counts the units of one table. Reads hold the table's lock for reading
// only, so it has one of its own.
type meter struct {
	mu   sync.Mutex
	used Capacity
}

// read counts a read of so many bytes and returns its units.
func (m *meter) read(by payer, bytes int, consistent bool) float64 {
	units := float64(unitsOf(bytes, readUnitBytes))
	if !consistent {
		units /= 2
	}
	m.add(by, Capacity{ReadUnits: units})
	return units
}

// write counts a write of items, which are what there was and what there is
// after it, and returns its units.
func (m *meter) write(by payer, items ...Item) float64 {
	units := float64(writeUnits(items...))
	m.add(by, Capacity{WriteUnits: units})
	return units
}

func (m *meter) add(by payer, c Capacity) {
	if by.operation == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used.Operations == nil {
		m.used.Operations = map[string]float64{}
	}
	m.used.ReadUnits += c.ReadUnits
	m.used.WriteUnits += c.WriteUnits
	m.used.Operations[by.operation] += c.ReadUnits + c.WriteUnits
}

func (m *meter) total() Capacity {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.used
	c.Operations = maps.Clone(c.Operations)
	return c
}

// writeUnits is what a write costs: the larger of the item before and after it,
// either of which may be nil.
func writeUnits(items ...Item) int {
	bytes := 0
	for _, item := range items {
		bytes = max(bytes, item.size())
	}
	return unitsOf(bytes, writeUnitBytes)
}

// unitsOf rounds up to whole units. Whatever moves nothing costs one.
func unitsOf(bytes, unitBytes int) int { return max(1, (bytes+unitBytes-1)/unitBytes) }

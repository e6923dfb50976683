package awsfake

import (
	"slices"
	"time"
)

// index is a global secondary index of a table, which CreateTable or UpdateTable makes.
// It is made anew from the table for each query: nothing is stored in it. The table's mu
// guards it.
type index struct {
	name       string
	keys       []keyAttribute // hash, and range if there is one
	projection projection
	provided   *throughput // nil on demand
	active     time.Time
}

type projection struct {
	ProjectionType   string
	NonKeyAttributes []string `json:",omitempty"`
}

type indexDefinition struct {
	IndexName             string
	KeySchema             []keySchema
	Projection            projection
	ProvisionedThroughput *throughput
}

type indexDescription struct {
	IndexName, IndexArn, IndexStatus string
	Backfilling                      bool `json:",omitempty"`
	KeySchema                        []keySchema
	Projection                       projection
	ProvisionedThroughput            throughput
	ItemCount, IndexSizeBytes        int
}

type updateTableInput struct {
	TableName                   string
	AttributeDefinitions        []attributeDefinition
	GlobalSecondaryIndexUpdates []struct {
		Create *indexDefinition
		Delete *struct{ IndexName string }
		Update *none
	}
	BillingMode               string
	ProvisionedThroughput     *throughput
	DeletionProtectionEnabled *bool
}

// updateTable makes or removes an index, or changes the protection against deletion.
func (d *dynamoService) updateTable(in *updateTableInput) (described, error) {
	t, err := d.lookup(in.TableName)
	if err != nil {
		return nil, err
	}
	now := d.now()
	if status := t.describe(now).TableStatus; status != "ACTIVE" {
		return nil, refuse(CodeResourceInUse, "Attempt to change a resource which is still in use: Table is being updated or created: %s", t.name)
	}
	if err := t.update(in, now, now.Add(d.opts.TableDelay)); err != nil {
		return nil, err
	}
	return described{"TableDescription": t.describe(now)}, nil
}

func (t *table) update(in *updateTableInput, now, active time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case in.BillingMode != "" || in.ProvisionedThroughput != nil:
		return invalid("BillingMode and ProvisionedThroughput of UpdateTable are not supported here")
	case len(in.GlobalSecondaryIndexUpdates) > 1:
		return refuse(CodeLimitExceeded, "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
	case len(in.GlobalSecondaryIndexUpdates) == 0 && in.DeletionProtectionEnabled == nil:
		return invalid("At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required")
	}
	if in.DeletionProtectionEnabled != nil {
		t.protected = *in.DeletionProtectionEnabled
	}
	for _, u := range in.GlobalSecondaryIndexUpdates {
		switch {
		case u.Create != nil:
			return t.addIndex(*u.Create, in.AttributeDefinitions, active)
		case u.Delete != nil:
			x, err := t.index(u.Delete.IndexName, now)
			if err != nil {
				return refuse(CodeResourceNotFound, "Requested resource not found: Index: %s not found", u.Delete.IndexName)
			}
			t.indexes = slices.DeleteFunc(t.indexes, func(o *index) bool { return o == x })
		default:
			return invalid("Update of GlobalSecondaryIndexUpdates is not supported here")
		}
	}
	return nil
}

// addIndex needs t.mu, or a table that nobody has yet.
func (t *table) addIndex(in indexDefinition, definitions []attributeDefinition, active time.Time) error {
	if !tableNames.MatchString(in.IndexName) {
		return invalid("IndexName must be at least 3 characters long and at most 255 characters long, of a-z, A-Z, 0-9, '_', '-', '.': %q", in.IndexName)
	}
	if slices.ContainsFunc(t.indexes, func(x *index) bool { return x.name == in.IndexName }) {
		return invalid("Attempting to create an index which already exists: %s", in.IndexName)
	}
	if err := checkSchema(in.KeySchema); err != nil {
		return err
	}
	keys, err := keysOf(in.KeySchema, definitions)
	if err != nil {
		return err
	}
	switch p := in.Projection; {
	case p.ProjectionType == "INCLUDE" && len(p.NonKeyAttributes) > 0:
	case (p.ProjectionType == "KEYS_ONLY" || p.ProjectionType == "ALL") && len(p.NonKeyAttributes) == 0:
	default:
		return invalid("One or more parameter values were invalid: ProjectionType is %s, with %d NonKeyAttributes", p.ProjectionType, len(p.NonKeyAttributes))
	}
	switch p := in.ProvisionedThroughput; {
	case t.billing == billingOnDemand && p != nil:
		return invalid("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	case t.billing == billingProvisioned && (p == nil || p.ReadCapacityUnits < 1 || p.WriteCapacityUnits < 1):
		return invalid("One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified for index: %s", in.IndexName)
	}
	t.indexes = append(t.indexes, &index{in.IndexName, keys, in.Projection, in.ProvisionedThroughput, active})
	return nil
}

// index finds one that can be queried; needs t.mu.
func (t *table) index(name string, now time.Time) (*index, error) {
	i := slices.IndexFunc(t.indexes, func(x *index) bool { return x.name == name })
	if i < 0 {
		return nil, invalid("The table does not have the specified index: %s", name)
	}
	if now.Before(t.indexes[i].active) {
		return nil, invalid("Cannot read from backfilling global secondary index: %s", name)
	}
	return t.indexes[i], nil
}

// definitions are the attributes of the table's key and of its indexes'; needs t.mu.
func (t *table) definitions() []attributeDefinition {
	keys := slices.Clone(t.keys)
	for _, x := range t.indexes {
		for _, k := range x.keys {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	definitions := make([]attributeDefinition, len(keys))
	for i, k := range keys {
		definitions[i] = attributeDefinition{k.name, k.typ}
	}
	return definitions
}

func (x *index) describe(table string, now time.Time) indexDescription {
	d := indexDescription{
		IndexName: x.name, IndexArn: table + "/index/" + x.name, IndexStatus: "ACTIVE",
		KeySchema: schemaOf(x.keys), Projection: x.projection,
	}
	if now.Before(x.active) {
		d.IndexStatus, d.Backfilling = "CREATING", true
	}
	if x.provided != nil {
		d.ProvisionedThroughput = *x.provided
	}
	return d
}

// takes refuses an item whose attribute has another type than the index's key. One
// without the attribute is not in the index.
func (x *index) takes(item Item) error {
	for _, k := range x.keys {
		v, ok := item[k.name]
		switch {
		case !ok:
		case v.Type != k.typ:
			return invalid("One or more parameter values were invalid: Type mismatch for Index Key %s Expected: %s Actual: %s IndexName: %s", k.name, k.typ, v.Type, x.name)
		case v.Text == "":
			return invalid("One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty string value. IndexName: %s, IndexKey: %s", x.name, k.name)
		}
	}
	return nil
}

// rows are the items in an index as it was at a time, with their keys in the table and
// what the index has of them. They are ordered by range key, and then by the table's
// key, where the service has no order; needs t.mu.
func (x *index) rows(t *table, when time.Time) (rows []*row) {
	for _, hash := range t.hashes() {
		for _, r := range t.partitions[hash] {
			item := r.at(when)
			if item == nil || slices.ContainsFunc(x.keys, func(k keyAttribute) bool { _, ok := item[k.name]; return !ok }) {
				continue
			}
			rows = append(rows, &row{r.key, []version{{item: x.project(t, item)}}})
		}
	}
	if len(x.keys) > 1 {
		name := x.keys[1].name
		slices.SortStableFunc(rows, func(a, b *row) int {
			order, _ := a.at(time.Time{})[name].compare(b.at(time.Time{})[name])
			return order
		})
	}
	return rows
}

// project is what the index has of an item.
func (x *index) project(t *table, item Item) Item {
	if x.projection.ProjectionType == "ALL" {
		return item
	}
	names := slices.Clone(x.projection.NonKeyAttributes)
	for _, k := range slices.Concat(t.keys, x.keys) {
		names = append(names, k.name)
	}
	return project(item, names)
}

// keyOf is where a page that ends with an item goes on: the keys of both.
func (x *index) keyOf(t *table, item Item) Item {
	key := t.keyOf(item)
	for _, k := range x.keys {
		key[k.name] = item[k.name]
	}
	return key
}

// behind are the rows that follow one with a key of keyOf, which need not exist.
func (x *index) behind(t *table, rows []*row, start Item, backward bool) []*row {
	return slices.DeleteFunc(rows, func(r *row) bool {
		order := x.order(t, r.at(time.Time{}), start)
		return order == 0 || (order < 0) != backward
	})
}

func (x *index) order(t *table, a, b Item) int {
	order := 0
	for _, k := range slices.Concat(x.keys[1:], t.keys) {
		if order == 0 {
			order, _ = a[k.name].compare(b[k.name])
		}
	}
	return order
}

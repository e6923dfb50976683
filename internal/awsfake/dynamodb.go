package awsfake

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	billingOnDemand    = "PAY_PER_REQUEST"
	billingProvisioned = "PROVISIONED"
)

// dynamoService holds the tables of the account.
type dynamoService struct {
	opts *Options

	mu       sync.RWMutex
	tables   map[string]*table
	watchers []*func(Write) // replaced, never edited
}

var dynamoOperations = map[string]operation[*dynamoService]{
	"CreateTable":    operationOf((*dynamoService).createTable),
	"DescribeTable":  operationOf((*dynamoService).describeTable),
	"UpdateTable":    operationOf((*dynamoService).updateTable),
	"DeleteTable":    operationOf((*dynamoService).deleteTable),
	"ListTables":     operationOf((*dynamoService).listTables),
	"GetItem":        operationOf((*dynamoService).getItem),
	"PutItem":        operationOf((*dynamoService).putItem),
	"UpdateItem":     operationOf((*dynamoService).updateItem),
	"DeleteItem":     operationOf((*dynamoService).deleteItem),
	"Query":          operationOf((*dynamoService).query),
	"Scan":           operationOf((*dynamoService).scan),
	"BatchGetItem":   operationOf((*dynamoService).batchGetItem),
	"BatchWriteItem": operationOf((*dynamoService).batchWriteItem),
}

func newDynamoService(opts *Options) *dynamoService {
	return &dynamoService{opts: opts, tables: map[string]*table{}}
}

func (d *dynamoService) now() time.Time { return d.opts.Clock.Now() }

func (d *dynamoService) watch(w func(Write)) (remove func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stored := &w
	d.watchers = append(slices.Clone(d.watchers), stored)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watchers = remaining(d.watchers, stored)
	}
}

func (d *dynamoService) notify(w Write) {
	d.mu.RLock()
	watchers := d.watchers
	d.mu.RUnlock()
	for _, watcher := range watchers {
		(*watcher)(w)
	}
}

func (d *dynamoService) arn(name string) string {
	return "arn:aws:dynamodb:" + d.opts.Region + ":" + accountID + ":table/" + name
}

// lookup finds a table by name or ARN, whatever its status.
func (d *dynamoService) lookup(name string) (*table, error) {
	if _, tail, ok := strings.Cut(name, ":table/"); ok && d.arn(tail) == name {
		name = tail
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.tables[name]
	if !ok {
		return nil, refuse(CodeResourceNotFound, "Requested resource not found: Table: %s not found", name)
	}
	return t, nil
}

// table finds one that takes reads and writes.
func (d *dynamoService) table(name string) (*table, error) {
	t, err := d.lookup(name)
	if err == nil && d.now().Before(t.active) {
		return nil, refuse(CodeResourceNotFound, "Requested resource not found: Table: %s is not ACTIVE", name)
	}
	return t, err
}

// asOf is the time whose state a read sees; zero for the last.
func (d *dynamoService) asOf(consistent bool) time.Time {
	if consistent || d.opts.StaleReads <= 0 {
		return time.Time{}
	}
	return d.now().Add(-d.opts.StaleReads)
}

// unsupported are parameters that the service takes and this one does not.
type unsupported struct {
	Expected, AttributeUpdates, KeyConditions, QueryFilter, ScanFilter, AttributesToGet,
	ConditionalOperator, IndexName, Segment, TotalSegments, GlobalSecondaryIndexes,
	LocalSecondaryIndexes json.RawMessage
}

func (u unsupported) check() error {
	for name, raw := range map[string]json.RawMessage{
		"Expected": u.Expected, "AttributeUpdates": u.AttributeUpdates, "KeyConditions": u.KeyConditions,
		"QueryFilter": u.QueryFilter, "ScanFilter": u.ScanFilter, "AttributesToGet": u.AttributesToGet,
		"ConditionalOperator": u.ConditionalOperator, "IndexName": u.IndexName, "Segment": u.Segment,
		"TotalSegments": u.TotalSegments, "GlobalSecondaryIndexes": u.GlobalSecondaryIndexes,
		"LocalSecondaryIndexes": u.LocalSecondaryIndexes,
	} {
		if raw != nil {
			return invalid("%s is not supported here", name)
		}
	}
	return nil
}

type keySchema struct{ AttributeName, KeyType string }

type attributeDefinition struct{ AttributeName, AttributeType string }

type throughput struct{ ReadCapacityUnits, WriteCapacityUnits int64 }

type createTableInput struct {
	unsupported
	TableName              string
	KeySchema              []keySchema
	AttributeDefinitions   []attributeDefinition
	BillingMode            string
	ProvisionedThroughput  *throughput
	GlobalSecondaryIndexes []indexDefinition

	DeletionProtectionEnabled bool
}

func (in *createTableInput) addKey(name, keyType string) {
	in.KeySchema = append(in.KeySchema, keySchema{name, keyType})
	in.AttributeDefinitions = append(in.AttributeDefinitions, attributeDefinition{name, typeString})
}

type tableDescription struct {
	TableName, TableArn, TableStatus string
	KeySchema                        []keySchema
	AttributeDefinitions             []attributeDefinition
	CreationDateTime                 epoch
	ItemCount                        int
	TableSizeBytes                   int
	ProvisionedThroughput            throughput
	BillingModeSummary               *billingSummary    `json:",omitempty"`
	GlobalSecondaryIndexes           []indexDescription `json:",omitempty"`

	DeletionProtectionEnabled bool
}

type billingSummary struct{ BillingMode string }

func (t *table) describe(now time.Time) tableDescription {
	out := tableDescription{
		TableName:             t.name,
		TableArn:              t.arn,
		TableStatus:           "ACTIVE",
		CreationDateTime:      epoch(t.created),
		ProvisionedThroughput: throughput{t.reads, t.writes},
	}
	if now.Before(t.active) {
		out.TableStatus = "CREATING"
	}
	if t.billing == billingOnDemand {
		out.BillingModeSummary = &billingSummary{t.billing}
	}
	out.KeySchema = schemaOf(t.keys)
	t.mu.RLock()
	defer t.mu.RUnlock()
	out.DeletionProtectionEnabled = t.protected
	out.AttributeDefinitions = t.definitions()
	for _, x := range t.indexes {
		d := x.describe(t.arn, now)
		if d.IndexStatus != "ACTIVE" && out.TableStatus == "ACTIVE" {
			out.TableStatus = "UPDATING"
		}
		for _, r := range x.rows(t, time.Time{}) {
			d.ItemCount++
			d.IndexSizeBytes += r.at(time.Time{}).size()
		}
		out.GlobalSecondaryIndexes = append(out.GlobalSecondaryIndexes, d)
	}
	for _, rows := range t.partitions {
		for _, r := range rows {
			if item := r.at(time.Time{}); item != nil {
				out.ItemCount++
				out.TableSizeBytes += item.size()
			}
		}
	}
	return out
}

var tableNames = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

func (in *createTableInput) check() error {
	if err := in.unsupported.check(); err != nil {
		return err
	}
	if !tableNames.MatchString(in.TableName) {
		return invalid("TableName must be at least 3 characters long and at most 255 characters long, of a-z, A-Z, 0-9, '_', '-', '.': %q", in.TableName)
	}
	if err := checkSchema(in.KeySchema); err != nil {
		return err
	}
	used := map[string]bool{}
	for _, k := range in.KeySchema {
		used[k.AttributeName] = true
	}
	for _, x := range in.GlobalSecondaryIndexes {
		for _, k := range x.KeySchema {
			used[k.AttributeName] = true
		}
	}
	if len(used) != len(in.AttributeDefinitions) {
		return invalid("One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
	}
	switch p := in.ProvisionedThroughput; in.BillingMode {
	case billingOnDemand:
		if p != nil {
			return invalid("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
		}
	case "", billingProvisioned:
		if p == nil {
			return invalid("One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
		}
		if p.ReadCapacityUnits < 1 || p.WriteCapacityUnits < 1 {
			return invalid("1 validation error detected: Value at 'provisionedThroughput' failed to satisfy constraint: Member must have value greater than or equal to 1")
		}
	default:
		return invalid("1 validation error detected: Value %q at 'billingMode' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]", in.BillingMode)
	}
	return nil
}

func checkSchema(schema []keySchema) error {
	n := len(schema)
	if n < 1 || n > 2 || schema[0].KeyType != "HASH" || n == 2 && schema[1].KeyType != "RANGE" {
		return invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type, or there are more than a HASH and a RANGE key")
	}
	return nil
}

// keysOf finds the types of the attributes of a key.
func keysOf(schema []keySchema, definitions []attributeDefinition) (keys []keyAttribute, err error) {
	for _, k := range schema {
		i := slices.IndexFunc(definitions, func(a attributeDefinition) bool { return a.AttributeName == k.AttributeName })
		if i < 0 || !slices.Contains([]string{typeString, typeNumber, typeBinary}, definitions[i].AttributeType) {
			return nil, invalid("One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [%s]", k.AttributeName)
		}
		keys = append(keys, keyAttribute{k.AttributeName, definitions[i].AttributeType})
	}
	return keys, nil
}

func schemaOf(keys []keyAttribute) (schema []keySchema) {
	for i, k := range keys {
		schema = append(schema, keySchema{k.name, [...]string{"HASH", "RANGE"}[i]})
	}
	return schema
}

func (d *dynamoService) create(in *createTableInput, delay time.Duration) (*table, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	now := d.now()
	t := &table{
		name: in.TableName, arn: d.arn(in.TableName), billing: billingProvisioned,
		created: now, active: now.Add(delay), stale: max(0, d.opts.StaleReads), notify: d.notify,
		partitions: map[string][]*row{}, budgets: map[string]*bucket{}, protected: in.DeletionProtectionEnabled,
	}
	if in.BillingMode == billingOnDemand {
		t.billing = billingOnDemand
	} else {
		t.reads, t.writes = in.ProvisionedThroughput.ReadCapacityUnits, in.ProvisionedThroughput.WriteCapacityUnits
	}
	var err error
	if t.keys, err = keysOf(in.KeySchema, in.AttributeDefinitions); err != nil {
		return nil, err
	}
	for _, x := range in.GlobalSecondaryIndexes {
		if err := t.addIndex(x, in.AttributeDefinitions, t.active); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables[t.name] != nil {
		return nil, refuse(CodeResourceInUse, "Table already exists: %s", t.name)
	}
	d.tables[t.name] = t
	return t, nil
}

// described is the answer about a table in the field that its operation names.
type described map[string]tableDescription

func (d *dynamoService) createTable(in *createTableInput) (described, error) {
	t, err := d.create(in, d.opts.TableDelay)
	if err != nil {
		return nil, err
	}
	return described{"TableDescription": t.describe(d.now())}, nil
}

type tableRef struct{ TableName string }

func (d *dynamoService) describeTable(in *tableRef) (described, error) {
	t, err := d.lookup(in.TableName)
	if err != nil {
		return nil, err
	}
	return described{"Table": t.describe(d.now())}, nil
}

func (d *dynamoService) deleteTable(in *tableRef) (described, error) {
	t, err := d.lookup(in.TableName)
	if err != nil {
		return nil, err
	}
	now := d.now()
	out := t.describe(now)
	if now.Before(t.active) {
		return nil, refuse(CodeResourceInUse, "Table is being created: %s", t.name)
	}
	if out.DeletionProtectionEnabled {
		return nil, invalid("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables[t.name] == t {
		delete(d.tables, t.name)
	}
	out.TableStatus = "DELETING"
	return described{"TableDescription": out}, nil
}

type listTablesInput struct {
	Limit                   *int
	ExclusiveStartTableName string
}

type listTablesOutput struct {
	TableNames             []string
	LastEvaluatedTableName string `json:",omitempty"`
}

func (d *dynamoService) listTables(in *listTablesInput) (*listTablesOutput, error) {
	limit := 100
	if in.Limit != nil {
		limit = *in.Limit
	}
	if limit < 1 || limit > 100 {
		return nil, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and 100", limit)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := &listTablesOutput{TableNames: []string{}}
	for _, name := range slices.Sorted(maps.Keys(d.tables)) {
		if name <= in.ExclusiveStartTableName {
			continue
		}
		if len(out.TableNames) == limit {
			out.LastEvaluatedTableName = out.TableNames[limit-1]
			break
		}
		out.TableNames = append(out.TableNames, name)
	}
	return out, nil
}

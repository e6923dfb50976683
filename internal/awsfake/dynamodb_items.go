package awsfake

import (
	"slices"
	"strings"
	"time"
)

// expressions are the placeholders that a request defines.
type expressions struct {
	ExpressionAttributeNames  map[string]string
	ExpressionAttributeValues Item
}

func (e expressions) scope(all ...string) (*scope, error) {
	return newScope(e.ExpressionAttributeNames, e.ExpressionAttributeValues, all...)
}

type getItemInput struct {
	unsupported
	expressions
	consuming
	TableName            string
	Key                  Item
	ConsistentRead       bool
	ProjectionExpression string
}

type getItemOutput struct {
	Item             Item              `json:",omitempty"`
	ConsumedCapacity *consumedCapacity `json:",omitempty"`
}

func (d *dynamoService) getItem(in *getItemInput) (*getItemOutput, error) {
	item, units, err := d.get(in, d.payer("GetItem"))
	if err != nil {
		return nil, err
	}
	return &getItemOutput{item, in.consumed(in.TableName, units)}, nil
}

func (d *dynamoService) get(in *getItemInput, by payer) (found Item, units float64, err error) {
	if err := in.unsupported.check(); err != nil {
		return nil, 0, err
	}
	if err := in.consuming.check(); err != nil {
		return nil, 0, err
	}
	t, err := d.table(in.TableName)
	if err != nil {
		return nil, 0, err
	}
	paths, err := in.projection(in.ProjectionExpression)
	if err != nil {
		return nil, 0, err
	}
	k, err := t.primaryKey(in.Key)
	if err != nil {
		return nil, 0, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	item := t.get(k, d.asOf(in.ConsistentRead))
	units = t.meter.read(by, item.size(), in.ConsistentRead)
	return project(item, paths), units, nil
}

// projection parses the only expression of a request.
func (e expressions) projection(expression string) ([]string, error) {
	s, err := e.scope(expression)
	if err != nil {
		return nil, err
	}
	paths, err := parseProjection(expression, s)
	if err != nil {
		return nil, err
	}
	return paths, s.unused()
}

// conditional is what all writes of one item have in common.
type conditional struct {
	unsupported
	expressions
	consuming
	ConditionExpression                 string
	ReturnValues                        string
	ReturnValuesOnConditionCheckFailure string

	// The form before expressions, in place of ConditionExpression.
	Expected            expected
	ConditionalOperator string
}

// parse checks the common part and an update, if there is one.
func (c *conditional) parse(update *string, returns ...string) (*condition, []action, error) {
	if err := c.unsupported.check(); err != nil {
		return nil, nil, err
	}
	if err := c.consuming.check(); err != nil {
		return nil, nil, err
	}
	if c.ReturnValues != "" && !slices.Contains(append(returns, "NONE", "ALL_OLD"), c.ReturnValues) {
		return nil, nil, invalid("ReturnValues can only be %s: %q", strings.Join(append(returns, "NONE or ALL_OLD"), ", "), c.ReturnValues)
	}
	if r := c.ReturnValuesOnConditionCheckFailure; r != "" && r != "NONE" && r != "ALL_OLD" {
		return nil, nil, invalid("ReturnValuesOnConditionCheckFailure can only be NONE or ALL_OLD: %q", r)
	}
	all := []string{c.ConditionExpression}
	if update != nil {
		all = append(all, *update)
	}
	legacy := c.Expected != nil || c.ConditionalOperator != ""
	if legacy && (update != nil || c.ConditionExpression != "") {
		return nil, nil, mixed("Expected", "UpdateExpression or ConditionExpression")
	}
	s, err := c.scope(all...)
	if err != nil {
		return nil, nil, err
	}
	cond, err := parseCondition("ConditionExpression", c.ConditionExpression, s)
	if legacy {
		cond, err = c.Expected.parse(c.ConditionalOperator)
	}
	if err != nil {
		return nil, nil, err
	}
	var actions []action
	if update != nil {
		if actions, err = parseUpdate(*update, s); err != nil {
			return nil, nil, err
		}
	}
	return cond, actions, s.unused()
}

// mixed is the error for a request that has parameters of both forms.
func mixed(old, expressions string) error {
	return invalid("Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {%s} Expression parameters: {%s}", old, expressions)
}

// failed adds the item to a failed condition, if that was asked for.
func (c *conditional) failed(err error, old Item) error {
	if e := asError(err); e.Code == CodeConditionalCheckFailed && c.ReturnValuesOnConditionCheckFailure == "ALL_OLD" {
		e.Item = old
		return e
	}
	return err
}

type writeOutput struct {
	Attributes       Item              `json:",omitempty"`
	ConsumedCapacity *consumedCapacity `json:",omitempty"`
}

// answer to a write of the attributes in paths.
func (c *conditional) answer(table string, w changed, paths []string) *writeOutput {
	out := &writeOutput{ConsumedCapacity: c.consumed(table, w.units)}
	switch c.ReturnValues {
	case "ALL_OLD":
		out.Attributes = w.old
	case "ALL_NEW":
		out.Attributes = w.stored
	case "UPDATED_OLD":
		out.Attributes = project(w.old, paths)
	case "UPDATED_NEW":
		out.Attributes = project(w.stored, paths)
	}
	return out
}

type putItemInput struct {
	conditional
	TableName string
	Item      Item
}

func (d *dynamoService) putItem(in *putItemInput) (*writeOutput, error) {
	c, err := d.put(in, d.payer("PutItem"))
	if err != nil {
		return nil, err
	}
	return in.answer(in.TableName, c, nil), nil
}

func (d *dynamoService) put(in *putItemInput, by payer) (changed, error) {
	t, err := d.table(in.TableName)
	if err != nil {
		return changed{}, err
	}
	cond, _, err := in.parse(nil)
	if err != nil {
		return changed{}, err
	}
	w := Write{Operation: "PutItem", Key: t.keyOf(in.Item)}
	c, err := t.change(w, cond, d.now(), by, func(Item) (Item, error) { return in.Item, nil })
	if err != nil {
		return changed{}, in.failed(err, c.old)
	}
	return c, nil
}

type deleteItemInput struct {
	conditional
	TableName string
	Key       Item
}

func (d *dynamoService) deleteItem(in *deleteItemInput) (*writeOutput, error) {
	c, err := d.remove(in, d.payer("DeleteItem"))
	if err != nil {
		return nil, err
	}
	return in.answer(in.TableName, c, nil), nil
}

func (d *dynamoService) remove(in *deleteItemInput, by payer) (changed, error) {
	t, err := d.table(in.TableName)
	if err != nil {
		return changed{}, err
	}
	cond, _, err := in.parse(nil)
	if err != nil {
		return changed{}, err
	}
	if _, err := t.primaryKey(in.Key); err != nil {
		return changed{}, err
	}
	w := Write{Operation: "DeleteItem", Key: in.Key}
	c, err := t.change(w, cond, d.now(), by, func(Item) (Item, error) { return nil, nil })
	if err != nil {
		return changed{}, in.failed(err, c.old)
	}
	return c, nil
}

type updateItemInput struct {
	conditional
	TableName        string
	Key              Item
	UpdateExpression *string
	AttributeUpdates attributeUpdates // the form before expressions
}

func (d *dynamoService) updateItem(in *updateItemInput) (*writeOutput, error) {
	t, err := d.table(in.TableName)
	if err != nil {
		return nil, err
	}
	cond, actions, err := in.parse(in.UpdateExpression, "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW")
	if err != nil {
		return nil, err
	}
	if in.AttributeUpdates != nil {
		if in.UpdateExpression != nil || in.ConditionExpression != "" {
			return nil, mixed("AttributeUpdates", "UpdateExpression or ConditionExpression")
		}
		if actions, err = in.AttributeUpdates.parse(); err != nil {
			return nil, err
		}
	}
	k, err := t.primaryKey(in.Key)
	if err != nil {
		return nil, err
	}
	paths := []string{}
	for _, a := range actions {
		if slices.ContainsFunc(t.keys, func(k keyAttribute) bool { return k.name == a.path }) {
			return nil, invalid("One or more parameter values were invalid: Cannot update attribute %s. This attribute is part of the key", a.path)
		}
		paths = append(paths, a.path)
	}
	w := Write{Operation: "UpdateItem", Key: in.Key}
	c, err := t.change(w, cond, d.now(), d.payer("UpdateItem"), func(old Item) (Item, error) {
		if old == nil {
			if in.AttributeUpdates != nil && !slices.ContainsFunc(actions, func(a action) bool { return a.verb == "SET" || a.verb == "ADD" }) {
				return nil, nil // nothing to delete, and that makes no item
			}
			old = t.keyItem(k)
		}
		return apply(actions, old)
	})
	if err != nil {
		return nil, in.failed(err, c.old)
	}
	return in.answer(in.TableName, c, paths), nil
}

// selection is what Query and Scan have in common.
type selection struct {
	unsupported
	expressions
	consuming
	TableName            string
	ConsistentRead       bool
	FilterExpression     string
	ProjectionExpression string
	Select               string
	Limit                *int
	ExclusiveStartKey    Item
}

type pageOutput struct {
	Items            []Item `json:",omitzero"` // empty where there are none, absent where they were not asked for
	Count            int
	ScannedCount     int
	LastEvaluatedKey Item              `json:",omitempty"`
	ConsumedCapacity *consumedCapacity `json:",omitempty"`
}

// plan is a parsed selection.
type plan struct {
	index  *index // that is queried; nil for the table
	keys   *condition
	filter *condition
	paths  []string
	start  *primaryKey
}

func (in *selection) parse(t *table, x *index, keyCondition string) (*plan, error) {
	if err := in.unsupported.check(); err != nil {
		return nil, err
	}
	if err := in.consuming.check(); err != nil {
		return nil, err
	}
	if in.Limit != nil && *in.Limit < 1 {
		return nil, invalid("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1", *in.Limit)
	}
	if in.Select == "COUNT" && in.ProjectionExpression != "" {
		return nil, invalid("Cannot specify the ProjectionExpression when choosing to get only the COUNT")
	}
	s, err := in.scope(keyCondition, in.FilterExpression, in.ProjectionExpression)
	if err != nil {
		return nil, err
	}
	p := &plan{index: x}
	if p.keys, err = parseCondition("KeyConditionExpression", keyCondition, s); err != nil {
		return nil, err
	}
	if p.filter, err = parseCondition("FilterExpression", in.FilterExpression, s); err != nil {
		return nil, err
	}
	if p.paths, err = parseProjection(in.ProjectionExpression, s); err != nil {
		return nil, err
	}
	if in.ExclusiveStartKey != nil {
		start := in.ExclusiveStartKey
		if p.index != nil {
			start = t.keyOf(start)
		}
		k, err := t.primaryKey(start)
		if err != nil {
			return nil, invalid("The provided starting key is invalid: %s", asError(err).Message)
		}
		p.start = &k
	}
	return p, s.unused()
}

// page evaluates rows in order until one of its limits; needs t.mu.
func (d *dynamoService) page(t *table, in *selection, p *plan, rows []*row, by payer) *pageOutput {
	limit := d.opts.ItemsPerPage
	if in.Limit != nil && (limit <= 0 || *in.Limit < limit) {
		limit = *in.Limit
	}
	when := d.asOf(in.ConsistentRead)
	out := &pageOutput{}
	if in.Select != "COUNT" {
		out.Items = []Item{}
	}
	size := 0
	for _, r := range rows {
		item := r.at(when)
		if item == nil {
			continue
		}
		out.ScannedCount++
		size += item.size()
		if p.filter.holds(item) {
			out.Count++
			if in.Select != "COUNT" {
				out.Items = append(out.Items, project(item, p.paths))
			}
		}
		// As in the service, a page that is just full has a last key, even
		// when nothing follows.
		if out.ScannedCount == limit || size >= maxTablePageBytes {
			out.LastEvaluatedKey = t.keyItem(r.key)
			if p.index != nil {
				out.LastEvaluatedKey = p.index.keyOf(t, item)
			}
			break
		}
	}
	out.ConsumedCapacity = in.consumed(in.TableName, t.meter.read(by, size, in.ConsistentRead))
	return out
}

type scanInput struct {
	selection
	Segment, TotalSegments *int
}

// checkSegment is of a scan by several.
func (in *scanInput) checkSegment() error {
	switch {
	case in.Segment == nil && in.TotalSegments == nil:
		return nil
	case in.TotalSegments == nil:
		return invalid("The TotalSegments parameter is required but was not present in the request when Segment parameter is present")
	case in.Segment == nil:
		return invalid("The Segment parameter is required but was not present in the request when parameter TotalSegments is present")
	case *in.TotalSegments < 1 || *in.TotalSegments > maxSegments:
		return invalid("1 validation error detected: Value '%d' at 'totalSegments' failed to satisfy constraint: Member must have value between 1 and %d", *in.TotalSegments, maxSegments)
	case *in.Segment < 0 || *in.Segment >= *in.TotalSegments:
		return invalid("The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: %d is not less than TotalSegments: %d", *in.Segment, *in.TotalSegments)
	}
	return nil
}

// has reports whether a hash key is in the segment of a scan.
func (in *scanInput) has(hash string) bool {
	return in.Segment == nil || segmentOf(hash, *in.TotalSegments) == *in.Segment
}

func (d *dynamoService) scan(in *scanInput) (*pageOutput, error) {
	t, err := d.table(in.TableName)
	if err != nil {
		return nil, err
	}
	if err := in.checkSegment(); err != nil {
		return nil, err
	}
	p, err := in.parse(t, nil, "")
	if err != nil {
		return nil, err
	}
	if p.start != nil && !in.has(p.start.hash.Text) {
		return nil, invalid("The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment. TotalSegments: %d Segment: %d", *in.TotalSegments, *in.Segment)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	rows := slices.DeleteFunc(t.scanOrder(), func(r *row) bool { return !in.has(r.key.hash.Text) })
	if p.start != nil {
		rows = slices.DeleteFunc(rows, func(r *row) bool { return !r.behind(*p.start) })
	}
	return d.page(t, &in.selection, p, rows, d.payer("Scan")), nil
}

type queryInput struct {
	selection
	IndexName              string
	KeyConditionExpression string
	ScanIndexForward       *bool
}

func (d *dynamoService) query(in *queryInput) (*pageOutput, error) {
	t, err := d.table(in.TableName)
	if err != nil {
		return nil, err
	}
	if in.KeyConditionExpression == "" {
		return nil, invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
	}
	x, keys, err := in.schema(t, d.now())
	if err != nil {
		return nil, err
	}
	p, err := in.parse(t, x, in.KeyConditionExpression)
	if err != nil {
		return nil, err
	}
	hash, err := queried(keys, p.keys)
	if err != nil {
		return nil, err
	}
	if name := filtered(keys, p.filter); name != "" {
		return nil, invalid("Filter Expression can only contain non-primary key attributes: Primary key attribute: %s", name)
	}
	if p.start != nil && (x == nil && p.start.hash.Text != hash || x != nil && in.ExclusiveStartKey[keys[0].name].Text != hash) {
		return nil, invalid("The provided starting key is outside query boundaries based on provided conditions")
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return d.page(t, &in.selection, p, in.rows(t, p, hash, d.asOf(in.ConsistentRead)), d.payer("Query")), nil
}

// schema is what is queried: an index, or none, and its key.
func (in *queryInput) schema(t *table, now time.Time) (*index, []keyAttribute, error) {
	if in.IndexName == "" {
		return nil, t.keys, nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	x, err := t.index(in.IndexName, now)
	switch {
	case err != nil:
		return nil, nil, err
	case in.ConsistentRead:
		return nil, nil, invalid("Consistent reads are not supported on global secondary indexes")
	case in.Select == "ALL_ATTRIBUTES" && x.projection.ProjectionType != "ALL":
		return nil, nil, invalid("One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global secondary index %s because its projection type is not ALL", x.name)
	case in.ExclusiveStartKey != nil && slices.ContainsFunc(x.keys, func(k keyAttribute) bool { return in.ExclusiveStartKey[k.name].Type != k.typ }):
		return nil, nil, invalid("The provided starting key is invalid")
	}
	return x, x.keys, nil
}

// rows that a query passes, in its order; needs t.mu.
func (in *queryInput) rows(t *table, p *plan, hash string, when time.Time) (rows []*row) {
	backward := in.ScanIndexForward != nil && !*in.ScanIndexForward
	if p.index != nil {
		rows = slices.DeleteFunc(p.index.rows(t, when), func(r *row) bool { return !p.keys.holds(r.at(when)) })
		if p.start != nil {
			rows = p.index.behind(t, rows, in.ExclusiveStartKey, backward)
		}
	} else {
		rows = slices.DeleteFunc(slices.Clone(t.partitions[hash]), func(r *row) bool {
			if p.start != nil {
				if order := byRange(r, p.start.rng); order == 0 || (order < 0) != backward {
					return true
				}
			}
			return !p.keys.holds(t.keyItem(r.key))
		})
	}
	if backward {
		slices.Reverse(rows)
	}
	return rows
}

// filtered is a key attribute that a filter names, which is the key condition's to
// name in a query; empty when there is none.
func filtered(keys []keyAttribute, c *condition) string {
	if c == nil {
		return ""
	}
	for _, a := range c.args {
		if slices.ContainsFunc(keys, func(k keyAttribute) bool { return k.name == a.path }) {
			return a.path
		}
	}
	for i := range c.of {
		if name := filtered(keys, &c.of[i]); name != "" {
			return name
		}
	}
	return ""
}

// queried checks the form of a key condition, one value for the hash key and
// at most one range of range keys, and returns the hash key.
func queried(keys []keyAttribute, c *condition) (hash string, err error) {
	parts := []condition{*c}
	if c.op == "AND" {
		parts = c.of
	}
	seen := map[string]bool{}
	for _, part := range parts {
		if len(part.args) == 0 {
			return "", invalid("Invalid operator used in KeyConditionExpression: %s", part.op)
		}
		name := part.args[0].path
		i := slices.IndexFunc(keys, func(k keyAttribute) bool { return k.name == name })
		if i < 0 || part.args[0].size || slices.ContainsFunc(part.args[1:], func(o operand) bool { return o.path != "" || o.size }) {
			return "", invalid("Query condition missed key schema element: %s", keys[0].name)
		}
		if seen[name] {
			return "", invalid("KeyConditionExpressions must only contain one condition per key")
		}
		seen[name] = true
		allowed := []string{"="}
		if i == 1 {
			allowed = []string{"=", "<", "<=", ">", ">=", "BETWEEN", "begins_with"}
		}
		if !slices.Contains(allowed, part.op) {
			return "", invalid("Query key condition not supported")
		}
		for _, a := range part.args[1:] {
			if a.value.Type != keys[i].typ {
				return "", invalid("One or more parameter values were invalid: Condition parameter type does not match schema type")
			}
			if a.value.Text == "" && part.op != "begins_with" {
				return "", invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: %s", name)
			}
		}
		if i == 0 {
			hash = part.args[1].value.Text
		}
	}
	if !seen[keys[0].name] {
		return "", invalid("Query condition missed key schema element: %s", keys[0].name)
	}
	return hash, nil
}

type keysAndAttributes struct {
	unsupported
	expressions
	Keys                 []Item
	ConsistentRead       bool
	ProjectionExpression string
}

type batchGetItemInput struct {
	consuming
	RequestItems map[string]keysAndAttributes
}

type batchGetItemOutput struct {
	Responses        map[string][]Item
	UnprocessedKeys  map[string]none
	ConsumedCapacity []consumedCapacity `json:",omitempty"`
}

func (d *dynamoService) batchGetItem(in *batchGetItemInput) (*batchGetItemOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	n := 0
	for _, r := range in.RequestItems {
		n += len(r.Keys)
	}
	if n < 1 || n > maxBatchGets {
		return nil, invalid("Too many items requested for the BatchGetItem call, or none: %d", n)
	}
	out := &batchGetItemOutput{Responses: map[string][]Item{}, UnprocessedKeys: map[string]none{}}
	for name, r := range in.RequestItems {
		items, units, err := d.getAll(name, r)
		if err != nil {
			return nil, err
		}
		out.Responses[name] = items
		out.ConsumedCapacity = in.appendConsumed(out.ConsumedCapacity, name, units)
	}
	return out, nil
}

func (d *dynamoService) getAll(name string, r keysAndAttributes) (items []Item, units float64, err error) {
	items = []Item{}
	for i, key := range r.Keys {
		if slices.ContainsFunc(r.Keys[:i], key.equal) {
			return nil, 0, invalid("Provided list of item keys contains duplicates")
		}
		item, cost, err := d.get(&getItemInput{
			unsupported: r.unsupported, expressions: r.expressions, TableName: name, Key: key,
			ConsistentRead: r.ConsistentRead, ProjectionExpression: r.ProjectionExpression,
		}, d.payer("BatchGetItem"))
		if err != nil {
			return nil, 0, err
		}
		units += cost
		if item != nil {
			items = append(items, item)
		}
	}
	return items, units, nil
}

type writeRequest struct {
	PutRequest    *struct{ Item Item } `json:",omitempty"`
	DeleteRequest *struct{ Key Item }  `json:",omitempty"`
}

type batchWriteItemInput struct {
	consuming
	RequestItems map[string][]writeRequest
}

type batchWriteItemOutput struct {
	UnprocessedItems map[string][]writeRequest
	ConsumedCapacity []consumedCapacity `json:",omitempty"`
}

// batchWriteItem checks all requests before it performs the first. Those that
// a quota refuses come back unprocessed, unless it refuses all.
func (d *dynamoService) batchWriteItem(in *batchWriteItemInput) (*batchWriteItemOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	n, err := d.checkBatch(in)
	if err != nil {
		return nil, err
	}
	out := &batchWriteItemOutput{UnprocessedItems: map[string][]writeRequest{}}
	refused := 0
	for name, requests := range in.RequestItems {
		units := 0.0
		for _, r := range requests {
			var c changed
			if r.PutRequest != nil {
				c, err = d.put(&putItemInput{TableName: name, Item: r.PutRequest.Item}, d.payer("BatchWriteItem"))
			} else {
				c, err = d.remove(&deleteItemInput{TableName: name, Key: r.DeleteRequest.Key}, d.payer("BatchWriteItem"))
			}
			if err == nil {
				units += c.units
				continue
			}
			if code := asError(err).Code; code != CodeThrottling && code != CodeThroughputExceeded {
				return nil, err
			}
			refused++
			out.UnprocessedItems[name] = append(out.UnprocessedItems[name], r)
		}
		out.ConsumedCapacity = in.appendConsumed(out.ConsumedCapacity, name, units)
	}
	if refused == n {
		return nil, err
	}
	return out, nil
}

func (d *dynamoService) checkBatch(in *batchWriteItemInput) (n int, err error) {
	for name, requests := range in.RequestItems {
		t, err := d.table(name)
		if err != nil {
			return 0, err
		}
		var keys []Item
		for _, r := range requests {
			var key Item
			switch {
			case (r.PutRequest == nil) == (r.DeleteRequest == nil):
				return 0, invalid("Supplied AttributeValue has more than one datatypes set, must contain exactly one of PutRequest and DeleteRequest")
			case r.PutRequest != nil:
				key = t.keyOf(r.PutRequest.Item)
			default:
				key = r.DeleteRequest.Key
			}
			if _, err := t.primaryKey(key); err != nil {
				return 0, err
			}
			if slices.ContainsFunc(keys, key.equal) {
				return 0, invalid("Provided list of item keys contains duplicates")
			}
			keys = append(keys, key)
			n++
		}
	}
	if n < 1 || n > maxBatchWrites {
		return 0, invalid("1 validation error detected: Value at 'requestItems' failed to satisfy constraint: Member must have between 1 and %d requests: %d", maxBatchWrites, n)
	}
	return n, nil
}

package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// The attributes of an item. The first five are shared with Benthos' built-in
// input, which erases the others whenever it commits, and keeps them, stale,
// when it claims: each of those is tied to the owner or sequence that it was
// written with, and left out of a lease.Item when that has changed.
const (
	attrStream   = "StreamID"
	attrShard    = "ShardID"
	attrSequence = "SequenceNumber"
	attrOwner    = "ClientID"
	attrToken    = "LeaseTimeout"

	// attrTerm is "owner/term", and stands only while attrOwner is that owner.
	attrTerm = "LeaseTerm"
	// attrPeriod is the lease period of that owner, in milliseconds.
	attrPeriod = "LeasePeriod"
	// attrWanted is who asked for the shard, and stands only while attrWantedIn is
	// the present attrTerm.
	attrWanted   = "HandOverTo"
	attrWantedIn = "HandOverTerm"
	// attrStartAt is where a shard without a sequence starts, RFC 3339.
	attrStartAt = "StartTimestamp"
	// attrFinished is the sequence with which the shard was finished, and stands
	// only while attrSequence is the same and nobody owns the item.
	attrFinished = "FinishedSequence"
	// attrShardStart is the starting sequence number of the shard that was claimed,
	// and stands only while attrSequence is empty: from then on that tells the shard.
	attrShardStart = "ShardStart"
	// attrPinned is the owner that was told to read this very shard, and stands only
	// while attrOwner is that owner or there is none.
	attrPinned = "PinnedBy"
)

// Presences are the clients that are there, also those that own nothing yet. They
// stand under a stream name that no stream can have, and have no attrOwner: the
// built-in input never sees one. A client that owns shards renews its presence by
// renewing its leases.
const (
	presences = "/clients"
	// attrStreams are the streams that the client reads, a set of strings.
	attrStreams = "Streams"
)

// presence is a client that has announced itself. Its item is owned by it.
type presence struct {
	lease.Item
	streams []string
}

// tableWait bounds the wait for a table that is being created. DynamoDB takes
// seconds for it.
const tableWait = 2 * time.Minute

// dynamoAPI is what the checkpointer uses of the DynamoDB client.
type dynamoAPI interface {
	dynamodb.DescribeTableAPIClient
	dynamodb.QueryAPIClient
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
}

// checkpointer is the lease store in a DynamoDB table: every expression and
// every error mapping, and no decision. It is safe for concurrent use.
type checkpointer struct {
	api   dynamoAPI
	table tableConfig
}

var _ lease.Store = (*checkpointer)(nil)

// ensureTable returns nil once the table is there, of the right shape and
// usable, and creates it first when the configuration says so.
func (c *checkpointer) ensureTable(ctx context.Context) error {
	described, err := c.api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &c.table.name})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		if !c.table.create {
			return fmt.Errorf("table %q does not exist: create it with the string keys %s (HASH) and %s (RANGE), or set `dynamodb.create: true`",
				c.table.name, attrStream, attrShard)
		}
		if err := c.createTable(ctx); err != nil {
			return err
		}
		return c.awaitTable(ctx)
	}
	if err != nil {
		return fmt.Errorf("describing table %q: %w", c.table.name, err)
	}
	if err := checkKeys(described.Table); err != nil {
		return fmt.Errorf("table %q: %w", c.table.name, err)
	}
	switch described.Table.TableStatus {
	case types.TableStatusActive, types.TableStatusUpdating:
		return nil
	default:
		return c.awaitTable(ctx)
	}
}

func (c *checkpointer) createTable(ctx context.Context) error {
	in := &dynamodb.CreateTableInput{
		TableName:   &c.table.name,
		BillingMode: c.table.billingMode,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(attrStream), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(attrShard), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(attrStream), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(attrShard), KeyType: types.KeyTypeRange},
		},
	}
	if c.table.billingMode == types.BillingModeProvisioned {
		in.ProvisionedThroughput = &types.ProvisionedThroughput{
			ReadCapacityUnits:  &c.table.readCapacity,
			WriteCapacityUnits: &c.table.writeCapacity,
		}
	}
	_, err := c.api.CreateTable(ctx, in)
	if _, raced := errors.AsType[*types.ResourceInUseException](err); raced {
		return nil // another process creates it at this moment
	}
	if err != nil {
		return fmt.Errorf("creating table %q: %w", c.table.name, err)
	}
	return nil
}

func (c *checkpointer) awaitTable(ctx context.Context) error {
	waiter := dynamodb.NewTableExistsWaiter(c.api, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, 2*time.Second
	})
	described, err := waiter.WaitForOutput(ctx, &dynamodb.DescribeTableInput{TableName: &c.table.name}, tableWait)
	if err != nil {
		return fmt.Errorf("waiting for table %q to become active: %w", c.table.name, err)
	}
	if err := checkKeys(described.Table); err != nil {
		return fmt.Errorf("table %q: %w", c.table.name, err)
	}
	return nil
}

// checkKeys finds a table that was made for something else before the first
// query fails with a message about key conditions.
func checkKeys(table *types.TableDescription) error {
	if table == nil {
		return errors.New("the answer describes no table")
	}
	keys := map[string]types.KeyType{}
	for _, key := range table.KeySchema {
		keys[aws.ToString(key.AttributeName)] = key.KeyType
	}
	attributes := map[string]types.ScalarAttributeType{}
	for _, attribute := range table.AttributeDefinitions {
		attributes[aws.ToString(attribute.AttributeName)] = attribute.AttributeType
	}
	if keys[attrStream] != types.KeyTypeHash || keys[attrShard] != types.KeyTypeRange ||
		attributes[attrStream] != types.ScalarAttributeTypeS || attributes[attrShard] != types.ScalarAttributeTypeS {
		return fmt.Errorf("its keys are not the strings %s (HASH) and %s (RANGE): use another table for `dynamodb.table`", attrStream, attrShard)
	}
	return nil
}

// list returns the items of a stream.
func (c *checkpointer) list(ctx context.Context, stream string) ([]lease.Item, error) {
	all, err := c.query(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("reading the leases of stream %s: %w", stream, err)
	}
	items := make([]lease.Item, 0, len(all))
	for _, attributes := range all {
		items = append(items, decodeItem(attributes))
	}
	return items, nil
}

// present returns the clients that have announced themselves.
func (c *checkpointer) present(ctx context.Context) ([]presence, error) {
	all, err := c.query(ctx, presences)
	if err != nil {
		return nil, fmt.Errorf("reading who else is there: %w", err)
	}
	found := make([]presence, 0, len(all))
	for _, attributes := range all {
		p := presence{Item: decodeItem(attributes)}
		p.Owner = p.Shard
		if ms, ok := attributes[attrPeriod].(*types.AttributeValueMemberN); ok {
			p.Period = millis(ms)
		}
		if streams, ok := attributes[attrStreams].(*types.AttributeValueMemberSS); ok {
			p.streams = streams.Value
		}
		found = append(found, p)
	}
	return found, nil
}

// announced reports whether a client has announced itself and has not gone.
func (c *checkpointer) announced(ctx context.Context, client string) (bool, error) {
	item, err := c.Get(ctx, lease.Key{Stream: presences, Shard: client})
	if err != nil {
		return false, fmt.Errorf("reading whether client %s is there: %w", client, err)
	}
	return item.Exists, nil
}

// announce stores that a client is there, or still is.
func (c *checkpointer) announce(ctx context.Context, p presence) error {
	expression, v := "SET "+attrToken+" = :token, "+attrPeriod+" = :period", values{
		":token": text(p.Token), ":period": number(p.Period.Milliseconds()),
	}
	if len(p.streams) > 0 {
		expression += ", " + attrStreams + " = :streams"
		v[":streams"] = &types.AttributeValueMemberSS{Value: p.streams}
	} else { // a set cannot be empty
		expression += " REMOVE " + attrStreams
	}
	_, err := c.update(ctx, p.Key, expression, "attribute_not_exists("+attrOwner+")", v)
	if err != nil {
		return fmt.Errorf("announcing this client: %w", err)
	}
	return nil
}

// withdraw removes a presence as it was seen. It is no error that it has changed.
func (c *checkpointer) withdraw(ctx context.Context, p presence) error {
	condition, v := attrToken+" = :token", values{":token": text(p.Token)}
	if stored, malformed := raw(p.Item)[attrToken]; malformed {
		v[":token"] = stored
	} else if p.Token == "" {
		condition, v = "attribute_not_exists("+attrToken+")", nil
	}
	_, err := c.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:                 &c.table.name,
		Key:                       keyOf(p.Key),
		ConditionExpression:       &condition,
		ExpressionAttributeValues: v,
	})
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); err != nil && !conflict {
		return fmt.Errorf("removing the presence of client %s: %w", p.Owner, err)
	}
	return nil
}

// remove removes an item that nobody owns or whose owner is dead, if it is still as
// it was seen. It reports whether it has.
func (c *checkpointer) remove(ctx context.Context, seen lease.Item) (removed bool, err error) {
	if !seen.Exists {
		return false, nil
	}
	v := values{}
	condition := asSeen(seen, v)
	_, err = c.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:                 &c.table.name,
		Key:                       keyOf(seen.Key),
		ConditionExpression:       &condition,
		ExpressionAttributeValues: v,
	})
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); conflict {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing the item of shard %s: %w", seen.Key, err)
	}
	return true, nil
}

// vacate takes the owner from the literal item of a shard, if it is still as it was
// seen, and returns what is left. Its owner is dead; should it come back after all,
// its next commit fails.
func (c *checkpointer) vacate(ctx context.Context, seen lease.Item) (lease.Item, error) {
	v := values{}
	condition := asSeen(seen, v)
	return c.update(ctx, seen.Key, "REMOVE "+freed, condition, v)
}

// mirror stores how far a shard has been read in its literal item, if nobody owns
// that and it is as it was seen.
func (c *checkpointer) mirror(ctx context.Context, seen lease.Item, next string) (lease.Item, error) {
	v := values{}
	condition := asSeen(seen, v)
	v[":sequence"] = text(next)
	return c.update(ctx, seen.Key, "SET "+attrSequence+" = :sequence REMOVE "+attrFinished+", "+attrShardStart, condition, v)
}

// query returns all items under a hash key, all pages of them, consistently.
func (c *checkpointer) query(ctx context.Context, stream string) ([]map[string]types.AttributeValue, error) {
	pages := dynamodb.NewQueryPaginator(c.api, &dynamodb.QueryInput{
		TableName:                 &c.table.name,
		ConsistentRead:            aws.Bool(true),
		KeyConditionExpression:    aws.String(attrStream + " = :stream"),
		ExpressionAttributeValues: values{":stream": text(stream)},
	})
	var items []map[string]types.AttributeValue
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		if page.Items == nil {
			// An answer that broke on its way must not pass for an empty table, in
			// which a stream would start anew.
			return nil, errors.New("the answer has no list of items")
		}
		items = append(items, page.Items...)
	}
	return items, nil
}

// Get implements lease.Store.
func (c *checkpointer) Get(ctx context.Context, key lease.Key) (lease.Item, error) {
	out, err := c.api.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:      &c.table.name,
		Key:            keyOf(key),
		ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return lease.Item{}, err
	}
	if out.Item == nil {
		return lease.Item{Key: key}, nil
	}
	return decodeItem(out.Item), nil
}

// Claim implements lease.Store.
func (c *checkpointer) Claim(ctx context.Context, seen lease.Item, grant lease.Grant) (lease.Item, error) {
	v := values{
		":owner":  text(grant.Owner),
		":token":  text(grant.Token),
		":term":   text(termOf(grant.Link)),
		":period": number(grant.Period.Milliseconds()),
		":none":   text(""),
	}
	set := []string{
		attrOwner + " = :owner",
		attrToken + " = :token",
		attrTerm + " = :term",
		attrPeriod + " = :period",
	}
	remove := []string{attrFinished, attrWanted, attrWantedIn}
	if _, malformed := raw(seen)[attrSequence]; malformed || grant.Anew {
		set = append(set, attrSequence+" = :none")
	} else {
		// The built-in input fails on an item that it claims without one.
		set = append(set, attrSequence+" = if_not_exists("+attrSequence+", :none)")
	}
	if !grant.StartAt.IsZero() {
		set = append(set, attrStartAt+" = if_not_exists("+attrStartAt+", :startAt)")
		v[":startAt"] = text(grant.StartAt.UTC().Format(time.RFC3339Nano))
	}
	if grant.ShardStart != "" && (seen.Sequence == "" || grant.Anew) {
		set = append(set, attrShardStart+" = :shardStart")
		v[":shardStart"] = text(grant.ShardStart)
	} else {
		remove = append(remove, attrShardStart)
	}
	if grant.Pinned {
		set = append(set, attrPinned+" = :owner")
	} else {
		remove = append(remove, attrPinned)
	}
	condition := asSeen(seen, v)
	if grant.Anew && seen.Owner != "" && seen.Sequence != "" {
		v[":seenSequence"] = text(seen.Sequence)
		condition += " AND " + attrSequence + " = :seenSequence"
	}
	return c.update(ctx, seen.Key, "SET "+strings.Join(set, ", ")+" REMOVE "+strings.Join(remove, ", "), condition, v)
}

// asSeen is the condition that an item is as it was seen before a claim. It adds
// its placeholders to v.
func asSeen(seen lease.Item, v values) string {
	if !seen.Exists {
		return "attribute_not_exists(" + attrShard + ")"
	}
	odd := raw(seen)
	same := func(attribute, placeholder, value string) string {
		if stored, malformed := odd[attribute]; malformed {
			v[placeholder] = stored
			return attribute + " = " + placeholder
		}
		if value == "" {
			v[":none"] = text("")
			return "(attribute_not_exists(" + attribute + ") OR " + attribute + " = :none)"
		}
		v[placeholder] = text(value)
		return attribute + " = " + placeholder
	}
	if seen.Owner == "" {
		// Not an item that was deleted meanwhile, which would come back as a
		// phantom, nor one that somebody took and gave back further on or finished.
		finished := "(attribute_not_exists(" + attrFinished + ") OR " + attrFinished + " <> " + attrSequence + ")"
		if _, malformed := odd[attrSequence]; malformed {
			finished = same(attrSequence, ":seenSequence", "") // it can be no mark then
		} else if seen.Finished {
			finished = attrFinished + " = " + attrSequence
		}
		return "attribute_exists(" + attrShard + ") AND attribute_not_exists(" + attrOwner + ") AND " +
			same(attrSequence, ":seenSequence", seen.Sequence) + " AND " + finished
	}
	condition := same(attrOwner, ":seenOwner", seen.Owner) + " AND " + same(attrToken, ":seenToken", seen.Token)
	if _, malformed := odd[attrSequence]; malformed {
		condition += " AND " + same(attrSequence, ":seenSequence", "")
	}
	return condition
}

// Renew implements lease.Store.
func (c *checkpointer) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, sequence lease.Move) (lease.Item, error) {
	condition, v := held(at)
	expression := "SET " + attrToken + " = :next"
	if sequence.From != sequence.To {
		condition, v = heldWith(at, sequence)
		expression += ", " + attrSequence + " = :sequence" + " REMOVE " + attrShardStart
	}
	v[":next"] = text(token)
	return c.update(ctx, key, expression, condition, v)
}

// lastWrite is an option of the writes that end a lease. Their caller tries again
// by itself, and sooner than the SDK where the table takes no more writes at this
// moment, as when a process releases a thousand shards at once.
var lastWrite = sync.OnceValue(func() func(*dynamodb.Options) {
	retryer := session.CallerPaced()
	return func(o *dynamodb.Options) { o.Retryer = retryer }
})

// Release implements lease.Store.
func (c *checkpointer) Release(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move) error {
	condition, v := heldWith(at, sequence)
	_, err := c.update(ctx, key, "SET "+attrSequence+" = :sequence REMOVE "+freed+passed(sequence), condition, v, lastWrite())
	return err
}

// Finish implements lease.Store.
func (c *checkpointer) Finish(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move) error {
	condition, v := heldWith(at, sequence)
	_, err := c.update(ctx, key,
		"SET "+attrSequence+" = :sequence, "+attrFinished+" = :sequence REMOVE "+freed+passed(sequence), condition, v, lastWrite())
	return err
}

// HandOver implements lease.Store. The lease period stays, under a term without a
// name: the new owner is one of ours, though it has yet to begin its own.
func (c *checkpointer) HandOver(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move, to lease.Link) error {
	condition, v := heldWith(at, sequence)
	v[":to"], v[":next"], v[":unnamed"] = text(to.Owner), text(to.Token), text(termOf(lease.Link{Owner: to.Owner}))
	_, err := c.update(ctx, key,
		"SET "+attrSequence+" = :sequence, "+attrOwner+" = :to, "+attrToken+" = :next, "+attrTerm+" = :unnamed "+
			"REMOVE "+attrWanted+", "+attrWantedIn+", "+attrPinned+passed(sequence), condition, v, lastWrite())
	return err
}

// Ask implements lease.Store. It leaves the token alone, so that the owner's next
// write goes through and brings it the news.
func (c *checkpointer) Ask(ctx context.Context, seen lease.Item, client string) error {
	condition, v := wantedAs(seen)
	v[":client"] = text(client)
	_, err := c.update(ctx, seen.Key, "SET "+attrWanted+" = :client, "+attrWantedIn+" = :term", condition, v)
	return err
}

// Decline implements lease.Store.
func (c *checkpointer) Decline(ctx context.Context, seen lease.Item) error {
	condition, v := wantedAs(seen)
	_, err := c.update(ctx, seen.Key, "REMOVE "+attrWanted+", "+attrWantedIn, condition, v)
	return err
}

// wantedAs is the condition that an item is held in the term in which it was seen,
// and wanted by whom it was.
func wantedAs(seen lease.Item) (condition string, v values) {
	v = values{":owner": text(seen.Owner), ":term": text(termOf(seen.Link()))}
	condition = attrOwner + " = :owner AND " + attrTerm + " = :term AND "
	if seen.Wanted == "" {
		return condition + "(attribute_not_exists(" + attrWantedIn + ") OR " + attrWantedIn + " <> :term)", v
	}
	v[":wanted"] = text(seen.Wanted)
	return condition + attrWantedIn + " = :term AND " + attrWanted + " = :wanted", v
}

// Leave implements lease.Store.
func (c *checkpointer) Leave(ctx context.Context, taken lease.Item, sequence string) error {
	v := values{
		":sequence": text(sequence),
		":owner":    text(taken.Owner), ":token": text(taken.Token), ":seen": text(taken.Sequence),
	}
	_, err := c.update(ctx, taken.Key, "SET "+attrSequence+" = :sequence REMOVE "+attrShardStart,
		attrOwner+" = :owner AND "+attrToken+" = :token AND "+attrSequence+" = :seen", v)
	return err
}

// What ends with a term, and what an owner takes with it.
const (
	ofTerm = attrTerm + ", " + attrPeriod + ", " + attrWanted + ", " + attrWantedIn
	freed  = attrOwner + ", " + attrToken + ", " + ofTerm
)

// passed is what else to remove in a write of a sequence: one that moves tells the
// shard from then on.
func passed(sequence lease.Move) string {
	if sequence.From == sequence.To {
		return ""
	}
	return ", " + attrShardStart
}

// held is the condition that the item is still at the given link.
func held(at lease.Link) (condition string, v values) {
	return attrOwner + " = :owner AND " + attrToken + " = :token AND " + attrTerm + " = :term",
		values{":owner": text(at.Owner), ":token": text(at.Token), ":term": text(termOf(at))}
}

// heldWith is held for a write that moves the sequence.
func heldWith(at lease.Link, sequence lease.Move) (condition string, v values) {
	condition, v = held(at)
	v[":stored"], v[":sequence"] = text(sequence.From), text(sequence.To)
	return condition + " AND " + attrSequence + " = :stored", v
}

func (c *checkpointer) update(
	ctx context.Context, key lease.Key, expression, condition string, v values, opts ...func(*dynamodb.Options),
) (lease.Item, error) {
	out, err := c.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &c.table.name,
		Key:                       keyOf(key),
		UpdateExpression:          &expression,
		ConditionExpression:       &condition,
		ExpressionAttributeValues: v,
		ReturnValues:              types.ReturnValueAllNew,
	}, opts...)
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); conflict {
		return lease.Item{}, lease.ErrConflict
	}
	if err != nil {
		return lease.Item{}, err
	}
	if len(out.Attributes) == 0 {
		// To be resolved by reading, as an answer that was lost.
		return lease.Item{}, errors.New("the answer has no item")
	}
	return decodeItem(out.Attributes), nil
}

// decodeItem reads an item of ours or of the built-in input, or what an operator's
// hand has made of one.
func decodeItem(attributes map[string]types.AttributeValue) lease.Item {
	str := func(name string) string {
		s, _ := attributes[name].(*types.AttributeValueMemberS)
		if s == nil {
			return ""
		}
		return s.Value
	}
	item := lease.Item{
		Key:      lease.Key{Stream: str(attrStream), Shard: str(attrShard)},
		Exists:   true,
		Sequence: str(attrSequence),
		Owner:    str(attrOwner),
		Token:    str(attrToken),
	}
	readMalformed(&item, attributes)
	if term, ours := strings.CutPrefix(str(attrTerm), item.Owner+"/"); ours && item.Owner != "" {
		item.Term = term
		if str(attrWantedIn) == str(attrTerm) {
			item.Wanted = str(attrWanted)
		}
		if ms, ok := attributes[attrPeriod].(*types.AttributeValueMemberN); ok {
			item.Period = millis(ms)
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, str(attrStartAt)); err == nil {
		item.StartAt = at
	}
	if item.Sequence == "" {
		item.ShardStart = str(attrShardStart)
	}
	if by := str(attrPinned); by != "" {
		item.Pinned = item.Owner == "" || item.Owner == by
	}
	_, marked := attributes[attrFinished].(*types.AttributeValueMemberS)
	_, unknown := raw(item)[attrSequence]
	item.Finished = marked && !unknown && item.Owner == "" && str(attrFinished) == item.Sequence
	return item
}

// readMalformed reads the attributes that others share with the most caution where
// they are not what they should be. An owner that is no name may be one that lives:
// it is given one, to be watched. A sequence that is no number may be any, and so is
// none. What really stands there is kept, as the condition of a claim, which would
// otherwise be refused for ever.
func readMalformed(item *lease.Item, attributes map[string]types.AttributeValue) {
	odd := values{}
	var faults []string
	note := func(attribute, readAs string) {
		odd[attribute] = attributes[attribute]
		faults = append(faults, fmt.Sprintf("%s is %s and counts as %s", attribute, describe(attributes[attribute]), readAs))
	}
	isText := func(attribute string) (there, isText bool) {
		value, there := attributes[attribute]
		_, isText = value.(*types.AttributeValueMemberS)
		return there, isText
	}
	if there, isText := isText(attrOwner); there && (!isText || item.Owner == "") {
		item.Owner = "(" + describe(attributes[attrOwner]) + ")"
		note(attrOwner, "an unknown owner")
	}
	if there, isText := isText(attrToken); there && !isText {
		item.Token = "(" + describe(attributes[attrToken]) + ")"
		note(attrToken, "a lease that nobody renews")
	}
	if there, isText := isText(attrSequence); there && (!isText || item.Sequence != "" && !sequence.Valid(item.Sequence)) {
		item.Sequence = ""
		note(attrSequence, "none")
	}
	if len(faults) > 0 {
		item.Malformed, item.Raw = strings.Join(faults, ", "), odd
	}
}

// raw has the attributes of an item that are not what they should be.
func raw(item lease.Item) values {
	odd, _ := item.Raw.(values)
	return odd
}

// describe says what an attribute is.
func describe(value types.AttributeValue) string {
	switch value := value.(type) {
	case *types.AttributeValueMemberS:
		if value.Value == "" {
			return "blank"
		}
		return fmt.Sprintf("the text %q", value.Value)
	case *types.AttributeValueMemberN:
		return "the number " + value.Value
	case *types.AttributeValueMemberNULL:
		return "NULL"
	case *types.AttributeValueMemberBOOL:
		return fmt.Sprintf("the truth value %t", value.Value)
	}
	// Such as a list, a map or a set.
	return "a " + strings.TrimPrefix(fmt.Sprintf("%T", value), "*types.AttributeValueMember")
}

type values = map[string]types.AttributeValue

func keyOf(key lease.Key) values {
	return values{attrStream: text(key.Stream), attrShard: text(key.Shard)}
}

// millis reads a period; one that is no number counts as none.
func millis(n *types.AttributeValueMemberN) time.Duration {
	ms, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func termOf(l lease.Link) string { return l.Owner + "/" + l.Term }

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

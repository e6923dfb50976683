package awskinesis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// The attributes of an item. The first five are shared with Benthos' built-in
// input, which erases the others whenever it commits, and keeps them, stale,
// when it claims: each of those is tied to the owner or sequence that it was
// written with, and left out of a lease.Item when that has changed. All are read by
// everybody, and are therefore short and few.
const (
	attrStream   = "StreamID"
	attrShard    = "ShardID"
	attrSequence = "SequenceNumber"
	attrOwner    = "ClientID"
	attrToken    = "LeaseTimeout"

	// attrTerm is "owner/term", and stands only while attrOwner is that owner.
	attrTerm = "LeaseTerm"
	// attrNumber counts the terms, also while nobody owns the item.
	attrNumber = "TermNumber"
	// attrStartAt is where a shard without a sequence starts, RFC 3339.
	attrStartAt = "StartTimestamp"
	// attrFinished is the sequence with which the shard was finished, and stands
	// only while attrSequence is the same and nobody owns the item.
	attrFinished = "FinishedSequence"
	// attrCut is the moment up to which the shard was read, RFC 3339, and stands only while
	// attrSequence is the sequence attrCutSequence and nobody owns the item.
	attrCut         = "CutAt"
	attrCutSequence = "CutSequence"
	// attrShardStart is the starting sequence number of the shard that was claimed,
	// and stands only while attrSequence is empty: from then on that tells the shard.
	attrShardStart = "ShardStart"
	// attrPinned is the owner that was told to read this very shard, and stands only
	// while attrOwner is that owner or there is none.
	attrPinned = "PinnedBy"
	// attrInside is how much was acknowledged of the record after attrSequence, as
	// "sequence/record/count", and stands only while attrSequence is that sequence.
	attrInside = "Inside"
	// attrUpTo is the moment before which all that arrived was acknowledged, in seconds
	// since 1970.
	attrUpTo = "UpTo"
)

// The members of the group stand under a stream name that no stream can have, with
// their ids for shards and without attrOwner: the built-in input never sees one. All
// items of a group that has a name, its members too, stand under names that begin with
// groups and its own: no stream has a slash in its name, and an ARN begins with arn.
const (
	groups  = "/groups/"
	members = "/clients"
	// attrPeriod is a member's lease period in milliseconds.
	attrPeriod = "LeasePeriod"
	// attrStreams are the streams of which it shares the shards, a set of strings.
	attrStreams = "Streams"
	// attrRequests are how many shards it asks for of whom, a set of "count owner".
	attrRequests = "Requests"
	// attrChanges is a number that grows with what the member changes.
	attrChanges = "Changes"
)

// The end of a group that ends at its first start stands in an item of its own, under a
// stream name that no stream can have either.
const (
	ends     = "/end"
	endShard = "now"
	// attrEnd is that moment, RFC 3339.
	attrEnd = "EndTimestamp"
	// attrEndBy is a text of whoever wrote it, used once: several may start in one second.
	attrEndBy = "EndBy"
)

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
	group string // its name; empty for the group that is the table itself
}

var (
	_ lease.Store   = (*checkpointer)(nil)
	_ lease.Members = (*checkpointer)(nil)
)

// ensureTable returns once the table is there, of the right shape and usable, and
// reports whether it has created it first, as the configuration may have it.
func (c *checkpointer) ensureTable(ctx context.Context) (created bool, err error) {
	described, err := c.api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &c.table.name})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		if !c.table.create {
			return false, fmt.Errorf("table %q does not exist: create it with the string keys %s (HASH) and %s (RANGE), or set `dynamodb.create: true`",
				c.table.name, attrStream, attrShard)
		}
		if created, err = c.createTable(ctx); err != nil {
			return false, err
		}
		return created, c.awaitTable(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("describing table %q: %w", c.table.name, err)
	}
	if err := checkKeys(described.Table); err != nil {
		return false, fmt.Errorf("table %q: %w", c.table.name, err)
	}
	switch described.Table.TableStatus {
	case types.TableStatusActive, types.TableStatusUpdating:
		return false, nil
	default:
		return false, c.awaitTable(ctx)
	}
}

// createTable reports whether it was this process that has created the table.
func (c *checkpointer) createTable(ctx context.Context) (created bool, err error) {
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
	_, err = c.api.CreateTable(ctx, in)
	if _, raced := errors.AsType[*types.ResourceInUseException](err); raced {
		return false, nil // another process creates it at this moment
	}
	if err != nil {
		return false, fmt.Errorf("creating table %q: %w", c.table.name, err)
	}
	return true, nil
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

// hashKey is the hash key of a stream, or of the members. Keys leave the checkpointer
// and come to it by the stream's own name.
func (c *checkpointer) hashKey(stream string) string { return c.prefix() + stream }

func (c *checkpointer) prefix() string {
	if c.group == "" {
		return ""
	}
	return groups + c.group + "/"
}

func (c *checkpointer) keyOf(key lease.Key) values {
	return values{attrStream: text(c.hashKey(key.Stream)), attrShard: text(key.Shard)}
}

func (c *checkpointer) decode(attributes map[string]types.AttributeValue) lease.Item {
	item := decodeItem(attributes)
	item.Stream = strings.TrimPrefix(item.Stream, c.prefix())
	return item
}

// list returns the items of a stream. An eventually consistent list costs half and may
// be a moment old: enough to plan from, since each write is conditional.
func (c *checkpointer) list(ctx context.Context, stream string, consistent bool) (itemList, error) {
	all, size, err := c.query(ctx, stream, consistent)
	if err != nil {
		return itemList{}, fmt.Errorf("reading the leases of stream %s: %w", stream, err)
	}
	l := itemList{items: make([]lease.Item, 0, len(all)), size: size}
	for _, attributes := range all {
		l.items = append(l.items, c.decode(attributes))
	}
	return l, nil
}

// itemList is what one reading of a stream's items brought.
type itemList struct {
	items []lease.Item
	size  int // bytes in the table, by which reading is paid for
}

// listMembers returns the members of the group.
func (c *checkpointer) listMembers(ctx context.Context, consistent bool) ([]lease.Member, error) {
	all, _, err := c.query(ctx, members, consistent)
	if err != nil {
		return nil, fmt.Errorf("reading who is in the group: %w", err)
	}
	found := make([]lease.Member, 0, len(all))
	for _, attributes := range all {
		found = append(found, decodeMember(attributes))
	}
	return found, nil
}

// Member implements lease.Members.
func (c *checkpointer) Member(ctx context.Context, id string) (lease.Member, bool, error) {
	attributes, err := c.get(ctx, lease.Key{Stream: members, Shard: id})
	if err != nil || attributes == nil {
		return lease.Member{}, false, err
	}
	return decodeMember(attributes), true, nil
}

// Join implements lease.Members.
func (c *checkpointer) Join(ctx context.Context, m lease.Member) error {
	return c.beat(ctx, m, "attribute_not_exists("+attrShard+")", values{})
}

// Beat implements lease.Members.
func (c *checkpointer) Beat(ctx context.Context, m lease.Member, at string) error {
	return c.beat(ctx, m, attrToken+" = :at", values{":at": text(at)})
}

func (c *checkpointer) beat(ctx context.Context, m lease.Member, condition string, v values) error {
	v[":token"], v[":period"], v[":changes"] = text(m.Token), number(m.Period.Milliseconds()), number(m.Changes)
	set := "SET " + attrToken + " = :token, " + attrPeriod + " = :period, " + attrChanges + " = :changes"
	var remove []string
	// A set cannot be empty.
	if len(m.Streams) > 0 {
		set += ", " + attrStreams + " = :streams"
		v[":streams"] = &types.AttributeValueMemberSS{Value: m.Streams}
	} else {
		remove = append(remove, attrStreams)
	}
	if len(m.Requests) > 0 {
		requests := make([]string, 0, len(m.Requests))
		for owner, count := range m.Requests {
			requests = append(requests, strconv.Itoa(count)+" "+owner)
		}
		set += ", " + attrRequests + " = :requests"
		v[":requests"] = &types.AttributeValueMemberSS{Value: requests}
	} else {
		remove = append(remove, attrRequests)
	}
	if len(remove) > 0 {
		set += " REMOVE " + strings.Join(remove, ", ")
	}
	_, err := c.update(ctx, lease.Key{Stream: members, Shard: m.ID}, set, condition, v)
	return err
}

// Evict implements lease.Members.
func (c *checkpointer) Evict(ctx context.Context, m lease.Member) error {
	condition, v := beatenAs(m)
	v[":evicted"] = text(lease.Evicted)
	_, err := c.update(ctx, lease.Key{Stream: members, Shard: m.ID},
		"SET "+attrToken+" = :evicted REMOVE "+strings.Join([]string{attrPeriod, attrStreams, attrRequests, attrChanges}, ", "), condition, v)
	return err
}

// Remove implements lease.Members.
func (c *checkpointer) Remove(ctx context.Context, m lease.Member) error {
	condition, v := beatenAs(m)
	if len(v) == 0 {
		v = nil
	}
	return c.delete(ctx, lease.Key{Stream: members, Shard: m.ID}, condition, v)
}

// beatenAs is the condition that the item of a member has the token that was seen.
func beatenAs(m lease.Member) (condition string, v values) {
	if stored, malformed := m.Raw.(types.AttributeValue); malformed {
		return attrToken + " = :token", values{":token": stored}
	}
	if m.Token == "" {
		return "attribute_exists(" + attrShard + ") AND attribute_not_exists(" + attrToken + ")", values{}
	}
	return attrToken + " = :token", values{":token": text(m.Token)}
}

func decodeMember(attributes map[string]types.AttributeValue) lease.Member {
	item := decodeItem(attributes)
	m := lease.Member{ID: item.Shard, Token: item.Token}
	if stored, malformed := raw(item)[attrToken]; malformed {
		m.Raw = stored
	}
	if ms, ok := attributes[attrPeriod].(*types.AttributeValueMemberN); ok {
		m.Period = time.Duration(integer(ms)) * time.Millisecond
	}
	if changes, ok := attributes[attrChanges].(*types.AttributeValueMemberN); ok {
		m.Changes = integer(changes)
	}
	if streams, ok := attributes[attrStreams].(*types.AttributeValueMemberSS); ok {
		m.Streams = streams.Value
	}
	if requests, ok := attributes[attrRequests].(*types.AttributeValueMemberSS); ok {
		m.Requests = make(map[string]int, len(requests.Value))
		for _, request := range requests.Value {
			count, owner, _ := strings.Cut(request, " ")
			if n, err := strconv.Atoi(count); err == nil && n > 0 {
				m.Requests[owner] = n
			}
		}
	}
	return m
}

// remove removes an item that nobody owns or whose owner is dead, if it is still as
// it was seen. It reports whether it has.
func (c *checkpointer) remove(ctx context.Context, seen lease.Item) (removed bool, err error) {
	if !seen.Exists {
		return false, nil
	}
	v := values{}
	condition := asSeen(seen, v)
	err = c.delete(ctx, seen.Key, condition, v)
	if errors.Is(err, lease.ErrConflict) {
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
	return c.update(ctx, seen.Key, "SET "+attrSequence+" = :sequence REMOVE "+
		strings.Join([]string{attrFinished, attrCut, attrCutSequence, attrShardStart, attrInside}, ", "), condition, v)
}

// query returns all items of a stream, or of the members, all pages of them, and their
// size in bytes.
func (c *checkpointer) query(ctx context.Context, stream string, consistent bool) (items []map[string]types.AttributeValue, size int, err error) {
	pages := dynamodb.NewQueryPaginator(c.api, &dynamodb.QueryInput{
		TableName:                 &c.table.name,
		ConsistentRead:            &consistent,
		KeyConditionExpression:    aws.String(attrStream + " = :stream"),
		ExpressionAttributeValues: values{":stream": text(c.hashKey(stream))},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, 0, err
		}
		if page.Items == nil {
			// An answer that broke on its way must not pass for an empty table, in
			// which a stream would start anew.
			return nil, 0, errors.New("the answer has no list of items")
		}
		items = append(items, page.Items...)
	}
	for _, item := range items {
		size += sizeOf(item)
	}
	return items, size, nil
}

// sizeOf is the size of an item in bytes, roughly: that of its names and texts.
func sizeOf(item map[string]types.AttributeValue) (size int) {
	for name, value := range item {
		size += len(name)
		switch value := value.(type) {
		case *types.AttributeValueMemberS:
			size += len(value.Value)
		case *types.AttributeValueMemberN:
			size += len(value.Value)/2 + 1
		}
	}
	return size
}

// Get implements lease.Store.
func (c *checkpointer) Get(ctx context.Context, key lease.Key) (lease.Item, error) {
	attributes, err := c.get(ctx, key)
	if err != nil || attributes == nil {
		return lease.Item{Key: key}, err
	}
	return c.decode(attributes), nil
}

// get reads one item, consistently; nil when there is none.
func (c *checkpointer) get(ctx context.Context, key lease.Key) (map[string]types.AttributeValue, error) {
	out, err := c.api.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:      &c.table.name,
		Key:            c.keyOf(key),
		ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return nil, err
	}
	if out.Item == nil && !isDynamoDBs(out.ResultMetadata) {
		// It would pass for a member that is gone, or for a lease that is lost.
		return nil, errors.New("the answer has no item, and nothing that shows it to be one of DynamoDB")
	}
	return out.Item, nil
}

// isDynamoDBs tells whether an answer has one of the headers that DynamoDB's answers have.
// One of something on the way, such as a proxy's 200 with nothing, has neither; to the SDK
// it is as good as an answer without an item, or to a delete.
func isDynamoDBs(metadata middleware.Metadata) bool {
	answer, ok := awsmiddleware.GetRawResponse(metadata).(*smithyhttp.Response)
	return ok && (answer.Header.Get("X-Amzn-Requestid") != "" || answer.Header.Get("X-Amz-Crc32") != "")
}

func (c *checkpointer) delete(ctx context.Context, key lease.Key, condition string, v values) error {
	out, err := c.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:                 &c.table.name,
		Key:                       c.keyOf(key),
		ConditionExpression:       &condition,
		ExpressionAttributeValues: v,
	})
	if _, conflict := errors.AsType[*types.ConditionalCheckFailedException](err); conflict {
		return lease.ErrConflict
	}
	if err == nil && !isDynamoDBs(out.ResultMetadata) {
		return errors.New("the answer has nothing that shows it to be one of DynamoDB")
	}
	return err
}

// Claim implements lease.Store.
func (c *checkpointer) Claim(ctx context.Context, seen lease.Item, grant lease.Grant) (lease.Item, error) {
	v := values{
		":owner": text(grant.Owner),
		":token": text(grant.Token),
		":term":  text(termOf(grant.Link)),
		":first": text(""),
		":zero":  number(0),
		":one":   number(1),
	}
	set := []string{
		attrOwner + " = :owner",
		attrToken + " = :token",
		attrTerm + " = :term",
		nextNumber,
	}
	remove := []string{attrFinished, attrCut, attrCutSequence}
	if !seen.Exists {
		v[":first"] = text(grant.Position.Sequence)
		if within := encodeWithin(grant.Position); within != "" {
			set = append(set, attrInside+" = :within")
			v[":within"] = text(within)
		}
	}
	if _, malformed := raw(seen)[attrSequence]; malformed || grant.Anew && seen.Exists {
		set = append(set, attrSequence+" = :first")
		remove = append(remove, attrUpTo, attrInside)
	} else {
		// The built-in input fails on an item that it claims without one.
		set = append(set, attrSequence+" = if_not_exists("+attrSequence+", :first)")
	}
	if !grant.StartAt.IsZero() {
		set = append(set, attrStartAt+" = if_not_exists("+attrStartAt+", :startAt)")
		v[":startAt"] = text(grant.StartAt.UTC().Format(time.RFC3339Nano))
	}
	if grant.ShardStart != "" && (seen.Sequence == "" || grant.Anew) && (seen.Exists || grant.Position.Sequence == "") {
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
	condition := claimable(seen, v)
	if grant.Anew && seen.Owner != "" && seen.Sequence != "" {
		v[":seenSequence"] = text(seen.Sequence)
		condition += " AND " + attrSequence + " = :seenSequence"
	}
	return c.update(ctx, seen.Key, "SET "+strings.Join(set, ", ")+" REMOVE "+strings.Join(remove, ", "), condition, v)
}

// claimable is the condition of a claim. One of our own owners is gone for good when its
// shard is claimed, so its term tells enough: a checkpoint of it that came since the item
// was seen is where the claim begins. An item of another owner has to be as it was seen.
func claimable(seen lease.Item, v values) string {
	if seen.Owner == "" || seen.Term == "" || seen.Malformed != "" {
		return asSeen(seen, v)
	}
	v[":seenOwner"], v[":seenTerm"] = text(seen.Owner), text(termOf(seen.Link()))
	return attrOwner + " = :seenOwner AND " + attrTerm + " = :seenTerm"
}

// asSeen is the condition that an item is as it was seen. It adds its placeholders to v.
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
		// phantom, nor one that somebody took and gave back further on, finished or cut.
		condition := "attribute_exists(" + attrShard + ") AND attribute_not_exists(" + attrOwner + ") AND " +
			same(attrSequence, ":seenSequence", seen.Sequence)
		if _, malformed := odd[attrSequence]; malformed {
			return condition // there can be no mark then
		}
		return condition + marked(attrFinished, seen.Finished) + marked(attrCutSequence, !seen.CutAt.IsZero())
	}
	condition := same(attrOwner, ":seenOwner", seen.Owner) + " AND " + same(attrToken, ":seenToken", seen.Token)
	if seen.Term != "" {
		condition += " AND " + same(attrTerm, ":seenTerm", termOf(seen.Link()))
	}
	if _, malformed := odd[attrSequence]; malformed {
		condition += " AND " + same(attrSequence, ":seenSequence", "")
	}
	return condition
}

// marked is the condition that a mark stands, or does not, beside others.
func marked(attribute string, stands bool) string {
	if stands {
		return " AND " + attribute + " = " + attrSequence
	}
	return " AND (attribute_not_exists(" + attribute + ") OR " + attribute + " <> " + attrSequence + ")"
}

// Renew implements lease.Store.
func (c *checkpointer) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, position lease.Move) (lease.Item, error) {
	condition, v := held(at)
	set := "SET " + attrToken + " = :next"
	if position.From != position.To {
		condition, v = heldWith(at, position)
		set += ", " + attrSequence + " = :sequence"
	}
	v[":next"] = text(token)
	further, remove := moved(position, v)
	if remove != "" {
		remove = " REMOVE " + strings.TrimPrefix(remove, ", ")
	}
	return c.update(ctx, key, set+further+remove, condition, v)
}

// lastWrite is an option of the writes that end a lease. Their caller tries again
// by itself, and sooner than the SDK where the table takes no more writes at this
// moment, as when a process releases a thousand shards at once.
var lastWrite = sync.OnceValue(func() func(*dynamodb.Options) {
	retryer := session.CallerPaced()
	return func(o *dynamodb.Options) { o.Retryer = retryer }
})

// Release implements lease.Store.
func (c *checkpointer) Release(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	condition, v := heldWith(at, position)
	set, remove := moved(position, v)
	_, err := c.update(ctx, key, "SET "+attrSequence+" = :sequence"+set+" REMOVE "+freed+remove, condition, v, lastWrite())
	return err
}

// Finish implements lease.Store.
func (c *checkpointer) Finish(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	condition, v := heldWith(at, position)
	set, remove := moved(position, v)
	_, err := c.update(ctx, key,
		"SET "+attrSequence+" = :sequence, "+attrFinished+" = :sequence"+set+" REMOVE "+freed+remove, condition, v, lastWrite())
	return err
}

// Cut implements lease.Store.
func (c *checkpointer) Cut(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, end time.Time) error {
	condition, v := heldWith(at, position)
	v[":cut"] = text(end.UTC().Format(time.RFC3339Nano))
	set, remove := moved(position, v)
	_, err := c.update(ctx, key,
		"SET "+attrSequence+" = :sequence, "+attrCut+" = :cut, "+attrCutSequence+" = :sequence"+set+" REMOVE "+freed+remove, condition, v, lastWrite())
	return err
}

// agreeOnEnd returns the moment at which the group ends that ends at its first start: the
// one that stands in the table, or else the one that is given, which stands there from
// now on. first is whether it is that one. Whoever tries again after an answer that was
// lost gets the same.
func (c *checkpointer) agreeOnEnd(ctx context.Context, now time.Time) (end time.Time, first bool, err error) {
	proposed, by := now.UTC().Format(time.RFC3339Nano), rand.Text()[:10]
	key := lease.Key{Stream: ends, Shard: endShard}
	out, err := c.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &c.table.name,
		Key:       c.keyOf(key),
		UpdateExpression: aws.String("SET " + attrEnd + " = if_not_exists(" + attrEnd + ", :end), " +
			attrEndBy + " = if_not_exists(" + attrEndBy + ", :by)"),
		ExpressionAttributeValues: values{":end": text(proposed), ":by": text(by)},
		ReturnValues:              types.ReturnValueAllNew,
	})
	if err != nil {
		return time.Time{}, false, fmt.Errorf("agreeing on the end of the group: %w", err)
	}
	if len(out.Attributes) == 0 {
		return time.Time{}, false, errors.New("agreeing on the end of the group: the answer has no item")
	}
	stored, _ := out.Attributes[attrEnd].(*types.AttributeValueMemberS)
	if stored == nil {
		return time.Time{}, false, fmt.Errorf("the item %q of %q in table %s has %s that is no text: delete it, and the group ends at the next start", endShard, c.hashKey(ends), c.table.name, attrEnd)
	}
	if end, err = time.Parse(time.RFC3339Nano, stored.Value); err != nil {
		return time.Time{}, false, fmt.Errorf("the item %q of %q in table %s has %s that is no time: delete it, and the group ends at the next start: %w", endShard, c.hashKey(ends), c.table.name, attrEnd, err)
	}
	writer, _ := out.Attributes[attrEndBy].(*types.AttributeValueMemberS)
	return end, stored.Value == proposed && writer != nil && writer.Value == by, nil
}

// HandOver implements lease.Store.
func (c *checkpointer) HandOver(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, to lease.Link) error {
	condition, v := heldWith(at, position)
	v[":to"], v[":next"], v[":nextTerm"] = text(to.Owner), text(to.Token), text(termOf(to))
	v[":zero"], v[":one"] = number(0), number(1)
	set, remove := moved(position, v)
	_, err := c.update(ctx, key,
		"SET "+attrSequence+" = :sequence, "+attrOwner+" = :to, "+attrToken+" = :next, "+attrTerm+" = :nextTerm, "+nextNumber+set+
			" REMOVE "+attrPinned+remove, condition, v, lastWrite())
	return err
}

// nextNumber counts a term. It needs the placeholders :zero and :one.
const nextNumber = attrNumber + " = if_not_exists(" + attrNumber + ", :zero) + :one"

// Yield implements lease.Store.
func (c *checkpointer) Yield(ctx context.Context, stolen lease.Item, sequence string) error {
	v := values{
		":sequence": text(sequence),
		":owner":    text(stolen.Owner), ":token": text(stolen.Token), ":seen": text(stolen.Sequence),
	}
	_, err := c.update(ctx, stolen.Key, "SET "+attrSequence+" = :sequence REMOVE "+attrShardStart+", "+attrInside,
		attrOwner+" = :owner AND "+attrToken+" = :token AND "+attrSequence+" = :seen", v)
	return err
}

// freed is what an owner takes with it.
const freed = attrOwner + ", " + attrToken + ", " + attrTerm

// moved is what else to set and to remove in a write of a position: a sequence that moves
// tells the shard from then on. Both begin with a comma where they are not empty. It adds
// its placeholders to v.
func moved(position lease.Move, v values) (set, remove string) {
	if !position.UpTo.IsZero() {
		v[":upTo"] = number(position.UpTo.Unix())
		set += ", " + attrUpTo + " = :upTo"
	}
	if position.From.Sequence != position.To.Sequence {
		remove += ", " + attrShardStart
	}
	switch within := encodeWithin(position.To); {
	case position.From == position.To:
	case within == "":
		remove += ", " + attrInside
	default:
		v[":within"] = text(within)
		set += ", " + attrInside + " = :within"
	}
	return set, remove
}

// encodeWithin is the text of attrInside; empty for a position that is not inside of a
// record.
func encodeWithin(p lease.Position) string {
	if p.Within == (lease.Within{}) {
		return ""
	}
	return p.Sequence + "/" + p.Within.Sequence + "/" + strconv.Itoa(p.Within.Count)
}

// decodeWithin reads attrInside as it stands beside a sequence number. Where it was written
// with another one, or is none, nothing is acknowledged of any record: who has moved the
// sequence wants what comes after it.
func decodeWithin(written, sequenceNumber string) lease.Within {
	parts := strings.Split(written, "/")
	if len(parts) != 3 || parts[0] != sequenceNumber || !sequence.Valid(parts[1]) {
		return lease.Within{}
	}
	count, err := strconv.Atoi(parts[2])
	if err != nil || count <= 0 {
		return lease.Within{}
	}
	return lease.Within{Sequence: parts[1], Count: count}
}

// held is the condition that the item is still at the given link.
func held(at lease.Link) (condition string, v values) {
	return attrOwner + " = :owner AND " + attrToken + " = :token AND " + attrTerm + " = :term",
		values{":owner": text(at.Owner), ":token": text(at.Token), ":term": text(termOf(at))}
}

// heldWith is held for a write that moves the position.
func heldWith(at lease.Link, position lease.Move) (condition string, v values) {
	condition, v = held(at)
	v[":stored"], v[":sequence"] = text(position.From.Sequence), text(position.To.Sequence)
	return condition + " AND " + attrSequence + " = :stored", v
}

func (c *checkpointer) update(
	ctx context.Context, key lease.Key, expression, condition string, v values, opts ...func(*dynamodb.Options),
) (lease.Item, error) {
	out, err := c.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &c.table.name,
		Key:                       c.keyOf(key),
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
	return c.decode(out.Attributes), nil
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
	}
	if terms, ok := attributes[attrNumber].(*types.AttributeValueMemberN); ok {
		item.Number = integer(terms)
	}
	if at, err := time.Parse(time.RFC3339Nano, str(attrStartAt)); err == nil {
		item.StartAt = at
	}
	if at, ok := attributes[attrUpTo].(*types.AttributeValueMemberN); ok && integer(at) > 0 {
		item.UpTo = time.Unix(integer(at), 0)
	}
	if item.Sequence == "" {
		item.ShardStart = str(attrShardStart)
	}
	if by := str(attrPinned); by != "" {
		item.Pinned = item.Owner == "" || item.Owner == by
	}
	_, marked := attributes[attrFinished].(*types.AttributeValueMemberS)
	_, unknown := raw(item)[attrSequence]
	if !unknown {
		item.Within = decodeWithin(str(attrInside), item.Sequence)
	}
	item.Finished = marked && !unknown && item.Owner == "" && str(attrFinished) == item.Sequence
	if _, marked := attributes[attrCutSequence].(*types.AttributeValueMemberS); marked && !unknown && item.Owner == "" && str(attrCutSequence) == item.Sequence {
		var err error
		if item.CutAt, err = time.Parse(time.RFC3339Nano, str(attrCut)); err != nil {
			item.CutAt = time.Unix(0, 0).UTC() // before the end of whoever looks, who reads on
		}
	}
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

// integer reads a number; one that is none counts as 0.
func integer(n *types.AttributeValueMemberN) int64 {
	value, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return 0
	}
	return value
}

func termOf(l lease.Link) string { return l.Owner + "/" + l.Term }

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

// Package awsfake is a local AWS: Kinesis Data Streams and DynamoDB over their
// real wire protocols, for tests, measurements and the demonstration. The SDK's
// own clients stand in front of it, either over a loopback port
// ([Server.Listen], and [Server.ListenTLS] with HTTP/2) or in process
// ([Server.HTTPClient]), where everything runs on the caller's goroutine so that
// a testing/synctest bubble drives it in virtual time. Package relay has a
// network for the first two that drops packets silently.
//
// # Faithful
//
// Kinesis: shard lineage and hash ranges through splits and merges, all five
// iterator types, iterator life, pages and next tokens, MillisBehindLatest,
// ChildShards, sequence numbers that belong to one shard of one life of a
// stream, records without a partition key, and, with Options.EnforceLimits,
// the documented quotas of shards, streams and accounts. Enhanced fan-out:
// consumers with their states and limits, and SubscribeToShard with event
// streams that push, continue on idle shards, end after five minutes or with
// their shard, and are taken over; StreamFault breaks them from inside.
//
// Requests and answers of Kinesis are in JSON or in CBOR, as the request says; a Fault
// has them answered in another Format. Subscriptions are in JSON.
//
// DynamoDB: expressions are parsed and evaluated, with the service's errors
// for reserved words and for undefined or unused placeholders; keys are
// checked against the schema; writes to a table have one order, which watchers
// see; pages end by size, count and Limit; a scan goes by segments; global secondary
// indexes are made with a table or later, and queried; conditions and updates of items
// may have the form before expressions (Expected, AttributeUpdates); Server.Capacity and
// ReturnConsumedCapacity tell the units that requests consumed; and, with
// Options.StaleReads, a read that forgot ConsistentRead does not see the last
// writes.
//
// Both: with Options.Keys, signatures are verified as the services do, by the server's
// clock, which may be another than the client's; and answers come, by Fault.Reply, as
// they come from a proxy or a portal instead of a service.
//
// # Not faithful
//
// Subscriptions are served over HTTP/1.1 too, which the service does not. There the
// SDK's client may drop one as it starts: it closes the request's body while
// net/http still looks for its end. One that is held up by its client ends only
// when that reads on or goes, also after five minutes or a take-over.
//
// Signatures are checked with Options.Keys alone. What somebody may do is not, but
// a Fault that asks a Policy does it. One account in one region is served. Nothing is encrypted or tagged, Kinesis meters
// nothing, and nothing survives the process. A page of GetRecords, or an event of a
// subscription, that reaches the end of a closed shard is its last one, where the
// service may send one more; what such a page says of MillisBehindLatest is for
// Options.ClosedBehind to choose, as the service's reference does not say it.
// Resharding takes effect at once and only the stream's status lags
// (Options.StreamDelay). Document paths name top-level attributes only; tables have no
// local indexes, streams or transactions, and those of global ones are not scanned; what an
// index costs to write is not counted; the older form of queries and filters
// (KeyConditions, QueryFilter, ScanFilter) is refused. Of DynamoDB's quotas only the writes of one hash key
// count, and of the limits of requests those on count and size of records and items.
// Messages of errors resemble the service's; their types and statuses are the
// service's.
package awsfake

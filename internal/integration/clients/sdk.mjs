// Reads a stream by enhanced fan-out with the AWS SDK for JavaScript, and prints
// what it reads, a JSON object a line: the records and the ends of shards.
//
// Usage: node sdk.mjs h2|http/1.1 ENDPOINT STREAM_ARN, with a certificate to trust
// in NODE_EXTRA_CA_CERTS.
import {
  DescribeStreamConsumerCommand, KinesisClient, ListShardsCommand,
  RegisterStreamConsumerCommand, SubscribeToShardCommand
} from '@aws-sdk/client-kinesis'
import { NodeHttp2Handler, NodeHttpHandler } from '@smithy/node-http-handler'
import { setTimeout as sleep } from 'node:timers/promises'

const [protocol, endpoint, StreamARN] = process.argv.slice(2)
const client = new KinesisClient({
  endpoint,
  region: 'us-east-1',
  credentials: { accessKeyId: 'client', secretAccessKey: 'client' },
  // Of its own the client speaks HTTP/2.
  requestHandler: protocol === 'h2' ? new NodeHttp2Handler() : new NodeHttpHandler()
})
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)

const { Consumer: { ConsumerARN } } = await client.send(
  new RegisterStreamConsumerCommand({ StreamARN, ConsumerName: 'sdk' }))
while ((await client.send(new DescribeStreamConsumerCommand({ ConsumerARN })))
  .ConsumerDescription.ConsumerStatus !== 'ACTIVE') await sleep(50)

const started = new Set()
const ended = new Set()

// A shard is read from its oldest record, and a subscription that ends before its
// shard goes on after what it said last.
async function read (ShardId) {
  if (started.has(ShardId)) return
  started.add(ShardId)
  for (let position = { Type: 'TRIM_HORIZON' }; ;) {
    const { EventStream } = await client.send(
      new SubscribeToShardCommand({ ConsumerARN, ShardId, StartingPosition: position }))
    say({ subscribed: ShardId, from: position.Type })
    for await (const { SubscribeToShardEvent: event, ...other } of EventStream) {
      if (event === undefined) {
        say({ other })
        continue
      }
      for (const r of event.Records) {
        say({
          shard: ShardId, key: r.PartitionKey, sequence: r.SequenceNumber,
          arrived: r.ApproximateArrivalTimestamp.getTime(), data: Buffer.from(r.Data).toString()
        })
      }
      if (event.ContinuationSequenceNumber === undefined) {
        ended.add(ShardId)
        say({ ended: ShardId, children: event.ChildShards })
        return Promise.all(event.ChildShards
          .filter((child) => child.ParentShards.every((parent) => ended.has(parent)))
          .map((child) => read(child.ShardId)))
      }
      position = { Type: 'AFTER_SEQUENCE_NUMBER', SequenceNumber: event.ContinuationSequenceNumber }
    }
  }
}

const { Shards } = await client.send(new ListShardsCommand({ StreamARN }))
await Promise.all(Shards.filter((s) => !s.ParentShardId).map((s) => read(s.ShardId)))

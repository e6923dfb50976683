// Reads a stream by enhanced fan-out with lifion-kinesis, which registers its
// consumer and keeps its leases and checkpoints in DynamoDB by itself, and prints
// what it reads, a JSON object a line, with what it logs.
//
// Usage: node lifion.mjs KINESIS_ENDPOINT DYNAMODB_ENDPOINT STREAM, with a
// certificate to trust in NODE_EXTRA_CA_CERTS.
import aws4 from 'aws4'
import eventStream from 'lifion-aws-event-stream'
import Kinesis from 'lifion-kinesis'

// It subscribes at its endpoint, and has the request signed by aws4, which does not
// know the request's URL and writes the host of AWS into it: with any other
// endpoint the subscription goes to AWS all the same. So the host is given here.
const { sign } = aws4
aws4.sign = (request, credentials) =>
  sign(Object.assign(request, { hostname: request.url.hostname }), credentials)

// It takes each piece that comes of the answer for the beginning or for the middle of
// one frame, and fails where two frames come in one piece, as the first two do here.
// So it is given the pieces frame by frame; what is in them is its own to decode.
const { Parser, parse } = eventStream
Parser.prototype._transform = function (piece, _, done) {
  this.dataBuffer = Buffer.concat([this.dataBuffer, piece])
  while (this.dataBuffer.length >= 4 && this.dataBuffer.length >= this.dataBuffer.readUInt32BE(0)) {
    const length = this.dataBuffer.readUInt32BE(0)
    this.push(parse(this.dataBuffer.subarray(0, length)))
    this.dataBuffer = this.dataBuffer.subarray(length)
  }
  done()
}

const [endpoint, tables, streamName] = process.argv.slice(2)
const aws = { region: 'us-east-1', accessKeyId: 'client', secretAccessKey: 'client' }
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)
const log = (level) => (...words) => say({ log: level, words: words.map(String) })
// Of each event of fan-out it says that it ignores a time that is not there.
const warn = (...words) => {
  if (!String(words[0]).startsWith('Will ignore approx arrival')) log('warn')(...words)
}

const client = new Kinesis({
  ...aws,
  endpoint,
  streamName,
  consumerGroup: 'lifion',
  createStreamIfNeeded: false,
  dynamoDb: { ...aws, endpoint: tables },
  initialPositionInStream: 'TRIM_HORIZON',
  leaseAcquisitionInterval: 500, // how soon it begins with the children of a shard
  logger: { debug () {}, warn, error: log('error') },
  maxEnhancedConsumers: 1,
  useEnhancedFanOut: true
})
client.on('data', ({ shardId, records, continuationSequenceNumber, millisBehindLatest }) => {
  for (const r of records) {
    say({
      shard: shardId, key: r.partitionKey, sequence: r.sequenceNumber,
      arrived: Math.round(r.approximateArrivalTimestamp * 1000), data: r.data
    })
  }
  say({ continuation: continuationSequenceNumber, behind: millisBehindLatest })
})
await client.startConsumer()

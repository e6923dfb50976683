// Aggregates user records, or takes them out of aggregates, with aws-kinesis-agg.
//
// Usage: node kpl.mjs aggregate|deaggregate IN OUT. Both files are JSON: an array of
// { Name, Records: [{ Data, PartitionKey, ExplicitHashKey }], Aggregate }, with bytes in
// base64. What OUT has of Aggregate, or of Records, is made here; IN need not have it.
import agg from 'aws-kinesis-agg'
import { readFileSync, writeFileSync } from 'node:fs'

const [what, from, to] = process.argv.slice(2)

// A key that is an integer below 2^32-1 would come to stand before all others in its
// table, but not its index: Object.keys puts such keys first. User records would get
// each other's keys.
function checked (key) {
  if (/^(0|[1-9][0-9]{0,9})$/.test(key) && Number(key) < 2 ** 32 - 1) {
    throw new Error(`aws-kinesis-agg mixes up keys such as ${key}`)
  }
  return key
}

function aggregate ({ Records }) {
  const made = []
  const aggregator = new agg.RecordAggregator((err, record) => {
    if (err) throw err
    made.push(record.data)
  })
  aggregator.aggregateRecords(Records.map((r) => ({
    data: Buffer.from(r.Data, 'base64'),
    partitionKey: checked(r.PartitionKey),
    explicitHashKey: checked(r.ExplicitHashKey) || undefined
  })), true)
  if (made.length !== 1) throw new Error(`${made.length} aggregates instead of one`)
  return { Aggregate: made[0].toString('base64') }
}

function deaggregate ({ Aggregate }) {
  let made
  agg.deaggregateSync({ data: Aggregate }, true, (err, records) => {
    if (err) throw err
    made = records
  })
  return {
    Records: made.map((r) => ({
      Data: r.data, PartitionKey: r.partitionKey, ExplicitHashKey: r.explicitPartitionKey ?? ''
    }))
  }
}

const make = { aggregate, deaggregate }[what]
const cases = JSON.parse(readFileSync(from))
writeFileSync(to, `${JSON.stringify(cases.map((c) => ({ ...c, ...make(c) })), null, 1)}\n`)
process.exit() // it would wait for the end of its input, as all clients here do

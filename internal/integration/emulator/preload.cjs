// Loaded into each emulator before its own code (node --require), this script
// keeps it on the loopback interface and gives it a free port.
'use strict'

const net = require('node:net')

// Neither emulator has an option for all three: a host, a port chosen by the
// kernel, and a way to tell which it was. Every listen is therefore turned into
// 127.0.0.1 with port 0, and announced on standard output together with the
// port that the emulator asked for, which names the server for the test.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (...args) {
  const asked = typeof args[0] === 'object' && args[0] !== null ? args[0].port : args[0]
  const done = args.findLast((arg) => typeof arg === 'function')
  this.once('listening', () => {
    process.stdout.write(`listening ${asked} ${this.address().port}\n`)
  })
  return listen.call(this, { host: '127.0.0.1', port: 0 }, done)
}

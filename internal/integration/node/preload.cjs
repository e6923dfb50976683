// Loaded into each child before its own code (node --require), this script ends it
// with the test that started it.
'use strict'

// Standard input is a pipe whose other end the test holds: it closes when the
// test ends, in whatever way it ends.
process.stdin.on('close', () => process.exit(0))
process.stdin.resume()

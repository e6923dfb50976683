// Package lease holds the right to read one shard: what it is, how it is kept
// alive, and when it may be trusted.
//
// Authoritative is the item in the shared table, and nothing else. An item has
// an owner and a token that changes with each write of the owner. Every write
// goes through a condition on both, so that the writes of one ownership form a
// chain: of all attempts on the same link at most one takes effect, and one that
// arrives late finds its link taken. A checkpoint therefore never goes back, not
// even by a request that spent a minute in the network.
//
// # States
//
//	free ──Claim──▶ held ──Release──▶ free
//	dead ──Claim──▶ held ──Finish───▶ finished
//	                held ──HandOver─▶ held by who asked for it
//	                held ──(conflict)─▶ lost
//
// # Guarantees
//
// A lease is trusted from the start of the last attempt that succeeded, for its
// period less a margin. A watcher counts at least the same period from after it
// saw the token of that attempt. So trust ends before anybody may claim, with
// no clock compared between machines. Elapsed time is the larger of the
// monotonic and the wall clock's, because the monotonic one may stand still
// while a machine is suspended.
//
// # On failure
//
// An attempt whose outcome is unknown is resolved by reading the item. While
// the table does not answer the lease runs out of trust, and deliveries wait; it
// is lost only when the table shows another owner, since until then nobody else
// has read the shard. A lost lease cancels its context, and its holder writes
// nothing more.
package lease

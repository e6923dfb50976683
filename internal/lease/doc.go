// Package lease holds the right to read one shard: what it is, how it is kept
// alive, and when it may be trusted.
//
// Authoritative is the shared table, and nothing else. Each member of a group has an
// item there, which it renews with a heartbeat; each shard has one, which says who
// reads it. All leases of a member stand on its session, which is its own item. A
// shard's item has an owner, a term and a token that changes with each write of the
// owner. Every write is conditional on all three, so that the writes of one ownership
// form a chain: of all attempts on the same link at most one takes effect, and one
// that arrives late finds its link taken. A checkpoint therefore never goes back, not
// even by a request that spent a minute in the network. The heartbeats of a session
// form such a chain too.
//
// # States
//
//	free ──Claim──▶ held ──Release──▶ free
//	dead ──Claim──▶ held ──Finish───▶ finished
//	                held ──Cut──────▶ free, and read up to the end of its reader
//	                held ──HandOver─▶ the recipient's ──Claim──▶ held
//	                held ──(conflict, or the session is lost)──▶ lost
//
// # Guarantees
//
// A session is trusted from the start of the heartbeat whose token stands, for the
// lease period less a margin. The others count at least the same period from after
// they saw that token, and evict the member before they claim what it owned. So trust
// ends before anybody may claim, with no clock compared between machines. Elapsed time
// is the larger of the monotonic and the wall clock's, because the monotonic one may
// stand still while a machine is suspended.
//
// The built-in input knows nothing of members. It goes by the time that a shard's item
// says, so a lease is trusted no longer than that time either, counted from the start
// of the write that said it.
//
// # On failure
//
// An attempt whose outcome is unknown is resolved by reading the item. While the table
// does not answer, trust runs out and deliveries wait; a session or lease is lost only
// when the table shows that it is, since until then nobody else has read the shard. A
// lost lease cancels its context, and its holder writes nothing more. A lost session
// ends all its leases, and writes to no shard's item: what it would release may be
// read by its successor.
package lease

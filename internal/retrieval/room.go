package retrieval

import "context"

// room is what is set aside for a page that is being read.
type room struct {
	limit    int32 // records of the page at most
	reserved int64
	answer   int64 // bytes of the answer; -1 while they are not known
	// next is what to ask for after an answer that was given up, since it was larger than
	// what was reserved; zero when the last one was not.
	next struct {
		limit int32
		bytes int64
	}
}

// reserve sets room aside for the next page, and says how many records it may have. A
// shard with a backlog gets what a page of its size takes, as far as the last one tells.
// One without, of which there are many, gets little, and asks for no more than fits.
func (p *Poller) reserve(ctx context.Context) (err error) {
	limit, bytes := p.size.limit(), int64(firstPage)
	each := p.each * 9 / 8 // they differ
	switch {
	case p.room.next.bytes > 0:
		limit, bytes = min(limit, p.room.next.limit), p.room.next.bytes
	case !p.behind:
		bytes = livePage
		limit = within(livePage, each, limit)
	case each > 0:
		limit = within(p.budget.limit, each, limit)
		bytes = min(max(each*int64(limit), livePage), fullPage)
	}
	p.room.limit, p.room.answer = limit, -1
	p.room.reserved, err = p.budget.Reserve(ctx, bytes, p.hooks.OnBudgetWait)
	return err
}

// admit makes sure of the room for an answer, of so many bytes, before it is read. If
// there is none the answer is given up, and asked for again when more has been set aside.
// To wait with it would hold what others wait for.
func (p *Poller) admit(answer int64) error {
	p.room.answer = answer
	needed := min(memoryOf(answer, p.room.limit), p.budget.limit)
	more := needed - p.room.reserved
	switch {
	case more <= 0:
	case p.budget.TryReserve(more):
		p.room.reserved = needed
	default:
		smaller := min(usualPage, p.budget.limit/2)
		p.room.next.limit = p.room.limit
		if p.room.limit > 1 && needed > smaller {
			p.room.next.limit = int32(max(int64(p.room.limit)*smaller/needed, 1))
			needed = smaller
		}
		// The next answer may be larger, by what the shard has got meanwhile, or since
		// its first records are the larger ones.
		p.room.next.bytes = 2 * needed
		return errNoRoom
	}
	return nil
}

// within returns how many records fit into some bytes, at most so many and at least one.
// each is what one takes, 0 while it is not known.
func within(bytes, each int64, most int32) int32 {
	if each == 0 {
		return most
	}
	return int32(min(int64(most), max(bytes/each, 1)))
}

// memoryOfEach is what each of some records took of the heap, of so many bytes together.
func (p *Poller) memoryOfEach(records, bytes int) int64 {
	answer := p.room.answer
	if answer < 0 { // as JSON with data in base64
		answer = int64(bytes)*4/3 + int64(records)*leastRecord
	}
	return memoryOf(answer, int32(records)) / int64(records)
}

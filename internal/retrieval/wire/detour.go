package wire

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/aws/smithy-go"
)

const (
	// shortestDetour is how long calls go through the SDK at first, and longestDetour how
	// long at most. Each detour that follows another without a direct success in between
	// lasts twice as long: a direct path that cannot work is tried once an hour.
	shortestDetour = 5 * time.Minute
	longestDetour  = time.Hour

	// A direct path fails that has failed detourAfter calls in a row, over at least
	// detourSpan, each of which the SDK then made with success. The span tells it from a
	// network that broke: that fails any number of calls at once, and none afterwards.
	detourAfter = 5
	detourSpan  = 10 * time.Second
)

// The reasons for a detour, as they are told to OnDetour.
const (
	// DetourCredentials: an answer about credentials or the clock, which the SDK may
	// correct, and a direct call does not. It concerns all streams.
	DetourCredentials = "credentials"
	// DetourRefused: another answer that is not of Kinesis' model, of one stream.
	DetourRefused = "refused"
	// DetourFailed: direct calls of one stream keep failing, and go well through the SDK.
	DetourFailed = "failed"
)

// DetourReasons are all of them.
var DetourReasons = []string{DetourCredentials, DetourRefused, DetourFailed}

// detour says whether calls go through the SDK for a while. It is safe for concurrent
// use.
type detour struct {
	mu       sync.Mutex
	until    time.Time     // the end of the last detour
	lasted   time.Duration // of the last detour, if no direct call has succeeded since
	failures int           // in a row
	first    time.Time     // of these failures
}

func (d *detour) active(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.until)
}

// succeeded takes in a direct call that brought a page, or a refusal of Kinesis' own.
func (d *detour) succeeded(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.until) {
		return // it began before the detour
	}
	d.failures, d.lasted = 0, 0
}

// failed takes in a direct call that brought nothing, and that the SDK made with success.
// It reports whether a detour begins with it.
func (d *detour) failed(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures == 0 {
		d.first = now
	}
	d.failures++
	return (d.lasted > 0 || d.failures >= detourAfter && now.Sub(d.first) >= detourSpan) && d.begin(now)
}

// refused takes in an answer after which it is no use to go on. It reports whether a
// detour begins with it.
func (d *detour) refused(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begin(now)
}

// begin begins a detour, unless one is under way. The caller holds the lock.
func (d *detour) begin(now time.Time) bool {
	if now.Before(d.until) {
		return false
	}
	d.lasted = min(max(2*d.lasted, shortestDetour), longestDetour)
	d.until, d.failures = now.Add(d.lasted), 0
	return true
}

// correctable are the codes of answers about credentials and the clock that Kinesis' model
// does not have.
var correctable = []string{
	"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException",
	"RequestExpired", "RequestTimeTooSkewed", "ExpiredToken", "ExpiredTokenException",
	"AuthFailure", "UnrecognizedClientException", "InvalidClientTokenId",
	"MissingAuthenticationToken", "MissingAuthenticationTokenException",
}

// detourReason returns what kind of answer a refusal is that is not of Kinesis' model.
func detourReason(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok && slices.Contains(correctable, api.ErrorCode()) {
		return DetourCredentials
	}
	return DetourRefused
}

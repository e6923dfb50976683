package retrieval

import (
	"errors"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// Ending is why a subscription came to its end.
type Ending string

// The endings. Empty is none: there was no subscription before.
const (
	// EndedByService: without an error, as each does after five minutes.
	EndedByService Ending = "ended"
	// EndedBroken: the connection broke, or brought what is no frame.
	EndedBroken Ending = "broken"
	// EndedSilent: nothing came for 35 s, though it was listened to.
	EndedSilent Ending = "silent"
	// EndedTaken: another subscription as the same consumer took over.
	EndedTaken Ending = "taken"
	// EndedThrottled, EndedFailed: with an error of the service.
	EndedThrottled Ending = "throttled"
	EndedFailed    Ending = "failed"
)

// Endings are all of them.
var Endings = []Ending{EndedByService, EndedBroken, EndedSilent, EndedTaken, EndedThrottled, EndedFailed}

// endingOf is how a subscription ended of which a read failed.
func endingOf(err error) Ending {
	if _, taken := errors.AsType[*types.ResourceInUseException](err); taken {
		return EndedTaken
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errEndUnconfirmed):
		return EndedByService
	case errors.Is(err, errSilent):
		return EndedSilent
	case errors.Is(classify(err), ErrThrottled):
		return EndedThrottled
	case codeOf(err) != "":
		return EndedFailed
	}
	return EndedBroken
}

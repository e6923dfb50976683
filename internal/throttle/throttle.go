// Package throttle tells whether a service refused a call for its rate, which matters to
// more than one part of the input.
package throttle

import (
	"errors"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Is reports whether an error is an answer that says that there were too many
// calls or bytes, under any of the codes that services have for that, also by one that the
// service's model does not have: whatever stands before a service counts calls, too.
func Is(err error) bool {
	if resp, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && resp.HTTPStatusCode() == http.StatusTooManyRequests {
		return true
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	_, throttled := retry.DefaultThrottleErrorCodes[api.ErrorCode()]
	return throttled || api.ErrorCode() == "KMSThrottlingException"
}

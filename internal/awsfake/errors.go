package awsfake

import (
	"errors"
	"fmt"
	"net/http"
)

// Types of errors that tests inject or look for. Every other type that the
// services know may be used in its place.
const (
	CodeConditionalCheckFailed = "ConditionalCheckFailedException"
	CodeExpiredIterator        = "ExpiredIteratorException"
	CodeInternalFailure        = "InternalFailure"
	CodeInternalServerError    = "InternalServerError"
	CodeInvalidArgument        = "InvalidArgumentException"
	CodeLimitExceeded          = "LimitExceededException"
	CodeResourceInUse          = "ResourceInUseException"
	CodeResourceNotFound       = "ResourceNotFoundException"
	CodeServiceUnavailable     = "ServiceUnavailable"
	CodeThrottling             = "ThrottlingException"
	CodeThroughputExceeded     = "ProvisionedThroughputExceededException"
	CodeValidation             = "ValidationException"
)

// Error is an answer that refuses a request. The SDK's clients turn it into
// the exception type that its code names.
type Error struct {
	Status  int    // HTTP status
	Code    string // the exception's type, without namespace
	Message string
	// Item is the item that failed a condition, for requests that ask for it.
	Item Item
}

// NewError returns an error of the given type with the status that AWS sends
// with it: 500 for InternalFailure and InternalServerError, 503 for
// ServiceUnavailable, otherwise 400.
func NewError(code, message string) *Error {
	status := http.StatusBadRequest
	switch code {
	case CodeInternalFailure, CodeInternalServerError:
		status = http.StatusInternalServerError
	case CodeServiceUnavailable:
		status = http.StatusServiceUnavailable
	}
	return &Error{Status: status, Code: code, Message: message}
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func refuse(code, format string, args ...any) *Error {
	return NewError(code, fmt.Sprintf(format, args...))
}

func invalid(format string, args ...any) *Error {
	return refuse(CodeValidation, format, args...)
}

// asError finds the Error in err; anything else is a defect of this package
// and becomes an internal failure.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return NewError(CodeInternalFailure, err.Error())
}

// body is the error in its service's dress: DynamoDB names types with a
// namespace, Kinesis without.
func (e *Error) body(service string, f Format) ([]byte, error) {
	fields := map[string]any{"__type": e.Code, "message": e.Message}
	if service == serviceDynamoDB {
		namespace := "com.amazonaws.dynamodb.v20120810#"
		switch e.Code {
		case CodeValidation:
			namespace = "com.amazon.coral.validate#"
		case CodeThrottling:
			namespace = "com.amazon.coral.availability#"
		case CodeInternalFailure, CodeServiceUnavailable:
			namespace = "com.amazon.coral.service#"
		}
		fields["__type"] = namespace + e.Code
	}
	if e.Item != nil {
		fields["Item"] = e.Item
	}
	return f.encode(fields)
}

package consumer

import (
	"context"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
)

// Single is the batching policy that makes a batch of each message.
type Single struct{ message *service.Message }

// Add takes the message of the next batch, which is due at once.
func (s *Single) Add(m *service.Message) (flush bool) {
	s.message = m
	return true
}

// UntilNext is never timed.
func (s *Single) UntilNext() (wait time.Duration, timed bool) { return 0, false }

// Flush returns the batch.
func (s *Single) Flush(context.Context) (service.MessageBatch, error) {
	return service.MessageBatch{s.message}, nil
}

// Close does nothing.
func (s *Single) Close(context.Context) error { return nil }

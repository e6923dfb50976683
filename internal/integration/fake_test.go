// Package integration holds the local AWS of this repository, in every run of
// the tests, and emulators that others wrote, with the build tag integration, to
// one contract. With that tag clients that others wrote read from the local AWS
// too, and a library that others wrote aggregates user records and takes them out.
// With the tag kcl besides, Amazon's Kinesis Client Library is one of them.
package integration

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/contract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLocalAWSKeepsTheContract(t *testing.T) {
	t.Parallel()
	fake := awsfake.New(awsfake.Options{StreamDelay: 50 * time.Millisecond, TableDelay: 50 * time.Millisecond, ConsumerDelay: 50 * time.Millisecond})
	url, err := fake.Listen()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fake.Close()) })
	contract.Run(t, contract.Target{Kinesis: url, DynamoDB: url})
}

//go:build integration

package integration

import (
	"testing"

	"github.com/benthos-plugins/aws-kinesis/internal/integration/contract"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/emulator"
)

func TestEmulatorsKeepTheContract(t *testing.T) {
	t.Parallel()
	contract.Run(t, contract.Target{
		Kinesis:  emulator.Kinesis(t),
		DynamoDB: emulator.DynamoDB(t),
		Deviations: contract.Deviations{
			EarlyEndingSequence:     true,
			SequencesBySecond:       true,
			ForeignSequenceNotFound: true,
			BrokenIteratorFails:     true,
			FutureTimestampTaken:    true,

			NoInitialResponse:         true,
			RefusalsInStream:          true,
			MissingShardSubscribed:    true,
			ForeignSequenceSubscribed: true,
			NoTakeOver:                true,
			ClosedShardGoesOn:         true,
			ConsumersCutOff:           true,
		},
	})
}

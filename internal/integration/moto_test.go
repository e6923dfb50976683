//go:build integration && moto

package integration

import (
	"testing"

	"github.com/benthos-plugins/aws-kinesis/internal/integration/contract"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/emulator"
)

func TestMotoKeepsTheContract(t *testing.T) {
	t.Parallel()
	url := emulator.Moto(t)
	contract.Run(t, contract.Target{
		Kinesis: url, DynamoDB: url,
		Deviations: contract.Deviations{
			BrokenIteratorFails:     true,
			SequencesCountFromOne:   true,
			EndingHashKeyNowhere:    true,
			FutureTimestampTaken:    true,
			ExclusiveStartIgnored:   true,
			TokenNeedsName:          true,
			ReshardingClosesNothing: true,
			NoCBOR:                  true,

			ConsumerARNByName:          true,
			NoSubscriptions:            true,
			ConsumerRegisteredTwice:    true,
			MissingStreamFailsConsumer: true,

			UndefinedValueFails: true,
			KeysFiltered:        true,
		},
	})
}

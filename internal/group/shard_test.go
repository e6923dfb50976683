package group

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAssignmentsHaveNames(t *testing.T) {
	for a, name := range map[Assignment]string{
		Idle: "idle", Claiming: "claiming", Reading: "reading", HandingOver: "handing over", Yielding: "yielding",
	} {
		require.Equal(t, name, a.String())
	}
}

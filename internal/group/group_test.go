package group

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLevelsHaveNames(t *testing.T) {
	for l, name := range map[Level]string{Info: "info", Warning: "warning", Error: "error"} {
		require.Equal(t, name, l.String())
	}
}

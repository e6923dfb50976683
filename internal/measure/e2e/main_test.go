package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func runOf(perRecord time.Duration) run { return run{records: 100, cpu: 100 * perRecord} }

func TestMedianIsByCostNotByOrder(t *testing.T) {
	r := median([]run{runOf(30 * time.Microsecond), runOf(time.Microsecond), runOf(20 * time.Microsecond)})
	require.InDelta(t, 20, r.perRecord(), 1e-9)
}

func TestProcessIsSeenFromOutside(t *testing.T) {
	before, err := cpu(os.Getpid())
	require.NoError(t, err)
	for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
		continue
	}
	after, err := cpu(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before)
	most, err := peak(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, most, int64(1<<20))
}

func TestPlotIsWellFormedAndHasEachFigure(t *testing.T) {
	all := []candidate{{name: "a < b"}, {name: "none"}}
	svg := plot(all, []measured{{column: columns[0], runs: map[string][]run{
		"a < b": {runOf(7 * time.Microsecond)}, "none": {{}},
	}}})
	require.Contains(t, svg, ">7.0<")
	require.Contains(t, svg, ">no record<")
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

func TestUnknownScenarioIsRefused(t *testing.T) {
	err := runScenario(t.Context(), io.Discard, options{scenario: "fast"})
	require.EqualError(t, err, "-scenario fast: give table, slow, limit, trickle, slow-link, burst, keys, dead or connections, or fan-out, for all of fan-out-latency, fan-out-cpu, fan-out-many, fan-out-blocked, fan-out-auto")
}

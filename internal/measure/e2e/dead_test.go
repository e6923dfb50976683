package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShardFlowsWithTheFirstRecordPutAfterTheFault(t *testing.T) {
	moment := time.Unix(1000, 0)
	at := func(s int64) int64 { return moment.Add(time.Duration(s) * time.Second).UnixNano() }
	f := &steadyFeed{
		feed: &feed{fed: []fedRecord{{put: at(-1)}, {put: at(1)}, {put: at(2)}, {put: at(3)}, {put: at(-2)}}},
		of:   []int{0, 0, 0, 1, 1},
	}
	came := []arrival{{number: 0, at: at(5)}, {number: 2, at: at(7)}, {number: 1, at: at(6)}, {number: 9, at: at(6)}}
	require.Equal(t, map[int]time.Duration{0: 6 * time.Second}, f.firstAfter(moment, came))
	require.Equal(t, 1, f.missing(moment, came, 5), "record 4; 3 was put after it")
}

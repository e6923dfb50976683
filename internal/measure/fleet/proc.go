//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of times in /proc, the same on every Linux (man 5 proc).
const tick = 10 * time.Millisecond

// usage is what a process has used so far.
type usage struct {
	cpu time.Duration // user and system time
	rss int           // bytes resident now
}

func usageOf(pid int) (usage, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	data, err := os.ReadFile(name)
	if err != nil {
		return usage{}, err
	}
	u, err := parseStat(string(data))
	if err != nil {
		return usage{}, fmt.Errorf("reading %s: %w", name, err)
	}
	return u, nil
}

// parseStat takes the fields behind the program's name, which may itself have
// blanks and parentheses.
func parseStat(stat string) (usage, error) {
	const utime, stime, rss = 11, 12, 21 // counted from the state, the first one
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= rss {
		return usage{}, fmt.Errorf("%d fields behind the name, want more than %d", len(fields), rss)
	}
	var numbers [3]int
	for i, at := range [3]int{utime, stime, rss} {
		n, err := strconv.Atoi(fields[at])
		if err != nil {
			return usage{}, err
		}
		numbers[i] = n
	}
	return usage{
		cpu: time.Duration(numbers[0]+numbers[1]) * tick,
		rss: numbers[2] * os.Getpagesize(),
	}, nil
}

// ownCPU is the user and system time of this process so far, the local AWS
// included.
func ownCPU() (time.Duration, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, fmt.Errorf("reading the own CPU time: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

//go:build linux

// Command fleet runs several processes of the real distribution against one
// local AWS with the limits of the service in force, lets them join, end, die,
// stand still and block, drops their packets, and prints what was asked of them and what was
// measured. It fails when a promise is broken: a record lost or out of order, a
// checkpoint that went back, a repeat where there must be none. Goals for times
// are only told.
//
// The local AWS is part of this process and shares the machine with the others;
// its CPU time is told too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// scenario is one story. It joins processes, and leaves the fleet to its
// caller to close.
type scenario struct {
	name, about string
	run         func(context.Context, options, *sheet) error
}

var scenarios = []scenario{
	{"join", "one process has all shards, a second joins; short periods", joinShort},
	{"join-default", "the same with default periods", joinDefault},
	{"kill", "one of two is killed by SIGKILL", kill},
	{"term", "one of two is stopped by SIGTERM", term},
	{"pause", "owners stand still past their lease, ten times", pause},
	{"blocked", "an output blocks for ten lease periods", blocked},
	{"cut", "one process with 4 shards, over TLS; all its connections fall silent; default periods", cut(4)},
	{"cut-many", "the same with 64 shards", cut(64)},
	{"reshard", "shards are split and merged under load while processes die and others come", reshard},
	{"aggregates", "the same with aggregates of 1 to 5,000 user records, and processes that die inside of one", aggregates(byShard)},
	{"aggregates-keys", "the same with the order of each partition key", aggregates(byKey)},
	{"idle", "one process with 1,200 idle shards; default periods", idle},
	{"idle-leases", "one process with 1,000 idle shards, each read every 30 s alone: what leases cost; default periods", idleLeases},
	{"mixed", "this input and the built-in one come and go in one table (with -builtin)", mixed},
}

type options struct {
	programs map[string]string // by kind
	mixed    time.Duration
	seed     uint64
	fanOut   string // mode of enhanced fan-out; empty: polling
}

func main() {
	o := options{programs: map[string]string{}}
	ownProgram := flag.String("benthos", "bin/benthos-kinesis", "the distribution to run")
	builtinProgram := flag.String("builtin", "", "stock Benthos with its built-in input, for the scenario mixed")
	names := flag.String("scenario", "all", "which to run, several separated by commas: "+strings.Join(scenarioNames(), ", ")+"; all is each but mixed, and mixed too with -builtin")
	flag.DurationVar(&o.mixed, "mixed", 5*time.Minute, "how long processes come and go in the scenario mixed")
	flag.Uint64Var(&o.seed, "seed", 1, "of what happens in the scenarios reshard, aggregates, aggregates-keys and mixed")
	flag.StringVar(&o.fanOut, "fan-out", "", "read by enhanced fan-out, in mode always or auto, instead of polling")
	flag.Parse()
	o.programs[ours], o.programs[builtin] = *ownProgram, *builtinProgram

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Stdout, *names, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, names string, o options) error {
	chosen, err := choose(names, o)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range chosen {
		fmt.Fprintf(out, "\n%s: %s (%d CPUs)\n\n", s.name, s.about, runtime.NumCPU())
		var sh sheet
		err := s.run(ctx, o, &sh)
		if perr := sh.print(out); perr != nil {
			return perr
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err := errors.Join(err, sh.err()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func choose(names string, o options) ([]scenario, error) {
	if names == "all" {
		return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool {
			return s.name == "mixed" && o.programs[builtin] == ""
		}), nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("-scenario %s: there is none of this name; give all, or some of %s", name, strings.Join(scenarioNames(), ", "))
		case name == "mixed" && o.programs[builtin] == "":
			return nil, errors.New("-scenario mixed: give -builtin, a stock Benthos with its AWS components")
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}

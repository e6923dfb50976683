// Command benthos-kinesis is Benthos with the aws_kinesis input of this project
// and the components that need no service beside it: files, HTTP, standard
// streams, all processors, and metrics for Prometheus. `benthos-kinesis leases` shows who
// reads which shard.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime/debug"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/prometheus"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
	"github.com/benthosdev/benthos/v4/public/service"

	_ "github.com/benthos-plugins/aws-kinesis"
	"github.com/benthos-plugins/aws-kinesis/internal/leasecli"
)

// version is that of this project, set by the linker. Without it the version is
// what the Go tool knows: that of the module, or the commit. date is that of the commit,
// set likewise.
var version, date string

func main() {
	if len(os.Args) > 1 && os.Args[1] == "healthcheck" {
		if err := healthcheck(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Benthos would tell its own version alone.
	if len(os.Args) == 2 && (os.Args[1] == "--version" || os.Args[1] == "-v") {
		info, _ := debug.ReadBuildInfo() // nil in a program that was not built from modules
		fmt.Print(versions(version, date, info))
		return
	}
	// Benthos has no place for the commands of others.
	if len(os.Args) > 1 && os.Args[1] == "leases" {
		os.Exit(leasecli.Run(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	service.RunCLI(context.Background())
}

// versions is what --version prints: Benthos' two lines, with this project's version
// before that of Benthos.
func versions(own, date string, info *debug.BuildInfo) string {
	benthos := "unknown"
	if info != nil {
		own = cmp.Or(own, info.Main.Version)
		for _, dep := range info.Deps {
			if dep.Path == "github.com/benthosdev/benthos/v4" {
				benthos = dep.Version
			}
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.time" {
				date = cmp.Or(date, setting.Value)
			}
		}
	}
	return fmt.Sprintf("Version: %s (Benthos %s)\nDate: %s\n", cmp.Or(own, "unknown"), benthos, cmp.Or(date, "unknown"))
}

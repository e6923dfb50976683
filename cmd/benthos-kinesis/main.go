// Command benthos-kinesis is Benthos with the aws_kinesis input of this project
// and the components that need no service beside it: files, HTTP, standard
// streams, all processors, and metrics for Prometheus.
package main

import (
	"context"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/prometheus"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
	"github.com/benthosdev/benthos/v4/public/service"

	_ "github.com/benthos-plugins/aws-kinesis"
)

func main() {
	service.RunCLI(context.Background())
}

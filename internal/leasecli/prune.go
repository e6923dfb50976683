package leasecli

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

func (t *tool) prune() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove the items that nobody needs any more",
		Description: "Those of shards that have left the stream and of members that were evicted, by the rules of the input, which does this by itself while it runs and may delete. " +
			"The group is watched for that, for a lease period where members were evicted. One run removes a hundred of a kind at most.",
		Flags: writeFlags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			inJSON, conn, err := t.writing(c)
			if err != nil {
				return err
			}
			defer conn.close()
			p, err := conn.prunable(c)
			if err != nil {
				return err
			}
			return t.carryOut(c, conn, p, inJSON)
		},
	}
}

// prunable watches the group until it is known what may go.
func (c *connection) prunable(cc *cli.Context) (leases.Plan, error) {
	r, began := c.reader(), time.Now()
	var evicted []lease.Member
	for readings := 1; ; readings++ {
		v, err := c.read(cc.Context, r)
		if err != nil {
			return leases.Plan{}, err
		}
		chores := r.Chores()
		evicted = append(evicted, chores.Evicted...)
		most := cc.Duration(flagWatch)
		if most == untilProven {
			most = 0
			if len(v.Evicted) > len(evicted) {
				most = leases.UsualPeriod + slack
			}
		}
		if readings > 1 && time.Since(began) >= most {
			chores.Evicted = evicted
			return leases.PlanPrune(v, chores), nil
		}
		if err := pause(cc.Context, betweenReadings); err != nil {
			return leases.Plan{}, err
		}
	}
}

package leasecli

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// connection is AWS as the flags have it reached. Whoever makes one closes it.
type connection struct {
	table   *table.Table
	db      *dynamodb.Client
	kinesis *kinesis.Client
	streams []string

	timeout time.Duration // of one reading
	about   map[string]session.About
	close   func()
}

// The services, as session.About has them.
const (
	serviceKinesis = "kinesis"
	serviceTable   = "dynamodb"
)

// groupName is what `group` of the input takes.
var groupName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// connect checks the flags, and loads the configuration of AWS. It calls nothing.
func connect(c *cli.Context) (*connection, error) {
	name := strings.TrimSpace(c.String(flagTable))
	if name == "" {
		return nil, usage("flag `--table`: no table is named: write `dynamodb.table` of the input, such as `--table kinesis-checkpoints`")
	}
	if group := c.String(flagGroup); group != "" && !groupName.MatchString(group) {
		return nil, usage("flag `--group`: `%s` is not 1 to 128 letters, digits, dots, dashes and underscores: write `group` of the input", group)
	}
	for _, stream := range c.StringSlice(flagStream) {
		if _, after, ok := strings.Cut(stream, ":stream/"); strings.Contains(after, ":") || !ok && strings.Contains(stream, ":") {
			return nil, usage("flag `--stream`: `%s` names a shard: write the stream alone", stream)
		}
	}
	if c.String("role-external-id") != "" && c.String("role-arn") == "" {
		return nil, usage("flag `--role-external-id`: there is no role: write `--role-arn` too, or leave both out")
	}
	if err := positive(c, flagTimeout); err != nil {
		return nil, err
	}
	streams := session.Options{
		Region: c.String("region"), Endpoint: c.String("endpoint"),
		Credentials: session.Credentials{Profile: c.String("profile"), Role: c.String("role-arn"), RoleExternalID: c.String("role-external-id")},
	}
	leaseTable := session.Options{Region: c.String("dynamodb-region"), TableEndpoint: c.String("dynamodb-endpoint")}.Or(streams)

	kinesisConf, err := streams.Load(c.Context)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS session: %w", err)
	}
	dynamoConf := kinesisConf
	if leaseTable != streams {
		if dynamoConf, err = leaseTable.Load(c.Context); err != nil {
			session.CloseIdle(kinesisConf)
			return nil, fmt.Errorf("loading the AWS session of the table: %w", err)
		}
	}
	db := dynamodb.NewFromConfig(dynamoConf)
	tableAbout := leaseTable.About(dynamoConf, serviceTable)
	tableAbout.Table = name
	return &connection{
		table: table.New(db, name, c.String(flagGroup)), db: db, kinesis: kinesis.NewFromConfig(kinesisConf),
		streams: c.StringSlice(flagStream), timeout: c.Duration(flagTimeout),
		about: map[string]session.About{serviceKinesis: streams.About(kinesisConf, serviceKinesis), serviceTable: tableAbout},
		close: func() {
			session.CloseIdle(kinesisConf)
			session.CloseIdle(dynamoConf)
		},
	}, nil
}

// reader returns what reads the group.
func (c *connection) reader() *leases.Reader {
	return leases.NewReader(leases.Source{
		Table: c.table, Streams: c.streams,
		Search: func(ctx context.Context) ([]string, error) { return c.table.Streams(ctx, c.db) },
		Shards: func(ctx context.Context, stream string) ([]lineage.Shard, time.Time, error) {
			shards, at, err := retrieval.ListShards(ctx, c.kinesis, stream)
			about := c.about[serviceKinesis]
			about.Stream = stream
			return shards, at, session.Explain(err, about)
		},
	})
}

// read makes one reading in its time.
func (c *connection) read(ctx context.Context, r *leases.Reader) (leases.View, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	v, err := r.Read(ctx)
	if err != nil {
		return leases.View{}, fmt.Errorf("reading table %s: %w", c.table.Name(), session.Explain(err, c.about[serviceTable]))
	}
	return v, nil
}

// readFor reads until what is asked for is known, at most for a while, and returns the
// last reading. Whether an owner lives takes several.
func (c *connection) readFor(ctx context.Context, r *leases.Reader, most, every time.Duration, known func(leases.View) bool) (leases.View, error) {
	for until := time.Now().Add(most); ; {
		v, err := c.read(ctx, r)
		if err != nil || known(v) || !time.Now().Before(until) {
			return v, err
		}
		if err := pause(ctx, min(every, time.Until(until))); err != nil {
			return leases.View{}, err
		}
	}
}

// pause waits, and returns the error of ctx where that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

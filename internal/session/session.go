// Package session loads the AWS configuration that the clients of Kinesis and
// DynamoDB are made of: region, endpoint, credentials, retries, time-outs and
// the HTTP transport.
//
// Retries follow the SDK: the mode and the number of attempts of the environment
// (AWS_RETRY_MODE, AWS_MAX_ATTEMPTS) or the shared configuration, standard mode
// and three attempts when these are silent. Adaptive mode is there for those who
// ask for it: it slows a whole client down when one of its calls is throttled,
// until the leases of a thousand shards are renewed at a few a second and run
// out. A lease spreads its own retries instead. Reads of shards have a budget
// each and leave throttled calls to their caller: give those a retryer by
// CallerPaced.
package session

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
)

// AttemptTimeout bounds one attempt of a call, from its signing to the last byte
// of the answer. Of a page of GetRecords, which may have 10 MiB, it bounds each silence
// instead.
const AttemptTimeout = 10 * time.Second

// Options say how to reach AWS. The zero value means the environment's region,
// the services' own endpoints and the default chain of credentials. Options are
// comparable: equal ones need only one Load.
type Options struct {
	Region        string
	Endpoint      string // base URL of Kinesis, and of what has no other; "" for AWS' own
	TableEndpoint string // base URL of DynamoDB, where it is another
	Credentials   Credentials
}

// Credentials say who calls. Of several sources the first counts: ID, then
// FromEC2Role, then Profile, then the default chain. Role is assumed with these.
type Credentials struct {
	Profile        string // also the source of region and other settings
	ID             string
	Secret         string
	Token          string
	FromEC2Role    bool
	Role           string // ARN
	RoleExternalID string
}

// Or is o with what it leaves unset taken from base. Credentials are taken as a
// whole or not at all, lest parts of two identities mix.
func (o Options) Or(base Options) Options {
	if o.Region == "" {
		o.Region = base.Region
	}
	if o.Endpoint == "" {
		o.Endpoint = base.Endpoint
	}
	if o.TableEndpoint == "" {
		o.TableEndpoint = base.TableEndpoint
	}
	if o.Credentials == (Credentials{}) {
		o.Credentials = base.Credentials
	}
	return o
}

// Load makes the configuration that clients are made of. It reads the
// environment and the shared configuration files, and calls nothing on the
// network: credentials are fetched by the first call that needs them, and renewed
// before they expire while calls are made. Clients made of one result share
// connections and credentials; CloseIdle ends both when the clients are no longer
// used.
func (o Options) Load(ctx context.Context) (aws.Config, error) {
	answers := new(services)
	cfg, err := o.resolve(ctx, answers)
	if err != nil {
		return aws.Config{}, explainLoading(err, o.Credentials.Profile)
	}
	if err := o.checkRegion(cfg); err != nil {
		return aws.Config{}, err
	}
	cfg.HTTPClient = shared(cfg.HTTPClient)
	cfg.ServiceOptions = append(cfg.ServiceOptions, o.endpoints(cfg))
	cfg.Credentials = o.renewing(ctx, cfg, answers)
	return cfg, nil
}

// resolve reads the environment and the shared configuration files. What it returns
// has the SDK's own provider of credentials, and answers listens to its clients.
func (o Options) resolve(ctx context.Context, answers *services) (aws.Config, error) {
	load := []func(*config.LoadOptions) error{
		// The SDK's own lines, about connections that it does not use again, would
		// stand on the standard error between those of the component.
		config.WithLogger(logging.Nop{}),
		config.WithHTTPClient(newHTTPClient()),
		config.WithAPIOptions([]func(*middleware.Stack) error{WithAttemptTimeout(AttemptTimeout), answers.watch}),
		// Renewals ahead are ours: the SDK's cache says of a container's credentials that
		// they end five minutes before they do.
		config.WithCredentialsCacheOptions(func(co *aws.CredentialsCacheOptions) { co.ExpiryWindow = 0 }),
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Endpoint != "" && !ofOneService(o.Endpoint) { // for STS, where the default chain assumes a role
		load = append(load, config.WithBaseEndpoint(o.Endpoint))
	}
	creds := o.Credentials
	if creds.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(creds.Profile))
	}
	ec2Role := creds.ID == "" && creds.FromEC2Role
	switch {
	case creds.ID != "":
		load = append(load, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(creds.ID, creds.Secret, creds.Token)))
	case ec2Role:
		load = append(load, config.WithCredentialsProvider(aws.AnonymousCredentials{})) // for now
	}

	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("loading the AWS configuration: %w", bundled(err))
	}
	if ec2Role {
		// A client of this configuration, for the settings of the instance's metadata
		// that it has from the environment and the profile.
		cfg.Credentials = ec2rolecreds.New(func(eo *ec2rolecreds.Options) { eo.Client = imds.NewFromConfig(cfg) })
	}
	return cfg, nil
}

// assumeRole assumes the role with the credentials of cfg.
func assumeRole(cfg aws.Config, creds Credentials) aws.CredentialsProvider {
	return stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), creds.Role, func(ro *stscreds.AssumeRoleOptions) {
		if creds.RoleExternalID != "" {
			ro.ExternalID = aws.String(creds.RoleExternalID)
		}
	})
}

// CloseIdle ends the idle connections of the clients made of cfg, which Load
// returned, and the renewal of their credentials. Calls under way are not disturbed,
// but for those that wait for credentials.
func CloseIdle(cfg aws.Config) {
	if r, ok := cfg.Credentials.(*renewer); ok {
		r.services.close()
	}
	if c, ok := cfg.HTTPClient.(*http.Client); ok {
		c.CloseIdleConnections()
	}
}

// CallerPaced makes a retryer for calls whose caller paces them itself, as a
// poller does the reads of its shard. It retries errors of the network and the
// service in standard mode, and returns a throttled call at once.
//
// It has no bucket of tokens that all its calls share. Such a bucket, of 100 retries,
// fills by calls that succeed at once, and those of a reader do not come by here: after
// an outage none would be retried for the life of the process. What bounds the retries
// is the attempts of a call and the growing pauses of its caller.
func CallerPaced() aws.RetryerV2 {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.RateLimiter = ratelimit.None
		throttles := retry.IsErrorThrottles(o.Throttles)
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			if throttles.IsErrorThrottle(err) == aws.TrueTernary {
				return aws.FalseTernary
			}
			return aws.UnknownTernary
		})}, o.Retryables...)
	})
}

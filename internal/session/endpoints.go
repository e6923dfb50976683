package session

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// awsHost matches the host names of AWS for the services that are called here, those of
// VPC endpoints too, and finds in them the service and the region. The suffixes are those
// of the partitions, each for IPv4 and for dual stack.
var awsHost = regexp.MustCompile(`^(?:.+\.)?(?:control-|data-)?(kinesis|dynamodb|ddb|sts)(?:-fips)?\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?` +
	`(?:amazonaws\.com|api\.aws|amazonaws\.com\.cn|api\.amazonwebservices\.com\.cn|amazonaws\.eu|api\.amazonwebservices\.eu|` +
	`c2s\.ic\.gov|api\.aws\.ic\.gov|sc2s\.sgov\.gov|api\.aws\.scloud|cloud\.adc-e\.uk|api\.cloud-aws\.adc-e\.uk|csp\.hci\.ic\.gov|api\.aws\.hci\.ic\.gov)$`)

// ofOneService tells whether a URL is that of one service of AWS, such as a VPC
// endpoint's. Any other may be that of an emulator, which is all services at once.
func ofOneService(base string) bool {
	u, err := url.Parse(base)
	return err == nil && awsHost.MatchString(strings.ToLower(u.Hostname()))
}

// endpoints is the option of clients that gives each service the base URL that was
// configured for it. The SDK would give one URL to all services, and none when
// AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is set, which is about the environment and the
// profile alone.
func (o Options) endpoints(cfg aws.Config) func(service string, options any) {
	ignored := ignoresConfigured(cfg)
	return func(service string, options any) {
		var base **string
		switch so := options.(type) {
		case *kinesis.Options:
			base = &so.BaseEndpoint
		case *dynamodb.Options:
			base = &so.BaseEndpoint
		case *sts.Options:
			base = &so.BaseEndpoint
		default:
			return
		}
		if configured, _ := o.endpoint(service, ignored); configured != "" {
			*base = &configured
		}
	}
}

// endpoint returns the base URL of a service and the setting that it comes from. Both are
// empty where the SDK is to find it out.
func (o Options) endpoint(service string, ignored bool) (base, setting string) {
	switch {
	case service == kinesis.ServiceID:
	case service == dynamodb.ServiceID && o.TableEndpoint != "":
		return o.TableEndpoint, "`dynamodb.endpoint`"
	default:
		// Field `endpoint` is for whatever has no address of its own. A variable for one
		// service is such an address; and the host of Kinesis answers for nothing else.
		variable := serviceVariable(service)
		if own := os.Getenv(variable); own != "" && !ignored {
			return own, variable
		}
		if ofOneService(o.Endpoint) {
			return "", ""
		}
	}
	if o.Endpoint == "" {
		return "", ""
	}
	return o.Endpoint, "`endpoint`"
}

func serviceVariable(service string) string { return "AWS_ENDPOINT_URL_" + strings.ToUpper(service) }

// ignoresConfigured tells whether the environment or the profile says that the endpoints
// of both are to be ignored.
func ignoresConfigured(cfg aws.Config) bool {
	// The error is of a value that is no boolean, on which loading fails before.
	ignored, _, err := config.GetIgnoreConfiguredEndpoints(context.Background(), cfg.ConfigSources) //nolint:forbidigo // reads what is loaded
	return err == nil && ignored
}

// checkRegion refuses a region that nothing can be signed for.
func (o Options) checkRegion(cfg aws.Config) error {
	if o.anyRegion(cfg) {
		return nil
	}
	if cfg.Region == "" {
		return errors.New("no AWS region is known: write one in field `region`, or set AWS_REGION")
	}
	// Older tools wrote AWS_USE_FIPS_ENDPOINT so. The SDK finds the host, and signs for a
	// region of that name.
	if region := strings.NewReplacer("-fips-", "-", "fips-", "", "-fips", "").Replace(cfg.Region); region != cfg.Region {
		return fmt.Errorf("field `region`: `%s` is an address of FIPS and not a region, and AWS refuses what is signed for it: write `%s`, and set AWS_USE_FIPS_ENDPOINT=true", cfg.Region, region)
	}
	return nil
}

// anyRegion tells whether the clients may do without a region: what answers at an address
// that is not one of AWS takes any.
func (o Options) anyRegion(cfg aws.Config) bool {
	for _, base := range []string{o.TableEndpoint, o.Endpoint, aws.ToString(cfg.BaseEndpoint)} {
		if base != "" {
			return !ofOneService(base)
		}
	}
	return false
}

// About says how the clients of cfg, which o loaded, reach a service, "kinesis" or
// "dynamodb".
func (o Options) About(cfg aws.Config, service string) About {
	a := About{Service: service, Region: cfg.Region, RegionFrom: o.regionFrom()}
	id, base := kinesis.ServiceID, kinesis.NewFromConfig(cfg).Options().BaseEndpoint
	if a.Service == "dynamodb" {
		id, base = dynamodb.ServiceID, dynamodb.NewFromConfig(cfg).Options().BaseEndpoint
	}
	if base == nil {
		return a
	}
	a.Endpoint = *base
	_, a.EndpointFrom = o.endpoint(id, ignoresConfigured(cfg))
	if a.EndpointFrom != "" {
		return a
	}
	a.EndpointFrom = "`endpoint_url` of the profile"
	for _, variable := range []string{"AWS_ENDPOINT_URL", serviceVariable(id)} {
		if os.Getenv(variable) == a.Endpoint {
			a.EndpointFrom = variable
		}
	}
	return a
}

// regionFrom is the setting that a region comes from which no field has.
func (o Options) regionFrom() string {
	if o.Region != "" {
		return ""
	}
	for _, variable := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if os.Getenv(variable) != "" {
			return variable
		}
	}
	return "the profile"
}

// CheckARN returns an error when what an ARN names cannot be where calls go. field is the
// one that has the ARN. A name that is no ARN is anywhere.
//
// The SDK puts the account of a stream's ARN into the host name, and the region of the
// client. So calls for a stream of another region would go to an account's endpoint that
// knows nothing of it. That an input does not follow its ARNs into their regions is on
// purpose: AWS' own SDKs need to be told so where they can (`s3_use_arn_region`), for it
// moves data between regions; and the streams of one input share connections and retries,
// so that a region which fails would be felt in the others.
//
// An address that is configured decides by itself which regions it answers for, and an
// emulator answers for all. Where it does not, Explain says what to write.
func (a About) CheckARN(field, arn string) error {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" || a.Endpoint != "" {
		return nil
	}
	partition, region := parts[1], parts[3]
	if region == "*" || region == "" { // see Explain
		return nil
	}
	if of := partitionOf(region); partition != of {
		return fmt.Errorf("field `%s`: `%s` is of partition %s, and %s is a region of %s: write the ARN as AWS shows it, which begins with `arn:%s:` there",
			field, arn, partition, region, of, of)
	}
	if region == a.Region {
		return nil
	}
	from := ""
	if a.RegionFrom != "" {
		from = ", which is that of " + a.RegionFrom + ","
	}
	if a.Service == "dynamodb" {
		return fmt.Errorf("field `dynamodb.region`: %s%s is not the region of `%s`, which is in %s: write `%[4]s` in `dynamodb.region`",
			a.Region, from, field, region)
	}
	return fmt.Errorf("field `region`: %s%s is not the region of `%s`: write `%s`, and use an input for each region; the table is looked for there too, unless `dynamodb.region` says otherwise",
		a.Region, from, arn, region)
}

// partitionOf is the partition that a region belongs to.
func partitionOf(region string) string {
	for _, p := range [][2]string{
		{"cn-", "aws-cn"},
		{"us-gov-", "aws-us-gov"},
		{"us-iso-", "aws-iso"},
		{"us-isob-", "aws-iso-b"},
		{"eu-isoe-", "aws-iso-e"},
		{"us-isof-", "aws-iso-f"},
		{"eu-isof-", "aws-iso-f"},
		{"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p[0]) {
			return p[1]
		}
	}
	return "aws"
}

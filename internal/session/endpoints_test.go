package session

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// recorder answers every request as if it were read by nobody, and remembers where the
// last one went: its URL and what it is signed for.
type recorder struct {
	mu   sync.Mutex
	last string
}

func (r *recorder) Do(req *http.Request) (*http.Response, error) {
	_, scope, _ := strings.Cut(req.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	parts := strings.Split(scope, "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = req.URL.String()
	if len(parts) == 5 {
		r.last += " " + parts[3] + "/" + parts[2]
	}
	if req.Host != "" && req.Host != req.URL.Host {
		r.last += " for " + req.Host
	}
	body, contentType := `{"Records":[],"NextShardIterator":"next","MillisBehindLatest":0}`, "application/x-amz-json-1.1"
	if strings.Contains(r.last, " sts/") {
		contentType = "text/xml"
		body = `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)), Request: req,
	}, nil
}

// destinations are where the calls go that the input makes: for the list of shards, to
// poll, to register a consumer, to subscribe, for the table, and to assume a role. An
// error stands in the place of one.
type destinations struct{ list, poll, register, subscribe, table, role string }

// goTo are the destinations of an input: the hosts of Kinesis' control plane and of its data
// plane, of DynamoDB and of STS, with what calls are signed for.
func goTo(region, control, data, table, role string) destinations {
	of := func(service, host string) string {
		if strings.HasPrefix(host, "error: ") {
			return host
		}
		if !strings.Contains(host, "://") {
			host = "https://" + host
		}
		if strings.Count(host, "/") == 2 {
			host += "/"
		}
		return host + " " + service + "/" + region
	}
	control, data = of("kinesis", control), of("kinesis", data)
	return destinations{list: control, poll: data, register: control, subscribe: data, table: of("dynamodb", table), role: of("sts", role)}
}

// consumed are d, but that calls about the consumer of a stream go to other hosts, which
// its ARN tells.
func (d destinations) consumed(of destinations) destinations {
	d.register, d.subscribe = of.register, of.subscribe
	return d
}

// probe makes each call once.
func probe(t *testing.T, o Options, stream, table string) destinations {
	t.Helper()
	cfg := load(t, o)
	r := new(recorder)
	cfg.HTTPClient = r
	client := kinesis.NewFromConfig(cfg)
	direct := wire.NewDirect(kinesis.NewFromConfig(cfg), AttemptTimeout, nil)
	name, arn := &stream, (*string)(nil)
	// A stream that is named is registered with under its ARN, which the service tells.
	told := "arn:" + partitionOf(cfg.Region) + ":kinesis:" + cfg.Region + ":111122223333:stream/" + stream
	if strings.HasPrefix(stream, "arn:") {
		name, arn, told = nil, &stream, stream
	}
	went := func(call func(ctx context.Context) error) string {
		r.last = ""
		if err := call(t.Context()); err != nil && r.last == "" {
			return "error: " + err.Error()[strings.LastIndex(err.Error(), ", ")+2:]
		}
		return r.last
	}
	get := func(c interface {
		GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
	},
	) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: aws.String("it"), StreamARN: arn})
			return err
		}
	}
	var d destinations
	d.list = went(func(ctx context.Context) error {
		_, err := client.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name, StreamARN: arn})
		return err
	})
	d.poll = went(get(client))
	require.Equal(t, d.poll, went(get(direct)), "the direct client learns from a call of the SDK's")
	require.Equal(t, d.poll, went(get(direct)), "and then calls as it did")
	d.subscribe = went(func(ctx context.Context) error {
		body, err := wire.Subscribe(ctx, client, &kinesis.SubscribeToShardInput{
			ConsumerARN: aws.String(told + "/consumer/c:1"), ShardId: aws.String("s"), StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
		})
		if err == nil {
			err = body.Close()
		}
		return err
	})
	d.register = went(func(ctx context.Context) error {
		_, err := client.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{ConsumerName: aws.String("c"), StreamARN: &told})
		return err
	})
	d.table = went(func(ctx context.Context) error {
		_, err := dynamodb.NewFromConfig(cfg).DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
		return err
	})
	d.role = went(func(ctx context.Context) error {
		_, err := sts.NewFromConfig(cfg).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::111122223333:role/reader"), RoleSessionName: aws.String("s")})
		return err
	})
	return d
}

func TestCallsGoWhereTheConfigurationSays(t *testing.T) {
	const (
		keys    = "AWS_ACCESS_KEY_ID=i AWS_SECRET_ACCESS_KEY=s "
		account = keys + "AWS_ACCOUNT_ID=777788889999 "
		own     = "arn:aws:kinesis:us-east-1:111122223333:stream/foo"
		other   = "arn:aws:kinesis:us-east-1:444455556666:stream/foo"
		west    = "arn:aws:kinesis:eu-west-1:444455556666:stream/foo"
		table   = "arn:aws:dynamodb:us-east-1:444455556666:table/leases"
		vpce    = "https://vpce-1a2b-3c4d.kinesis.us-east-1.vpce.amazonaws.com"
		tables  = "https://vpce-5e6f-7a8b.dynamodb.us-east-1.vpce.amazonaws.com"
		every   = "AWS_ENDPOINT_URL=http://all AWS_ENDPOINT_URL_KINESIS=http://k AWS_ENDPOINT_URL_DYNAMODB=http://d AWS_ENDPOINT_URL_STS=http://s "
		unknown = "error: invalid accountID set: accountID is required but not set"
		noFIPS  = "error: Invalid Configuration: FIPS and custom endpoint are not supported"
		noDual  = "error: Invalid Configuration: Dualstack and custom endpoint are not supported"
	)
	// The usual hosts of a region, in the domain of its partition.
	usual := func(region, domain string) destinations {
		return goTo(region, "kinesis."+region+domain, "kinesis."+region+domain, "dynamodb."+region+domain, "sts."+region+domain)
	}
	// The same, where an account is known.
	byAccount := func(region, domain, account, table string) destinations {
		return goTo(region, account+".control-kinesis."+region+domain, account+".data-kinesis."+region+domain, table+"."+region+domain, "sts."+region+domain)
	}
	const com = ".amazonaws.com"
	everywhere := func(url string) destinations { return goTo("us-east-1", url, url, url, url) }
	consumer := byAccount("us-east-1", com, "111122223333", "")
	east := Options{Region: "us-east-1"}
	reached := func(endpoint, table string) Options {
		return Options{Region: "us-east-1", Endpoint: endpoint, TableEndpoint: table}
	}
	in := func(region string) Options { return Options{Region: region} }

	for _, c := range []struct {
		what, env, profile string
		o                  Options
		stream, table      string
		want               destinations
	}{
		{"by name", keys, "", east, "foo", "leases", usual("us-east-1", com).consumed(consumer)},
		{"by ARN", keys, "", east, own, table, byAccount("us-east-1", com, "111122223333", "444455556666.ddb")},
		{"by ARN of another account", keys, "", east, other, "leases", byAccount("us-east-1", com, "444455556666", "dynamodb")},
		// Where there is no such stream: CheckARN refuses it before.
		{"by ARN of another region", keys, "", east, west, "leases", byAccount("us-east-1", com, "444455556666", "dynamodb")},

		{"by name, account of the environment", account, "", east, "foo", "leases", byAccount("us-east-1", com, "777788889999", "777788889999.ddb").consumed(consumer)},
		{
			"by name, account of the profile", "", "[default]\naws_access_key_id=i\naws_secret_access_key=s\naws_account_id=777788889999\n", east, "foo", "leases",
			byAccount("us-east-1", com, "777788889999", "777788889999.ddb").consumed(consumer),
		},
		{"an ARN's account counts first", account, "", east, other, table, byAccount("us-east-1", com, "444455556666", "444455556666.ddb")},
		{"disabled", account + "AWS_ACCOUNT_ID_ENDPOINT_MODE=disabled", "", east, "foo", "leases", usual("us-east-1", com).consumed(consumer)},
		{"disabled in the profile", account, "[default]\naccount_id_endpoint_mode=disabled\n", east, "foo", "leases", usual("us-east-1", com).consumed(consumer)},
		{"disabled, which a stream's ARN outranks, and a table's does not", account + "AWS_ACCOUNT_ID_ENDPOINT_MODE=disabled", "", east, other, table, byAccount("us-east-1", com, "444455556666", "dynamodb")},
		{"required", account + "AWS_ACCOUNT_ID_ENDPOINT_MODE=required", "", east, "foo", "leases", byAccount("us-east-1", com, "777788889999", "777788889999.ddb").consumed(consumer)},
		{"required and unknown", keys + "AWS_ACCOUNT_ID_ENDPOINT_MODE=required", "", east, own, table, goTo("us-east-1", unknown, unknown, unknown, "sts.us-east-1.amazonaws.com")},
		{"required by the profile and unknown", keys, "[default]\naccount_id_endpoint_mode=required\n", east, "foo", "leases", goTo("us-east-1", unknown, unknown, unknown, "sts.us-east-1.amazonaws.com")},
		{"preferred and unknown", keys + "AWS_ACCOUNT_ID_ENDPOINT_MODE=preferred", "", east, "foo", "leases", usual("us-east-1", com).consumed(consumer)},

		{
			"FIPS", keys + "AWS_USE_FIPS_ENDPOINT=true", "", east, own, table,
			goTo("us-east-1", "111122223333.control-kinesis-fips.us-east-1.amazonaws.com", "111122223333.data-kinesis-fips.us-east-1.amazonaws.com", "dynamodb-fips.us-east-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"),
		},
		{"FIPS in GovCloud, where the usual hosts are", keys + "AWS_USE_FIPS_ENDPOINT=true", "", in("us-gov-west-1"), "foo", "leases", usual("us-gov-west-1", com).consumed(goTo("us-gov-west-1", "111122223333.control-kinesis-fips.us-gov-west-1.amazonaws.com", "111122223333.data-kinesis-fips.us-gov-west-1.amazonaws.com", "", ""))},
		{"dual stack", keys + "AWS_USE_DUALSTACK_ENDPOINT=true", "", east, own, "leases", byAccount("us-east-1", ".api.aws", "111122223333", "dynamodb")},
		{
			"both", keys + "AWS_USE_FIPS_ENDPOINT=true AWS_USE_DUALSTACK_ENDPOINT=true", "", east, own, table,
			goTo("us-east-1", "111122223333.control-kinesis-fips.us-east-1.api.aws", "111122223333.data-kinesis-fips.us-east-1.api.aws", "dynamodb-fips.us-east-1.api.aws", "sts-fips.us-east-1.api.aws"),
		},

		{"China by name", keys, "", in("cn-north-1"), "foo", "leases", usual("cn-north-1", ".amazonaws.com.cn").consumed(byAccount("cn-north-1", ".amazonaws.com.cn", "111122223333", ""))},
		{"China by ARN", keys, "", in("cn-north-1"), "arn:aws-cn:kinesis:cn-north-1:444455556666:stream/foo", "leases", byAccount("cn-north-1", ".amazonaws.com.cn", "444455556666", "dynamodb")},
		{"GovCloud by ARN", keys, "", in("us-gov-west-1"), "arn:aws-us-gov:kinesis:us-gov-west-1:444455556666:stream/foo", "leases", byAccount("us-gov-west-1", com, "444455556666", "dynamodb")},
		{"the sovereign cloud of Europe", keys, "", in("eusc-de-east-1"), "arn:aws-eusc:kinesis:eusc-de-east-1:444455556666:stream/foo", "leases", byAccount("eusc-de-east-1", ".amazonaws.eu", "444455556666", "dynamodb")},
		// These two know no endpoints of accounts.
		{"ISO", keys, "", in("us-iso-east-1"), "arn:aws-iso:kinesis:us-iso-east-1:444455556666:stream/foo", "leases", usual("us-iso-east-1", ".c2s.ic.gov")},
		{"ISO B", keys, "", in("us-isob-east-1"), "foo", "leases", usual("us-isob-east-1", ".sc2s.sgov.gov")},
		{"ISO E", keys, "", in("eu-isoe-west-1"), "arn:aws-iso-e:kinesis:eu-isoe-west-1:444455556666:stream/foo", "leases", byAccount("eu-isoe-west-1", ".cloud.adc-e.uk", "444455556666", "dynamodb")},
		{"ISO F", keys, "", in("us-isof-south-1"), "arn:aws-iso-f:kinesis:us-isof-south-1:444455556666:stream/foo", "leases", byAccount("us-isof-south-1", ".csp.hci.ic.gov", "444455556666", "dynamodb")},

		{"an emulator is all services", keys, "", reached("http://emulator:4566", ""), west, table, everywhere("http://emulator:4566")},
		{"with a path", keys, "", reached("http://emulator:4566/base", ""), "foo", "leases", everywhere("http://emulator:4566/base")},
		{"without a region", keys, "", Options{Endpoint: "http://emulator:4566"}, "foo", "leases", goTo("", "http://emulator:4566", "http://emulator:4566", "http://emulator:4566", "http://emulator:4566")},
		{"an emulator for each", keys, "", reached("http://streams", "http://tables"), own, table, goTo("us-east-1", "http://streams", "http://streams", "http://tables", "http://streams")},
		{"an emulator for the table alone", keys, "", reached("", "http://tables"), "foo", table, goTo("us-east-1", "kinesis.us-east-1.amazonaws.com", "kinesis.us-east-1.amazonaws.com", "http://tables", "sts.us-east-1.amazonaws.com").consumed(consumer)},
		{"a VPC endpoint of Kinesis is that of Kinesis alone", keys, "", reached(vpce, ""), own, table, goTo("us-east-1", vpce, vpce, "444455556666.ddb.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com")},
		{"VPC endpoints of both", keys, "", reached(vpce, tables), own, table, goTo("us-east-1", vpce, vpce, tables, "sts.us-east-1.amazonaws.com")},
		{"so is a host of Kinesis", keys + "AWS_ENDPOINT_URL=http://all", "", reached("https://kinesis-fips.us-east-1.amazonaws.com", ""), own, table, goTo("us-east-1", "kinesis-fips.us-east-1.amazonaws.com", "kinesis-fips.us-east-1.amazonaws.com", "http://all", "http://all")},

		{"the environment's for all", keys + "AWS_ENDPOINT_URL=http://all", "", east, own, table, everywhere("http://all")},
		{"the environment's for each", keys + every, "", east, own, table, goTo("us-east-1", "http://k", "http://k", "http://d", "http://s")},
		{"field endpoint, where nothing is closer", keys + every, "", reached("http://field", ""), own, table, goTo("us-east-1", "http://field", "http://field", "http://d", "http://s")},
		{"both fields", keys + every, "", reached("http://field", "http://tables"), own, table, goTo("us-east-1", "http://field", "http://field", "http://tables", "http://s")},
		{"ignored", keys + every + "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true", "", east, "foo", "leases", usual("us-east-1", com).consumed(consumer)},
		{"ignored, but for fields", keys + every + "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true", "", reached("http://field", "http://tables"), own, table, goTo("us-east-1", "http://field", "http://field", "http://tables", "http://field")},
		{"the profile's", keys, "[default]\nendpoint_url=http://all\nservices=mine\n[services mine]\nkinesis =\n  endpoint_url = http://k\n", east, own, table, goTo("us-east-1", "http://k", "http://k", "http://all", "http://all")},

		{"FIPS and an endpoint", keys + "AWS_USE_FIPS_ENDPOINT=true", "", reached("http://field", ""), own, table, everywhere(noFIPS)},
		{"dual stack and an endpoint", keys + "AWS_USE_DUALSTACK_ENDPOINT=true", "", reached("http://field", ""), own, table, everywhere(noDual)},
	} {
		t.Run(c.what, func(t *testing.T) {
			isolate(t, c.profile)
			for variable := range strings.FieldsSeq(c.env) {
				name, value, _ := strings.Cut(variable, "=")
				t.Setenv(name, value)
			}
			require.Equal(t, c.want, probe(t, c.o, c.stream, c.table))
		})
	}
}

// Two streams of two accounts have each a host of its own, and so do those of one list.
func TestDirectCallsKeepTheHostOfEachStream(t *testing.T) {
	isolate(t, "")
	cfg := load(t, static)
	r := new(recorder)
	cfg.HTTPClient = r
	direct := wire.NewDirect(kinesis.NewFromConfig(cfg), AttemptTimeout, nil)
	for range 2 { // learnt, then used
		for arn, want := range map[string]string{
			"arn:aws:kinesis:us-east-1:111122223333:stream/foo": "https://111122223333.data-kinesis.us-east-1.amazonaws.com/ kinesis/us-east-1",
			"arn:aws:kinesis:us-east-1:444455556666:stream/foo": "https://444455556666.data-kinesis.us-east-1.amazonaws.com/ kinesis/us-east-1",
			"": "https://kinesis.us-east-1.amazonaws.com/ kinesis/us-east-1",
		} {
			in := &kinesis.GetRecordsInput{ShardIterator: aws.String("it")}
			if arn != "" {
				in.StreamARN = &arn
			}
			_, err := direct.GetRecords(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, want, r.last)
		}
	}
}

func TestARNOfAnotherPlaceSaysWhatToWrite(t *testing.T) {
	const west = "arn:aws:kinesis:eu-west-1:444455556666:stream/foo"
	streams := About{Service: "kinesis", Region: "us-east-1"}
	fromEnv := About{Service: "kinesis", Region: "us-east-1", RegionFrom: "AWS_REGION"}
	tables := About{Service: "dynamodb", Region: "us-east-1"}
	emulated := About{Service: "kinesis", Region: "us-east-1", Endpoint: "http://emulator:4566"}
	for _, c := range []struct {
		about           About
		field, arn, err string
	}{
		{streams, "streams", "foo", ""},
		{streams, "streams", "arn:aws:kinesis:us-east-1:444455556666:stream/foo", ""},
		{streams, "streams", "arn:aws:kinesis:*:444455556666:stream/foo", ""},
		{streams, "streams", west, "field `region`: us-east-1 is not the region of `" + west + "`: write `eu-west-1`, and use an input for each region; the table is looked for there too, unless `dynamodb.region` says otherwise"},
		{fromEnv, "streams", west, "field `region`: us-east-1, which is that of AWS_REGION, is not the region of `" + west + "`: write `eu-west-1`, and use an input for each region; the table is looked for there too, unless `dynamodb.region` says otherwise"},
		{tables, "dynamodb.table", "arn:aws:dynamodb:eu-west-1:444455556666:table/leases", "field `dynamodb.region`: us-east-1 is not the region of `dynamodb.table`, which is in eu-west-1: write `eu-west-1` in `dynamodb.region`"},
		{streams, "streams", "arn:aws-cn:kinesis:us-east-1:444455556666:stream/foo", "field `streams`: `arn:aws-cn:kinesis:us-east-1:444455556666:stream/foo` is of partition aws-cn, and us-east-1 is a region of aws: write the ARN as AWS shows it, which begins with `arn:aws:` there"},
		{streams, "streams", "arn:aws-cn:kinesis:cn-north-1:444455556666:stream/foo", "field `region`: us-east-1 is not the region of `arn:aws-cn:kinesis:cn-north-1:444455556666:stream/foo`: write `cn-north-1`, and use an input for each region; the table is looked for there too, unless `dynamodb.region` says otherwise"},
		{emulated, "streams", west, ""},
	} {
		err := c.about.CheckARN(c.field, c.arn)
		if c.err == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, c.err)
	}
}

func TestAboutTellsTheSettings(t *testing.T) {
	about := func(t *testing.T, service string, o Options) About { return o.About(load(t, o), service) }
	isolate(t, "[default]\nregion=eu-west-1\n")
	require.Equal(t, About{Service: "kinesis", Region: "eu-west-1", RegionFrom: "the profile"}, about(t, "kinesis", Options{}))
	t.Setenv("AWS_REGION", "us-west-2")
	require.Equal(t, About{Service: "kinesis", Region: "us-west-2", RegionFrom: "AWS_REGION"}, about(t, "kinesis", Options{}))
	o := Options{Region: "us-east-1", Endpoint: "http://field"}
	require.Equal(t, About{Service: "dynamodb", Region: "us-east-1", Endpoint: "http://field", EndpointFrom: "`endpoint`"}, about(t, "dynamodb", o))
	o.TableEndpoint = "http://tables"
	require.Equal(t, About{Service: "dynamodb", Region: "us-east-1", Endpoint: "http://tables", EndpointFrom: "`dynamodb.endpoint`"}, about(t, "dynamodb", o))
	require.Equal(t, About{Service: "kinesis", Region: "us-east-1", Endpoint: "http://field", EndpointFrom: "`endpoint`"}, about(t, "kinesis", o))
	o = Options{Region: "us-east-1"}
	t.Setenv("AWS_ENDPOINT_URL", "http://all")
	require.Equal(t, "AWS_ENDPOINT_URL", about(t, "kinesis", o).EndpointFrom)
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://d")
	require.Equal(t, "AWS_ENDPOINT_URL_DYNAMODB", about(t, "dynamodb", o).EndpointFrom)

	isolate(t, "[default]\nendpoint_url=http://profile\n")
	require.Equal(t, About{Service: "kinesis", Region: "us-east-1", Endpoint: "http://profile", EndpointFrom: "`endpoint_url` of the profile"}, about(t, "kinesis", o))
}

func TestRegionThatIsAFIPSVariantSaysWhatToWrite(t *testing.T) {
	isolate(t, "")
	for _, region := range []string{"fips-us-east-1", "us-east-1-fips"} {
		_, err := Options{Region: region}.Load(t.Context())
		require.EqualError(t, err, "field `region`: `"+region+"` is an address of FIPS and not a region, and AWS refuses what is signed for it: write `us-east-1`, and set AWS_USE_FIPS_ENDPOINT=true")
	}
}

// What the SDK refuses to make an address of is explained as it comes from its resolver.
func TestSettingsThatExcludeEachOtherSayWhatToUnset(t *testing.T) {
	const (
		fips    = "AWS_USE_FIPS_ENDPOINT, or `use_fips_endpoint` of the profile,"
		dual    = "AWS_USE_DUALSTACK_ENDPOINT, or `use_dualstack_endpoint` of the profile,"
		account = "AWS_ACCOUNT_ID_ENDPOINT_MODE, or `account_id_endpoint_mode` of the profile, is `required`, and "
	)
	for _, c := range []struct {
		env, region, endpoint, hint string
	}{
		{"AWS_USE_FIPS_ENDPOINT", "us-east-1", "http://field", fips + " chooses among the addresses of AWS, and `endpoint` has another. Unset one of the two"},
		{"AWS_USE_DUALSTACK_ENDPOINT", "us-east-1", "http://field", dual + " chooses among the addresses of AWS, and `endpoint` has another. Unset one of the two"},
		{"AWS_ACCOUNT_ID_ENDPOINT_MODE", "us-east-1", "", account + "the credentials do not tell their account. Write `preferred`, or set AWS_ACCOUNT_ID where they stand in the environment, and `aws_account_id` where they stand in a profile"},
	} {
		t.Run(c.env+" "+c.region, func(t *testing.T) {
			isolate(t, "")
			value := "true"
			if c.env == "AWS_ACCOUNT_ID_ENDPOINT_MODE" {
				value = "required"
			}
			t.Setenv(c.env, value)
			o := Options{Region: c.region, Endpoint: c.endpoint, Credentials: Credentials{ID: "i", Secret: "s"}}
			cfg := load(t, o)
			cfg.HTTPClient = new(recorder)
			_, err := kinesis.NewFromConfig(cfg).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("foo")})
			require.EqualError(t, Explain(err, o.About(cfg, "kinesis")), err.Error()+". "+c.hint)
			_, err = dynamodb.NewFromConfig(cfg).DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("leases")})
			require.EqualError(t, Explain(err, o.About(cfg, "dynamodb")), err.Error()+". "+c.hint)
		})
	}
}

package session

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// isolate hides the environment and the shared files of the machine, puts
// profiles into shared files of the test's own, and makes any address but
// loopback unreachable.
func isolate(t *testing.T, profiles string) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
		"AWS_DEFAULT_REGION", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS",
		"AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
		"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE",
		"AWS_ACCOUNT_ID", "AWS_ACCOUNT_ID_ENDPOINT_MODE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT",
	} {
		t.Setenv(name, "")
		require.NoError(t, os.Unsetenv(name))
	}
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte(profiles), 0o600))
	t.Setenv("AWS_CONFIG_FILE", file)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// serve answers calls to a loopback port until the test ends.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func load(t *testing.T, o Options) aws.Config {
	t.Helper()
	cfg, err := o.Load(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { CloseIdle(cfg) })
	return cfg
}

var static = Options{Region: "us-east-1", Credentials: Credentials{ID: "id", Secret: "secret", Token: "token"}}

func TestFirstConfiguredCredentialsCount(t *testing.T) {
	const profiles = "[default]\naws_access_key_id = default\naws_secret_access_key = s\n" +
		"[profile other]\nregion = eu-west-1\naws_access_key_id = other\naws_secret_access_key = s\n" +
		"[other]\naws_access_key_id = other\naws_secret_access_key = s\n"
	for name, c := range map[string]struct {
		env   string
		creds Credentials
		want  string
	}{
		"default chain finds the shared file":     {creds: Credentials{}, want: "default"},
		"default chain prefers the environment":   {env: "env", creds: Credentials{}, want: "env"},
		"a profile counts before the environment": {env: "env", creds: Credentials{Profile: "other"}, want: "other"},
		"an id counts before a profile":           {env: "env", creds: Credentials{ID: "id", Secret: "s", Profile: "other"}, want: "id"},
		"an id counts before the EC2 role":        {creds: Credentials{ID: "id", Secret: "s", FromEC2Role: true}, want: "id"},
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t, profiles)
			if c.env != "" {
				t.Setenv("AWS_ACCESS_KEY_ID", c.env)
				t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			}
			cfg := load(t, Options{Region: "us-east-1", Credentials: c.creds})
			got, err := cfg.Credentials.Retrieve(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.want, got.AccessKeyID)
			require.Equal(t, "us-east-1", cfg.Region)
		})
	}
}

func TestEC2RoleCountsBeforeProfileAndEnvironment(t *testing.T) {
	isolate(t, "[profile other]\naws_access_key_id = other\naws_secret_access_key = s\n")
	t.Setenv("AWS_ACCESS_KEY_ID", "env")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
	cfg := load(t, Options{Region: "us-east-1", Credentials: Credentials{FromEC2Role: true, Profile: "other"}})
	require.True(t, aws.IsCredentialsProvider(cfg.Credentials, (*ec2rolecreds.Provider)(nil)))
}

func TestRegionComesFromProfileWhenNoneIsConfigured(t *testing.T) {
	isolate(t, "[profile other]\nregion = eu-west-1\n")
	require.Equal(t, "eu-west-1", load(t, Options{Credentials: Credentials{Profile: "other"}}).Region)

	_, err := Options{}.Load(t.Context())
	require.EqualError(t, err, "no AWS region is known: write one in field `region`, or set AWS_REGION")

	require.Empty(t, load(t, Options{Endpoint: "http://127.0.0.1:1"}).Region, "an emulator needs no region")
}

func TestUnknownProfileIsAnError(t *testing.T) {
	isolate(t, "")
	_, err := Options{Region: "us-east-1", Credentials: Credentials{Profile: "missing"}}.Load(t.Context())
	require.ErrorContains(t, err, "missing")
}

func TestRetryModeIsTheEnvironments(t *testing.T) {
	isolate(t, "[profile calm]\nretry_mode = adaptive\n")
	mode := func(o Options) aws.RetryMode {
		return kinesis.NewFromConfig(load(t, o)).Options().RetryMode
	}
	require.Equal(t, aws.RetryModeStandard, mode(static))

	calm := static
	calm.Credentials.Profile = "calm"
	require.Equal(t, aws.RetryModeAdaptive, mode(calm))

	t.Setenv("AWS_RETRY_MODE", "adaptive")
	require.Equal(t, aws.RetryModeAdaptive, mode(static))

	t.Setenv("AWS_RETRY_MODE", "sometimes")
	_, err := static.Load(t.Context())
	require.ErrorContains(t, err, "sometimes")
}

func TestConfiguredEndpointOutranksTheEnvironment(t *testing.T) {
	isolate(t, "")
	t.Setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:1")
	var calls atomic.Int32
	o := static
	o.Endpoint = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		answer(w, `{"StreamNames":[],"HasMoreStreams":false}`)
	})
	_, err := kinesis.NewFromConfig(load(t, o)).ListStreams(t.Context(), nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, calls.Load())
}

func TestExternalIDReachesSTSWithTheGivenCredentials(t *testing.T) {
	for name, viaEnv := range map[string]bool{"at the endpoint": false, "at the environment's own endpoint": true} {
		t.Run(name, func(t *testing.T) {
			isolate(t, "")
			forms := make(chan url.Values, 1)
			signed := make(chan string, 1)
			sts := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if err := r.ParseForm(); err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				forms <- r.PostForm
				signed <- r.Header.Get("Authorization")
				w.Header().Set("Content-Type", "text/xml")
				_, _ = io.WriteString(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>assumed</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`)
			})
			o := static
			o.Endpoint = sts
			if viaEnv {
				o.Endpoint = "http://127.0.0.1:1"
				t.Setenv("AWS_ENDPOINT_URL_STS", sts)
			}
			o.Credentials.Role = "arn:aws:iam::111122223333:role/reader"
			o.Credentials.RoleExternalID = "shared secret"

			cfg := load(t, o)
			require.Empty(t, forms, "loading calls nothing")
			for range 2 {
				got, err := cfg.Credentials.Retrieve(t.Context())
				require.NoError(t, err)
				require.Equal(t, "assumed", got.AccessKeyID)
			}

			form := <-forms
			require.Empty(t, forms, "the role is assumed once")
			require.Equal(t, "AssumeRole", form.Get("Action"))
			require.Equal(t, "arn:aws:iam::111122223333:role/reader", form.Get("RoleArn"))
			require.Equal(t, "shared secret", form.Get("ExternalId"))
			require.Contains(t, <-signed, "Credential=id/")
		})
	}
}

func TestUnsetOptionsComeFromTheBase(t *testing.T) {
	base := Options{Region: "us-east-1", Endpoint: "http://one", Credentials: Credentials{ID: "id", Secret: "s", Role: "r"}}
	require.Equal(t, base, Options{}.Or(base))
	require.Equal(t, Options{Region: "eu-west-1", Endpoint: base.Endpoint, Credentials: base.Credentials},
		Options{Region: "eu-west-1"}.Or(base))
	require.Equal(t, Options{Region: "us-east-1", Endpoint: "http://two", Credentials: Credentials{Profile: "p"}},
		Options{Endpoint: "http://two", Credentials: Credentials{Profile: "p"}}.Or(base))
}

// answer writes a JSON answer of Kinesis.
func answer(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_, _ = io.WriteString(w, body)
}

// stall holds a request until its client is gone.
func stall(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the server watches the connection only once the body is read
	<-r.Context().Done()
}

func TestAttemptThatTakesTooLongIsRetried(t *testing.T) {
	const records = `{"NextShardIterator":"next","Records":[],"MillisBehindLatest":0}`
	for name, first := range map[string]func(http.ResponseWriter, *http.Request){
		"no answer": func(_ http.ResponseWriter, r *http.Request) { stall(r) },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			answer(w, records[:10])
			_ = http.NewResponseController(w).Flush()
			stall(r)
		},
	} {
		for _, mode := range []string{"adaptive", "standard"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				isolate(t, "")
				t.Setenv("AWS_RETRY_MODE", mode)
				var calls atomic.Int32
				o := static
				o.Endpoint = serve(t, func(w http.ResponseWriter, r *http.Request) {
					if calls.Add(1) == 1 {
						first(w, r)
						return
					}
					answer(w, records)
				})
				client := kinesis.NewFromConfig(load(t, o), func(ko *kinesis.Options) {
					ko.Retryer = fast{ko.Retryer.(aws.RetryerV2)}
					ko.APIOptions = append(ko.APIOptions, WithAttemptTimeout(50*time.Millisecond))
				})
				out, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("it")})
				require.NoError(t, err)
				require.Equal(t, "next", *out.NextShardIterator)
				require.EqualValues(t, 2, calls.Load())
			})
		}
	}
}

func TestAttemptsThatAllTakeTooLongSaySo(t *testing.T) {
	isolate(t, "")
	var calls atomic.Int32
	o := static
	o.Endpoint = serve(t, func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		stall(r)
	})
	client := kinesis.NewFromConfig(load(t, o), func(ko *kinesis.Options) {
		ko.APIOptions = append(ko.APIOptions, WithAttemptTimeout(300*time.Millisecond))
		ko.Retryer = fast{ko.Retryer.(aws.RetryerV2)}
		ko.RetryMaxAttempts = 2
	})
	_, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("it")})
	timeout, ok := errors.AsType[*AttemptTimeoutError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "no answer to GetRecords within 300ms", timeout.Error())
	require.EqualValues(t, 2, calls.Load())
}

func TestCallersCancellationIsNotRetried(t *testing.T) {
	isolate(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	o := static
	o.Endpoint = serve(t, func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		cancel()
		stall(r)
	})
	_, err := kinesis.NewFromConfig(load(t, o)).GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: aws.String("it")})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, 1, calls.Load())
}

func TestCallersDeadlineIsNotTakenForAnAttemptTimeout(t *testing.T) {
	isolate(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	o := static
	o.Endpoint = serve(t, func(_ http.ResponseWriter, r *http.Request) { stall(r) })
	_, err := kinesis.NewFromConfig(load(t, o)).GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: aws.String("it")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, timeout := errors.AsType[*AttemptTimeoutError](err)
	require.False(t, timeout, "%v", err)
}

func TestClientsShareConnectionsUntilTheseAreClosed(t *testing.T) {
	isolate(t, "")
	opened, closed := make(chan struct{}, 100), make(chan struct{}, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"StreamNames":[],"HasMoreStreams":false}`)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened <- struct{}{}
		case http.StateClosed:
			closed <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)

	o := static
	o.Endpoint = s.URL
	cfg := load(t, o)
	for range 20 {
		_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
		require.NoError(t, err)
	}
	// One would do, but now and then the transport gives a connection up between
	// two calls. Clients with connections of their own would open twenty.
	require.Less(t, len(opened), 10)

	CloseIdle(cfg)
	select {
	case <-closed:
	case <-t.Context().Done():
	case <-time.NewTimer(10 * time.Second).C:
		require.Fail(t, "the connection stays open")
	}
}

func TestCallerPacedReturnsThrottlesAndRetriesTheRest(t *testing.T) {
	for code, want := range map[string]int32{
		"ProvisionedThroughputExceededException": 1,
		"InternalFailure":                        3,
	} {
		t.Run(code, func(t *testing.T) {
			isolate(t, "")
			var calls atomic.Int32
			o := static
			o.Endpoint = serve(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				status := http.StatusBadRequest
				if code == "InternalFailure" {
					status = http.StatusInternalServerError
				}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"__type":"`+code+`"}`)
			})
			_, err := kinesis.NewFromConfig(load(t, o)).GetRecords(t.Context(),
				&kinesis.GetRecordsInput{ShardIterator: aws.String("it")},
				func(ko *kinesis.Options) { ko.Retryer = fast{CallerPaced()} })
			require.Error(t, err)
			_, throttled := errors.AsType[*types.ProvisionedThroughputExceededException](err)
			require.Equal(t, want == 1, throttled, "%v", err)
			require.Equal(t, want, calls.Load())
		})
	}
}

// The reads of a day go another way than its failures, and refill no bucket.
func TestCallerPacedRetriesAfterAnyNumberOfFailures(t *testing.T) {
	isolate(t, "")
	var calls atomic.Int32
	o := static
	o.Endpoint = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	client := kinesis.NewFromConfig(load(t, o), func(ko *kinesis.Options) { ko.Retryer = fast{CallerPaced()} })
	const many = 150
	for range many {
		_, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("it")})
		require.Error(t, err)
	}
	require.EqualValues(t, 3*many, calls.Load())
}

// fast is a retryer without its delays.
type fast struct{ aws.RetryerV2 }

func (fast) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

package session

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// issuer is all that credentials come from, and Kinesis and DynamoDB, which do not
// take those that have expired.
type issuer struct {
	url string

	mu      sync.Mutex
	n       int            // keys issued
	good    int            // the first that has not expired
	lasts   time.Duration  // what is said of new ones
	tokens  map[string]int // by what they are for: the one of that number is good
	asked   []string       // what was asked for, in order
	refused int            // calls of Kinesis and DynamoDB with expired credentials
	seen    map[string]bool
	faults  map[string]func(http.ResponseWriter, *http.Request) // by what is asked for, in place of an answer
	roles   map[string]string                                   // the external id of roles that demand one
	ahead   time.Duration                                       // the clock of AWS
}

// issue makes an issuer the only place where credentials come from, but for what the
// test adds.
func issue(t *testing.T, profiles string) *issuer {
	t.Helper()
	isolate(t, profiles)
	for _, name := range []string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_V1_DISABLED",
		"AWS_EC2_METADATA_DISABLED", "AWS_ROLE_SESSION_NAME", "AWS_STS_REGIONAL_ENDPOINTS", "HTTP_PROXY", "HTTPS_PROXY",
	} {
		t.Setenv(name, "")
		require.NoError(t, os.Unsetenv(name))
	}
	t.Setenv("HOME", t.TempDir())
	i := &issuer{lasts: time.Hour, tokens: map[string]int{}, seen: map[string]bool{}, faults: map[string]func(http.ResponseWriter, *http.Request){}}
	i.url = serve(t, i.handle)
	for _, service := range []string{"STS", "SSO", "SSO_OIDC", "KINESIS", "DYNAMODB"} {
		t.Setenv("AWS_ENDPOINT_URL_"+service, i.url)
	}
	return i
}

// next issues credentials.
func (i *issuer) next() (key, expires string) {
	i.n++
	return "key" + strconv.Itoa(i.n), time.Now().Add(i.lasts).UTC().Format(time.RFC3339)
}

// expire ends the life of all credentials, and of the tokens that others are got with.
func (i *issuer) expire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.good = i.n + 1
	for what := range i.tokens {
		i.tokens[what]++
	}
}

func (i *issuer) token(what string) string { return what + strconv.Itoa(i.tokens[what]) }

// what a request asks for.
func asks(r *http.Request) string {
	switch {
	case r.URL.Path == "/container":
		return "container"
	case r.URL.Path == "/federation/credentials":
		return "sso"
	case r.URL.Path == "/token":
		return "oidc"
	case r.URL.Path == "/latest/api/token":
		return "imds token"
	case strings.HasPrefix(r.URL.Path, "/latest/meta-data/iam/security-credentials"):
		return "imds"
	case r.Header.Get("X-Amz-Target") != "":
		return "service"
	}
	return r.PostFormValue("Action")
}

func (i *issuer) handle(w http.ResponseWriter, r *http.Request) {
	what := asks(r)
	i.mu.Lock()
	i.asked = append(i.asked, what)
	fault := i.faults[what]
	i.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	w.Header().Set("Date", time.Now().Add(i.ahead).UTC().Format(http.TimeFormat))
	switch what {
	case "service":
		if !i.takes(r) {
			i.refused++
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`)
			return
		}
		i.seen[keyOf(r)] = true
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		fmt.Fprint(w, `{"StreamNames":[],"HasMoreStreams":false,"TableNames":[]}`)
	case "AssumeRole", "AssumeRoleWithWebIdentity":
		i.assume(w, r)
	case "container":
		if r.Header.Get("Authorization") != i.token("container") {
			http.Error(w, `{"code":"AccessDenied","message":"wrong token"}`, http.StatusForbidden)
			return
		}
		key, expires := i.next()
		fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":"s","Token":"t","Expiration":%q}`, key, expires)
	case "sso":
		if r.Header.Get("X-Amz-Sso_bearer_token") != i.token("sso") {
			w.Header().Set("X-Amzn-ErrorType", "UnauthorizedException")
			http.Error(w, `{"message":"Session token not found or invalid"}`, http.StatusUnauthorized)
			return
		}
		key, _ := i.next()
		fmt.Fprintf(w, `{"roleCredentials":{"accessKeyId":%q,"secretAccessKey":"s","sessionToken":"t","expiration":%d}}`,
			key, time.Now().Add(i.lasts).UnixMilli())
	case "oidc":
		fmt.Fprintf(w, `{"accessToken":%q,"expiresIn":28800,"refreshToken":"refresh"}`, i.token("sso"))
	case "imds token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, "imds")
	case "imds":
		if r.URL.Path == "/latest/meta-data/iam/security-credentials/" {
			fmt.Fprint(w, "reader")
			return
		}
		key, expires := i.next()
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":"s","Token":"t","Expiration":%q}`, key, expires)
	default:
		http.Error(w, "unknown: "+what, http.StatusNotFound)
	}
}

// takes tells whether a request is signed with credentials that have not expired.
func (i *issuer) takes(r *http.Request) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(keyOf(r), "key"))
	return err != nil || n >= i.good // others than those of the issuer never expire
}

func keyOf(r *http.Request) string {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	id, _, _ := strings.Cut(scope, "/")
	return id
}

func (i *issuer) assume(w http.ResponseWriter, r *http.Request) {
	action, role := r.PostFormValue("Action"), r.PostFormValue("RoleArn")
	w.Header().Set("Content-Type", "text/xml")
	refuse := func(code, message string) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`, code, message)
	}
	switch {
	case action == "AssumeRole" && !i.takes(r):
		refuse("ExpiredToken", "The security token included in the request is expired")
		return
	case action != "AssumeRole" && r.PostFormValue("WebIdentityToken") != i.token("web"):
		refuse("ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time")
		return
	case i.roles[role] != r.PostFormValue("ExternalId"):
		refuse("AccessDenied", "User: arn:aws:iam::111122223333:user/x is not authorized to perform: sts:AssumeRole on resource: "+role)
		return
	}
	key, expires := i.next()
	fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action, key, expires)
}

// with changes the issuer.
func (i *issuer) with(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) count(what string) (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, asked := range i.asked {
		if asked == what {
			n++
		}
	}
	return n
}

// file writes a file that ends with the test.
func file(t *testing.T, name, content string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
	// As a whole, since a renewal in the background may be reading it.
	require.NoError(t, os.WriteFile(name+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(name+".new", name))
	return name
}

// cacheToken writes the cached token of an SSO session, as `aws sso login` does.
func cacheToken(t *testing.T, session, token string, lasts time.Duration) {
	t.Helper()
	sum := sha1.Sum([]byte(session))
	text, err := json.Marshal(map[string]string{
		"accessToken": token, "expiresAt": time.Now().Add(lasts).UTC().Format(time.RFC3339), "refreshToken": "refresh",
		"clientId": "id", "clientSecret": "secret", "region": "us-east-1", "startUrl": "https://d-1.awsapps.com/start",
	})
	require.NoError(t, err)
	file(t, filepath.Join(os.Getenv("HOME"), ".aws", "sso", "cache", hex.EncodeToString(sum[:])+".json"), string(text))
}

const ssoProfile = "[default]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = reader\n" +
	"[sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://d-1.awsapps.com/start\n"

// arrangement is one way to get credentials.
type arrangement struct {
	profiles string
	creds    Credentials
	// set lays out what the provider needs, and does so again after an expiry.
	set  func(t *testing.T, i *issuer)
	asks string // what is asked for
	// still: they do not say when they expire, and are replaced when a service
	// refuses them.
	still bool
}

func webToken(t *testing.T, i *issuer) {
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pod")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file(t, filepath.Join(os.Getenv("HOME"), "web"), i.token("web")))
}

func containerToken(t *testing.T, i *issuer) {
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", i.url+"/container")
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file(t, filepath.Join(os.Getenv("HOME"), "container"), i.token("container")))
}

func metadata(t *testing.T, i *issuer) { t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", i.url) }

func ssoToken(t *testing.T, i *issuer) { cacheToken(t, "corp", i.token("sso"), time.Hour) }

func processOutput(t *testing.T, i *issuer) {
	key, expires := i.next()
	file(t, filepath.Join(os.Getenv("HOME"), "process"), fmt.Sprintf(
		`{"Version":1,"AccessKeyId":%q,"SecretAccessKey":"s","SessionToken":"t","Expiration":%q}`, key, expires))
}

func rotatedFile(t *testing.T, i *issuer) {
	key, _ := i.next()
	file(t, os.Getenv("AWS_CONFIG_FILE"), "[default]\naws_access_key_id = "+key+"\naws_secret_access_key = s\naws_session_token = t\n")
}

func nothing(*testing.T, *issuer) {}

const process1 = `[default]` + "\n" + `credential_process = cat "$HOME/process"` + "\n"

// ways are all providers that renew what they give.
var ways = map[string]arrangement{
	"shared file, rewritten": {set: rotatedFile, still: true},
	"profile, role of another profile": {
		profiles: "[profile reader]\nrole_arn = arn:aws:iam::111122223333:role/reader\nsource_profile = base\n[profile base]\naws_access_key_id = base\naws_secret_access_key = s\n",
		creds:    Credentials{Profile: "reader"}, set: nothing, asks: "AssumeRole",
	},
	"process":                     {profiles: process1, set: processOutput},
	"SSO session":                 {profiles: ssoProfile, set: ssoToken, asks: "sso"},
	"SSO, as it was before":       {profiles: "[default]\nsso_account_id = 111122223333\nsso_role_name = reader\nsso_region = us-east-1\nsso_start_url = corp\n", set: ssoToken, asks: "sso"},
	"web identity":                {set: webToken, asks: "AssumeRoleWithWebIdentity"},
	"container with a token file": {set: containerToken, asks: "container"},
	"EC2 role":                    {set: metadata, asks: "imds"},
	"EC2 role by the field":       {creds: Credentials{FromEC2Role: true}, set: metadata, asks: "imds"},
	"role with source of a container": {
		profiles: "[default]\nrole_arn = arn:aws:iam::111122223333:role/reader\ncredential_source = EcsContainer\n",
		set:      containerToken, asks: "AssumeRole",
	},
}

const assumedRole = "arn:aws:iam::444455556666:role/theirs"

// Credentials are renewed under calls of Kinesis and DynamoDB, first when it is time and
// then because they have expired before: no call fails. Each way is tried by itself and
// with a role, of another account, that is assumed with it.
func TestCallsGoOnWhenCredentialsExpire(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) { way.expires(t, Credentials{}) })
		if way.creds == (Credentials{}) && way.asks != "AssumeRole" {
			t.Run(name+", and a role", func(t *testing.T) {
				way.expires(t, Credentials{Role: assumedRole, RoleExternalID: "shared secret"})
			})
		}
	}
}

func (way arrangement) expires(t *testing.T, role Credentials) {
	i := issue(t, way.profiles)
	i.roles = map[string]string{assumedRole: "shared secret"}
	i.tokens = map[string]int{"web": 1, "container": 1, "sso": 1}
	i.with(func(i *issuer) { way.set(t, i) })
	creds := way.creds
	creds.Role, creds.RoleExternalID = role.Role, role.RoleExternalID
	cfg := load(t, Options{Region: "us-east-1", Credentials: creds})
	require.Empty(t, i.asked, "loading calls nothing")
	call := caller(t, cfg)
	call()
	first := i.n
	call()
	require.Equal(t, first, i.n, "what is good is used again")
	require.Zero(t, i.refused)

	if !way.still || role.Role != "" {
		i.with(func(i *issuer) { way.set(t, i) })
		renewNow(cfg)
		require.Eventually(t, func() bool {
			call()
			i.mu.Lock()
			defer i.mu.Unlock()
			return len(i.seen) > 1
		}, 5*time.Second, time.Millisecond, "they are renewed")
		require.Zero(t, i.refused, "before a service refuses them")
	}

	settled(t, cfg)
	i.expire()
	i.with(func(i *issuer) { way.set(t, i) })
	call()
	require.NotZero(t, i.refused)
	if way.asks != "" && role.Role == "" {
		require.GreaterOrEqual(t, i.count(way.asks), 3)
	}
	require.Equal(t, role.Role != "" || way.asks == "AssumeRole", i.count("AssumeRole") > 0)
}

// renewNow makes it a few minutes before the credentials expire.
func renewNow(cfg aws.Config) {
	for _, r := range cfg.Credentials.(*renewer).services.renewers {
		r.mu.Lock()
		r.due = time.Now()
		r.mu.Unlock()
	}
}

// settled waits for the renewals that are under way: one could still read what is about to
// expire, and nobody repeats a call for new credentials that are refused at once.
func settled(t *testing.T, cfg aws.Config) {
	t.Helper()
	for _, r := range cfg.Credentials.(*renewer).services.renewers {
		require.Eventually(t, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.running == nil
		}, 5*time.Second, time.Millisecond)
	}
}

// caller returns what makes some calls at once, none of which may fail.
func caller(t *testing.T, cfg aws.Config) func() {
	t.Helper()
	retryer := retry.NewStandard()
	cfg.Retryer = func() aws.Retryer { return fast{retryer} }
	stream, table := kinesis.NewFromConfig(cfg), dynamodb.NewFromConfig(cfg)
	return func() {
		var calls sync.WaitGroup
		defer calls.Wait()
		for range 4 {
			calls.Go(func() {
				if _, err := stream.ListStreams(t.Context(), nil); err != nil {
					t.Errorf("Kinesis: %v", err)
				}
			})
			calls.Go(func() {
				if _, err := table.ListTables(t.Context(), nil); err != nil {
					t.Errorf("DynamoDB: %v", err)
				}
			})
		}
	}
}

// `aws configure set` writes one of them at a time, and the key may be read before its
// secret is there.
func TestSecretThatIsWrittenAfterItsKeyIsFound(t *testing.T) {
	cfg := refusing(t, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided.", 0)
	write := func(secret string) {
		file(t, os.Getenv("AWS_CONFIG_FILE"), "[default]\naws_access_key_id = new\naws_secret_access_key = "+secret+"\n")
	}
	write("old")
	cfg = load(t, Options{Region: "us-east-1", Endpoint: *kinesis.NewFromConfig(cfg).Options().BaseEndpoint})
	cfg.Retryer = func() aws.Retryer { return fast{retry.NewStandard()} }
	secret := func() string {
		creds, err := cfg.Credentials.Retrieve(t.Context())
		require.NoError(t, err)
		return creds.SecretAccessKey
	}
	require.Equal(t, "old", secret())
	write("new")
	_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
	require.ErrorContains(t, err, "does not match")
	require.Equal(t, "new", secret())
}

// hanging is a provider of credentials that has begun a process.
type hanging struct{ *provider }

func (hanging) ProviderSources() []aws.CredentialSource {
	return []aws.CredentialSource{aws.CredentialSourceProcess}
}

// A read that waits for credentials is not one that Kinesis does not answer.
func TestReadThatWaitsForCredentialsSaysSo(t *testing.T) {
	i := issue(t, process1)
	processOutput(t, i)
	cfg := load(t, Options{Region: "us-east-1"})
	caller(t, cfg)()
	r := cfg.Credentials.(*renewer)
	creds, err := r.Retrieve(t.Context())
	require.NoError(t, err)
	require.True(t, r.refuse(creds.AccessKeyID))
	r.mu.Lock()
	r.source = func(context.Context) (aws.CredentialsProvider, error) {
		return hanging{&provider{takes: time.Hour}}, nil
	}
	r.mu.Unlock()

	direct := wire.NewDirect(kinesis.NewFromConfig(cfg, wire.Install), 50*time.Millisecond, nil)
	_, err = direct.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("it"), StreamARN: aws.String(ordersARN)})
	err = Explain(err, stream)
	require.ErrorContains(t, err, "GetRecords")
	require.ErrorContains(t, err, "no call of GetRecords within 50ms")
	require.ErrorContains(t, err, "retrieving credentials from the `credential_process` of profile default: no answer in ")
	require.ErrorContains(t, err, ". The `credential_process` does not end. Run its command by hand")
}

func TestExpiredSSOTokenIsRefreshedAndKept(t *testing.T) {
	i := issue(t, ssoProfile)
	i.tokens["sso"] = 7
	cacheToken(t, "corp", "stale", -time.Minute)
	caller(t, load(t, Options{Region: "us-east-1"}))()
	require.Equal(t, 1, i.count("oidc"))
	require.Equal(t, 1, i.count("sso"))

	caller(t, load(t, Options{Region: "us-east-1"}))()
	require.Equal(t, 1, i.count("oidc"), "the file has it now")
}

// One hop too many and the answer to the request for a token never arrives, while
// everything else does. What comes of it is up to the instance: it may do without.
func TestHopLimitOfTheInstance(t *testing.T) {
	with := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	for name, c := range map[string]struct {
		token, metadata func(http.ResponseWriter, *http.Request)
		v1Disabled      bool
		want            string // in the error, "" for none
	}{
		"no token, IMDSv1 will do":      {token: with(http.StatusForbidden)},
		"no token, IMDSv1 will not do":  {token: with(http.StatusForbidden), metadata: with(http.StatusUnauthorized), want: "The instance demands IMDSv2, and no token for it came: " + hop},
		"lost token, we want no IMDSv1": {token: func(_ http.ResponseWriter, r *http.Request) { stall(r) }, v1Disabled: true, want: "The metadata service of the instance does not answer. Check that this runs on EC2; " + hop},
	} {
		t.Run(name, func(t *testing.T) {
			i := issue(t, "")
			metadata(t, i)
			i.faults["imds token"], i.faults["imds"] = c.token, c.metadata
			if c.v1Disabled {
				t.Setenv("AWS_EC2_METADATA_V1_DISABLED", "true")
			}
			cfg := load(t, Options{Region: "us-east-1", Credentials: Credentials{FromEC2Role: true}})
			_, err := cfg.Credentials.Retrieve(t.Context())
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, Explain(err, stream), ". "+c.want)
		})
	}
}

const hop = "in a container the hop limit of the instance has to be 2: `aws ec2 modify-instance-metadata-options --instance-id ... --http-put-response-hop-limit 2`"

func TestFailureOfAProviderNamesItAndSaysWhatToDo(t *testing.T) {
	status := func(code int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	sts := func(code, message string) func(http.ResponseWriter, *http.Request) {
		return status(http.StatusForbidden, "<ErrorResponse><Error><Code>"+code+"</Code><Message>"+message+"</Message></Error></ErrorResponse>")
	}
	for name, c := range map[string]struct {
		arrangement
		asks       string // fails with fault
		fault      func(http.ResponseWriter, *http.Request)
		from, want string
	}{
		"no SSO token": {
			arrangement: arrangement{profiles: ssoProfile, set: nothing},
			from:        "the SSO session of profile default",
			want:        "The SSO session has ended. Run `aws sso login --profile default`, as the user of this process",
		},
		"SSO token refused": {
			arrangement: arrangement{profiles: ssoProfile, set: func(t *testing.T, _ *issuer) { cacheToken(t, "corp", "other", time.Hour) }},
			from:        "the SSO session of profile default",
			want:        "The SSO session has ended. Run `aws sso login --profile default`, as the user of this process",
		},
		"SSO token not refreshed": {
			arrangement: arrangement{profiles: strings.Replace(ssoProfile, "default", "profile dev", 1), creds: Credentials{Profile: "dev"}, set: func(t *testing.T, _ *issuer) { cacheToken(t, "corp", "other", -time.Hour) }}, asks: "oidc", fault: status(400, `{"error":"invalid_grant"}`),
			from: "the SSO session of profile dev",
			want: "The SSO session has ended. Run `aws sso login --profile dev`, as the user of this process",
		},
		"SSO role not assigned": {
			arrangement: ways["SSO session"], asks: "sso", fault: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Amzn-ErrorType", "ForbiddenException")
				http.Error(w, `{"message":"No access"}`, http.StatusForbidden)
			},
			from: "the SSO session of profile default",
			want: "The user of the SSO session has no such role in that account. Check `sso_account_id` and `sso_role_name` of profile default",
		},
		"process exits with 1": {
			arrangement: arrangement{profiles: "[default]\ncredential_process = false\n", set: nothing},
			from:        "the `credential_process` of profile default",
			want:        "The `credential_process` fails; what it says itself is on the standard error. Run its command by hand, as the user and in the environment of this process",
		},
		"process writes something else": {
			arrangement: arrangement{profiles: "[default]\ncredential_process = echo hello\n", set: nothing},
			from:        "the `credential_process` of profile default",
			want:        "The `credential_process` has to write an object of JSON with Version 1, AccessKeyId, SecretAccessKey, and Expiration if they expire",
		},
		"web token missing": {
			arrangement: arrangement{set: func(t *testing.T, _ *issuer) {
				t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pod")
				t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/missing/token")
			}},
			from: "web identity",
			want: "The file of the web identity token cannot be read. Check AWS_WEB_IDENTITY_TOKEN_FILE, or `web_identity_token_file` of the profile, and that the pod mounts it: its service account needs the annotation `eks.amazonaws.com/role-arn`",
		},
		"web token expired": {
			arrangement: ways["web identity"], asks: "AssumeRoleWithWebIdentity", fault: sts("ExpiredTokenException", "Token expired"),
			from: "web identity",
			want: "The web identity token has expired, and its file was not renewed. Check AWS_WEB_IDENTITY_TOKEN_FILE, or `web_identity_token_file` of the profile, and the clock of this machine",
		},
		"web token of a stranger": {
			arrangement: ways["web identity"], asks: "AssumeRoleWithWebIdentity", fault: sts("InvalidIdentityToken", "No OpenIDConnect provider found in your account"),
			from: "web identity",
			want: "STS cannot verify the web identity token. Check that IAM has an identity provider for its issuer, with the audience `sts.amazonaws.com`",
		},
		"web identity denied": {
			arrangement: ways["web identity"], asks: "AssumeRoleWithWebIdentity", fault: sts("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"),
			from: "web identity",
			want: "The role may not be assumed. Let the trust policy of the role name this identity provider and service account",
		},
		"container refuses": {
			arrangement: ways["container with a token file"], asks: "container", fault: status(403, `{"code":"AccessDenied","message":"unauthorized"}`),
			from: "the container's endpoint",
			want: "The container's endpoint refuses the token. Check AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or AWS_CONTAINER_AUTHORIZATION_TOKEN; in EKS, that the service account has a pod identity association, and that the role's trust policy lets `pods.eks.amazonaws.com` use `sts:AssumeRole` and `sts:TagSession`",
		},
		"container without role": {
			arrangement: ways["container with a token file"], asks: "container", fault: status(404, `{"code":"NotFound","message":"no role"}`),
			from: "the container's endpoint",
			want: "The container's endpoint has no credentials. Check AWS_CONTAINER_CREDENTIALS_FULL_URI or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, and the role of the task or the pod",
		},
		"container token missing": {
			arrangement: arrangement{set: func(t *testing.T, i *issuer) {
				containerToken(t, i)
				t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/missing/token")
			}},
			from: "the container's endpoint",
			want: "The file of the container's token cannot be read. Check AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, and that it is mounted",
		},
		"container gone": {
			arrangement: arrangement{set: func(t *testing.T, _ *issuer) { t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/") }},
			from:        "the container's endpoint",
			want:        "The container's endpoint does not answer. Check AWS_CONTAINER_CREDENTIALS_FULL_URI or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, whether a proxy stands before it (NO_PROXY), and the agent of ECS or EKS on the host",
		},
		"instance without role": {
			arrangement: ways["EC2 role"], asks: "imds", fault: status(404, ""),
			from: "the role of the EC2 instance",
			want: "The EC2 instance has no role. Attach an instance profile to it, or write `credentials`",
		},
		"metadata turned off": {
			arrangement: ways["EC2 role by the field"], asks: "imds", fault: status(403, ""),
			from: "the role of the EC2 instance",
			want: "The metadata service of the instance is turned off, or a firewall keeps this process from it. Set `HttpEndpoint` of the instance to enabled",
		},
		"no instance": {
			arrangement: ways["EC2 role"], asks: "imds token", fault: status(400, ""),
			from: "the role of the EC2 instance",
			want: nobody + ". On EC2, " + hop,
		},
		"no instance, by the field": {
			arrangement: ways["EC2 role by the field"], asks: "imds token", fault: status(400, ""),
			from: "the role of the EC2 instance",
			want: "The metadata service of the instance does not answer. Check that this runs on EC2; " + hop,
		},
		"metadata disabled": {
			arrangement: arrangement{creds: Credentials{FromEC2Role: true}, set: func(t *testing.T, _ *issuer) { t.Setenv("AWS_EC2_METADATA_DISABLED", "true") }},
			from:        "the role of the EC2 instance",
			want:        "`credentials.from_ec2_role` is true while the environment says AWS_EC2_METADATA_DISABLED. Unset one of them",
		},
		"nothing at all": {
			arrangement: arrangement{set: func(t *testing.T, _ *issuer) { t.Setenv("AWS_EC2_METADATA_DISABLED", "true") }},
			from:        "the role of the EC2 instance",
			want:        nobody,
		},
		"role not allowed": {
			arrangement: arrangement{creds: Credentials{ID: "id", Secret: "s", Role: assumedRole, RoleExternalID: "wrong"}, set: nothing},
			from:        "role arn:aws:iam::444455556666:role/theirs",
			want:        "The role may not be assumed. Allow `sts:AssumeRole` on `arn:aws:iam::444455556666:role/theirs` in the IAM policy, and who assumes it in the trust policy of the role; if that has a condition `sts:ExternalId`, write its value in `credentials.role_external_id`",
		},
		"role malformed": {
			arrangement: arrangement{creds: Credentials{ID: "id", Secret: "s", Role: "reader"}, set: nothing}, asks: "AssumeRole", fault: sts("ValidationError", "reader is invalid"),
			from: "role reader",
			want: "STS does not take the parameters. Check `credentials.role`, which is an ARN such as `arn:aws:iam::123456789012:role/reader`, and `credentials.role_external_id`; or `role_arn` and `external_id` of the profile",
		},
		"region without STS": {
			arrangement: arrangement{creds: Credentials{ID: "id", Secret: "s", Role: "reader"}, set: nothing}, asks: "AssumeRole", fault: sts("RegionDisabledException", "STS is not activated in this region"),
			from: "role reader",
			want: "STS is not active in region us-east-1. Activate it in the account's settings of IAM",
		},
		"role of a profile": {
			arrangement: ways["profile, role of another profile"], asks: "AssumeRole", fault: sts("AccessDenied", "no"),
			from: "profile reader",
			want: "The role may not be assumed. Allow `sts:AssumeRole` in the IAM policy, and who assumes it in the trust policy of the role; if that has a condition `sts:ExternalId`, write its value in `credentials.role_external_id`",
		},
		"role with a source that fails": {
			arrangement: arrangement{creds: Credentials{Role: assumedRole}, profiles: ssoProfile, set: nothing},
			from:        "the SSO session of profile default",
			want:        "The SSO session has ended. Run `aws sso login --profile default`, as the user of this process",
		},
		"STS gone": {
			arrangement: arrangement{creds: Credentials{ID: "id", Secret: "s", Role: assumedRole}, set: func(t *testing.T, _ *issuer) { t.Setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1") }},
			from:        "role arn:aws:iam::444455556666:role/theirs",
			want:        "127.0.0.1:1 refuses connections. Check whether a firewall or a proxy stands before it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := issue(t, c.profiles)
			i.roles = map[string]string{assumedRole: "right"}
			if c.asks != "" {
				i.faults[c.asks] = c.fault
			}
			i.with(func(i *issuer) { c.set(t, i) })
			cfg := load(t, Options{Region: "us-east-1", Credentials: c.creds})
			_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
			require.ErrorContains(t, err, "retrieving credentials from "+c.from+": ")
			require.Equal(t, strings.TrimSuffix(err.Error(), ".")+". "+c.want, Explain(err, stream).Error())
		})
	}
}

func TestOutputOfACredentialProcessStaysSecret(t *testing.T) {
	for name, output := range map[string]string{"no JSON": `SecretAccessKey=hush`, "another type": `{"Version":"hush"}`} {
		t.Run(name, func(t *testing.T) {
			issue(t, "[default]\ncredential_process = echo '"+output+"'\n")
			_, err := load(t, Options{Region: "us-east-1"}).Credentials.Retrieve(t.Context())
			require.ErrorContains(t, err, "its output cannot be parsed")
			require.NotContains(t, Explain(err, stream).Error(), "hush")
		})
	}
}

func TestConfigurationThatCannotBeLoadedSaysWhatToWrite(t *testing.T) {
	issue(t, "[profile mfa]\nrole_arn = r\nmfa_serial = m\nsource_profile = base\n[profile base]\naws_access_key_id = base\naws_secret_access_key = s\n")
	load := func(profile string) error {
		_, err := Options{Region: "us-east-1", Credentials: Credentials{Profile: profile}}.Load(t.Context())
		return err
	}
	require.EqualError(t, load("dev"), "loading the AWS configuration: failed to get shared config profile, dev. Neither ~/.aws/config nor ~/.aws/credentials has a profile dev, or the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name. Write another in field `credentials.profile`, or add it: `aws configure --profile dev`")
	require.ErrorContains(t, load("mfa"), ". The profile has `mfa_serial`, and nobody could type the code in. Use a role that demands none, or a `credential_process`")
	t.Setenv("AWS_PROFILE", "dev")
	require.ErrorContains(t, load(""), ". Write another in AWS_PROFILE, or add it: `aws configure --profile dev`")
}

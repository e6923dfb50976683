package awsfake

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// signedBy is a configuration of clients that sign with a key.
func signedBy(cfg aws.Config, id, secret, token string) aws.Config {
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}, nil
	})
	return cfg
}

func keysWith(id string, key AccessKey) *Keys {
	keys := &Keys{}
	keys.Set(id, key)
	return keys
}

// The example of "Signature Version 4" in AWS' general reference.
func TestSignatureIsThatOfTheDocumentation(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, "+
		"Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")
	keys := keysWith("AKIDEXAMPLE", AccessKey{Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
	require.Nil(t, keys.authenticate(r, nil, "iam", "us-east-1", time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)))
}

// Whatever the SDK signs is taken, and nothing that was changed on the way.
func TestSignatureHoldsForWhatTheSDKSigned(t *testing.T) {
	now := time.Now()
	keys := keysWith("id", AccessKey{Secret: "secret", Token: "token"})
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.String().Draw(t, "body")
		path := rapid.StringMatching(`/([a-zA-Z0-9 %+~._-]{0,5}/?){0,3}`).Draw(t, "path")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://host:123/", strings.NewReader(body))
		require.NoError(t, err)
		r.URL.Path = path
		value := rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "value")
		r.Header.Set("X-Amz-Target", strings.TrimSpace(value))
		r.URL.RawQuery = rapid.StringMatching(`([a-z]{1,3}=[a-z0-9]{0,3}(&[a-z]{1,3}=[a-z0-9]{1,3}){0,2})?`).Draw(t, "query")
		require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret", SessionToken: "token"},
			r, hashHex(body), serviceKinesis, "us-east-1", now))
		check := func() *Error { return keys.authenticate(r, []byte(body), serviceKinesis, "us-east-1", now) }
		require.Nil(t, check())

		switch rapid.IntRange(0, 3).Draw(t, "what is changed") {
		case 0:
			body += "x"
		case 1:
			r.Header.Set("X-Amz-Target", value+"x")
		case 2:
			r.Host = "another"
		case 3:
			r.URL.RawQuery += "&x=1"
		}
		require.Equal(t, CodeInvalidSignature, check().Code)
	})
}

func TestRequestsThatAreSignedRightAreServed(t *testing.T) {
	onEachTransport(t, Options{Keys: keysWith("id", AccessKey{Secret: "secret", Token: "token/+="})}, func(t *testing.T, s *Server, cfg aws.Config) {
		cfg = signedBy(cfg, "id", "secret", "token/+=")
		require.NoError(t, s.CreateStream("stream", 1))
		require.NoError(t, s.CreateTable("table", "h", ""))
		put(t, s, "stream", shardID(0), "a")
		k := kinesis.NewFromConfig(cfg)
		r := reader{k, "stream"}
		iterator, err := r.iterator(t.Context(), shardID(0), kinesistypes.ShardIteratorTypeTrimHorizon, "")
		require.NoError(t, err)
		got, _, err := r.read(t.Context(), iterator)
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, got)
		consumer, err := k.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: aws.String(s.StreamARN("stream")), ConsumerName: aws.String("c")})
		require.NoError(t, err)
		out, err := k.SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{
			ConsumerARN: consumer.Consumer.ConsumerARN, ShardId: aws.String(shardID(0)),
			StartingPosition: &kinesistypes.StartingPosition{Type: kinesistypes.ShardIteratorTypeTrimHorizon},
		})
		require.NoError(t, err)
		<-out.GetStream().Events()
		_ = out.GetStream().Close() // as what it says is of no use
		_, err = dynamodb.NewFromConfig(cfg).PutItem(t.Context(), &dynamodb.PutItemInput{
			TableName: aws.String("table"), Item: map[string]types.AttributeValue{"h": &types.AttributeValueMemberS{Value: "é"}},
		})
		require.NoError(t, err)
	})
}

// authenticated sends a request that is signed with a key for a service and a region,
// after change has changed it, and returns the answer's type and text.
func authenticated(t *testing.T, s *Server, by aws.Credentials, service, region string, at time.Time, change func(*http.Request)) (status int, code, message string) {
	t.Helper()
	const body = `{"StreamName":"stream"}`
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://awsfake.invalid/", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("X-Amz-Target", targetKinesis+"DescribeStreamSummary")
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), by, r, hashHex(body), service, region, at))
	change(r)
	answer, err := s.HTTPClient().Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	var fields struct {
		Type    string `json:"__type"`
		Message string
	}
	require.NoError(t, json.Unmarshal(all, &fields))
	return answer.StatusCode, fields.Type, fields.Message
}

func TestRequestsThatAreSignedWrongAreRefused(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := &Keys{}
	keys.Set("id", AccessKey{Secret: "secret"})
	keys.Set("temporary", AccessKey{Secret: "secret", Token: "token", Expires: now.Add(time.Hour)})
	keys.Set("over", AccessKey{Secret: "secret", Token: "token", Expires: now})
	s := newServer(t, Options{Keys: keys, Clock: NewManualClock(now)})
	require.NoError(t, s.CreateStream("stream", 1))
	key := func(id, secret, token string) aws.Credentials {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	replace := func(old, by string) func(*http.Request) {
		return func(r *http.Request) {
			set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, by, 1))(r)
		}
	}
	long := key("id", "secret", "")
	for name, c := range map[string]struct {
		by              aws.Credentials
		service, region string
		late            time.Duration
		change          func(*http.Request)
		code, message   string // none: served
	}{
		"a key that lasts":        {by: long},
		"a temporary key":         {by: key("temporary", "secret", "token")},
		"nearly too late":         {by: long, late: -5 * time.Minute},
		"nearly too early":        {by: long, late: 5 * time.Minute},
		"no signature":            {by: long, change: func(r *http.Request) { r.Header.Del("Authorization") }, code: CodeMissingAuthentication, message: "Missing Authentication Token"},
		"another algorithm":       {by: long, change: replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256"), code: CodeIncompleteSignature, message: "Unsupported AWS 'algorithm'"},
		"half a header":           {by: long, change: replace(", Signature=", ", S="), code: CodeIncompleteSignature, message: "Authorization header requires 'Signature' parameter. "},
		"no time":                 {by: long, change: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, code: CodeIncompleteSignature, message: "'X-Amz-Date'"},
		"a time of another form":  {by: long, change: set("X-Amz-Date", "now"), code: CodeIncompleteSignature, message: "ISO-8601"},
		"a short scope":           {by: long, change: replace("/aws4_request", ""), code: CodeIncompleteSignature, message: "5 slash-delimited elements"},
		"another terminator":      {by: long, change: replace("/aws4_request", "/aws5_request"), code: CodeInvalidSignature, message: "valid terminator"},
		"another day":             {by: long, change: replace("/20260101/", "/20251231/"), code: CodeInvalidSignature, message: "does not match YYYYMMDD"},
		"another region":          {by: long, region: "eu-west-1", code: CodeInvalidSignature, message: "Credential should be scoped to a valid region. "},
		"another service":         {by: long, service: "dynamodb", code: CodeInvalidSignature, message: "Credential should be scoped to correct service: 'kinesis'. "},
		"a key nobody knows":      {by: key("other", "secret", ""), code: CodeUnrecognizedClient, message: "The security token included in the request is invalid."},
		"no token":                {by: key("temporary", "secret", ""), code: CodeUnrecognizedClient, message: "token included in the request is invalid"},
		"another token":           {by: key("temporary", "secret", "other"), code: CodeUnrecognizedClient, message: "token included in the request is invalid"},
		"an expired token":        {by: key("over", "secret", "token"), code: CodeExpiredToken, message: "The security token included in the request is expired"},
		"another secret":          {by: key("id", "other", ""), code: CodeInvalidSignature, message: "The request signature we calculated does not match"},
		"a changed operation":     {by: long, change: set("X-Amz-Target", targetKinesis+"DeleteStream"), code: CodeInvalidSignature, message: "The request signature we calculated does not match"},
		"a header beside":         {by: long, change: set("X-Amz-More", "x"), code: CodeInvalidSignature, message: "'x-amz-more' must be a 'SignedHeader'"},
		"a host that is unsigned": {by: long, change: replace("host;", ""), code: CodeInvalidSignature, message: "'Host' must be a 'SignedHeader'"},
		"a signature of the past": {
			by: long, late: -5*time.Minute - time.Second,
			code: CodeInvalidSignature, message: "Signature expired: 20251231T235459Z is now earlier than 20251231T235500Z (20260101T000000Z - 5 min.)",
		},
		"a signature to come": {
			by: long, late: 10 * time.Minute,
			code: CodeInvalidSignature, message: "Signature not yet current: 20260101T001000Z is still later than 20260101T000500Z (20260101T000000Z + 5 min.)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*http.Request) {}
			}
			if c.service == "" {
				c.service = serviceKinesis
			}
			if c.region == "" {
				c.region = "us-east-1"
			}
			status, code, message := authenticated(t, s, c.by, c.service, c.region, now.Add(c.late), c.change)
			if c.code == "" {
				require.Equal(t, http.StatusOK, status, message)
				return
			}
			require.Equal(t, http.StatusBadRequest, status)
			require.Equal(t, c.code, code)
			require.Contains(t, message, c.message)
		})
	}
	require.Equal(t, 1, s.Refused("DescribeStreamSummary", CodeExpiredToken))
}

func TestKeysAreRotatedWhileTheServerServes(t *testing.T) {
	keys := keysWith("old", AccessKey{Secret: "1"})
	s := newServer(t, Options{Keys: keys})
	require.NoError(t, s.CreateStream("stream", 1))
	list := func(id, secret string) error {
		_, err := kinesis.NewFromConfig(signedBy(once(s.AWSConfig()), id, secret, "")).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("stream")})
		return err
	}
	require.NoError(t, list("old", "1"))
	keys.Set("new", AccessKey{Secret: "2"})
	require.NoError(t, list("old", "1"))
	require.NoError(t, list("new", "2"))
	keys.Remove("old")
	requireCode(t, CodeUnrecognizedClient, list("old", "1"))
	require.NoError(t, list("new", "2"))
}

// The SDK measures the clock of the service by a refusal's date and asks again.
func TestClientsCorrectAClockThatIsWrong(t *testing.T) {
	for _, offset := range []time.Duration{-24 * time.Hour, -10 * time.Minute, 0, 10 * time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, Options{Keys: keysWith("id", AccessKey{Secret: "secret"}), ClockOffset: offset})
			require.NoError(t, s.CreateStream("stream", 1))
			put(t, s, "stream", shardID(0), "a")
			records, err := s.Records("stream", shardID(0))
			require.NoError(t, err)
			require.WithinDuration(t, time.Now().Add(offset), records[0].Arrival, time.Second)
			cfg := signedBy(s.AWSConfig(), "id", "secret", "")
			cfg.Retryer = func() aws.Retryer { return retry.NewStandard() }
			k := kinesis.NewFromConfig(cfg)
			for range 2 {
				_, err = k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("stream")})
				require.NoError(t, err)
			}
			want := 0
			if offset != 0 {
				want = 1
			}
			require.Equal(t, want, s.Refused("ListShards", CodeInvalidSignature), "the second call knows")
		})
	}
}

package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/throttle"
)

// seen keeps the requests that pass.
type seen struct {
	aws.HTTPClient
	requests []*http.Request
	bodies   []string
}

func (c *seen) Do(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	c.requests = append(c.requests, r)
	c.bodies = append(c.bodies, string(b))
	return c.HTTPClient.Do(r)
}

// direct is a client of a fake with a stream of one shard, what it sent, and a
// call for its oldest records.
func direct(t *testing.T, s *awsfake.Server) (*Direct, *seen, *kinesis.GetRecordsInput) {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateStream("orders", 1))
	_, _, err := s.Put("orders", "key", []byte("data"))
	require.NoError(t, err)
	sent := &seen{HTTPClient: s.HTTPClient()}
	cfg := s.AWSConfig()
	cfg.HTTPClient = sent
	cfg.Credentials = aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "token"))
	it, err := s.Kinesis().GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
		StreamName: aws.String("orders"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(t, err)
	return NewDirect(kinesis.NewFromConfig(cfg, Install), time.Second, nil), sent,
		&kinesis.GetRecordsInput{ShardIterator: it.ShardIterator, StreamARN: aws.String(s.StreamARN("orders"))}
}

// throughSDK says whether a request has the marks of the SDK's stack.
func throughSDK(r *http.Request) bool { return r.Header.Get("Amz-Sdk-Request") != "" }

var signature = regexp.MustCompile(`Signature=.*|SignedHeaders=[^,]*`)

func TestDirectRequestsLookLikeTheSDKs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sent, in := direct(t, awsfake.New(awsfake.Options{}))
		want, err := GetRecords(t.Context(), d, in)
		require.NoError(t, err)
		require.Len(t, want.Records, 1)
		got, err := GetRecords(t.Context(), d, in)
		require.NoError(t, err)
		require.Equal(t, want.Records, got.Records)

		first, second := sent.requests[0], sent.requests[1]
		require.True(t, throughSDK(first))
		require.False(t, throughSDK(second))
		require.Equal(t, first.URL, second.URL)
		require.Equal(t, sent.bodies[0], sent.bodies[1])
		require.Equal(t, first.ContentLength, second.ContentLength)
		require.Contains(t, second.Header.Get("Authorization"), "/us-east-1/kinesis/aws4_request")
		require.Contains(t, second.Header.Get("Authorization"), "x-amz-security-token")
		for name, value := range second.Header {
			if name == "Authorization" {
				require.Equal(t, signature.ReplaceAllString(first.Header.Get(name), ""), signature.ReplaceAllString(value[0], ""))
				continue
			}
			require.Equal(t, first.Header[name], value, name)
		}
		for name := range first.Header {
			if name != "Amz-Sdk-Invocation-Id" && name != "Amz-Sdk-Request" && name != "Content-Length" {
				require.Contains(t, second.Header, name)
			}
		}
	})
}

// withoutPages is a protocol that decodes no answer.
type withoutPages struct{ smithyhttp.ClientProtocol }

func (withoutPages) DeserializeResponse(context.Context, *smithy.OperationSchema, *smithy.TypeRegistry, *smithyhttp.Response, smithy.Deserializable) error {
	return errors.New("the SDK is to decode a page")
}

func TestPagesThroughTheSDKsStackAreDecodedHereToo(t *testing.T) {
	d, sent, in := direct(t, awsfake.New(awsfake.Options{}))
	client := kinesis.New(d.options, func(o *kinesis.Options) {
		o.Protocol = Protocol{ClientProtocol: withoutPages{o.Protocol}}
	})
	d = NewDirect(client, time.Second, nil)
	for _, c := range []Client{client, d, d} {
		page, err := GetRecords(t.Context(), c, in)
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
	}
	require.True(t, throughSDK(sent.requests[1]))
	require.False(t, throughSDK(sent.requests[2]))
}

func TestRefusalsOfKinesisAreReturnedAtOnce(t *testing.T) {
	d, sent, in := direct(t, awsfake.New(awsfake.Options{}))
	_, err := d.GetRecords(t.Context(), in)
	require.NoError(t, err)
	_, err = d.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAA"), StreamARN: in.StreamARN})
	_, ok := errors.AsType[*types.InvalidArgumentException](err)
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, err, "operation error Kinesis: GetRecords, https response error StatusCode: 400, RequestID: 0")
	require.Len(t, sent.requests, 2)
}

func TestWhatMayPassIsLeftToTheSDK(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"a lost connection":          {Lose: true},
		"an answer that broke off":   {Truncate: true},
		"a failure of the service":   {Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "sorry")},
		"a refusal of another model": {Refuse: awsfake.NewError("InvalidSignatureException", "signature expired")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := awsfake.New(awsfake.Options{IteratorLifetime: time.Hour})
				d, sent, in := direct(t, s)
				_, err := d.GetRecords(t.Context(), in)
				require.NoError(t, err)
				fault.Operation, fault.Times = "GetRecords", 1
				s.Inject(fault)
				page, err := d.GetRecords(t.Context(), in)
				require.NoError(t, err)
				require.Len(t, page.Records, 1)
				require.Len(t, sent.requests, 3)
				require.False(t, throughSDK(sent.requests[1]))
				require.True(t, throughSDK(sent.requests[2]))

				// What the SDK could have spared us keeps calls with it for a while.
				_, err = d.GetRecords(t.Context(), in)
				require.NoError(t, err)
				require.Equal(t, name == "a refusal of another model", throughSDK(sent.requests[3]))
				time.Sleep(shortestDetour) //nolint:forbidigo // virtual time
				_, err = d.GetRecords(t.Context(), in)
				require.NoError(t, err)
				require.False(t, throughSDK(sent.requests[4]))
			})
		})
	}
}

func TestThrottlingByAnyCodeIsReturnedAtOnce(t *testing.T) {
	for code := range retry.DefaultThrottleErrorCodes {
		synctest.Test(t, func(t *testing.T) {
			s := awsfake.New(awsfake.Options{IteratorLifetime: time.Hour})
			d, sent, in := direct(t, s)
			_, err := d.GetRecords(t.Context(), in)
			require.NoError(t, err)
			s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Refuse: awsfake.NewError(code, "slow down")})
			_, err = d.GetRecords(t.Context(), in)
			require.True(t, throttle.Is(err), "%v", err)
			require.Len(t, sent.requests, 2, "%s is not asked again", code)
			_, err = d.GetRecords(t.Context(), in)
			require.NoError(t, err)
			require.False(t, throughSDK(sent.requests[2]), "%s is no reason for a detour", code)
		})
	}
}

// answering gives an answer of its own to the direct calls while it has one.
type answering struct {
	aws.HTTPClient
	status int
	body   string
}

func (c *answering) Do(r *http.Request) (*http.Response, error) {
	if c.status == 0 || throughSDK(r) {
		return c.HTTPClient.Do(r)
	}
	return &http.Response{
		StatusCode: c.status, Header: http.Header{"Content-Type": {"text/html"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(c.body)), ContentLength: int64(len(c.body)),
	}, nil
}

// answered is direct with answers of its own, and with the detours that it tells of.
func answered(t *testing.T) (d *Direct, sent *seen, in *kinesis.GetRecordsInput, own *answering, detours *[]string) {
	t.Helper()
	s := awsfake.New(awsfake.Options{IteratorLifetime: 100 * time.Hour})
	d, sent, in = direct(t, s)
	own = &answering{HTTPClient: s.HTTPClient()}
	sent.HTTPClient = own
	detours = new([]string)
	d.onDetour = func(reason string) { *detours = append(*detours, reason) }
	_, err := d.GetRecords(t.Context(), in)
	require.NoError(t, err)
	return d, sent, in, own, detours
}

func TestTooManyRequestsWithoutACodeAreReturnedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sent, in, own, detours := answered(t)
		own.status, own.body = http.StatusTooManyRequests, "<html>slow down</html>"
		_, err := d.GetRecords(t.Context(), in)
		require.True(t, throttle.Is(err), "%v", err)
		require.Len(t, sent.requests, 2)
		require.Empty(t, *detours)
	})
}

func TestRefusalOfOneStreamSendsNoOtherOnADetour(t *testing.T) {
	for code, want := range map[string]string{
		"SomethingElse":             DetourRefused,
		"InvalidSignatureException": DetourCredentials,
		"ExpiredTokenException":     DetourCredentials,
	} {
		synctest.Test(t, func(t *testing.T) {
			d, sent, in, own, detours := answered(t)
			other := *in
			other.StreamARN = nil // the iterator tells which it is
			_, err := d.GetRecords(t.Context(), &other)
			require.NoError(t, err)
			own.status, own.body = http.StatusForbidden, `{"__type":"`+code+`"}`
			_, err = d.GetRecords(t.Context(), in)
			require.NoError(t, err)
			own.status = 0
			require.Equal(t, []string{want}, *detours)
			_, err = d.GetRecords(t.Context(), &other)
			require.NoError(t, err)
			require.Equal(t, want == DetourCredentials, throughSDK(sent.requests[len(sent.requests)-1]))
			_, err = d.GetRecords(t.Context(), in)
			require.NoError(t, err)
			require.True(t, throughSDK(sent.requests[len(sent.requests)-1]))
		})
	}
}

func TestDirectPathThatKeepsFailingGivesItselfUpAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sent, in, own, detours := answered(t)
		pause := time.Second
		read := func() (direct bool) {
			before := len(sent.requests)
			_, err := d.GetRecords(t.Context(), in)
			require.NoError(t, err)
			time.Sleep(pause) //nolint:forbidigo // virtual time
			return !throughSDK(sent.requests[before])
		}
		readUntil := func(direct bool) {
			for read() != direct {
				require.Less(t, len(sent.requests), 10_000)
			}
		}
		own.status, own.body = http.StatusOK, "<html>welcome</html>" // to direct calls alone
		begin := time.Now()
		readUntil(false)
		require.Equal(t, []string{DetourFailed}, *detours)
		require.Equal(t, detourSpan+2*time.Second, time.Since(begin), "it is told from a moment's trouble")

		// It is tried again, more and more rarely.
		pause = 20 * time.Second
		for lasts := shortestDetour; lasts < 2*longestDetour; lasts *= 2 {
			last := time.Now()
			readUntil(true)
			require.InDelta(t, min(lasts, longestDetour), time.Since(last), float64(2*pause))
		}
		own.status = 0
		readUntil(true)
		require.True(t, read(), "it has come back")
		require.Len(t, *detours, 6)
	})
}

func TestNetworkThatBreaksAllCallsAtOnceIsNoReasonForADetour(t *testing.T) {
	var d detour
	now := time.Now()
	for range 100 {
		require.False(t, d.failed(now))
	}
	d.succeeded(now.Add(detourSpan))
	require.False(t, d.failed(now.Add(2*detourSpan)))
	require.False(t, d.active(now.Add(2*detourSpan)))
}

func TestCallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := awsfake.New(awsfake.Options{})
		d, _, in := direct(t, s)
		_, err := d.GetRecords(t.Context(), in)
		require.NoError(t, err)
		s.Inject(awsfake.Fault{Operation: "GetRecords", Delay: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err = d.GetRecords(ctx, in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 100*time.Millisecond, time.Since(begin))
	})
}

// A service closes connections that were idle at a moment of its choosing, which may be
// that at which a request is on its way.
func TestPageIsAskedForAgainWhereTheServiceClosedAnIdleConnection(t *testing.T) {
	s := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateStream("orders", 1))
	_, _, err := s.Put("orders", "key", []byte("data"))
	require.NoError(t, err)
	var mu sync.Mutex
	var asked []*http.Request
	var closing atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r)
		mu.Unlock()
		if closing.Swap(false) {
			panic(http.ErrAbortHandler)
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	cfg := s.AWSConfig()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	cfg.BaseEndpoint, cfg.HTTPClient = aws.String(front.URL), &http.Client{Transport: transport}
	cfg.Credentials = credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")
	it, err := s.Kinesis().GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
		StreamName: aws.String("orders"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(t, err)
	d := NewDirect(kinesis.NewFromConfig(cfg, Install), time.Minute, nil)
	for range 2 {
		_, err = d.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
		require.NoError(t, err)
	}
	closing.Store(true)
	out, err := d.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	require.NoError(t, err)
	require.Len(t, out.Records, 1)

	mu.Lock()
	defer mu.Unlock()
	require.Len(t, asked, 4)
	for _, r := range asked[2:] {
		require.False(t, throughSDK(r), "nobody had to notice")
		require.NotContains(t, r.Header, "Idempotency-Key")
	}
}

package awsfake

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer closes with the test.
func newServer(t *testing.T, opts Options) *Server {
	t.Helper()
	s := New(opts)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// once is the configuration of clients that do not retry, so that a test sees
// each refusal.
func once(cfg aws.Config) aws.Config {
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return cfg
}

// onEachTransport runs a test against a server of its own in process, and
// against others over a loopback port and over HTTP/2.
func onEachTransport(t *testing.T, opts Options, test func(*testing.T, *Server, aws.Config)) {
	t.Helper()
	t.Run("in process", func(t *testing.T) {
		s := newServer(t, opts)
		test(t, s, once(s.AWSConfig()))
	})
	t.Run("loopback", func(t *testing.T) {
		s := newServer(t, opts)
		test(t, s, loopback(t, s))
	})
	t.Run("HTTP/2", func(t *testing.T) {
		s := newServer(t, opts)
		test(t, s, encrypted(t, s, "h2"))
	})
}

// loopback is a configuration of clients that go through a port.
func loopback(t *testing.T, s *Server) aws.Config {
	t.Helper()
	url, err := s.Listen()
	require.NoError(t, err)
	cfg := over(t, s, url, &http.Transport{})
	cfg.HTTPClient = ownBody{cfg.HTTPClient}
	return cfg
}

// ownBody sends requests whose bodies the SDK cannot close. It does so as soon
// as it has the headers of the answer, where over HTTP/1.1 net/http may still look
// for the request's end, and then drops the connection with the subscription.
type ownBody struct{ aws.HTTPClient }

func (c ownBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c.HTTPClient.Do(r)
}

// encrypted is one of clients that go over TLS and offer a protocol.
func encrypted(t *testing.T, s *Server, protocol string) aws.Config {
	t.Helper()
	url, ca, err := s.ListenTLS()
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{protocol}},
		Protocols:       new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(protocol != "h2")
	transport.Protocols.SetHTTP2(protocol == "h2")
	return over(t, s, url, transport)
}

func over(t *testing.T, s *Server, url string, transport *http.Transport) aws.Config {
	t.Helper()
	t.Cleanup(transport.CloseIdleConnections)
	cfg := once(s.AWSConfig())
	cfg.BaseEndpoint, cfg.HTTPClient = &url, &http.Client{Transport: transport}
	return cfg
}

// pass lets the bubble's virtual time pass.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	require.NoError(t, systemClock{}.Wait(t.Context(), d))
}

func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	api, ok := errors.AsType[smithy.APIError](err)
	require.True(t, ok, "an API error of code %s, not %v", code, err)
	require.Equal(t, code, api.ErrorCode(), api.ErrorMessage())
}

func TestOnlyLoopbackAddressesAreServed(t *testing.T) {
	s := newServer(t, Options{})
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:0", "no port"} {
		_, err := s.ListenAddr(addr)
		require.Error(t, err, addr)
	}
	url, err := s.ListenAddr("localhost:0")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(url, "http://"), url)
}

func TestBothVersionsOfHTTPAreServedOverTLS(t *testing.T) {
	s := newServer(t, Options{})
	for protocol, want := range map[string]string{"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"} {
		cfg := encrypted(t, s, protocol)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, *cfg.BaseEndpoint, strings.NewReader("{}"))
		require.NoError(t, err)
		r.Header.Set("X-Amz-Target", "Kinesis_20131202.ListStreams")
		resp, err := cfg.HTTPClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, want, resp.Proto)
		require.Equal(t, protocol, resp.TLS.NegotiatedProtocol)
	}
}

func TestHTTP2IsServedToClientsThatDidNotNegotiateIt(t *testing.T) {
	s := newServer(t, Options{})
	url, ca, err := s.ListenTLS()
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots}} // which offers no protocols
	transport := &http.Transport{DialContext: dialer.DialContext, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.Replace(url, "https", "http", 1), strings.NewReader("{}"))
	require.NoError(t, err)
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.ListStreams")
	resp, err := transport.RoundTrip(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "HTTP/2.0", resp.Proto)
}

func TestCertificateStandsForNothingButLoopback(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	pair, ca, err := newCertificate(now)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	require.NoError(t, err)
	for name, valid := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "::1": true, "kinesis.us-east-1.amazonaws.com": false, "192.0.2.1": false,
	} {
		_, err := certificate.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
		require.Equal(t, valid, err == nil, "%s: %v", name, err)
	}
}

func TestCloseEndsConnectionsAndRefusesTheRest(t *testing.T) {
	s := New(Options{})
	url, err := s.Listen()
	require.NoError(t, err)
	s.Inject(Fault{Delay: time.Hour})
	cfg := once(s.AWSConfig())
	cfg.BaseEndpoint, cfg.HTTPClient = &url, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	arrived := make(chan struct{})
	var once sync.Once
	s.OnCall(func(*Call) { once.Do(func() { close(arrived) }) })
	var wg sync.WaitGroup
	var waiting error
	wg.Go(func() { _, waiting = kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil) })
	<-arrived
	require.NoError(t, s.Close())
	wg.Wait()
	require.Error(t, waiting)
	require.NoError(t, s.Close())
	_, err = s.Kinesis().ListStreams(t.Context(), nil, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
	require.ErrorIs(t, err, http.ErrServerClosed)
	_, err = s.Listen()
	require.ErrorIs(t, err, http.ErrServerClosed)
	_, _, err = s.ListenTLS()
	require.ErrorIs(t, err, http.ErrServerClosed)
}

func TestUnknownOperationsAndTargetsAreRefused(t *testing.T) {
	s := newServer(t, Options{})
	_, err := kinesis.NewFromConfig(once(s.AWSConfig())).DescribeLimits(t.Context(), nil)
	requireCode(t, "UnknownOperationException", err)
	for _, body := range []string{`{"StreamName":5}`, `{`, `[]`} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("X-Amz-Target", "Kinesis_20131202.DescribeStream")
		resp, err := s.HTTPClient().Do(r)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Contains(t, string(answer), "SerializationException")
		require.NoError(t, resp.Body.Close())
	}
}

func TestAnswersCarryTheClocksDate(t *testing.T) {
	clock := NewManualClock(time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC))
	onEachTransport(t, Options{Clock: clock}, func(t *testing.T, s *Server, cfg aws.Config) {
		before := s.Calls("ListStreams")
		var date, id string
		cfg.HTTPClient = spy{cfg.HTTPClient, func(r *http.Response) {
			date, id = r.Header.Get("Date"), r.Header.Get("X-Amzn-Requestid")
		}}
		_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "Tue, 06 May 2031 07:08:09 GMT", date)
		require.Len(t, id, 36)
		require.Equal(t, before+1, s.Calls("ListStreams"))
	})
}

func TestDynamoDBAnswersCarryTheirChecksum(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateTable("table", "k", ""))
	cfg := once(s.AWSConfig())
	cfg.HTTPClient = spy{cfg.HTTPClient, func(r *http.Response) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(crc32.ChecksumIEEE(body)), r.Header.Get("X-Amz-Crc32"))
		r.Body = io.NopCloser(bytes.NewReader(body))
	}}
	_, err := dynamodb.NewFromConfig(cfg).ListTables(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, s.Calls("ListTables"))
}

type spy struct {
	aws.HTTPClient
	see func(*http.Response)
}

func (s spy) Do(r *http.Request) (*http.Response, error) {
	resp, err := s.HTTPClient.Do(r)
	if err == nil {
		s.see(resp)
	}
	return resp, err
}

func TestRefusalsHaveTheServicesTypeAndStatus(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		status := 0
		cfg.HTTPClient = spy{cfg.HTTPClient, func(r *http.Response) { status = r.StatusCode }}
		for code, want := range map[string]int{
			CodeInternalFailure:     500,
			CodeInternalServerError: 500,
			CodeServiceUnavailable:  503,
			CodeThrottling:          400,
			CodeThroughputExceeded:  400,
			CodeExpiredIterator:     400,
		} {
			remove := s.Inject(Fault{Refuse: NewError(code, "injected")})
			_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
			requireCode(t, code, err)
			require.Equal(t, want, status)
			_, err = dynamodb.NewFromConfig(cfg).ListTables(t.Context(), nil)
			requireCode(t, code, err)
			require.Equal(t, want, status)
			require.Equal(t, 1, s.Refused("ListTables", code))
			remove()
			remove()
		}
		_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
		require.NoError(t, err)
	})
}

func TestClientsRetryThrottlesByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		s.Inject(Fault{Operation: "ListTables", Times: 2, Refuse: NewError(CodeThrottling, "injected")})
		cfg := s.AWSConfig()
		cfg.Retryer = func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.RateLimiter = ratelimit.None })
		}
		_, err := dynamodb.NewFromConfig(cfg).ListTables(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 3, s.Calls("ListTables"))
	})
}

// createsTable sends a CreateTable, whose effect lasts, under a fault.
func createsTable(ctx context.Context, cfg aws.Config, name string) error {
	_, err := dynamodb.NewFromConfig(cfg).CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:            &name,
		BillingMode:          dynamotypes.BillingModePayPerRequest,
		KeySchema:            []dynamotypes.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: dynamotypes.KeyTypeHash}},
		AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("k"), AttributeType: dynamotypes.ScalarAttributeTypeS}},
	})
	return err
}

func exists(s *Server, name string) bool {
	_, err := s.dynamodb.lookup(name)
	return err == nil
}

func TestLostAnswersAndLostRequestsDifferInTheirEffect(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  Fault
		effect bool
	}{
		{"request lost", Fault{Lose: true}, false},
		{"refused", Fault{Refuse: NewError(CodeInternalServerError, "injected")}, false},
		{"answer lost", Fault{LoseAnswer: true}, true},
		{"answer truncated", Fault{Truncate: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
				s.Inject(test.fault)
				require.Error(t, createsTable(t.Context(), cfg, "table"))
				require.Equal(t, test.effect, exists(s, "table"))
			})
		})
	}
}

func TestBrokenConnectionsAreUnexpectedEndsInProcess(t *testing.T) {
	for _, f := range []Fault{{Lose: true}, {LoseAnswer: true}, {Truncate: true}} {
		s := newServer(t, Options{})
		s.Inject(f)
		require.ErrorIs(t, createsTable(t.Context(), once(s.AWSConfig()), "table"), io.ErrUnexpectedEOF)
	}
}

func TestTruncatedAnswersEndInTheMiddle(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		s.Inject(Fault{Truncate: true})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.Replace(*cfg.BaseEndpoint, "awsfake.invalid", "localhost", 1), strings.NewReader("{}"))
		require.NoError(t, err)
		r.Header.Set("X-Amz-Target", "Kinesis_20131202.ListStreams")
		resp, err := cfg.HTTPClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if resp.ProtoMajor == 2 {
			require.ErrorContains(t, err, "INTERNAL_ERROR") // of the stream: the connection goes on
		} else {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
		require.Len(t, got, int(resp.ContentLength/2))
		require.NotEmpty(t, got)
	})
}

func TestDelaysEndWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		cfg := once(s.AWSConfig())

		remove := s.Inject(Fault{Delay: 3 * time.Second})
		start := time.Now()
		require.NoError(t, createsTable(t.Context(), cfg, "slow"))
		require.Equal(t, 3*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, createsTable(ctx, cfg, "never"), context.DeadlineExceeded)
		require.Equal(t, 4*time.Second, time.Since(start))
		require.False(t, exists(s, "never"), "a request that ends in its delay has not arrived")
		remove()

		s.Inject(Fault{DelayAnswer: 3 * time.Second})
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, createsTable(ctx, cfg, "done"), context.DeadlineExceeded)
		require.True(t, exists(s, "done"), "its answer alone was late")
	})
}

func TestLateRequestsTakeEffectAfterTheirClientGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		remove := s.Inject(Fault{Late: 10 * time.Second, Times: 1})
		require.ErrorIs(t, createsTable(t.Context(), once(s.AWSConfig()), "late"), io.ErrUnexpectedEOF)
		pass(t, 10*time.Second-1)
		synctest.Wait()
		require.False(t, exists(s, "late"))
		pass(t, 1)
		synctest.Wait()
		require.True(t, exists(s, "late"))
		remove()

		s.Inject(Fault{Late: time.Hour})
		require.Error(t, createsTable(t.Context(), once(s.AWSConfig()), "never"))
		require.NoError(t, s.Close(), "which does not wait for an hour")
		require.False(t, exists(s, "never"))
	})
}

func TestFaultsMatchByServiceOperationAndRequest(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("one", 1))
	require.NoError(t, s.CreateStream("two", 1))
	boom := NewError(CodeInternalFailure, "injected")
	k, d := kinesis.NewFromConfig(once(s.AWSConfig())), dynamodb.NewFromConfig(once(s.AWSConfig()))
	describe := func(stream string) error {
		_, err := k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &stream})
		return err
	}

	remove := s.Inject(Fault{Service: "kinesis", Refuse: boom})
	require.Error(t, describe("one"))
	_, err := d.ListTables(t.Context(), nil)
	require.NoError(t, err)
	remove()

	remove = s.Inject(Fault{Operation: "ListTables", Refuse: boom})
	require.NoError(t, describe("one"))
	_, err = d.ListTables(t.Context(), nil)
	require.Error(t, err)
	remove()

	remove = s.Inject(Fault{When: func(c *Call) bool { return c.Params()["StreamName"] == "two" }, Refuse: boom})
	require.NoError(t, describe("one"))
	require.Error(t, describe("two"))
	remove()

	s.Inject(Fault{Times: 2, Refuse: boom})
	require.Error(t, describe("one"))
	require.Error(t, describe("one"))
	require.NoError(t, describe("one"))
}

func TestProbableFaultsFollowTheirSeed(t *testing.T) {
	run := func(seed uint64) (pattern []bool) {
		s := newServer(t, Options{})
		s.Inject(Fault{Probability: 0.3, Rand: rand.New(rand.NewPCG(seed, 0)), Lose: true})
		k := kinesis.NewFromConfig(once(s.AWSConfig()))
		for range 200 {
			_, err := k.ListStreams(t.Context(), nil)
			pattern = append(pattern, err != nil)
		}
		return pattern
	}
	first := run(1)
	require.Equal(t, first, run(1))
	require.NotEqual(t, first, run(2))
	lost := 0
	for _, l := range first {
		if l {
			lost++
		}
	}
	require.InDelta(t, 60, lost, 25)
	require.Panics(t, func() { newServer(t, Options{}).Inject(Fault{Probability: 0.5}) })
}

func TestHooksSeeWhatARequestIsAbout(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 2))
	require.NoError(t, s.CreateTable("table", "h", "r"))
	type seen struct{ service, operation, stream, shard, table, key string }
	var calls []seen
	remove := s.OnCall(func(c *Call) {
		key := ""
		if k := c.Key(); k != nil {
			key = k.String()
		}
		calls = append(calls, seen{c.Service, c.Operation, c.Stream(), c.Shard(), c.Table(), key})
	})
	k, d := kinesis.NewFromConfig(once(s.AWSConfig())), dynamodb.NewFromConfig(once(s.AWSConfig()))
	arn := s.StreamARN("stream")
	it, err := k.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{StreamARN: &arn, ShardId: aws.String(shardID(1)), ShardIteratorType: "LATEST"})
	require.NoError(t, err)
	_, err = k.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	require.NoError(t, err)
	item := sdkItem(Item{"h": String("a"), "r": String("b"), "more": Number(1)})
	_, err = d.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("table"), Item: item})
	require.NoError(t, err)
	delete(item, "more")
	_, err = d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("table"), Key: item})
	require.NoError(t, err)
	remove()
	_, err = k.ListStreams(t.Context(), nil)
	require.NoError(t, err)
	key := `{"h":{"S":"a"},"r":{"S":"b"}}`
	require.Equal(t, []seen{
		{"kinesis", "GetShardIterator", "stream", shardID(1), "", ""},
		{"kinesis", "GetRecords", "stream", shardID(1), "", ""},
		{"dynamodb", "PutItem", "", "", "table", key},
		{"dynamodb", "GetItem", "", "", "table", key},
	}, calls)
}

func TestManualClockReleasesWaitsThatAreOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := NewManualClock(time.Unix(1000, 0))
		ctx, cancel := context.WithCancel(t.Context())
		short, long := make(chan error, 1), make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() { short <- clock.Wait(t.Context(), time.Minute) })
		wg.Go(func() { long <- clock.Wait(ctx, time.Hour) })
		synctest.Wait()
		clock.Advance(time.Minute - 1)
		synctest.Wait()
		require.Empty(t, short)
		clock.Advance(1)
		synctest.Wait()
		require.NoError(t, <-short)
		require.Empty(t, long)
		cancel()
		wg.Wait()
		require.ErrorIs(t, <-long, context.Canceled)
		require.Panics(t, func() { clock.Advance(-1) })
	})
}

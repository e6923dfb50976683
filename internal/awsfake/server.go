package awsfake

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

const (
	serviceKinesis  = "kinesis"
	serviceDynamoDB = "dynamodb"

	targetKinesis  = "Kinesis_20131202."
	targetDynamoDB = "DynamoDB_20120810."

	// accountID is the one account that exists here.
	accountID = "123456789012"

	// maxRequestBytes is above the largest request that the services take:
	// 10 MiB of records in base64, or 16 MiB of items.
	maxRequestBytes = 32 << 20
)

// Options of a Server. The zero value behaves as AWS does, without its quotas
// and without its delays.
type Options struct {
	// Clock drives everything that depends on time. Default: time.Now.
	Clock Clock
	// ClockOffset is how far the server's clock is ahead of Clock; see SetClockOffset.
	ClockOffset time.Duration
	// Region in which the resources live. Default: us-east-1.
	Region string
	// Keys are what requests must be signed with. nil: signatures are not looked at.
	Keys *Keys
	// EnforceLimits makes the quotas of shards, streams, accounts and tables
	// count; requests above them are refused as AWS refuses them. The direct
	// setup methods are exempt.
	EnforceLimits bool

	// IdleTimeout is how long a connection may be idle before it is closed. 0: for ever.
	IdleTimeout time.Duration

	// ClosedBehind has the last page of a closed shard, and the last event of a
	// subscription to it, say how long ago the shard was closed. Otherwise they say 0.
	// The reference calls MillisBehindLatest the distance from the tip of the stream,
	// and leaves open what that is where a shard has no tip any more.
	ClosedBehind bool
	// IdleBehind has every second page that reaches the tip of a shard without records
	// say that it is behind. By the reference 0 is what it should say, but those who
	// read the service have seen other values on idle streams
	// (awslabs/spark-sql-kinesis-connector pull request 49).
	IdleBehind bool
	// IteratorLifetime of a shard iterator. Default: 5 minutes.
	IteratorLifetime time.Duration
	// ShardsPerPage caps a page of ListShards (default 1,000, which a request
	// may raise to 10,000) and of DescribeStream (default 100). Above zero it
	// is the most that any page has.
	ShardsPerPage int
	// StreamDelay is how long a stream stays CREATING or UPDATING.
	StreamDelay time.Duration
	// ConsumerDelay is how long a stream consumer stays CREATING or DELETING.
	ConsumerDelay time.Duration
	// EventBytes is the most bytes of data and partition keys that an event of a
	// subscription has, unless its first record alone has more. Default: 1 MiB.
	EventBytes int

	// ItemsPerPage is the most items that a page of Query or Scan evaluates.
	// 0: no limit but the service's 1 MB.
	ItemsPerPage int
	// TableDelay is how long a created table stays CREATING.
	TableDelay time.Duration
	// StaleReads is the age of what a read sees that does not ask for
	// ConsistentRead. 0: every read sees the last write.
	StaleReads time.Duration
}

// Server holds the state of one local AWS. New makes it, Close ends it; it is
// safe for concurrent use.
type Server struct {
	opts  Options
	clock *offsetClock

	kinesis  *kinesisService
	dynamodb *dynamoService
	faults   faults
	counts   counts
	requests atomic.Uint64

	streamFaults  streamFaults
	subscriptions *subscriptions

	// ctx ends with the server: it is what delays and late operations, which
	// outlive their requests, wait on.
	ctx    context.Context //nolint:containedctx // the server's root context, which Close ends
	cancel context.CancelFunc
	http   *http.Server
	// serving counts accept loops, open connections, late operations and
	// subscriptions.
	serving sync.WaitGroup
	mu      sync.Mutex
	closed  bool
	ports   map[string]*port // by address
}

// New returns a server without streams and tables.
func New(opts Options) *Server {
	if opts.Clock == nil {
		opts.Clock = systemClock{}
	}
	if opts.Region == "" {
		opts.Region = "us-east-1"
	}
	if opts.IteratorLifetime <= 0 {
		opts.IteratorLifetime = 5 * time.Minute
	}
	if opts.EventBytes <= 0 {
		opts.EventBytes = defaultEventBytes
	}
	offset := &offsetClock{Clock: opts.Clock}
	offset.by.Store(int64(opts.ClockOffset))
	opts.Clock = offset
	s := &Server{opts: opts, clock: offset, subscriptions: newSubscriptions(), ports: map[string]*port{}}
	s.ctx, s.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // New has no caller whose end is the server's
	s.kinesis = newKinesisService(&s.opts)
	s.dynamodb = newDynamoService(&s.opts)
	s.counts.calls = map[string]int{}
	s.counts.refused = map[[2]string]int{}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       opts.IdleTimeout,
		Protocols:         new(http.Protocols),
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnState:         s.countConnection,
		// What goes wrong with a connection, such as a handshake that its client
		// gives up, is the client's to tell.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true) // see byPreface
	return s
}

// countConnection lets Close wait for connections, which http.Server.Close
// does not. A connection is new within its accept loop, which serving counts
// too, so serving never rises from zero once Close waits.
func (s *Server) countConnection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.serving.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.serving.Done()
	}
}

// Listen serves on a free loopback port and returns its URL.
func (s *Server) Listen() (url string, err error) { return s.ListenAddr("127.0.0.1:0") }

// ListenAddr serves on a loopback address, such as "127.0.0.1:4566", and
// returns its URL. Nothing is authenticated here, so any other address is
// refused.
func (s *Server) ListenAddr(addr string) (url string, err error) {
	l, err := s.listen(addr, func(p *port) net.Listener { return p })
	if err != nil {
		return "", err
	}
	return "http://" + l.String(), nil
}

// ListenTLS serves HTTP/2 and HTTP/1.1 over TLS on a free loopback port, and
// returns its URL and the certificate to trust, in PEM: one of its own, for the
// names and addresses of loopback. Clients may speak HTTP/2 without having
// negotiated it, as that of Java does with Kinesis.
func (s *Server) ListenTLS() (url string, ca []byte, err error) {
	certificate, ca, err := newCertificate(time.Now())
	if err != nil {
		return "", nil, fmt.Errorf("making a certificate: %w", err)
	}
	l, err := s.listen("127.0.0.1:0", func(p *port) net.Listener {
		return byPreface{tls.NewListener(p, &tls.Config{
			MinVersion:       tls.VersionTLS12,
			Certificates:     []tls.Certificate{certificate},
			NextProtos:       []string{"h2", "http/1.1"},
			VerifyConnection: p.shake,
		})}
	})
	if err != nil {
		return "", nil, err
	}
	return "https://" + l.String(), ca, nil
}

// byPreface hides from net/http that its connections are of TLS. It then knows HTTP/2 by
// the preface with which every client begins that, also one that offered no protocols in
// its handshake, which net/http would take for one of HTTP/1.1.
type byPreface struct{ net.Listener }

func (l byPreface) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

// listen serves on a loopback address through what wrap makes of its listener.
func (s *Server) listen(addr string, wrap func(*port) net.Listener) (net.Addr, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("listening on %q: not a loopback address", addr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("listening on %q: %w", addr, http.ErrServerClosed)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &port{Listener: l}
	s.ports[l.Addr().String()] = p
	wrapped := wrap(p)
	s.serving.Go(func() {
		if err := s.http.Serve(wrapped); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("awsfake: accepting on %s: %v", addr, err))
		}
	})
	return l.Addr(), nil
}

// beginServing counts something that Close waits for, unless the server closes.
func (s *Server) beginServing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.serving.Add(1)
	return true
}

// Close ends listeners, connections, delays, late operations and subscriptions,
// and waits for them. It may be called again.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	err := s.http.Close()
	s.serving.Wait()
	return err
}

// AWSConfig is a configuration whose clients talk to this server in process.
func (s *Server) AWSConfig() aws.Config {
	return aws.Config{
		Region:       s.opts.Region,
		BaseEndpoint: aws.String("http://awsfake.invalid"),
		HTTPClient:   s.HTTPClient(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", Source: "awsfake"}, nil
		}),
	}
}

// Kinesis returns an SDK client over AWSConfig.
func (s *Server) Kinesis() *kinesis.Client { return kinesis.NewFromConfig(s.AWSConfig()) }

// DynamoDB returns an SDK client over AWSConfig.
func (s *Server) DynamoDB() *dynamodb.Client { return dynamodb.NewFromConfig(s.AWSConfig()) }

// HTTPClient returns a client that serves each request on its caller's
// goroutine, without sockets; only a subscription has one of its own, which
// hands its frames over without a buffer. A connection that a fault breaks is
// io.ErrUnexpectedEOF; a request whose context ends during a delay gets the
// context's error.
func (s *Server) HTTPClient() aws.HTTPClient { return inProcess{s} }

type inProcess struct{ s *Server }

func (c inProcess) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if c.s.ctx.Err() != nil {
		return nil, http.ErrServerClosed
	}
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = readBody(r.Body, r.ContentLength); err != nil {
			return nil, err
		}
	}
	a, err := c.s.answer(r, body)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	c.s.setHeader(header, a)
	var content io.ReadCloser
	switch {
	case a.subscription != nil:
		content, a.size = a.subscription.pipe(r.Context()), -1
	case a.truncated:
		content = io.NopCloser(io.MultiReader(io.LimitReader(&a.body, a.size/2), broken{}))
	default:
		content = io.NopCloser(&a.body)
	}
	return &http.Response{
		Status:     strconv.Itoa(a.status) + " " + http.StatusText(a.status),
		StatusCode: a.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        header,
		Body:          content,
		ContentLength: a.size,
		Request:       r,
	}, nil
}

// broken is the end of a connection in the middle of a body.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// ServeHTTP implements http.Handler. A connection that a fault breaks is
// aborted, so that the client sees it close.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(http.MaxBytesReader(w, r.Body, maxRequestBytes), r.ContentLength)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	a, err := s.answer(r, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.setHeader(w.Header(), a)
	w.WriteHeader(a.status)
	if a.subscription != nil {
		a.subscription.serve(r.Context(), w)
		return
	}
	if !a.truncated {
		// A client that left does not read its answer, and nobody else can.
		_, _ = a.body.WriteTo(w)
		return
	}
	_, _ = io.CopyN(w, &a.body, a.size/2)
	// Flushed, so that the client has the first half before the break.
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func readBody(r io.Reader, length int64) ([]byte, error) {
	if length < 0 || length > maxRequestBytes {
		return io.ReadAll(r)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(r, body)
	return body, err
}

// answer is what a request gets, unless its connection breaks. The parts of
// body may alias stored records, which never change.
type answer struct {
	service   string
	format    Format
	status    int
	body      net.Buffers
	size      int64 // bytes in body
	truncated bool
	header    http.Header // in place of the service's own; nil for that
	// subscription goes on after the headers, in place of a body; nil for none.
	subscription *subscription
}

// lose ends what would have gone on after an answer that nobody gets.
func (a answer) lose() {
	if a.subscription != nil {
		a.subscription.release()
	}
}

func newAnswer(service string, status int, parts ...[]byte) answer {
	a := answer{service: service, status: status, body: parts}
	for _, p := range parts {
		a.size += int64(len(p))
	}
	return a
}

func (s *Server) setHeader(h http.Header, a answer) {
	// The names are spelled as net/http would, so they can be set directly.
	h["Date"] = []string{s.clock.Now().UTC().Format(http.TimeFormat)}
	if a.header != nil {
		maps.Copy(h, a.header)
		h["Content-Length"] = []string{strconv.FormatInt(a.size, 10)}
		return
	}
	h["Content-Type"] = []string{a.format.contentType()}
	if a.subscription != nil {
		h["Content-Type"] = []string{"application/vnd.amazon.eventstream"}
	} else {
		h["Content-Length"] = []string{strconv.FormatInt(a.size, 10)}
	}
	id := s.requests.Add(1)
	h["X-Amzn-Requestid"] = []string{fmt.Sprintf("%08x-0000-4000-8000-%012x", id>>48, id&(1<<48-1))}
	if a.service == serviceDynamoDB {
		h["Content-Type"] = []string{"application/x-amz-json-1.0"}
		sum := crc32.NewIEEE()
		for _, p := range a.body {
			sum.Write(p) // a hash never fails
		}
		h["X-Amz-Crc32"] = []string{strconv.FormatUint(uint64(sum.Sum32()), 10)}
	}
}

// answer performs a request under the faults that match it. Its error means
// that the connection breaks without an answer.
func (s *Server) answer(r *http.Request, body []byte) (answer, error) {
	format, target := formatOf(r.Header), r.Header.Get("X-Amz-Target")
	c := &Call{server: s, body: format.request(body), Format: format}
	if op, ok := strings.CutPrefix(target, targetKinesis); ok {
		c.Service, c.Operation = serviceKinesis, op
	} else if op, ok := strings.CutPrefix(target, targetDynamoDB); ok {
		c.Service, c.Operation = serviceDynamoDB, op
	}
	s.counts.call(c.Operation)
	if s.opts.Keys != nil {
		c.refusal = s.opts.Keys.authenticate(r, body, c.Service, s.opts.Region, s.clock.Now())
	}
	f := s.faults.match(c)
	if f == nil {
		return s.perform(c), nil
	}
	return s.performUnder(r.Context(), f, c)
}

func (s *Server) perform(c *Call) answer {
	if c.refusal != nil {
		return s.refusal(c, c.refusal)
	}
	if c.Service == serviceKinesis && c.Operation == "SubscribeToShard" {
		return s.subscribe(c)
	}
	parts, err := s.dispatch(c)
	if err == nil {
		return c.written(http.StatusOK, parts...)
	}
	return s.refusal(c, asError(err))
}

func (s *Server) refusal(c *Call, e *Error) answer {
	s.counts.refuse(c.Operation, e.Code)
	body, err := e.body(c.Service, c.Format)
	if err != nil {
		panic(fmt.Sprintf("awsfake: encoding %v: %v", e, err))
	}
	return c.written(e.Status, body)
}

func (s *Server) dispatch(c *Call) ([][]byte, error) {
	switch c.Service {
	case serviceKinesis:
		if op, ok := kinesisOperations[c.Operation]; ok {
			return op(s.kinesis, c.Format, c.body)
		}
	case serviceDynamoDB:
		if op, ok := dynamoOperations[c.Operation]; ok {
			return op(s.dynamodb, FormatJSON, c.body)
		}
	}
	return nil, refuse("UnknownOperationException", "unknown operation %q of %q", c.Operation, c.Service)
}

// operation decodes a request for service S and encodes its answer.
type operation[S any] func(s S, f Format, body []byte) ([][]byte, error)

func operationOf[S, In, Out any](perform func(S, *In) (Out, error)) operation[S] {
	return func(s S, f Format, body []byte) ([][]byte, error) {
		in, err := decode[In](body)
		if err != nil {
			return nil, err
		}
		out, err := perform(s, in)
		if err != nil {
			return nil, err
		}
		encoded, err := f.encode(out)
		return [][]byte{encoded}, err
	}
}

func decode[In any](body []byte) (*In, error) {
	in := new(In)
	if len(bytes.TrimSpace(body)) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(body, in); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return nil, e
		}
		return nil, refuse("SerializationException", "%v", err)
	}
	return in, nil
}

// none is the answer of operations that return nothing.
type none struct{}

// epoch is a time in the form of the JSON protocols: seconds since 1970, to
// the millisecond.
type epoch time.Time

func (e epoch) MarshalJSON() ([]byte, error) {
	return appendEpoch(nil, time.Time(e).UnixMilli()), nil
}

func (e *epoch) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return err
	}
	*e = epoch(time.UnixMilli(int64(seconds * 1000)))
	return nil
}

// appendEpoch writes times as Kinesis does: 1.441215410867E9.
func appendEpoch(b []byte, millis int64) []byte {
	start := len(b)
	b = strconv.AppendFloat(b, float64(millis)/1000, 'E', -1, 64)
	return append(b[:start], bytes.Replace(b[start:], []byte("E+0"), []byte("E"), 1)...)
}

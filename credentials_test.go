package awskinesis

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// temporary is the endpoint of a container, with credentials that last for seconds, in
// front of an AWS that does not take them any longer.
type temporary struct {
	aws       *awsfake.Server
	lasts     time.Duration
	announced time.Duration // that they last, as the container says
	run       time.Duration // of the test, in which the first end

	mu      sync.Mutex
	ends    map[string]time.Time // by access key id
	refused int
}

func (c *temporary) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/container" {
		c.mu.Lock()
		defer c.mu.Unlock()
		key := fmt.Sprint("key", len(c.ends))
		c.ends[key] = time.Now().Add(c.lasts)
		_, _ = fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":"s","Token":"t","Expiration":%q}`,
			key, time.Now().Add(c.announced).UTC().Format(time.RFC3339Nano))
		return
	}
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(scope, "/")
	if !c.good(key) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`)
		return
	}
	c.aws.ServeHTTP(w, r)
}

func (c *temporary) good(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.ends[key]) {
		return true
	}
	c.refused++
	return false
}

// The credentials of an input expire again and again while it reads, commits and keeps
// its leases: where the container says when, no call is refused for it; where it is
// wrong about that, as a clock makes it, calls are repeated with others.
func TestInputGoesOnWhenItsCredentialsExpire(t *testing.T) {
	for name, c := range map[string]*temporary{
		"when it was said": {lasts: 8 * time.Second, announced: 8 * time.Second, run: 9 * time.Second},
		"without a word":   {lasts: 1500 * time.Millisecond, announced: 25 * time.Hour, run: 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
				t.Setenv(name, "")
			}
			t.Setenv("AWS_CONFIG_FILE", os.DevNull)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
			c.aws, c.ends = awsfake.New(awsfake.Options{}), map[string]time.Time{}
			t.Cleanup(func() { require.NoError(t, c.aws.Close()) })
			server := httptest.NewServer(c)
			t.Cleanup(server.Close)
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL+"/container")

			r := &rig{T: t, aws: c.aws}
			r.stream("orders", 2)
			r.table()
			in := r.input(fmt.Sprintf("{ streams: [ orders ], region: us-east-1, endpoint: %q, commit_period: 200ms, lease_period: 3s, rebalance_period: 1s }", server.URL))
			t.Cleanup(in.close)
			require.NoError(t, in.BatchInput.Connect(t.Context()))

			var want, got []string
			for begun := time.Now(); time.Since(begun) < c.run; {
				r.putTo("orders", len(want)%2, len(want), 1)
				want = append(want, numbers(len(want), 1)...)
				b := in.next()
				got = append(got, b.contents()...)
				in.ack(b)
				pace := time.NewTimer(50 * time.Millisecond)
				<-pace.C
			}
			require.Equal(t, want, got, "nothing is lost, and nothing comes twice")
			require.Empty(t, r.journal.logged("lost"))
			c.mu.Lock()
			defer c.mu.Unlock()
			require.GreaterOrEqual(t, len(c.ends), 2, "they were renewed")
			require.Less(t, len(c.ends), 8, "and not at each call")
			require.Equal(t, c.announced > c.lasts, c.refused > 0, "%d calls were refused", c.refused)
			t.Logf("%d messages, %d credentials, %d calls refused", len(got), len(c.ends), c.refused)
		})
	}
}

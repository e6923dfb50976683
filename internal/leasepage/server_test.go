package leasepage_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/leasepage"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// interval is between two readings here.
const interval = 2 * time.Second

// rig is a server in virtual time, which reads what the test wants.
type rig struct {
	*testing.T
	*leasepage.Server
	begin func()

	mu     sync.Mutex // guards all below
	view   leases.View
	err    error
	failed []string
	reads  int
}

// show has a view read from now on, and fail an error.
func (r *rig) show(v leases.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view, r.err = v, nil
}

func (r *rig) fail(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.New(text)
}

// serve runs a test with a server that reads from the first time on that time passes.
func serve(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t}
		r.Server = leasepage.New(leasepage.Options{
			Table: "checkpoints", Group: "g", Interval: interval, Loopback: true,
			Read: func(context.Context) (leases.View, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.reads++
				v := r.view
				v.At = time.Now()
				return v, r.err
			},
			Failed: func(err error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.failed = append(r.failed, err.Error())
			},
		})
		ctx, end := context.WithCancel(t.Context())
		r.begin = sync.OnceFunc(func() { go r.Server.Run(ctx) })
		test(r)
		end()
		synctest.Wait()
	})
}

// pass lets time pass, and readings with it.
func (r *rig) pass(d time.Duration) {
	r.begin()
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

// get asks as a browser on this machine does.
func (r *rig) get(path string, headers ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(r.Context(), http.MethodGet, "http://127.0.0.1:4199"+path, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return r.ask(request)
}

func (r *rig) ask(request *http.Request) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	r.ServeHTTP(recorder, request)
	return recorder
}

func (r *rig) read(path string, into any) {
	r.Helper()
	answer := r.get(path)
	require.Equal(r, http.StatusOK, answer.Code)
	require.NoError(r, json.NewDecoder(answer.Body).Decode(into))
}

func (r *rig) reading() (v leasepage.Reading) {
	r.Helper()
	r.read("/api/view", &v)
	return v
}

func seconds(n float64) *leases.Seconds { return new(leases.Seconds(n)) }

// stream is a stream whose shards one member reads, with this lag.
func stream(name, owner string, shards int, lag float64) leases.Stream {
	s := leases.Stream{Name: name}
	for i := range shards {
		s.Shards = append(s.Shards, leases.Shard{Stream: name, Shard: fmt.Sprintf("shardId-%012d", i), State: leases.Reading, Owner: owner, Life: leases.Alive, Lag: seconds(lag)})
	}
	return s
}

func group(owner string, shards int, lag float64) leases.View {
	return leases.View{Members: []leases.Member{{ID: owner, Life: leases.Alive}}, Streams: []leases.Stream{stream("orders", owner, shards, lag)}}
}

func TestGroupIsReadAtTheIntervalWhateverTheNumberOfBrowsers(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 2, 3))
		r.pass(10 * interval)
		for range 100 {
			r.reading()
		}
		require.Equal(t, 11, r.reads)
	})
}

func TestViewIsThereBeforeTheFirstReading(t *testing.T) {
	s := leasepage.New(leasepage.Options{Table: "checkpoints", Interval: interval})
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/view", nil))
	var v leasepage.Reading
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v))
	require.Equal(t, "checkpoints", v.Table)
	require.Nil(t, v.View)
	require.Empty(t, w.Header().Get("Reading-Age"))
}

func TestStaleViewSaysSo(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 2, 3))
		r.pass(interval / 2)
		require.Equal(t, http.StatusOK, r.get("/healthz").Code)
		require.Empty(t, r.reading().Error)
		require.Equal(t, "1.000", r.get("/api/view").Header().Get("Reading-Age"))

		r.fail("denied")
		r.pass(5 * interval)
		v := r.reading()
		require.Equal(t, "denied", v.Error)
		require.Equal(t, 9*time.Second, time.Since(*v.ErrorSince))
		require.NotNil(t, v.View)
		require.Equal(t, 2, v.Counts.Read)
		require.Equal(t, "11.000", r.get("/api/view").Header().Get("Reading-Age"))
		require.Equal(t, http.StatusServiceUnavailable, r.get("/healthz").Code)
		require.Equal(t, []string{"denied"}, r.failed)

		r.show(group("a", 2, 3))
		r.pass(interval)
		v = r.reading()
		require.Empty(t, v.Error)
		require.Nil(t, v.ErrorSince)
		require.Equal(t, http.StatusOK, r.get("/healthz").Code)
	})
}

// A reading that hangs fails late: what is shown grows old before.
func TestHealthFailsWhileAReadingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		s := leasepage.New(leasepage.Options{Interval: interval, Read: func(ctx context.Context) (leases.View, error) {
			if reads++; reads > 1 {
				<-ctx.Done()
			}
			return group("a", 1, 0), ctx.Err()
		}})
		ctx, end := context.WithCancel(t.Context())
		r := &rig{T: t, Server: s, begin: sync.OnceFunc(func() { go s.Run(ctx) })}
		r.pass(3*interval + 5*time.Second)
		require.Equal(t, http.StatusOK, r.get("/healthz").Code)
		r.pass(time.Second)
		require.Equal(t, http.StatusServiceUnavailable, r.get("/healthz").Code)
		end()
		synctest.Wait()
	})
}

func TestViewIsSentOnceForEachReading(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 2, 3))
		r.pass(interval / 2)
		tag := r.get("/api/view").Header().Get("ETag")
		answer := r.get("/api/view", "If-None-Match", tag)
		require.Equal(t, http.StatusNotModified, answer.Code)
		require.NotEmpty(t, answer.Header().Get("Reading-Age"))
		r.pass(interval)
		require.Equal(t, http.StatusOK, r.get("/api/view", "If-None-Match", tag).Code)
	})
}

func TestLargeAnswersAreCompressed(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 1000, 3))
		r.pass(time.Second)
		answer := r.get("/api/view", "Accept-Encoding", "gzip")
		require.Equal(t, "gzip", answer.Header().Get("Content-Encoding"))
		plain, err := gzip.NewReader(answer.Body)
		require.NoError(t, err)
		var v leasepage.Reading
		require.NoError(t, json.NewDecoder(plain).Decode(&v))
		require.Len(t, v.View.Streams[0].Shards, 1000)
	})
}

func TestHistoryHasTheWorstLagOfEachTenSecondsOfAnHour(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 1, 5))
		r.pass(4 * time.Second)
		r.show(group("a", 1, 70))
		r.pass(2 * time.Second)
		r.show(group("a", 1, 2))
		r.pass(5 * time.Second)
		r.fail("denied")
		r.pass(20 * time.Second)
		r.show(group("a", 1, 2))
		r.pass(4 * time.Second)
		var h leasepage.History
		r.read("/api/history", &h)
		require.Equal(t, 10*time.Second, h.Resolution.Duration())
		require.EqualValues(t, 3, h.To)
		require.Equal(t, []int32{70, 2, -1, 2}, h.Lag["orders"]["shardId-000000000000"])
		h = leasepage.History{}
		r.read("/api/history?after=1", &h)
		require.EqualValues(t, 2, h.From)
		require.Equal(t, []int32{-1, 2}, h.Lag["orders"]["shardId-000000000000"])

		r.pass(2 * time.Hour)
		h = leasepage.History{}
		r.read("/api/history", &h)
		require.Len(t, h.Lag["orders"]["shardId-000000000000"], 360)
		require.Equal(t, h.To-359, h.From)

		done := group("a", 1, 2)
		done.Streams[0].Shards[0].State = leases.Finished
		r.show(done)
		r.pass(time.Hour + 20*time.Second)
		h = leasepage.History{}
		r.read("/api/history", &h)
		require.Empty(t, h.Lag)
	})
}

func TestHistoryIsBounded(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 2500, 5))
		r.pass(interval)
		var h leasepage.History
		r.read("/api/history", &h)
		require.Len(t, h.Lag["orders"], 2000)
		require.Equal(t, 500, h.Without)
	})
}

func (r *rig) events(after int64) leasepage.Events {
	r.Helper()
	var e leasepage.Events
	r.read(fmt.Sprintf("/api/events?after=%d", after), &e)
	return e
}

func kinds(e leasepage.Events) (all []leases.Kind) {
	for _, one := range e.Events {
		all = append(all, one.Kind)
	}
	return all
}

func TestEventsTellWhatHappened(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 2, 1))
		r.pass(time.Second)
		require.Empty(t, r.events(0).Events)

		v := group("a", 2, 1) // b joins and gets a shard
		v.Members = append(v.Members, leases.Member{ID: "b", Life: leases.Unproven})
		v.Streams[0].Shards[1].Owner = "b"
		r.show(v)
		r.pass(interval)
		e := r.events(0)
		require.Equal(t, []leases.Kind{leases.KindJoined, leases.KindHandOver}, kinds(e))
		require.Equal(t, "a", e.Events[1].From)
		require.Equal(t, "b", e.Events[1].To)
		require.Equal(t, map[string]string{"a": "A", "b": "B"}, map[string]string(r.reading().Labels))

		v = group("b", 2, 1) // a is evicted, and b takes over one and finishes the other, which was split
		v.Evicted = []string{"a"}
		v.Streams[0].Shards[1].State, v.Streams[0].Shards[1].Owner = leases.Finished, ""
		v.Streams[0].Shards = append(v.Streams[0].Shards, leases.Shard{Stream: "orders", Shard: "shardId-000000000002", State: leases.Free, Parents: []string{"shardId-000000000001"}})
		r.show(v)
		r.pass(interval)
		e = r.events(e.Newest)
		require.Equal(t, []leases.Kind{leases.KindEvicted, leases.KindTakeOver, leases.KindFinished, leases.KindSplit}, kinds(e))
		reading := r.reading()
		require.Len(t, reading.Departed, 1)
		require.Equal(t, "a", reading.Departed[0].ID)
		require.Equal(t, leases.KindEvicted, reading.Departed[0].How)
		require.Equal(t, 1, reading.Counts.Unread)

		r.pass(remembered + time.Minute)
		require.Empty(t, r.reading().Departed)
		require.Equal(t, map[string]string{"b": "B"}, map[string]string(r.reading().Labels))
		require.Len(t, r.events(e.Newest+1000).Events, 6, "a browser that has seen an earlier process gets all")
	})
}

const remembered = time.Hour

func TestEventsAreBounded(t *testing.T) {
	serve(t, func(r *rig) {
		owners := []string{"a", "b"}
		for i := range 400 {
			r.show(group(owners[i%2], 3, 1))
			r.pass(interval)
		}
		e := r.events(0)
		require.Len(t, e.Events, 1000)
		require.Equal(t, e.Newest, e.Events[999].ID)
		require.Equal(t, e.Newest-999, e.Events[0].ID)
	})
}

func TestChangesOfManyShardsAlikeAreOneEvent(t *testing.T) {
	serve(t, func(r *rig) {
		r.show(group("a", 1000, 1))
		r.pass(time.Second)
		v := group("a", 1000, 1)
		v.Streams = []leases.Stream{stream("orders", "b", 1000, 1)}
		r.show(v)
		r.pass(interval)
		e := r.events(0)
		require.Equal(t, []leases.Kind{leases.KindHandOver}, kinds(e))
		require.Equal(t, 1000, e.Events[0].Count)
		require.Len(t, e.Events[0].Shards, 20)
	})
}

func TestShardIsExplained(t *testing.T) {
	serve(t, func(r *rig) {
		r.fail("denied")
		r.pass(time.Second)
		require.Equal(t, http.StatusServiceUnavailable, r.get("/api/explain?stream=orders&shard=x").Code)
		r.show(group("a", 1, 1))
		r.pass(interval)
		var e leases.Explanation
		r.read("/api/explain?stream=orders&shard=shardId-000000000000", &e)
		require.Equal(t, leases.CodeRead, e.Reasons[0].Code)
		require.Equal(t, http.StatusNotFound, r.get("/api/explain?stream=orders&shard=shardId-000000000001").Code)
	})
}

func TestOtherHostsAreRefused(t *testing.T) {
	serve(t, func(r *rig) {
		for host, status := range map[string]int{
			"127.0.0.1:4199": 200, "localhost:8080": 200, "LOCALHOST": 200, "[::1]:4199": 200, "[::1]": 200, "127.8.9.10": 200,
			"evil.example:4199": 403, "localhost.evil.example": 403, "10.0.0.1:4199": 403, "": 403, "127.0.0.1.evil.example:4199": 403,
		} {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/view", nil)
			request.Host = host
			require.Equal(t, status, r.ask(request).Code, host)
		}
	})
}

func TestNothingButReadingIsAnswered(t *testing.T) {
	serve(t, func(r *rig) {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
			answer := r.ask(httptest.NewRequestWithContext(t.Context(), method, "http://localhost/api/view", nil))
			require.Equal(t, http.StatusMethodNotAllowed, answer.Code)
			require.Equal(t, "GET, HEAD", answer.Header().Get("Allow"))
		}
		require.Equal(t, http.StatusOK, r.ask(httptest.NewRequestWithContext(t.Context(), http.MethodHead, "http://localhost/", nil)).Code)
		require.Equal(t, http.StatusNotFound, r.get("/page/").Code)
		require.Equal(t, http.StatusNotFound, r.get("/server.go").Code)
		require.Equal(t, http.StatusBadRequest, r.get("/api/events?after=x").Code)
	})
}

// The policy would refuse what is written into the page itself, without a word to whoever
// looks at it.
func TestPageHasNothingInlineAndNothingFromElsewhere(t *testing.T) {
	serve(t, func(r *rig) {
		answer := r.get("/")
		require.Contains(t, answer.Header().Get("Content-Security-Policy"), "default-src 'none'")
		require.NotContains(t, answer.Header().Get("Content-Security-Policy"), "unsafe")
		for _, path := range []string{"/", "/page.css", "/page.js"} {
			answer := r.get(path)
			require.Equal(t, http.StatusOK, answer.Code, path)
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			text := strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", "")
			for _, no := range []string{"http://", "https://", "style=", "onclick", ".innerHTML = ", "insertAdjacentHTML", "eval("} {
				require.False(t, strings.Contains(text, no), "%s has %s", path, no) //nolint:testifylint // the file is long
			}
		}
	})
}

// Package leasepage serves a page that shows a group: who reads which shard, the lag of
// the last hour, the lineage, and what has happened. It has nothing that writes.
//
// One goroutine, that of Server.Run, reads the group at an interval, whatever the number of
// browsers, and publishes what it read. Browsers ask for it again and again.
//
// A signal may not lie: a reading that fails leaves the last view where it is, with the
// error beside it, and each answer says how old the view is, so that the page can show that
// it is. The age is measured here; no browser's clock is compared with it.
package leasepage

import (
	"bytes"
	"compress/gzip"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

// Options are what a Server is made with.
type Options struct {
	// Table and Group are the names that the page shows before the first reading.
	Table, Group string
	// Read reads the group once, in a bounded time. It is called from one goroutine.
	Read func(ctx context.Context) (leases.View, error)
	// Interval is the time between the end of a reading and the next.
	Interval time.Duration
	// Loopback has requests refused whose Host is no loopback address: a page elsewhere
	// whose name is made to resolve to this machine would read along otherwise.
	Loopback bool
	// Failed is told of a reading that fails, once for each text in a row. It may be nil.
	Failed func(error)
}

// Server is a handler of HTTP. New makes it; it holds nothing that has to be closed.
type Server struct {
	Options
	mux     *http.ServeMux
	started time.Time

	mu sync.Mutex // guards all below, which Run's goroutine alone changes
	// view is the last that was read, at readAt; nil before the first.
	view     *leases.View
	readAt   time.Time
	err      string // of the last reading; empty where it succeeded
	errSince time.Time
	readings int64 // tried
	body     []byte
	labels   labels
	departed []Departed
	history  *history
	events   events
}

//go:embed page
var files embed.FS

// New returns a server that has read nothing.
func New(o Options) *Server {
	s := &Server{Options: o, mux: http.NewServeMux(), started: time.Now(), labels: labels{}, history: newHistory()}
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is embedded under that name
	}
	s.mux.Handle("GET /", static(page))
	s.mux.HandleFunc("GET /api/view", s.serveView)
	s.mux.HandleFunc("GET /api/history", s.serveHistory)
	s.mux.HandleFunc("GET /api/events", s.serveEvents)
	s.mux.HandleFunc("GET /api/explain", s.serveExplain)
	s.mux.HandleFunc("GET /healthz", s.serveHealth)
	s.mu.Lock()
	s.marshal()
	s.mu.Unlock()
	return s
}

// policy lets the page load what is served here, and nothing else; it has no inline script
// or style.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP answers GET and HEAD.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // asked for again each time, with If-None-Match
	switch {
	case s.Loopback && !loopback(r.Host):
		http.Error(w, "this page is served under a loopback address alone, such as 127.0.0.1 or localhost", http.StatusForbidden)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "this page only shows", http.StatusMethodNotAllowed)
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// loopback reports whether the Host of a request names this machine. The port is that of
// a tunnel where there is one, and not looked at.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// static serves the files of the page, and no listing of their folder.
func static(page fs.FS) http.Handler {
	server := http.FileServerFS(page)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/", "/page.css", "/page.js", "/icon.svg":
			server.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// serveView answers with the last view. How old it is stands in a header, since the body
// stays the same until the next reading.
func (s *Server) serveView(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	body, tag := s.body, s.tag(s.readings)
	if s.view != nil {
		w.Header().Set("Reading-Age", strconv.FormatFloat(time.Since(s.readAt).Seconds(), 'f', 3, 64))
	}
	s.mu.Unlock()
	reply(w, r, tag, body)
}

// serveHistory answers with the lag of each shard, in the slots after that of the query
// alone where it has one.
func (s *Server) serveHistory(w http.ResponseWriter, r *http.Request) {
	after, ok := number(w, r, "after", -1)
	if !ok {
		return
	}
	s.mu.Lock()
	answer, tag := s.history.after(after), s.tag(s.readings, after)
	s.mu.Unlock()
	replyJSON(w, r, tag, answer)
}

// serveEvents answers with the events after the one of the query, oldest first.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	after, ok := number(w, r, "after", 0)
	if !ok {
		return
	}
	s.mu.Lock()
	answer, tag := s.events.after(after), s.tag(s.events.newest, after)
	s.mu.Unlock()
	replyJSON(w, r, tag, answer)
}

// serveExplain answers why a shard is or is not read, as of the last view.
func (s *Server) serveExplain(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	view, tag := s.view, s.tag(s.readings)
	s.mu.Unlock()
	if view == nil {
		http.Error(w, "the group could not be read yet", http.StatusServiceUnavailable)
		return
	}
	query := r.URL.Query()
	e, ok := leases.Explain(*view, query.Get("stream"), query.Get("shard"))
	if !ok {
		http.Error(w, "neither the table nor a stream has that shard", http.StatusNotFound)
		return
	}
	replyJSON(w, r, tag, e)
}

// Health is the answer of /healthz.
type Health struct {
	Fresh bool            `json:"fresh"` // whether the last reading is no older than three intervals, and succeeded
	Age   *leases.Seconds `json:"age_seconds,omitempty"`
	Error string          `json:"error,omitempty"`
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	health := Health{Error: s.err}
	if s.view != nil {
		age := leases.SecondsOf(time.Since(s.readAt))
		health.Age, health.Fresh = &age, s.err == "" && age.Duration() <= s.staleAfter()
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if !health.Fresh {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(health) // the client has gone
}

// staleAfter is the age from which on a view counts as stale. A reading of many shards
// takes seconds.
func (s *Server) staleAfter() time.Duration { return 3*s.Interval + 5*time.Second }

// tag is the ETag of what changes with these numbers. It differs from that of an earlier
// process at the same address.
func (s *Server) tag(numbers ...int64) string {
	tag := strconv.AppendInt([]byte{'"'}, s.started.UnixNano(), 36)
	for _, n := range numbers {
		tag = strconv.AppendInt(append(tag, '-'), n, 36)
	}
	return string(append(tag, '"'))
}

// number is that of a query, or what it is without one.
func number(w http.ResponseWriter, r *http.Request, name string, without int64) (n int64, ok bool) {
	written := r.URL.Query().Get(name)
	if written == "" {
		return without, true
	}
	n, err := strconv.ParseInt(written, 10, 64)
	if err != nil {
		http.Error(w, fmt.Sprintf("`%s` is a number", name), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

func replyJSON(w http.ResponseWriter, r *http.Request, tag string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, r, tag, body)
}

// small is from how many bytes on an answer is compressed, for those who look at it
// through a tunnel: 1,000 shards are half a megabyte.
const small = 4 << 10

func reply(w http.ResponseWriter, r *http.Request, tag string, body []byte) {
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Content-Type", "application/json")
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if len(body) >= small && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = zip(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone
}

func zip(body []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // that level exists
	_, _ = w.Write(body)                            // memory takes all
	_ = w.Close()
	return b.Bytes()
}

package awsfake

import (
	"bytes"
	"compress/gzip"
	"maps"
	"net/http"
)

// Reply is an answer that is none of the service's, such as a proxy, a load balancer
// or the portal of a network gives in its place. It has none of the service's headers
// but Date.
type Reply struct {
	Status int         // HTTP status
	Header http.Header // beside Date and the body's length
	Body   []byte
}

const portalPage = `<!DOCTYPE html><html><head><title>Log in</title></head><body><form>Welcome to the network</form></body></html>`

// Replies are answers that clients get to see in place of the service's, by what they
// are. Each call makes new ones.
func Replies() map[string]Reply {
	html := func(status int, page string) Reply {
		return Reply{Status: status, Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, Body: []byte(page)}
	}
	json := func(body string) Reply {
		return Reply{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}}, Body: []byte(body)}
	}
	redirect := func(status int) Reply {
		return Reply{Status: status, Header: http.Header{"Location": {"/login"}, "Content-Type": {"text/html"}}, Body: []byte("<html>Moved</html>")}
	}
	return map[string]Reply{
		"200 with nothing":      {Status: http.StatusOK},
		"200 with {}":           json("{}"),
		"200 with null":         json("null"),
		"200 with half of JSON": json(`{"Records":[{"Data":"YQ==","Part`),
		"200 with a portal":     html(http.StatusOK, portalPage),
		"200 with HTML as JSON": json(portalPage),
		"200 gzipped, unasked":  {Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "Content-Encoding": {"gzip"}}, Body: gzipped("{}")},
		"204":                   {Status: http.StatusNoContent},
		"301":                   redirect(http.StatusMovedPermanently),
		"302":                   redirect(http.StatusFound),
		"307":                   redirect(http.StatusTemporaryRedirect),
		"400 with HTML":         html(http.StatusBadRequest, "<html>Bad Request</html>"),
		"403 with HTML":         html(http.StatusForbidden, "<html>Blocked by policy</html>"),
		"404 with HTML":         html(http.StatusNotFound, "<html>Not Found</html>"),
		"407":                   {Status: http.StatusProxyAuthRequired, Header: http.Header{"Proxy-Authenticate": {"Basic"}}},
		"429 with nothing":      {Status: http.StatusTooManyRequests},
		"500 with nothing":      {Status: http.StatusInternalServerError},
		"502 with HTML":         html(http.StatusBadGateway, "<html>Bad Gateway</html>"),
		"503 with HTML":         html(http.StatusServiceUnavailable, "<html>Service Unavailable</html>"),
		"504 with text as HTML": html(http.StatusGatewayTimeout, "upstream request timeout"),
	}
}

func gzipped(s string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s)) // a buffer never fails
	_ = w.Close()
	return b.Bytes()
}

// answer is the reply as a request gets it.
func (r *Reply) answer() answer {
	a := newAnswer("", r.Status, r.Body)
	a.header = maps.Clone(r.Header)
	if a.header == nil {
		a.header = http.Header{}
	}
	return a
}

// cut ends an answer in the middle of its body, and its length and its checksum say so:
// unlike one that is truncated it is whole to HTTP.
func (a *answer) cut() {
	var all bytes.Buffer
	_, _ = a.body.WriteTo(&all) // a buffer never fails
	a.size /= 2
	a.body = [][]byte{all.Bytes()[:a.size]}
}

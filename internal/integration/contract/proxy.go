package contract

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream/eventstreamapi"
	"github.com/stretchr/testify/require"
)

// eventStream is the type of the answers of SubscribeToShard.
const eventStream = "application/vnd.amazon.eventstream"

// withInitialResponse returns the URL of a proxy of a server that leaves out the
// frame with which the answers of SubscribeToShard begin. Without it the SDK's
// client waits for ever. The proxy ends with the test.
func withInitialResponse(t *testing.T, server string) string {
	t.Helper()
	target, err := url.Parse(server)
	require.NoError(t, err)
	var frame bytes.Buffer
	require.NoError(t, eventstream.NewEncoder().Encode(&frame, eventstream.Message{
		Headers: eventstream.Headers{
			{Name: eventstreamapi.MessageTypeHeader, Value: eventstream.StringValue(eventstreamapi.EventMessageType)},
			{Name: eventstreamapi.EventTypeHeader, Value: eventstream.StringValue("initial-response")},
			{Name: eventstreamapi.ContentTypeHeader, Value: eventstream.StringValue("application/x-amz-json-1.1")},
		},
		Payload: []byte("{}"),
	}))
	transport := &http.Transport{}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // each frame goes on as it comes
		ErrorLog:      log.New(io.Discard, "", 0),
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get("Content-Type") == eventStream {
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.MultiReader(bytes.NewReader(frame.Bytes()), r.Body), r.Body}
			}
			return nil
		},
	})
	t.Cleanup(func() {
		proxy.Close()
		transport.CloseIdleConnections()
	})
	return proxy.URL
}

// ownBody sends requests whose bodies the SDK cannot close. It does so as soon
// as it has the headers of the answer, where over HTTP/1.1 net/http may still look
// for the request's end, and then drops the connection with the subscription.
type ownBody struct{ *http.Client }

func (c ownBody) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return c.Client.Do(r)
}

package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHealthcheckSaysWhatThePipelineSays(t *testing.T) {
	var status atomic.Int32
	var body atomic.Pointer[string]
	answer := func(s int32, b string) {
		status.Store(s)
		body.Store(&b)
	}
	answer(http.StatusOK, "")
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangs" {
			<-release
		}
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte(*body.Load()))
	}))
	defer server.Close()
	defer close(release)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")

	out, err := run(t, nil, "healthcheck", server.URL+"/ready")
	require.NoError(t, err, out)
	require.Empty(t, out)

	answer(http.StatusServiceUnavailable, "input not connected\n")
	out, err = run(t, nil, "healthcheck", server.URL+"/ready")
	require.Error(t, err)
	require.Equal(t, server.URL+"/ready answers 503 Service Unavailable: input not connected\n", out)

	answer(http.StatusServiceUnavailable, "")
	out, err = run(t, nil, "healthcheck", server.URL+"/ready")
	require.Error(t, err)
	require.Equal(t, server.URL+"/ready answers 503 Service Unavailable\n", out)

	out, err = run(t, nil, "healthcheck", server.URL+"/hangs")
	require.Error(t, err)
	require.Equal(t, "asking "+server.URL+"/hangs: no answer within 5s\n", out)

	out, err = run(t, nil, "healthcheck", "http://127.0.0.1:1/ready")
	require.Error(t, err)
	require.Contains(t, out, "refused")

	out, err = run(t, nil, "healthcheck", "localhost:4195")
	require.Error(t, err)
	require.Equal(t, "\"localhost:4195\" is no URL: write one such as http://127.0.0.1:4195/ready\n", out)

	out, err = run(t, nil, "healthcheck", "a", "b")
	require.Error(t, err)
	require.Equal(t, "healthcheck takes one URL at most, such as http://127.0.0.1:4195/ready\n", out)
}

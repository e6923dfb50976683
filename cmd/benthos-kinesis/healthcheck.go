package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// readyURL is where a pipeline says whether it is ready, unless its configuration
	// has `http.address`.
	readyURL = "http://127.0.0.1:4195/ready"
	// readyTimeout is how long an answer may take. Docker waits for 30 s unless it is
	// told otherwise.
	readyTimeout = 5 * time.Second
	// reasonBytes is how much of an answer an error repeats.
	reasonBytes = 1 << 10
)

// healthcheck asks a pipeline for its health, with one URL at most in place of readyURL,
// and fails unless the answer is one of success. An image that has nothing but this
// program asks by it.
func healthcheck(ctx context.Context, args []string) error {
	at := readyURL
	switch len(args) {
	case 0:
	case 1:
		at = args[0]
	default:
		return fmt.Errorf("healthcheck takes one URL at most, such as %s", readyURL)
	}
	if u, err := url.Parse(at); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is no URL: write one such as %s", at, readyURL)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("no answer within %s", readyTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody) //nolint:gosec // whoever starts the program says whom it asks
	if err != nil {
		return err
	}
	// A proxy is for what is elsewhere.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req) //nolint:gosec // as above
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("asking %s: %w", at, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil
	}
	reason, err := io.ReadAll(io.LimitReader(resp.Body, reasonBytes))
	if text := strings.TrimSpace(string(reason)); err == nil && text != "" {
		return fmt.Errorf("%s answers %s: %s", at, resp.Status, text)
	}
	return errors.New(at + " answers " + resp.Status)
}

package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
)

// pagePatience is how long the page's process may take to say where it is.
const pagePatience = 15 * time.Second

// page is the process that serves a page about the group while the story lasts. stage
// makes it and ends it.
type page struct {
	child   *child.Process
	drained sync.WaitGroup
	url     string // empty until it has told
}

// servePage starts the page once there is a table, and says where it is. The story goes on
// without it; the error is one of the story.
func (s *stage) servePage(ctx context.Context) error {
	c, err := child.Start(ctx, s.options.benthos, []string{
		"leases", "serve", "--address", "127.0.0.1:0", "--interval", "500ms",
		"--table", table, "--region", "us-east-1", "--endpoint", s.endpoint,
	}, trial.Environment(stream, table, s.endpoint))
	if err != nil {
		s.say(bad, "there is no page to look at: %v", err)
		return nil
	}
	first := make(chan string, 1)
	s.page = &page{child: c}
	s.page.drained.Go(func() { drain(c.Lines(), first) })

	url, over := "", time.Now().Add(pagePatience)
	err = s.until(ctx, "the page", func() bool {
		select {
		case url = <-first:
			return true
		default:
			return time.Now().After(over)
		}
	})
	if err != nil {
		return err
	}
	if !strings.HasPrefix(url, "http://") {
		s.say(bad, "there is no page to look at: leases serve told no address in %s; %s", pagePatience, strings.Join(c.Log(), "; "))
		return nil
	}
	s.page.url = url
	s.say(plain, "who reads what is shown at %s while this runs", url)
	return nil
}

// drain hands over the first line, none where there is none, and takes the others: a
// process whose output is not read stands still.
func drain(lines <-chan string, first chan<- string) {
	first <- <-lines
	for range lines {
		// There is nothing else that it says.
	}
}

// close ends the page's process and waits for it.
func (p *page) close() {
	if p == nil {
		return
	}
	p.child.Close()
	p.drained.Wait()
}

package awskinesis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// How the balancer has shards read by enhanced fan-out. A subscription is a part of the
// reading of a shard under its lease: it is opened by the source, which ends with the
// lease, before the shard is passed on.

// sayPolledEvery is the time between two lines that say that there is no consumer.
const sayPolledEvery = time.Hour

// newFanOuts returns the consumers as which the streams are read, nil where they are polled.
func newFanOuts(life context.Context, conf *config, c clients, s *signals) map[string]*retrieval.FanOut {
	if !conf.fanOut.enabled {
		return nil
	}
	fans := map[string]*retrieval.FanOut{}
	for _, stream := range conf.streams {
		fc := retrieval.FanOutConfig{
			Stream: stream.id, Name: conf.fanOut.name, ARN: conf.fanOut.arn,
			Activation: conf.fanOut.activation, Longest: conf.fanOut.resubscribe,
			OnRegister: func(name, arn string) {
				s.say(journal.Info, "Consumer %s of stream %s was registered, for enhanced fan-out: %s. It stays when this client stops, and costs by the hour, also where nothing is read; see `deregister_on_close`", name, stream.id, arn)
			},
		}
		if conf.fanOut.auto {
			// Without a consumer shards are polled on, so that no read fails for it. When
			// nobody needs one any more it is looked for no more, and the fault has no end.
			var said time.Time
			fc.OnSearch = func(err error) {
				if err != nil && time.Since(said) >= sayPolledEvery {
					said = time.Now()
					s.say(journal.Warning, "Shards of stream %s that would be subscribed are polled, until there is a consumer: %v", stream.id, s.explain(err, serviceKinesis, stream.id))
				}
			}
		}
		fans[stream.id] = retrieval.NewFanOut(life, c.fanOut, c.subscribe, fc)
	}
	return fans
}

// open makes a source of a shard that begins after a sequence number or, where there is
// none, where the shard is to begin.
func (b *balancer) open(c group.Claim, h *holding, after string, budgetWait chan<- struct{}) consumer.Source {
	position := retrieval.Position{After: after}
	if position.After == "" {
		position.At = c.StartAt
	}
	shard := retrieval.Shard{Stream: c.Key.Stream, ID: c.Key.Shard, FirstSequence: c.Shard.FirstSequence}
	hooks := h.signals.sourceHooks()
	hooks.OnBudgetWait = func() {
		select {
		case budgetWait <- struct{}{}:
		default:
		}
	}
	var source consumer.Source
	switch fan := b.fans[c.Key.Stream]; {
	case fan == nil:
		source = retrieval.NewPoller(b.reader, b.lists, shard, position, b.budget, b.conf.pollPeriod, hooks)
	case b.conf.fanOut.auto:
		source = retrieval.NewAuto(b.reader, fan, b.lists, shard, position, b.budget, b.conf.pollPeriod, hooks)
	default:
		source = retrieval.NewSubscriber(b.reader, fan, b.lists, shard, position, b.budget, hooks)
	}
	if b.end.IsZero() {
		return source
	}
	return retrieval.NewBounded(source, b.lists, shard, b.end, b.budget, b.signals.clockSkew)
}

// deregister removes the consumers of a process that has stopped, where it was the last one
// of its group. Whoever joins at this very moment registers them anew.
func (b *balancer) deregister(ctx context.Context, self string) {
	if !b.conf.fanOut.deregister || len(b.fans) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	members, err := b.store.ListMembers(ctx, true)
	if err != nil {
		b.signals.say(journal.Warning, "The consumers of enhanced fan-out stay registered, since it could not be found out whether other clients are in the group: %v", err)
		return
	}
	for _, m := range members {
		if m.ID != self && !m.Gone() {
			return
		}
	}
	var calls sync.WaitGroup
	for stream, fan := range b.fans {
		calls.Go(func() {
			if err := fan.Deregister(ctx); err != nil {
				b.signals.say(journal.Warning, "The consumer of stream %s stays registered, and costs by the hour: %v", stream, b.signals.explain(err, serviceKinesis, stream))
				return
			}
			b.signals.say(journal.Info, "The consumer of stream %s was deregistered, since no other client is in the group", stream)
		})
	}
	calls.Wait()
}

// subscriptions returns how many subscriptions to the shards of a stream are open here.
func (b *balancer) subscriptions(stream string) int {
	if fan := b.fans[stream]; fan != nil {
		return fan.Open()
	}
	return 0
}

// searching reports whether the consumer of a stream is being looked for.
func (b *balancer) searching(stream string) bool {
	fan := b.fans[stream]
	return fan != nil && fan.Searching()
}

// sourceHooks have a source report.
func (s *shardSignals) sourceHooks() retrieval.Hooks {
	j, stream, shard := s.signals.journal, s.key.Stream, s.key.Shard
	return retrieval.Hooks{
		OnCall: s.called,
		OnSubscribe: func(after retrieval.Ending) {
			s.mu.Lock()
			s.subscribed, s.heard = true, time.Now()
			s.mu.Unlock()
			if after != "" {
				s.signals.metrics.add("kinesis_resubscriptions", 1, stream, string(after))
			}
		},
		OnUnsubscribe: func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.subscribed = false
		},
		OnExpire: func(after string) {
			j.Changed(journal.Warning, stream, shard,
				fmt.Sprintf("is read on from its oldest record: Kinesis does not take sequence number %s any more, up to which it was read. What followed that number has left the stream in part, unless nothing arrived meanwhile", after),
				"are read on from their oldest records: Kinesis does not take the sequence numbers any more up to which they were read. What followed those has left the stream in part, unless nothing arrived meanwhile", time.Now())
		},
		OnWay: func(way retrieval.Way, why string) {
			s.mu.Lock()
			s.way = way
			s.mu.Unlock()
			if why == "" {
				return
			}
			how := map[retrieval.Way]string{retrieval.WayFanOut: "by enhanced fan-out", retrieval.WayPolling: "by polling"}[way]
			j.Changed(journal.Info, stream, shard, "is read "+how+" now: "+why, "are read "+how+" now", time.Now())
		},
	}
}

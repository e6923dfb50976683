package consumer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

// meter exports metrics to the test, through a whole host: its metrics have no
// other public maker.
type meter struct {
	made   *service.Metrics
	mu     sync.Mutex
	values map[string]int64 // by name, stream and shard
}

func newMeter(t *testing.T) *meter {
	t.Helper()
	m := &meter{values: map[string]int64{}}
	env := service.NewEnvironment()
	empty := service.NewConfigSpec
	require.NoError(t, env.RegisterMetricsExporter("meter", empty(), func(*service.ParsedConfig, *service.Logger) (service.MetricsExporter, error) {
		return m, nil
	}))
	require.NoError(t, env.RegisterRateLimit("witness", empty(), func(_ *service.ParsedConfig, res *service.Resources) (service.RateLimit, error) {
		m.made = res.Metrics()
		return witness{}, nil
	}))
	host := env.NewStreamBuilder()
	require.NoError(t, host.SetMetricsYAML(`meter: {}`))
	require.NoError(t, host.AddRateLimitYAML(`{ label: witness, witness: {} }`))
	require.NoError(t, host.AddInputYAML(`generate: { mapping: 'root = ""' }`))
	require.NoError(t, host.AddOutputYAML(`drop: {}`))
	_, err := host.Build()
	require.NoError(t, err)
	require.NotNil(t, m.made)
	return m
}

// witness is a component that is there for what the host gives it.
type witness struct{}

func (witness) Access(context.Context) (time.Duration, error) { return 0, nil }
func (witness) Close(context.Context) error                   { return nil }

func (m *meter) metrics() Metrics {
	return Metrics{
		Behind:   m.made.NewGauge("behind", "stream", "shard"),
		InFlight: m.made.NewGauge("in flight", "stream", "shard"),
		Rejected: m.made.NewCounter("rejected", "stream", "shard"),
	}
}

// value returns a metric of the shard under test.
func (m *meter) value(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name+" of "+key.String()]
}

// series is one metric of one shard.
type series struct {
	m    *meter
	name string
}

func (m *meter) series(name string, labels, values []string) series {
	value := func(label string) string { return values[slices.Index(labels, label)] }
	if !slices.Contains(labels, "shard") {
		return series{m, name} // the host's own
	}
	return series{m, name + " of " + strings.Join([]string{value("stream"), value("shard")}, ":")}
}

func (s series) Incr(by int64) { s.update(func(before int64) int64 { return before + by }) }
func (s series) Set(to int64)  { s.update(func(int64) int64 { return to }) }
func (s series) Timing(int64)  {}

func (s series) update(f func(before int64) int64) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.values[s.name] = f(s.m.values[s.name])
}

func (m *meter) NewCounterCtor(name string, labels ...string) service.MetricsExporterCounterCtor {
	return func(values ...string) service.MetricsExporterCounter { return m.series(name, labels, values) }
}

func (m *meter) NewTimerCtor(name string, labels ...string) service.MetricsExporterTimerCtor {
	return func(values ...string) service.MetricsExporterTimer { return m.series(name, labels, values) }
}

func (m *meter) NewGaugeCtor(name string, labels ...string) service.MetricsExporterGaugeCtor {
	return func(values ...string) service.MetricsExporterGauge { return m.series(name, labels, values) }
}

func (m *meter) Close(context.Context) error { return nil }

func TestGaugesTellOfTheShardAndFallToZeroAtItsEnd(t *testing.T) {
	m := newMeter(t)
	bubble(t, func(c *Config) { c.Metrics = m.metrics() }, func(r *rig) {
		p := page(0, 3)
		p.Behind = 1500 * time.Millisecond
		r.put(p)
		r.next()
		second, _ := r.next()
		second.Ack(1, nil)
		pass(commitPeriod)
		require.EqualValues(r, 1500, m.value("behind"))
		require.EqualValues(r, 3, m.value("in flight"), "from the oldest that is not acknowledged on")
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		require.Zero(r, m.value("behind"))
		require.Zero(r, m.value("in flight"))
	})
}

// Package metric is the table of the input's metrics: what each is called, of what
// kind and in which unit it is, which labels it has, what it shows, and what to do about
// it. The input makes its metrics from it; the reference, the dashboard and the alert
// rules are written from it. It is pure.
package metric

// Metric is one of the input's metrics.
type Metric struct {
	Name   string
	Kind   Kind
	Unit   string
	Labels []string
	Help   string // what it counts or shows
	Advice string // what to do when it is high or, where it says so, low; often empty
}

// OfShard reports whether there is a series for each shard.
func (m Metric) OfShard() bool { return len(m.Labels) > 1 && m.Labels[1] == LabelShard }

// OfStream reports whether there is a series for each stream, and none for each shard.
func (m Metric) OfStream() bool {
	return !m.OfShard() && len(m.Labels) > 0 && m.Labels[0] == LabelStream
}

// Kind of a metric, as Benthos calls it.
type Kind string

// The kinds. A timer counts nanoseconds.
const (
	Gauge   Kind = "gauge"
	Counter Kind = "counter"
	Timer   Kind = "timer"
)

// The labels are called as the metadata is. In streams mode Benthos adds a label
// stream of its own, the id of the pipeline, and panics where a metric has one
// already.
const (
	LabelStream    = "kinesis_stream"
	LabelShard     = "kinesis_shard"
	LabelResult    = "result"
	LabelOperation = "operation"
	LabelReason    = "reason"
	LabelWay       = "way"
)

// The labels that most metrics have.
var (
	OfInput  []string
	OfStream = []string{LabelStream}
	OfShard  = []string{LabelStream, LabelShard}
)

// Unknown is the value of a gauge while nobody knows it: the host gives a component no
// way to take a series back.
const Unknown = -1

// Package dashboard makes from the table of metrics what an operator watches: a dashboard
// for Grafana and alert rules for Prometheus. What a panel or an alert says of a metric is
// what the table says of it.
//
// Gauges are -1 while nobody knows them, so that each query leaves such values out. An
// alert about a stream or a shard has no label of a single instance: a shard that changes
// hands does not end it.
package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/benthos-plugins/aws-kinesis/internal/metric"
)

// Files are the files by their names: the dashboard and the rules.
func Files() (map[string][]byte, error) {
	page, err := Grafana()
	if err != nil {
		return nil, err
	}
	rules, err := Rules(1)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"kinesis.json": page, "alerts.yaml": rules}, nil
}

// name matches the metrics of an expression, and the labels that are called like them.
var name = regexp.MustCompile(`\bkinesis_[a-z_]+`)

// metricsOf are the metrics of an expression, in its order. It panics where one of them is
// not in the table.
func metricsOf(expr string) []metric.Metric {
	var all []metric.Metric
	for _, word := range name.FindAllString(expr, -1) {
		if word == metric.LabelStream || word == metric.LabelShard {
			continue
		}
		m := find(word)
		if !slices.ContainsFunc(all, func(other metric.Metric) bool { return other.Name == m.Name }) {
			all = append(all, m)
		}
	}
	return all
}

// find returns a metric by its name, or by that of one of the series that a timer has in
// Prometheus. It panics where the table has none.
func find(name string) metric.Metric {
	for _, m := range metric.Table {
		if m.Name == name || m.Kind == metric.Timer && (m.Name+"_sum" == name || m.Name+"_count" == name) {
			return m
		}
	}
	panic("no metric is called " + name)
}

// panel of the dashboard.
type panel struct {
	title   string
	kind    string // of Grafana; empty: timeseries
	unit    string // of Grafana
	width   int    // of 24; 0: a third
	queries []query
}

// query is an expression in which {@ stands for the variables of the dashboard that a
// metric has labels for, and the legend of its series.
type query struct{ expr, legend string }

type row struct {
	title  string
	panels []panel
}

// Types of Grafana's model, with the fields that are not at their defaults.
type (
	model struct {
		UID           string     `json:"uid"`
		Title         string     `json:"title"`
		Description   string     `json:"description"`
		Tags          []string   `json:"tags"`
		SchemaVersion int        `json:"schemaVersion"`
		Editable      bool       `json:"editable"`
		Refresh       string     `json:"refresh"`
		Time          span       `json:"time"`
		Templating    variables  `json:"templating"`
		Panels        []rendered `json:"panels"`
	}
	span struct {
		From string `json:"from"`
		To   string `json:"to"`
	}
	variables struct {
		List []variable `json:"list"`
	}
	variable struct {
		Name       string  `json:"name"`
		Label      string  `json:"label"`
		Type       string  `json:"type"`
		Query      string  `json:"query"`
		Datasource *source `json:"datasource,omitempty"`
		Multi      bool    `json:"multi,omitempty"`
		IncludeAll bool    `json:"includeAll,omitempty"`
		AllValue   string  `json:"allValue,omitempty"`
		Refresh    int     `json:"refresh,omitempty"`
		Sort       int     `json:"sort,omitempty"`
	}
	source struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	rendered struct {
		ID          int      `json:"id"`
		Type        string   `json:"type"`
		Title       string   `json:"title"`
		Description string   `json:"description,omitempty"`
		GridPos     place    `json:"gridPos"`
		Collapsed   *bool    `json:"collapsed,omitempty"` // of a row
		Datasource  *source  `json:"datasource,omitempty"`
		Targets     []target `json:"targets,omitempty"`
		FieldConfig *fields  `json:"fieldConfig,omitempty"`
		Options     any      `json:"options,omitempty"`
	}
	place struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	target struct {
		RefID        string  `json:"refId"`
		Expr         string  `json:"expr"`
		LegendFormat string  `json:"legendFormat,omitempty"`
		Format       string  `json:"format,omitempty"`
		Instant      bool    `json:"instant,omitempty"`
		Range        bool    `json:"range,omitempty"`
		Datasource   *source `json:"datasource"`
	}
	fields struct {
		Defaults  fieldDefaults `json:"defaults"`
		Overrides []any         `json:"overrides"`
	}
	fieldDefaults struct {
		Unit string   `json:"unit,omitempty"`
		Min  *float64 `json:"min,omitempty"`
	}
)

// Kinds of panels that are not graphs over time.
const (
	kindGraph = "timeseries"
	kindStat  = "stat"
	kindTable = "table"
)

// height of a panel, of one with a single number, and of the title of a row.
const (
	height     = 8
	statHeight = 4
	rowHeight  = 1
)

// Grafana is the dashboard in Grafana's model, as it is imported.
func Grafana() ([]byte, error) {
	prometheus := &source{Type: "prometheus", UID: "${datasource}"}
	choice := func(name, label, query string) variable {
		return variable{Name: name, Label: label, Type: "query", Query: query, Datasource: prometheus, Multi: true, IncludeAll: true, AllValue: ".*", Refresh: 2, Sort: 1}
	}
	page := model{
		UID: "aws-kinesis", Title: "aws_kinesis", Tags: []string{"benthos", "kinesis"},
		Description:   "Written by `make docs` from the metrics of the Benthos input aws_kinesis.",
		SchemaVersion: 38, Editable: true, Refresh: "30s", Time: span{"now-3h", "now"},
		Templating: variables{[]variable{
			{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus"},
			choice("job", "Job", "label_values(kinesis_ready, job)"),
			choice(metric.LabelStream, "Stream", `label_values(kinesis_leases_held{job=~"$job"}, kinesis_stream)`),
			choice(metric.LabelShard, "Shard", `label_values(kinesis_shard_owned{job=~"$job", kinesis_stream=~"$kinesis_stream"}, kinesis_shard)`),
		}},
	}
	y := 0
	for _, r := range rows {
		open := false
		page.Panels = append(page.Panels, rendered{ID: len(page.Panels) + 1, Type: "row", Title: r.title, GridPos: place{rowHeight, 24, 0, y}, Collapsed: &open})
		y += rowHeight
		x, tallest := 0, 0
		for _, p := range r.panels {
			made := p.render(prometheus)
			made.ID = len(page.Panels) + 1
			if x+made.GridPos.W > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			made.GridPos.X, made.GridPos.Y = x, y
			x, tallest = x+made.GridPos.W, max(tallest, made.GridPos.H)
			page.Panels = append(page.Panels, made)
		}
		y += tallest
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(page)
	return out.Bytes(), err
}

func (p panel) render(prometheus *source) rendered {
	zero := 0.0
	made := rendered{
		Type: kindGraph, Title: p.title, GridPos: place{H: height, W: 8}, Datasource: prometheus,
		Description: p.description(), FieldConfig: &fields{fieldDefaults{Unit: p.unit, Min: &zero}, []any{}},
	}
	if p.kind != "" {
		made.Type = p.kind
	}
	if p.width > 0 {
		made.GridPos.W = p.width
	}
	switch made.Type {
	case kindGraph:
		made.Options = map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		}
	case kindStat:
		made.GridPos.H = statHeight
		made.Options = map[string]any{"colorMode": "none", "reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}}}
	}
	for i, q := range p.queries {
		t := target{RefID: string(rune('A' + i)), Expr: q.selected(), LegendFormat: q.legend, Range: true, Datasource: prometheus}
		if made.Type == kindTable {
			t.Format, t.Instant, t.Range = "table", true, false
		}
		made.Targets = append(made.Targets, t)
	}
	return made
}

// description is what the table says of the metrics of the panel.
func (p panel) description() string {
	var parts []string
	said := map[string]bool{}
	for _, q := range p.queries {
		for _, m := range metricsOf(q.expr) {
			if said[m.Name] {
				continue
			}
			said[m.Name] = true
			part := fmt.Sprintf("`%s`: %s", m.Name, links.Replace(m.Help))
			if m.Advice != "" {
				part += "\n\n*What to do:* " + links.Replace(m.Advice)
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "\n\n")
}

const repository = "https://github.com/benthos-plugins/aws-kinesis/blob/main/docs/"

// links leads to the reference what the table has as a place within it.
var links = strings.NewReplacer("](#", "]("+repository+"aws_kinesis.md#")

var selector = regexp.MustCompile(`\b(kinesis_[a-z_]+)\{@`)

// selected is the expression with the variables of the dashboard.
func (q query) selected() string {
	return selector.ReplaceAllStringFunc(q.expr, func(found string) string {
		name := strings.TrimSuffix(found, "{@")
		by := `job=~"$job"`
		if m := find(name); m.OfShard() {
			by += `, kinesis_stream=~"$kinesis_stream", kinesis_shard=~"$kinesis_shard"`
		} else if m.OfStream() {
			by += `, kinesis_stream=~"$kinesis_stream"`
		}
		return name + "{" + by
	})
}

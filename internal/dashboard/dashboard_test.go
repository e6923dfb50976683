package dashboard

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/benthos-plugins/aws-kinesis/internal/metric"
)

// shipped is the dashboard as it is written.
func shipped(t *testing.T) model {
	t.Helper()
	raw, err := Grafana()
	require.NoError(t, err)
	var page model
	require.NoError(t, json.Unmarshal(raw, &page))
	return page
}

func TestEachMetricIsShownOrLeftOutForAReason(t *testing.T) {
	shown := map[string]bool{}
	for _, p := range shipped(t).Panels {
		for _, each := range p.Targets {
			for _, m := range metricsOf(each.Expr) {
				shown[m.Name] = true
				require.Contains(t, p.Description, "`"+m.Name+"`: ", "panel %s says what its metrics are", p.Title)
			}
		}
	}
	for _, m := range metric.Table {
		reason, out := leftOut[m.Name]
		require.NotEqual(t, out, shown[m.Name], "%s: either a panel shows it, or leftOut has a reason", m.Name)
		require.Equal(t, out, reason != "", m.Name)
	}
	for name := range leftOut {
		require.NotPanics(t, func() { find(name) })
	}
}

func TestPanelsStandBesideOneAnother(t *testing.T) {
	taken, ids := map[place]string{}, map[int]bool{}
	for _, p := range shipped(t).Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		at := p.GridPos
		require.LessOrEqual(t, at.X+at.W, 24, p.Title)
		for x := range at.W {
			for y := range at.H {
				cell := place{X: at.X + x, Y: at.Y + y}
				require.Empty(t, taken[cell], "%s covers it", p.Title)
				taken[cell] = p.Title
			}
		}
	}
}

// uncertain are the gauges that are -1 while nobody knows them.
func uncertain() (names []string) {
	for _, m := range metric.Table {
		if m.Kind == metric.Gauge && strings.Contains(m.Help, "-1 ") {
			names = append(names, m.Name)
		}
	}
	return names
}

func TestUnknownValuesAreLeftOut(t *testing.T) {
	require.Contains(t, uncertain(), "kinesis_lag_milliseconds")
	require.Len(t, uncertain(), 9)
	// What is compared from below is compared with a number that is not below zero. A
	// maximum over instances is above -1 where one of them knows.
	filtered := regexp.MustCompile(`^(\{[^}]*\})?( offset \S+)?(\)( / 1000)?)? >=? (\d|\(max)`)
	check := func(where, expr string) {
		for _, name := range uncertain() {
			for _, at := range regexp.MustCompile(`\b`+name+`\b`).FindAllStringIndex(expr, -1) {
				require.Regexp(t, filtered, expr[at[1]:], "%s: %s", where, expr)
			}
		}
	}
	for _, p := range shipped(t).Panels {
		for _, each := range p.Targets {
			check(p.Title, each.Expr)
		}
	}
	for _, a := range alerts {
		if a.name == "KinesisOutputStuck" { // a difference, to a value that is known
			require.Contains(t, a.expr, "offset <5m>) >= 0)\n> <3m ms>")
			continue
		}
		check(a.name, a.scaled(1))
	}
}

func TestEachAlertSaysWhatItMeansAndWhatToDo(t *testing.T) {
	raw, err := Rules(1)
	require.NoError(t, err)
	var file ruleFile
	require.NoError(t, yaml.Unmarshal(raw, &file))
	require.Len(t, file.Groups, 1)
	seen := map[string]bool{}
	for i, r := range file.Groups[0].Rules {
		a := alerts[i]
		require.False(t, seen[r.Alert], r.Alert)
		seen[r.Alert] = true
		require.Regexp(t, `^Kinesis[A-Z][A-Za-z]+$`, r.Alert)
		require.Contains(t, []string{page, warning}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, metricsOf(r.Expr), r.Alert)
		require.NotRegexp(t, `@|<\d`, r.Expr, r.Alert)
		require.NotEmpty(t, r.Annotations.Summary, r.Alert)
		require.True(t, a.further != "" || a.remedy != "" && find(a.remedy).Advice != "", "%s has no remedy", r.Alert)
		require.Contains(t, r.Annotations.Description, a.means, r.Alert)
		require.NotContains(t, r.Annotations.Description, "](#", r.Alert)
		require.Equal(t, repository+"operating.md#"+strings.ToLower(r.Alert), r.Annotations.Runbook)
	}
}

func TestScaleMultipliesEachDuration(t *testing.T) {
	a := alert{expr: "avg_over_time(m[<5m>]) > <15m ms> and n / 1000 > <1h s> and o > 60", hold: 10 * time.Minute}
	require.Equal(t, "avg_over_time(m[5m]) > 900000 and n / 1000 > 3600 and o > 60", a.scaled(1))
	require.Equal(t, "avg_over_time(m[5s]) > 15000 and n / 1000 > 60 and o > 60", a.scaled(1.0/60))
	require.Equal(t, "2500ms", duration(5*time.Minute, 1.0/120))
	require.Equal(t, "90m", duration(90*time.Minute, 1))
}

func TestUnknownMetricIsNoMetricOfAQuery(t *testing.T) {
	require.Panics(t, func() { metricsOf("kinesis_nothing") })
	require.Panics(t, func() { metricsOf("kinesis_records_sum") }, "a counter has one series")
	require.Equal(t, "kinesis_table_latency", metricsOf("kinesis_table_latency_sum")[0].Name)
}

//go:build prometheus

package dashboard

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Types of promtool's file of tests.
type (
	unitTests struct {
		RuleFiles []string   `yaml:"rule_files"`
		Interval  string     `yaml:"evaluation_interval"`
		Tests     []unitTest `yaml:"tests"`
	}
	unitTest struct {
		Name     string       `yaml:"name"`
		Interval string       `yaml:"interval"`
		Series   []unitSeries `yaml:"input_series"`
		Queries  []unitQuery  `yaml:"promql_expr_test"`
	}
	unitSeries struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	unitQuery struct {
		Expr    string       `yaml:"expr"`
		At      string       `yaml:"eval_time"`
		Samples []unitSample `yaml:"exp_samples"`
	}
	unitSample struct {
		Labels string  `yaml:"labels"`
		Value  float64 `yaml:"value"`
	}
)

// at asks which alerts fire at a minute.
func at(minute int, firing ...string) unitQuery {
	q := unitQuery{Expr: `count by (alertname) (ALERTS{alertstate="firing"})`, At: fmt.Sprint(minute, "m")}
	for _, name := range firing {
		q.Samples = append(q.Samples, unitSample{fmt.Sprintf(`{alertname=%q}`, name), 1})
	}
	return q
}

// Each rule fires for its fault, after its time, and alone; none does for a group that is
// well, for the two hours that its series last.
func TestRulesFireForTheirFaultAlone(t *testing.T) {
	dir := t.TempDir()
	raw, err := Rules(1)
	require.NoError(t, err)
	rules := filepath.Join(dir, "alerts.yaml")
	require.NoError(t, os.WriteFile(rules, raw, 0o600))
	out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", "--lint=all", "--lint-fatal", rules).CombinedOutput()
	require.NoError(t, err, "%s", out)

	file := unitTests{RuleFiles: []string{rules}, Interval: "1m"}
	well := unitTest{Name: "well", Interval: "1m", Series: seriesOf(healthy)}
	for minute := range 120 {
		well.Queries = append(well.Queries, at(minute))
	}
	file.Tests = append(file.Tests, well)
	for _, c := range ruleCases {
		changed := maps.Clone(healthy)
		maps.Copy(changed, c.series)
		file.Tests = append(file.Tests, unitTest{Name: c.alert, Interval: "1m", Series: seriesOf(changed), Queries: []unitQuery{at(c.silent), at(c.fires, c.alert)}})
	}
	content, err := yaml.Marshal(file)
	require.NoError(t, err)
	tests := filepath.Join(dir, "alerts.test.yaml")
	require.NoError(t, os.WriteFile(tests, content, 0o600))
	out, err = exec.CommandContext(t.Context(), "promtool", "test", "rules", tests).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func seriesOf(values map[string]string) (all []unitSeries) {
	for _, series := range slices.Sorted(maps.Keys(values)) {
		all = append(all, unitSeries{series, values[series]})
	}
	return all
}

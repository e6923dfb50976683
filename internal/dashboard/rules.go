package dashboard

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Types of Prometheus' file of rules.
type (
	ruleFile struct {
		Groups []ruleGroup `yaml:"groups"`
	}
	ruleGroup struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	rule struct {
		Alert       string            `yaml:"alert"`
		Expr        string            `yaml:"expr"`
		For         string            `yaml:"for,omitempty"`
		Labels      map[string]string `yaml:"labels"`
		Annotations annotations       `yaml:"annotations"`
	}
	annotations struct {
		Summary     string `yaml:"summary"`
		Description string `yaml:"description"`
		Runbook     string `yaml:"runbook_url"`
	}
)

// Rules is the file of the alert rules, with each duration that they name multiplied by
// scale: 1 for those that are shipped, less for a test that cannot wait for them.
func Rules(scale float64) ([]byte, error) {
	group := ruleGroup{Name: "aws_kinesis"}
	for _, a := range alerts {
		made := rule{
			Alert: a.name, Expr: a.scaled(scale), Labels: map[string]string{"severity": a.severity},
			Annotations: annotations{Summary: a.summary, Description: a.description(), Runbook: repository + "operating.md#" + strings.ToLower(a.name)},
		}
		if a.hold > 0 {
			made.For = duration(a.hold, scale)
		}
		group.Rules = append(group.Rules, made)
	}
	var out bytes.Buffer
	fmt.Fprint(&out, "# Written by `make docs` from the input's metrics. Change internal/dashboard/alerts.go instead.\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(ruleFile{[]ruleGroup{group}}); err != nil {
		return nil, fmt.Errorf("writing the alert rules: %w", err)
	}
	return out.Bytes(), nil
}

// description is what the alert means and what to do about it.
func (a alert) description() string {
	parts := []string{a.means}
	if a.remedy != "" {
		parts = append(parts, links.Replace(find(a.remedy).Advice))
	}
	if a.further != "" {
		parts = append(parts, a.further)
	}
	return strings.Join(parts, " ")
}

var (
	placeholder = regexp.MustCompile(`<(\d+[smh])( ms| s)?>`)
	by          = strings.NewReplacer(
		"@input", "job, stream, label, path",
		"@stream", "job, stream, label, path, kinesis_stream",
		"@shard", "job, stream, label, path, kinesis_stream, kinesis_shard",
	)
)

// scaled is the expression with its labels and durations.
func (a alert) scaled(scale float64) string {
	return placeholder.ReplaceAllStringFunc(by.Replace(a.expr), func(found string) string {
		parts := placeholder.FindStringSubmatch(found)
		d, err := time.ParseDuration(parts[1])
		if err != nil {
			panic(err) // of a constant, which the tests read
		}
		switch parts[2] {
		case " ms":
			return fmt.Sprint(d.Seconds() * 1000 * scale)
		case " s":
			return fmt.Sprint(d.Seconds() * scale)
		}
		return duration(d, scale)
	})
}

// duration is one in the words of Prometheus.
func duration(d time.Duration, scale float64) string {
	d = time.Duration(float64(d) * scale)
	for _, unit := range []struct {
		is   time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= unit.is && d%unit.is == 0 {
			return fmt.Sprint(int64(d/unit.is), unit.name)
		}
	}
	return fmt.Sprint(d.Milliseconds(), "ms")
}

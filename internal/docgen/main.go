// Command docgen writes docs/aws_kinesis.md from the specification of the input
// as it is registered, docs/dashboards from the table of its metrics, and the list of
// messages in docs/operating.md from messages.txt, or, with -check, fails when the files are not what it would write. It fails as well when
// messages.txt lacks something that the code says, or has what it does not.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/benthosdev/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	awskinesis "github.com/benthos-plugins/aws-kinesis"
	"github.com/benthos-plugins/aws-kinesis/internal/dashboard"
)

func main() {
	log.SetFlags(0)
	file := flag.String("file", "docs/aws_kinesis.md", "the file to write or check")
	dashboards := flag.String("dashboards", "docs/dashboards", "the directory of dashboard and alert rules to write or check")
	guideFile := flag.String("guide", "docs/operating.md", "the guide whose list of messages to write or check")
	root := flag.String("root", ".", "the folder with the code")
	check := flag.Bool("check", false, "compare instead of writing")
	flag.Parse()
	if err := errors.Join(run(*file, *dashboards, *check), runGuide(*guideFile, *root, *check)); err != nil {
		log.Fatalf("docgen: %v", err)
	}
}

func run(file, dashboards string, check bool) error {
	spec, err := registered()
	if err != nil {
		return err
	}
	page, err := render(spec)
	if err != nil {
		return err
	}
	pages, err := dashboard.Files()
	if err != nil {
		return err
	}
	if err := put(file, page, check); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if err := put(filepath.Join(dashboards, name), pages[name], check); err != nil {
			return err
		}
	}
	return nil
}

// put writes a file, or compares what is there.
func put(file string, page []byte, check bool) error {
	if !check {
		return os.WriteFile(file, page, 0o644)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return compare(file, old, page)
}

// compare says where the file begins to differ from the page.
func compare(file string, old, page []byte) error {
	if bytes.Equal(old, page) {
		return nil
	}
	have, want := strings.Split(string(old), "\n"), strings.Split(string(page), "\n")
	i := 0
	for i < min(len(have), len(want)) && have[i] == want[i] {
		i++
	}
	line := func(lines []string) string {
		if i < len(lines) {
			return lines[i]
		}
		return "(end of file)"
	}
	return fmt.Errorf("%s is stale: run `make docs`\nline %d is\n  %s\nand should be\n  %s", file, i+1, line(have), line(want))
}

// component is a registered component as Benthos writes it to JSON.
type component struct {
	Name        string `json:"name"`
	Status      string `json:"status"`
	Version     string `json:"version"`
	Summary     string `json:"summary"`
	Description string `json:"description"`
	Config      field  `json:"config"`
}

type field struct {
	Name        string          `json:"name"`
	Type        string          `json:"type"`
	Kind        string          `json:"kind"`
	Description string          `json:"description"`
	Advanced    bool            `json:"is_advanced"`
	Optional    bool            `json:"is_optional"`
	Secret      bool            `json:"is_secret"`
	Default     json.RawMessage `json:"default"`
	Options     []string        `json:"options"`
	Examples    []any           `json:"examples"`
	Version     string          `json:"version"`
	Children    []field         `json:"children"`
}

func registered() (component, error) {
	var view *service.ConfigView
	service.GlobalEnvironment().WalkInputs(func(name string, v *service.ConfigView) {
		if name == awskinesis.Name {
			view = v
		}
	})
	if view == nil {
		return component{}, errors.New("no input " + awskinesis.Name + " is registered")
	}
	raw, err := view.FormatJSON()
	if err != nil {
		return component{}, err
	}
	var c component
	err = json.Unmarshal(raw, &c)
	return c, err
}

// links turns those of Benthos' own descriptions, which are paths on its site,
// into addresses of the release that the input is built for.
var links = strings.NewReplacer(
	"](/docs/guides/bloblang/about/)", "](https://github.com/benthosdev/benthos/blob/v4.27.0/website/docs/guides/bloblang/about.md)",
	"](/docs/components/processors/about)", "](https://github.com/benthosdev/benthos/blob/v4.27.0/website/docs/components/processors/about.md)",
	"](/docs/configuration/batching)", "](https://github.com/benthosdev/benthos/blob/v4.27.0/website/docs/configuration/batching.md)",
)

func render(c component) ([]byte, error) {
	var page strings.Builder
	fmt.Fprintf(&page, "<!-- Written by `make docs` from the input's specification. Change config_spec.go or config_spec.md instead. -->\n\n")
	fmt.Fprintf(&page, "# %s\n\n%s\n\n", c.Name, c.Summary)
	fmt.Fprintf(&page, "Status: %s. In Benthos since version %s.\n\n", c.Status, c.Version)

	fmt.Fprintf(&page, "The fields that most configurations need, with their defaults:\n\n")
	writeExample(&page, c, func(f field) bool { return !f.Advanced })
	fmt.Fprintf(&page, "All fields:\n\n")
	writeExample(&page, c, func(field) bool { return true })

	// The sections of the description move up to stand beside the one on fields.
	fmt.Fprintf(&page, "%s\n\n## Fields\n", strings.ReplaceAll(strings.TrimSpace(c.Description), "\n### ", "\n## "))
	for _, f := range c.Config.Children {
		if err := writeField(&page, "", f); err != nil {
			return nil, err
		}
	}

	out := links.Replace(page.String())
	if at := strings.Index(out, "](/"); at >= 0 {
		return nil, fmt.Errorf("a link leads to a page of Benthos' site, add it to links: %.60s", out[at:])
	}
	return []byte(out), nil
}

func writeExample(page *strings.Builder, c component, keep func(field) bool) {
	fmt.Fprintf(page, "```yaml\ninput:\n  label: \"\"\n  %s:\n", c.Name)
	writeDefaults(page, "    ", c.Config.Children, keep)
	fmt.Fprintf(page, "```\n\n")
}

func writeDefaults(page *strings.Builder, indent string, fields []field, keep func(field) bool) {
	for _, f := range fields {
		switch {
		case !keep(f):
		case len(f.Children) > 0:
			fmt.Fprintf(page, "%s%s:\n", indent, f.Name)
			writeDefaults(page, indent+"  ", f.Children, keep)
		case f.Default != nil:
			fmt.Fprintf(page, "%s%s: %s\n", indent, f.Name, f.Default) // JSON is YAML
		case f.Optional:
			fmt.Fprintf(page, "%s%s: [] # optional\n", indent, f.Name)
		default:
			fmt.Fprintf(page, "%s%s: [] # required\n", indent, f.Name)
		}
	}
}

func writeField(page *strings.Builder, prefix string, f field) error {
	fmt.Fprintf(page, "\n### `%s%s`\n\n%s\n\n", prefix, f.Name, strings.TrimSpace(f.Description))
	if f.Secret {
		fmt.Fprintf(page, "This is a secret: write it as a variable of the environment, such as `${SECRET}`, and not into the file.\n\n")
	}

	typ := f.Type
	if f.Kind == "array" {
		typ = "list of " + f.Type
	}
	facts := []string{"Type: " + typ}
	switch {
	case f.Default != nil:
		facts = append(facts, "default: `"+string(f.Default)+"`")
	case f.Optional:
		facts = append(facts, "optional")
	case len(f.Children) == 0:
		facts = append(facts, "required")
	}
	if len(f.Options) > 0 {
		facts = append(facts, "options: `"+strings.Join(f.Options, "`, `")+"`")
	}
	if f.Advanced {
		facts = append(facts, "advanced")
	}
	if f.Version != "" {
		facts = append(facts, "since version "+f.Version)
	}
	fmt.Fprintf(page, "%s.\n", strings.Join(facts, "; "))

	if len(f.Examples) > 0 {
		fmt.Fprintf(page, "\n```yaml\n")
		for i, example := range f.Examples {
			if i > 0 {
				fmt.Fprintf(page, "# or\n")
			}
			enc := yaml.NewEncoder(page)
			enc.SetIndent(2)
			if err := enc.Encode(map[string]any{f.Name: example}); err != nil {
				return fmt.Errorf("writing an example of field %s%s: %w", prefix, f.Name, err)
			}
		}
		fmt.Fprintf(page, "```\n")
	}
	for _, child := range f.Children {
		if err := writeField(page, prefix+f.Name+".", child); err != nil {
			return err
		}
	}
	return nil
}

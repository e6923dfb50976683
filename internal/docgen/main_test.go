package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStaleFileIsFoundWithItsFirstDifferentLine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "page.md")
	require.ErrorIs(t, run(file, dir, true), os.ErrNotExist)
	require.NoError(t, run(file, dir, false))
	require.NoError(t, run(file, dir, true))

	page, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(page, "more\n"...), 0o600))
	require.ErrorContains(t, run(file, dir, true), "is stale: run `make docs`")
	require.NoError(t, run(file, dir, false))
	rules := filepath.Join(dir, "alerts.yaml")
	require.NoError(t, os.WriteFile(rules, []byte("groups: []\n"), 0o600))
	require.ErrorContains(t, run(file, dir, true), rules+" is stale: run `make docs`")
	require.EqualError(t, compare("f", []byte("a\nb\nc"), []byte("a\nx\nc")),
		"f is stale: run `make docs`\nline 2 is\n  b\nand should be\n  x")
	require.EqualError(t, compare("f", []byte("a"), []byte("a\nb")),
		"f is stale: run `make docs`\nline 2 is\n  (end of file)\nand should be\n  b")
}

func TestFieldIsWrittenWithAllThatIsKnownOfIt(t *testing.T) {
	page, err := render(component{
		Name: "in", Status: "stable", Version: "1.0.0", Summary: "Reads.", Description: "More.\n\n### Part\n\nText.",
		Config: field{Children: []field{
			{Name: "list", Type: "string", Kind: "array", Description: "Things.", Examples: []any{[]any{"a"}, []any{"b"}}},
			{Name: "o", Type: "object", Description: "Object.", Children: []field{
				{Name: "mode", Type: "string", Description: "Mode.", Default: []byte(`"x"`), Options: []string{"x", "y"}},
				{Name: "key", Type: "string", Description: "See [batching](/docs/configuration/batching).", Default: []byte(`""`), Advanced: true, Secret: true, Version: "1.2.0"},
			}},
			{Name: "procs", Type: "processor", Kind: "array", Description: "Processors.", Optional: true},
		}},
	})
	require.NoError(t, err)
	require.Equal(t, "<!-- Written by `make docs` from the input's specification. Change config_spec.go or config_spec.md instead. -->\n"+`
# in

Reads.

Status: stable. In Benthos since version 1.0.0.

The fields that most configurations need, with their defaults:

`+"```yaml"+`
input:
  label: ""
  in:
    list: [] # required
    o:
      mode: "x"
    procs: [] # optional
`+"```"+`

All fields:

`+"```yaml"+`
input:
  label: ""
  in:
    list: [] # required
    o:
      mode: "x"
      key: ""
    procs: [] # optional
`+"```"+`

More.

## Part

Text.

## Fields

### `+"`list`"+`

Things.

Type: list of string; required.

`+"```yaml"+`
list:
  - a
# or
list:
  - b
`+"```"+`

### `+"`o`"+`

Object.

Type: object.

### `+"`o.mode`"+`

Mode.

Type: string; default: `+"`\"x\"`"+`; options: `+"`x`, `y`"+`.

### `+"`o.key`"+`

See [batching](https://github.com/benthosdev/benthos/blob/v4.27.0/website/docs/configuration/batching.md).

This is a secret: write it as a variable of the environment, such as `+"`${SECRET}`"+`, and not into the file.

Type: string; default: `+"`\"\"`"+`; advanced; since version 1.2.0.

### `+"`procs`"+`

Processors.

Type: list of processor; optional.
`, string(page))
}

func TestUnknownLinkToTheSiteOfBenthosIsAnError(t *testing.T) {
	_, err := render(component{Description: "See [it](/docs/other)."})
	require.ErrorContains(t, err, "/docs/other")
}

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

var (
	link    = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]+)?\)`)
	part    = regexp.MustCompile(`operating\.md(#[a-z0-9_-]+)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	name    = regexp.MustCompile("kinesis_[a-z_]+")
	strange = regexp.MustCompile(`[^a-z0-9_ -]`)
	fenced  = regexp.MustCompile("(?s)\n```(\\w*)\n(.*?)\n```")
)

// anchors are those of the headings of a page, as GitHub makes them.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		all["#"+strings.ReplaceAll(strange.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}

func TestLinksOfTheGuideLeadSomewhere(t *testing.T) {
	const dir = "../../docs"
	page, err := os.ReadFile(dir + "/operating.md")
	require.NoError(t, err)
	links := link.FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(links), 30)
	for _, m := range links {
		if strings.HasPrefix(m[1], "https://") {
			continue
		}
		target := page
		if m[1] != "" {
			target, err = os.ReadFile(filepath.Join(dir, m[1]))
			require.NoError(t, err)
		}
		if m[2] != "" {
			require.Contains(t, anchors(string(target)), m[2], m[0])
		}
	}
}

// Others, such as alerts, name a part of the guide.
func TestWhoeverNamesAPartOfTheGuideFindsIt(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	require.NoError(t, err)
	parts := anchors(string(page))
	require.NoError(t, filepath.WalkDir("../../docs", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		for _, m := range part.FindAllStringSubmatch(string(content), -1) {
			require.Contains(t, parts, m[1], file)
		}
		return err
	}))
}

// A metric, or a field of metadata, that the reference does not have is one that nobody
// can look at.
func TestMetricsOfTheGuideAreThoseOfTheReference(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	require.NoError(t, err)
	reference, err := os.ReadFile("../../docs/aws_kinesis.md")
	require.NoError(t, err)
	for _, m := range name.FindAllString(string(page), -1) {
		require.Contains(t, string(reference), "`"+m+"`")
	}
}

func TestSnippetsOfTheGuideForOthersAreYAML(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	require.NoError(t, err)
	found := 0
	for _, m := range fenced.FindAllStringSubmatch(string(page), -1) {
		if m[1] != "yml" {
			continue
		}
		found++
		var doc struct {
			Kind     string `yaml:"kind"`
			Metadata struct {
				Name string `yaml:"name"`
			} `yaml:"metadata"`
		}
		require.NoError(t, yaml.Unmarshal([]byte(m[2]), &doc), m[2])
		require.NotEmpty(t, doc.Kind)
		require.NotEmpty(t, doc.Metadata.Name)
	}
	require.GreaterOrEqual(t, found, 2)
}

// Whoever reads a line at night finds it in the guide, with what it means.
func TestGuideHasEveryMessageOfTheCodeAndNoOther(t *testing.T) {
	sections, err := parseList(messageList)
	require.NoError(t, err)
	said, err := messages("../..")
	require.NoError(t, err)
	require.Greater(t, len(said), 400)
	dirs, err := packages("../..")
	require.NoError(t, err)
	require.Subset(t, dirs, []string{".", "internal/journal", "internal/group", "internal/session", "internal/retrieval/wire"})
	require.NotContains(t, dirs, "internal/awsfake")
	require.NoError(t, compareList(sections, said))
	for _, s := range sections {
		for _, row := range s.rows {
			if row.means == "" && row.todo == "" {
				require.Contains(t, []string{configurationErrors, "Errors of AWS and of the network", silent}, s.title, row.texts)
			}
		}
	}
}

func TestListThatIsNotThatOfTheCodeNamesWhatDiffers(t *testing.T) {
	sections := []section{{title: "A", rows: []listed{{texts: []string{"one thing fails", "another thing fails", "one thing fails"}}}}}
	err := compareList(sections, []message{{"one thing fails", "error", "a.go"}, {"a third thing fails", "", "b.go"}})
	require.EqualError(t, err, "messages.txt has twice: one thing fails\n"+
		"messages.txt lacks a text of b.go, say there what it means and what is to be done: a third thing fails\n"+
		"messages.txt has what the code does not say: another thing fails")
}

// found writes code, and returns the messages of it by their levels.
func found(t *testing.T, code string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "code.go")
	require.NoError(t, os.WriteFile(file, []byte("package p\n"+code), 0o600))
	all, err := messagesOf(file)
	require.NoError(t, err)
	levels := map[string]string{}
	for _, m := range all {
		levels[m.text] = m.level
	}
	return levels
}

func TestEveryWayToSaySomethingIsFound(t *testing.T) {
	require.Equal(t, map[string]string{
		"lost":                                 "",
		"reading shard …: …":                   "",
		"Client … is %:  gone, says …":         "warning",
		"is read here … now":                   "info",
		"are read here now: … of all":          "info",
		"Item … is behind":                     "warning",
		"The input is ready after …":           "error",
		"reads of … fail: …. They are read on": "error",
		"Check the field region, or the clock": "",
		"the inner part of it":                 "",
	}, found(t, `
const remedy = ", or the clock"
var errLost = errors.New("lost")
var words = []W{{level: Error, things: "reads", of: "of", fail: "fail", again: "are read again now", forMany: "They are read on"}}
func f() error {
	const check = "Check the field"
	s.say(journal.Warning, "Client %s is %%:  gone, says %v", id, err)
	j.Changed(journal.Info, stream, shard, fmt.Sprintf("is read here %d now", n), "are read here now: "+why+" of all", now)
	m.warn("Item %q is behind", name)
	_ = &journal.Line{Level: journal.Error, Text: fmt.Sprintf("The input is ready after %s", took)}
	if strings.Contains(text, "not of any interest") { panic("never to be seen") }
	log.Debugf("For developers of it alone")
	return fmt.Errorf("reading shard %s: %w", id, hint(check+" region"+remedy, "short", fmt.Sprintf("%s", "the inner part of it")))
}
`))
}

func TestListIsReadAsItIsWritten(t *testing.T) {
	sections, err := parseList("# About it.\n\n## First\n\nSome prose.\n\n> one …\n> two\n= Meaning.\n+ Remedy.\n\n> three\n\n## -\n\n> four\n")
	require.NoError(t, err)
	require.Equal(t, []section{
		{"First", "Some prose.", []listed{{[]string{"one …", "two"}, "Meaning.", "Remedy."}, {texts: []string{"three"}}}},
		{title: silent, rows: []listed{{texts: []string{"four"}}}},
	}, sections)
	list := renderList(sections, []message{{"one …", "warning", "a.go"}})
	require.Equal(t, "\n### First\n\nSome prose.\n\n- warning: \"one …\"; \"two\"\n  Meaning.\n  Remedy.\n- three\n", list)

	page, err := guide("a\n"+listBegins+"old"+listEnds+"b\n", list)
	require.NoError(t, err)
	require.Equal(t, "a\n"+listBegins+list+"\n"+listEnds+"b\n", page)
	_, err = guide("a\n", list)
	require.ErrorContains(t, err, "no place")

	for _, wrong := range []string{"> one", "## A\n\n> one\n\n? two"} {
		_, err := parseList(wrong)
		require.Error(t, err, wrong)
	}
}

func TestGuideThatIsStaleIsFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "guide.md")
	require.ErrorIs(t, runGuide(file, "../..", true), os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte(listBegins+listEnds), 0o600))
	require.ErrorContains(t, runGuide(file, "../..", true), "is stale: run `make docs`")
	require.NoError(t, runGuide(file, "../..", false))
	require.NoError(t, runGuide(file, "../..", true))
}

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever reads a line at night finds it in the guide, with what it means.
func TestGuideHasEveryMessageOfTheCodeAndNoOther(t *testing.T) {
	sections, err := parseList(messageList)
	require.NoError(t, err)
	said, err := messages("../..")
	require.NoError(t, err)
	require.Greater(t, len(said), 400)
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

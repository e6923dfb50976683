package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
)

// listed is what messages.txt says of some messages that mean the same.
type listed struct {
	texts       []string
	means, todo string
}

// section is a part of messages.txt.
type section struct {
	title, prose string
	rows         []listed
}

// silent is the title of the section whose texts nobody reads.
const silent = "-"

//go:embed messages.txt
var messageList string

// parseList reads messages.txt.
func parseList(list string) ([]section, error) {
	var sections []section
	fresh := true // the next text begins a row
	for n, line := range strings.Split(list, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		if kind == "##" {
			sections = append(sections, section{title: rest})
			fresh = true
			continue
		}
		if kind == "#" || len(sections) == 0 && line == "" {
			continue
		}
		if len(sections) == 0 {
			return nil, fmt.Errorf("messages.txt:%d: no section has begun", n+1)
		}
		s := &sections[len(sections)-1]
		last := len(s.rows) - 1
		switch {
		case line == "":
			fresh = true
		case kind == ">" && fresh:
			s.rows, fresh = append(s.rows, listed{texts: []string{rest}}), false
		case kind == ">":
			s.rows[last].texts = append(s.rows[last].texts, rest)
		case kind == "=" && last >= 0:
			s.rows[last].means = rest
		case kind == "+" && last >= 0:
			s.rows[last].todo = rest
		case last < 0:
			s.prose = line
		default:
			return nil, fmt.Errorf("messages.txt:%d: a line begins with #, ##, >, = or +", n+1)
		}
	}
	return sections, nil
}

// compareList returns an error that names every message of the code that is not in the
// list, and every one of the list that the code does not have.
func compareList(sections []section, said []message) error {
	inList := map[string]bool{}
	var errs []error
	for _, s := range sections {
		for _, row := range s.rows {
			for _, text := range row.texts {
				if inList[text] {
					errs = append(errs, fmt.Errorf("messages.txt has twice: %s", text))
				}
				inList[text] = true
			}
		}
	}
	for _, m := range said {
		if !inList[m.text] {
			errs = append(errs, fmt.Errorf("messages.txt lacks a text of %s, say there what it means and what is to be done: %s", m.file, m.text))
		}
		delete(inList, m.text)
	}
	for text := range inList {
		errs = append(errs, fmt.Errorf("messages.txt has what the code does not say: %s", text))
	}
	return errors.Join(errs...)
}

// renderList writes the sections as they stand in the guide.
func renderList(sections []section, said []message) string {
	levels := map[string]string{}
	for _, m := range said {
		levels[m.text] = m.level
	}
	var page strings.Builder
	for _, s := range sections {
		if s.title == silent {
			continue
		}
		fmt.Fprintf(&page, "\n### %s\n\n", s.title)
		if s.prose != "" {
			fmt.Fprintf(&page, "%s\n\n", s.prose)
		}
		for _, row := range s.rows {
			if row.means == "" && row.todo == "" {
				for _, text := range row.texts {
					fmt.Fprintf(&page, "- %s\n", text)
				}
				continue
			}
			level := levels[row.texts[0]]
			if level != "" && s.title != configurationErrors {
				level += ": "
			} else {
				level = ""
			}
			fmt.Fprintf(&page, "- %s\"%s\"\n", level, strings.Join(row.texts, "\"; \""))
			for _, part := range []string{row.means, row.todo} {
				if part != "" {
					fmt.Fprintf(&page, "  %s\n", part)
				}
			}
		}
	}
	return page.String()
}

const configurationErrors = "Errors of the configuration"

// Between these lines of the guide stands the list.
const (
	listBegins = "<!-- The list below is written by `make docs` from internal/docgen/messages.txt. -->\n"
	listEnds   = "<!-- End of the list. -->\n"
)

// guide returns a guide with the list of messages in its place.
func guide(page, list string) (string, error) {
	before, rest, begun := strings.Cut(page, listBegins)
	_, after, ended := strings.Cut(rest, listEnds)
	if !begun || !ended {
		return "", errors.New("it has no place for the list of messages")
	}
	return before + listBegins + list + "\n" + listEnds + after, nil
}

// runGuide writes the list of messages into the guide or, with check, fails where another
// one stands there, or where the list is not that of the code below root.
func runGuide(file, root string, check bool) error {
	sections, err := parseList(messageList)
	if err != nil {
		return err
	}
	said, err := messages(root)
	if err != nil {
		return err
	}
	if err := compareList(sections, said); err != nil {
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page, err := guide(string(old), renderList(sections, said))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if check {
		return compare(file, old, []byte(page))
	}
	return os.WriteFile(file, []byte(page), 0o644)
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// message is something that the code may say to whoever runs the input.
type message struct {
	text  string // with gap where something stands that differs each time
	level string // "info", "warning", "error" of a line of the log; "" where the code does not tell
	file  string
}

// gap stands for what differs each time that a message is said.
const gap = "…"

// unsaid are functions whose texts are compared with others, or are those of a defect.
var unsaid = []string{"has", "Contains", "HasPrefix", "HasSuffix", "TrimSuffix", "MustCompile", "Debugf", "panic"}

// described are files whose texts stand in the reference, which is made from them.
var described = []string{"config_spec.go", "metrics.go", "internal/metric/table.go"}

const module = "github.com/benthos-plugins/aws-kinesis"

// packages returns the folders below root of the packages that the input is made of: its
// own, and all of this module that it imports, one through another.
func packages(root string) ([]string, error) {
	dirs := []string{"."}
	for i := 0; i < len(dirs); i++ {
		files, err := sources(filepath.Join(root, dirs[i]))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				return nil, err
			}
			for _, spec := range parsed.Imports {
				dir, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
				if ours && !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	return dirs, nil
}

// sources are the files of a package, without its tests.
func sources(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, "_test.go") })
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	return files, err
}

// messages finds everything that the code may say: every text of errors.New and
// fmt.Errorf, and every other one of three words and more, for no shorter one is a
// sentence. Texts that are put together of several count as one.
//
// Expressions of DynamoDB, which end in no log, are left out. What else no operator ever
// sees, such as a text of panic, is found: the list of messages says that it is none.
func messages(root string) ([]message, error) {
	dirs, err := packages(root)
	if err != nil {
		return nil, err
	}
	var all []message
	for _, dir := range dirs {
		files, err := sources(filepath.Join(root, dir))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if slices.Contains(described, path.Join(filepath.ToSlash(dir), filepath.Base(file))) {
				continue
			}
			found, err := messagesOf(file)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	rules, err := lintMessages(filepath.Join(root, "internal", "configlint", "maps.blobl"))
	if err != nil {
		return nil, err
	}
	all = append(all, rules...)
	slices.SortStableFunc(all, func(a, b message) int {
		// Of two that are the same, the one whose level is known counts.
		return cmp.Or(cmp.Compare(a.text, b.text), -cmp.Compare(a.level, b.level))
	})
	return slices.CompactFunc(all, func(a, b message) bool { return a.text == b.text }), nil
}

func messagesOf(file string) ([]message, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	r := reader{constants: map[string]ast.Expr{}, file: filepath.Base(file)}
	r.learn(parsed)
	for _, decl := range parsed.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			inner := r
			inner.constants = maps.Clone(r.constants)
			inner.learn(f)
			inner.read(f, "")
			r.found = inner.found
			continue
		}
		if group, ok := decl.(*ast.GenDecl); !ok || group.Tok != token.CONST {
			r.read(decl, "")
		}
	}
	return r.found, nil
}

// reader collects the messages of a file. messagesOf makes it.
type reader struct {
	constants map[string]ast.Expr // by name, those of the file and of the function
	file      string
	found     []message
}

// learn takes in the constants of a file or a function.
func (r *reader) learn(in ast.Node) {
	ast.Inspect(in, func(n ast.Node) bool {
		if _, inner := n.(*ast.FuncDecl); inner && n != in {
			return false
		}
		if decl, ok := n.(*ast.GenDecl); ok && decl.Tok == token.CONST {
			for _, spec := range decl.Specs {
				value := spec.(*ast.ValueSpec)
				for i, name := range value.Names {
					if i < len(value.Values) {
						r.constants[name.Name] = value.Values[i]
					}
				}
			}
		}
		return true
	})
}

// read collects the messages of a node. level is that of the call around it.
func (r *reader) read(in ast.Node, level string) {
	ast.Inspect(in, func(n ast.Node) bool {
		if n == nil || n == in {
			return n != nil
		}
		switch n := n.(type) {
		case *ast.ImportSpec, *ast.Field:
			_, isField := n.(*ast.Field)
			if isField && n.(*ast.Field).Tag != nil {
				r.read(n.(*ast.Field).Type, level)
			}
			return isField && n.(*ast.Field).Tag == nil
		case *ast.GenDecl:
			return n.Tok != token.CONST // each counts where it is used
		case *ast.CallExpr:
			if slices.Contains(unsaid, called(n.Fun)) {
				return false
			}
			if text, ok := r.text(n); ok {
				r.add(text, level, isError(n))
				for _, arg := range n.Args[1:] {
					r.read(&ast.ExprStmt{X: arg}, level)
				}
				return false
			}
			if said := levelOf(n.Args); said != "" {
				r.read(n, said)
				return false
			}
			if name := called(n.Fun); name == "warn" {
				r.read(n, "warning")
				return false
			}
		case *ast.CompositeLit:
			if text, said, ok := r.fault(n); ok {
				r.add(text, said, false)
				return false
			}
			if said := levelOf(n.Elts); said != "" {
				r.read(n, said)
				return false
			}
		case ast.Expr:
			if text, ok := r.text(n); ok {
				r.add(text, level, false)
				r.parts(n, level)
				return false
			}
		}
		return true
	})
}

// parts reads what stands in a sum beside its texts.
func (r *reader) parts(n ast.Expr, level string) {
	sum, ok := n.(*ast.BinaryExpr)
	if !ok {
		return
	}
	for _, side := range []ast.Expr{sum.X, sum.Y} {
		if _, ok := r.text(side); ok {
			r.parts(side, level)
			continue
		}
		r.read(&ast.ExprStmt{X: side}, level)
	}
}

func (r *reader) add(text, level string, always bool) {
	text = strings.TrimSpace(gaps.ReplaceAllString(strings.ReplaceAll(verbs.ReplaceAllString(text, gap), "%%", "%"), gap))
	if !always && expression.MatchString(text) {
		return
	}
	if always && letters.MatchString(text) || len(strings.Fields(text)) >= 3 && len(letters.FindAllString(text, -1)) >= 2 {
		r.found = append(r.found, message{text, level, r.file})
	}
}

// fault is the first line about a fault of the journal, of which the literal has the words.
func (r *reader) fault(literal *ast.CompositeLit) (text, level string, ok bool) {
	words := map[string]string{}
	for _, e := range literal.Elts {
		if field, ok := e.(*ast.KeyValueExpr); ok {
			if name, ok := field.Key.(*ast.Ident); ok {
				words[name.Name], _ = r.text(field.Value)
			}
		}
	}
	if words["things"] == "" || words["fail"] == "" {
		return "", "", false
	}
	return fmt.Sprintf("%s %s … %s: …. %s", words["things"], words["of"], words["fail"], words["forMany"]), levelOf(literal.Elts), true
}

var (
	letters = regexp.MustCompile(`\pL{2,}`)
	// expression is a text with a placeholder or a function of an expression.
	expression = regexp.MustCompile(`= :[a-z]|(attribute|if)_(not_)?exists\(`)
	gaps       = regexp.MustCompile(gap + `(` + gap + `)+`)
	verbs      = regexp.MustCompile(`%[-+# 0]*(\[\d+\])?[0-9*]*(\.[0-9*]+)?(\[\d+\])?[a-zA-Z]`)
)

// text returns the text of an expression, with gaps, and whether it has one.
func (r *reader) text(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.Ident:
		if value, ok := r.constants[e.Name]; ok {
			return r.text(value)
		}
	case *ast.ParenExpr:
		return r.text(e.X)
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		left, isLeft := r.text(e.X)
		right, isRight := r.text(e.Y)
		if !isLeft {
			left = gap
		}
		if !isRight {
			right = gap
		}
		return left + right, isLeft || isRight
	case *ast.CallExpr:
		switch called(e.Fun) {
		case "Sprintf", "Errorf":
			return r.text(e.Args[0])
		case "New":
			if isError(e) {
				return r.text(e.Args[0])
			}
		}
	}
	return "", false
}

// called is the name of a function that is called, without that of its package or value.
func called(fun ast.Expr) string {
	switch fun := fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		return fun.Sel.Name
	}
	return ""
}

// isError reports whether a call makes an error.
func isError(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return false
	}
	of, ok := selector.X.(*ast.Ident)
	return ok && (of.Name == "errors" && selector.Sel.Name == "New" || of.Name == "fmt" && selector.Sel.Name == "Errorf")
}

// levelOf is the level among the arguments of a call or the fields of a literal; "" when
// none is.
func levelOf(of []ast.Expr) string {
	for _, e := range of {
		if field, ok := e.(*ast.KeyValueExpr); ok {
			e = field.Value
		}
		switch called(e) {
		case "Info":
			return "info"
		case "Warning":
			return "warning"
		case "Error":
			return "error"
		}
	}
	return ""
}

// lintMessages are the texts of the rules of the configuration.
func lintMessages(file string) ([]message, error) {
	code, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []message
	for _, m := range quoted.FindAllStringSubmatch(string(code), -1) {
		all = append(all, message{verbs.ReplaceAllString(m[1], gap), "error", filepath.Base(file)})
	}
	if len(all) == 0 {
		return nil, errors.New(file + " has no message")
	}
	return all, nil
}

var quoted = regexp.MustCompile("\"(field `[^\"]*)\"")

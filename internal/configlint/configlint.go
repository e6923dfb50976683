// Package configlint finds the mistakes that a configuration of the input can show
// by itself. It knows the fields by their names and the mistakes by their messages,
// each of which says which field, what is wrong and what to write instead; what a
// sound configuration means is the root package's to say.
//
// The mistakes are maps in Bloblang (maps.blobl), because that is what Benthos'
// linter can run: [Rule] is the mapping for a field of the specification. [Check]
// and [Unnamed] run the same maps on the configuration as the component gets it, so
// that whoever does not lint hears of the same mistakes in the same words.
//
// A variable of the environment that is not set leaves an empty text. That is no
// mistake of the file, so Rule lets it pass, and Check finds it at the component's
// start. An input that names no stream or no table can still be built, as Benthos'
// own input can, by tools that only look whether it can be; it does not connect,
// and says what Unnamed found.
package configlint

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"

	"github.com/benthosdev/benthos/v4/public/bloblang"
	"github.com/benthosdev/benthos/v4/public/service"
)

// Unwritten is the type of the default of `dynamodb.table`. It is the empty text to
// everybody but the maps: Benthos gives them the defaults of fields that are absent,
// and they are to tell an absent table from one that a variable of the environment
// left empty.
type Unwritten string

// stage is when a rule is run.
type stage uint8

const (
	atLint    stage = 1 << iota // by Benthos, on the file as it is written
	atBuild                     // by Check, whose error keeps the component from being built
	atConnect                   // by Unnamed, whose error Connect returns
)

// rules are the rules of the configuration, each with the field it is for, "" for
// the whole, and the expression that calls its map. `this` is the field's value.
//
// No period but the least time between two reads may be longer than a day, and some
// have a lower limit: that is far more than anybody waits for a dead process, and
// several of them can be added up without an overflow.
var rules = []struct {
	field, call string
	when        stage
}{
	{"", `this.apply("config")`, atLint | atBuild},
	{"", `this.apply("absent")`, atLint},
	{"", `this.apply("unset")`, atBuild},
	{"", `this.apply("unnamed")`, atConnect},
	{"streams", `if this.type() == "array" { this.apply("streams") }`, atLint | atBuild}, // Benthos lints each element too
	{"dynamodb", `this.apply("table")`, atLint | atBuild},
	{"dynamodb.table", `this.apply("text").trim().apply("table_name")`, atLint | atBuild},
	{"dynamodb.endpoint", `{"field": "dynamodb.endpoint", "value": this}.apply("endpoint")`, atLint | atBuild},
	{"dynamodb.credentials", `{"field": "dynamodb.credentials", "value": this}.apply("credentials")`, atLint | atBuild},
	{"group", `this.apply("group")`, atLint | atBuild},
	{"checkpoint_limit", `this.apply("checkpoint_limit")`, atLint | atBuild},
	{"ordering", `this.apply("ordering")`, atLint | atBuild},
	{"max_buffered_bytes", `this.apply("max_buffered_bytes")`, atLint | atBuild},
	// A shard's item takes 1,000 writes a second, and so do all items of a stream
	// together where they share a partition: ten a second leave room for shards.
	{"commit_period", `{"field": "commit_period", "value": this, "example": "5s", "least": "100ms", "why": "each shard's item is written so often", "most": "24h"}.apply("period")`, atLint | atBuild},
	{"rebalance_period", `{"field": "rebalance_period", "value": this, "example": "30s", "least": "1s", "why": "the table is read so often", "most": "24h"}.apply("period")`, atLint | atBuild},
	// An attempt to renew a lease may take a fifth of the period: 200 ms and more.
	{"lease_period", `{"field": "lease_period", "value": this, "example": "30s", "least": "1s", "why": "a lease is renewed several times in it", "most": "24h"}.apply("period")`, atLint | atBuild},
	{"steal_grace_period", `{"field": "steal_grace_period", "value": this, "example": "2s", "most": "24h"}.apply("period")`, atLint | atBuild},
	{"enhanced_fan_out", `this.apply("fan_out")`, atLint | atBuild},
	{"enhanced_fan_out.mode", `this.apply("fan_out_mode")`, atLint | atBuild},
	{"enhanced_fan_out.consumer_name", `this.apply("consumer_name")`, atLint | atBuild},
	{"enhanced_fan_out.consumer_arn", `this.apply("consumer_arn")`, atLint | atBuild},
	{"enhanced_fan_out.consumer_activation_timeout", `{"field": "enhanced_fan_out.consumer_activation_timeout", "value": this, "example": "1m", "least": "1s", "why": "a consumer takes some seconds to be registered", "most": "1h", "longest": "an hour"}.apply("period")`, atLint | atBuild},
	{"enhanced_fan_out.max_resubscribe_interval", `{"field": "enhanced_fan_out.max_resubscribe_interval", "value": this, "example": "30s", "least": "1s", "why": "Kinesis lets a consumer subscribe to a shard once a second", "most": "5m", "longest": "five minutes"}.apply("period")`, atLint | atBuild},
	{"wire_format", `this.apply("wire_format")`, atLint | atBuild},
	{"deaggregate_foreign", `this.apply("deaggregate_foreign")`, atLint | atBuild},
	{"endpoint", `{"field": "endpoint", "value": this}.apply("endpoint")`, atLint | atBuild},
	{"credentials", `{"field": "credentials", "value": this}.apply("credentials")`, atLint | atBuild},
	{"batching", `this.apply("batching")`, atLint | atBuild},
}

// Rule is the mapping that Benthos' linter runs on a field, which is named by its
// path with dots, "" for the whole configuration. It panics on a field that has no
// rule.
func Rule(field string) string {
	var calls []string
	for _, r := range rules {
		if r.field == field && r.when&atLint != 0 {
			calls = append(calls, r.call)
		}
	}
	return mapping(calls...)
}

// Check finds the mistakes of a configuration that is interpolated and has its
// defaults, without any call to AWS. Its error lists them, one a line.
func Check(conf *service.ParsedConfig) error { return check(conf, atBuild) }

// Unnamed says that a configuration names no stream or no table, without which the
// input cannot connect.
func Unnamed(conf *service.ParsedConfig) error { return check(conf, atConnect) }

// Bytes reads a size such as `256MiB`, one that Check has let pass.
func Bytes(size string) (int64, error) {
	c, err := compiledRules()
	if err != nil {
		return 0, err
	}
	bytes, err := c.size.Query(size)
	if err != nil {
		return 0, err
	}
	switch bytes := bytes.(type) {
	case int64:
		return bytes, nil
	case float64:
		return int64(bytes), nil
	default:
		return 0, fmt.Errorf("%v of type %T is no number", bytes, bytes)
	}
}

// check runs the rules of a stage.
func check(conf *service.ParsedConfig, when stage) error {
	c, err := compiledRules()
	if err != nil {
		return err
	}
	var errs []error
	for i, r := range rules {
		if r.when&when == 0 {
			continue
		}
		var path []string
		if r.field != "" {
			path = strings.Split(r.field, ".")
		}
		value, err := conf.FieldAny(path...)
		if err != nil {
			return err
		}
		found, err := c.rules[i].Query(value)
		if err != nil {
			return fmt.Errorf("checking field `%s`: %w", r.field, err)
		}
		errs = append(errs, mistakes(found)...)
	}
	return errors.Join(errs...)
}

// mistakes flattens the result of a rule: a message, "" for none, or a list of
// results.
func mistakes(found any) []error {
	switch found := found.(type) {
	case string:
		if found != "" {
			return []error{errors.New(found)}
		}
	case []any:
		var errs []error
		for _, f := range found {
			errs = append(errs, mistakes(f)...)
		}
		return errs
	}
	return nil
}

// compiledRules are rules in their order, and the one that reads a size.
var compiledRules = sync.OnceValues(func() (*compiled, error) {
	env := bloblang.NewEnvironment().OnlyPure()
	c := &compiled{rules: make([]*bloblang.Executor, len(rules))}
	var err error
	for i, r := range rules {
		if c.rules[i], err = env.Parse(mapping(r.call)); err != nil {
			return nil, fmt.Errorf("parsing the rule of field `%s`: %w", r.field, err)
		}
	}
	if c.size, err = env.Parse(mapping(sizeCall)); err != nil {
		return nil, fmt.Errorf("parsing what reads a size: %w", err)
	}
	return c, nil
})

type compiled struct {
	rules []*bloblang.Executor
	size  *bloblang.Executor // from a text that is one to bytes
}

const sizeCall = `this.apply("size").floor()`

// mapping is the Bloblang of calls: these and the maps that they need, but no
// others, for Bloblang takes a millisecond to parse ten lines and every start of
// the program parses every rule.
func mapping(calls ...string) string {
	missing := maps.Clone(mapsByName())
	var withMaps func(code string) string
	withMaps = func(code string) string {
		for _, call := range mapCall.FindAllStringSubmatch(code, -1) {
			if called, ok := missing[call[1]]; ok {
				delete(missing, call[1])
				code = withMaps(called) + code
			}
		}
		return code
	}
	root := calls[0]
	if len(calls) > 1 {
		root = "[" + strings.Join(calls, ", ") + "]"
	}
	return withMaps("root = " + root + "\n")
}

//go:embed maps.blobl
var allMaps string

var (
	mapBody = regexp.MustCompile(`(?ms)^map (\w+) \{\n.*?\n\}\n`)
	mapCall = regexp.MustCompile(`\.apply\("(\w+)"\)`)
)

// mapsByName are the maps of maps.blobl.
var mapsByName = sync.OnceValue(func() map[string]string {
	byName := map[string]string{}
	for _, m := range mapBody.FindAllStringSubmatch(allMaps, -1) {
		byName[m[1]] = m[0]
	}
	return byName
})

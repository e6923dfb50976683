package configlint

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/bloblang"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// compile is the mapping of a call.
func compile(t require.TestingT, call string) *bloblang.Executor {
	m, err := bloblang.NewEnvironment().OnlyPure().Parse(mapping(call))
	require.NoError(t, err)
	return m
}

// ruled is what the first rule of a field says of a value.
func ruled(t require.TestingT, field string, value any) []error {
	c, err := compiledRules()
	require.NoError(t, err)
	for i, r := range rules {
		if r.field == field {
			found, err := c.rules[i].Query(value)
			require.NoError(t, err)
			return mistakes(found)
		}
	}
	require.Fail(t, "no rule", field)
	return nil
}

func TestEveryRuleIsPureBloblang(t *testing.T) {
	env := bloblang.NewEnvironment().OnlyPure()
	for _, r := range rules {
		if r.when&atLint != 0 {
			_, err := env.Parse(Rule(r.field))
			require.NoError(t, err, r.field)
		}
	}
}

// TestEveryMapIsNeeded finds a map that no rule calls, and a call of a map that
// there is not.
func TestEveryMapIsNeeded(t *testing.T) {
	code := mapping(sizeCall)
	for _, r := range rules {
		code += mapping(r.call)
	}
	for name := range mapsByName() {
		require.Contains(t, code, "map "+name+" {")
	}
	for _, call := range mapCall.FindAllStringSubmatch(code, -1) {
		require.Contains(t, mapsByName(), call[1])
	}
	require.Len(t, mapsByName(), strings.Count(allMaps, "\nmap "))
}

func TestMappingHasNoMapThatItDoesNotNeed(t *testing.T) {
	require.Equal(t, []string{"checkpoint_limit"}, mapNames(Rule("checkpoint_limit")))
	require.ElementsMatch(t, []string{"batching", "period", "malformed_period", "duration"}, mapNames(Rule("batching")))
}

func mapNames(code string) []string {
	var names []string
	for _, m := range mapBody.FindAllStringSubmatch(code, -1) {
		names = append(names, m[1])
	}
	return names
}

func TestBytesOfWhatIsNoSizeIsAnError(t *testing.T) {
	bytes, err := Bytes("1.5KiB")
	require.NoError(t, err)
	require.EqualValues(t, 1536, bytes)
	for _, size := range []string{"", "lots", "5mb"} {
		_, err := Bytes(size)
		require.Error(t, err, size)
	}
}

// TestRuleKnowsDurationsAsGoDoes compares the rule's arithmetic with
// time.ParseDuration.
func TestRuleKnowsDurationsAsGoDoes(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringMatching(`[-+]?([0-9]{0,4}\.?[0-9]{0,3}(ns|us|µs|ms|s|m|h|d)?){1,3}`),
		rapid.Custom(func(t *rapid.T) string { return time.Duration(rapid.Int64().Draw(t, "ns")).String() }),
		rapid.Custom(func(t *rapid.T) string {
			return time.Duration(rapid.Int64Range(0, int64(25*time.Hour)).Draw(t, "ns")).String()
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		s := text.Draw(t, "duration")
		d, err := time.ParseDuration(s)
		const field = "field `rebalance_period`: "
		var want []error
		switch {
		case s == "":
		case err != nil:
			want = []error{errors.New(field + "`" + s + "` is not a duration: write a number and a unit (ns, us, ms, s, m or h), such as `30s`")}
		case d < 0, d == 0 && (strings.HasPrefix(s, "-") || !strings.ContainsAny(s, "123456789")): // also below zero by less than a nanosecond
			want = []error{errors.New(field + s + " is not above zero: write a longer period, such as `30s`")}
		case d < time.Second: // also above zero by less than a nanosecond
			want = []error{errors.New(field + s + " is too short, for the table is read so often: write `1s` or more, such as `30s`")}
		case d > 24*time.Hour:
			want = []error{errors.New(field + s + " is longer than a day: write `24h` or less, such as `30s`")}
		}
		require.Equal(t, want, ruled(t, "rebalance_period", s))
	})
}

// TestTimeKnowsTheCalendarAsGoDoes compares the map with time.Parse, which takes a
// comma for a point too, and offsets of more minutes than an hour has.
func TestTimeKnowsTheCalendarAsGoDoes(t *testing.T) {
	isTime := compile(t, `this.apply("time")`)
	rapid.Check(t, func(t *rapid.T) {
		number := func(name string, digits, most int) string {
			return fmt.Sprintf("%0*d", digits, rapid.IntRange(0, most).Draw(t, name))
		}
		year := rapid.SampledFrom([]string{"0000", "1900", "2000", "2023", "2024", "2100", "9999"}).Draw(t, "year")
		at := year + "-" + number("month", 2, 14) + "-" + number("day", 2, 33) + "T" + number("hour", 2, 25) + ":" + number("minute", 2, 61) + ":" + number("second", 2, 61) +
			rapid.SampledFrom([]string{"", ".5", ".123456789", "."}).Draw(t, "fraction") +
			rapid.SampledFrom([]string{"Z", "+00:00", "-11:30", "+23:59", "+01:60", "+25:00", "", "z"}).Draw(t, "zone")
		_, err := time.Parse(time.RFC3339Nano, at)
		found, queryErr := isTime.Query(at)
		require.NoError(t, queryErr)
		require.Equal(t, err == nil && !strings.Contains(at, "+01:60"), found, at)
	})
}

// soundConsumer is the documented form of the ARN of a consumer.
var soundConsumer = regexp.MustCompile(`\Aarn:aws[a-z-]*:kinesis:[a-z0-9-]+:[0-9]{12}:stream/[a-zA-Z0-9_.-]{1,128}/consumer/[a-zA-Z0-9_.-]{1,128}:[0-9]+\z`)

// FuzzConsumerARN holds that a text either is the ARN of a consumer or gets a mistake
// that names it, but for one with an empty part.
func FuzzConsumerARN(f *testing.F) {
	for _, seed := range []string{
		"arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1", "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/consumer/consumer/consumer:1",
		"arn:aws:kinesis:*:111122223333:stream/foo/consumer/c:1", "arn:aws:kinesis:us-east-1:111122223333:stream/foo", "arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/:1",
		"arn:aws:kinesis:us-east-1:111122223333:stream/foo/consumer/c:1\n", "foo", "",
	} {
		f.Add(seed)
	}
	hollow := compile(f, `this.apply("hollow")`)
	f.Fuzz(func(t *testing.T, arn string) {
		passed, err := hollow.Query(arn)
		require.NoError(t, err)
		errs := ruled(t, "enhanced_fan_out.consumer_arn", arn)
		require.Equal(t, arn == "" || passed == true || soundConsumer.MatchString(arn), len(errs) == 0)
		for _, err := range errs {
			require.ErrorContains(t, err, arn)
		}
	})
}

// TestConsumerBelongsToTheStreamThatItsARNNames spreads entries of up to two streams
// over shards, and compares with the streams that they were made from.
func TestConsumerBelongsToTheStreamThatItsARNNames(t *testing.T) {
	mistaken := compile(t, `this.apply("consumer_stream")`)
	name := rapid.OneOf(rapid.SampledFrom([]string{"consumer", "stream", "0", "a"}), rapid.StringMatching(`[a-zA-Z0-9_.-]{1,8}`))
	rapid.Check(t, func(t *rapid.T) {
		const prefix = "arn:aws:kinesis:us-east-1:111122223333:stream/"
		of := name.Draw(t, "of")
		ids := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"", prefix, "arn:aws:kinesis:us-east-1:444455556666:stream/"}).Draw(t, "form") +
				rapid.OneOf(rapid.Just(of), name).Draw(t, "name")
		}), 1, 2).Draw(t, "ids")
		sound := true
		var elements []any
		for _, id := range ids {
			sound = sound && id == ids[0] && (id == of || id == prefix+of)
			elements = append(elements, id+rapid.SampledFrom([]string{"", ":0", ":shardId-000000000001", ":2 , " + id + ":3"}).Draw(t, "shards"))
		}
		found, err := mistaken.Query(map[string]any{
			"streams":          elements,
			"enhanced_fan_out": map[string]any{"consumer_arn": prefix + of + "/consumer/" + name.Draw(t, "consumer") + ":1"},
		})
		require.NoError(t, err)
		require.Equal(t, sound, len(mistakes(found)) == 0, "%v", found)
	})
}

// soundEntry is the documented form of an entry of streams.
var soundEntry = regexp.MustCompile(`\A(arn:aws[a-z-]*:kinesis:(\*|[a-z0-9-]+):[0-9]{12}:stream/)?[a-zA-Z0-9_.-]{1,128}(:(shardId-[0-9]{12}|[0-9]{1,12}))?\z`)

// FuzzStreamEntry holds that an entry has either one mistake, which names it, or the
// documented form.
func FuzzStreamEntry(f *testing.F) {
	for _, seed := range []string{
		"foo", "foo:0", "foo:shardId-000000000000", "foo:0:1", "foo:", ":0", "arn:0", "foo:x", "foo bar", "foo\n",
		"arn:aws:kinesis:*:111122223333:stream/my-stream", "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/a:7",
		"arn:aws:kinesis:us-east-1:111122223333:stream/foo/bar", "foo:0000000000000",
		"arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/2020-01-01T00:00:00.000",
	} {
		f.Add(seed)
	}
	one := compile(f, `this.apply("entry")`)
	f.Fuzz(func(t *testing.T, entry string) {
		entry = strings.TrimSpace(strings.ReplaceAll(entry, ",", ""))
		if entry == "" {
			return
		}
		found, err := one.Query(entry)
		require.NoError(t, err)
		errs := mistakes(found)
		require.Equal(t, soundEntry.MatchString(entry), len(errs) == 0)
		if len(errs) == 0 {
			require.Empty(t, ruled(t, "streams", []any{entry}))
			return
		}
		require.Len(t, errs, 1, "one entry has one mistake")
		require.ErrorContains(t, errs[0], entry)
		if all := ruled(t, "streams", []any{entry}); len(all) > 0 { // none where a part is empty
			require.Equal(t, errs, all)
		}
	})
}

func TestSecondsBetweenTimesAreThoseOfTheCalendar(t *testing.T) {
	seconds := compile(t, `this.apply("seconds")`)
	rapid.Check(t, func(t *rapid.T) {
		of := func(label string) (unix, got float64) {
			zone := time.FixedZone("", 60*rapid.IntRange(-23*60-59, 23*60+59).Draw(t, "offset of "+label))
			at := time.Date(rapid.IntRange(0, 9999).Draw(t, "year of "+label), time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 28).Draw(t, "day"),
				rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute"), rapid.IntRange(0, 59).Draw(t, "second"), rapid.IntRange(0, 999).Draw(t, "ms")*1e6, zone)
			if month := at.Month(); rapid.Bool().Draw(t, "end of month") {
				for at.AddDate(0, 0, 1).Month() == month {
					at = at.AddDate(0, 0, 1)
				}
			}
			value, err := seconds.Query(at.Format(time.RFC3339Nano))
			require.NoError(t, err)
			got, ok := value.(float64)
			if !ok {
				got = float64(value.(int64))
			}
			return float64(at.Unix()) + float64(at.Nanosecond())/1e9, got
		}
		one, oneGot := of("one")
		other, otherGot := of("other")
		require.InDelta(t, one-other, oneGot-otherGot, 1e-3)
	})
}

//go:build prometheus

package dashboard

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"
)

// Pixels of the picture for a unit of Grafana's grid.
const (
	unitWidth  = 60
	unitHeight = 26
)

// draw draws the dashboard over the run, as gnuplot does: its panels with their titles,
// places, units, queries and legends, and of each series what Prometheus answers.
func (r *rig) draw(file string) {
	r.Helper()
	page := shipped(r.T)
	full := filepath.Join(r.dir, "dashboard.png")
	tall := 0
	for _, p := range page.Panels {
		tall = max(tall, p.GridPos.Y+p.GridPos.H)
	}
	x := func(units float64) float64 { return units / 24 }
	y := func(units float64) float64 { return 1 - units/float64(tall) }
	var labels, graphs strings.Builder
	label := func(at place, down, fontSize float64, text string) {
		fmt.Fprintf(&labels, "set label %s at screen %g,%g left font ',%g' noenhanced\n", quote(text), x(float64(at.X)+0.15), y(float64(at.Y)+down), fontSize)
	}
	for _, p := range page.Panels {
		at := p.GridPos
		switch p.Type {
		case "row":
			label(at, 0.6, 13, p.Title)
		case kindStat, kindTable:
			label(at, 0.6, 9, p.Title)
			down := 1.7
			for _, each := range p.Targets {
				for _, s := range r.ask(variablesOf(jobGroup).Replace(each.Expr)) {
					text := legend(each.LegendFormat, s.Metric) + "  " + humanized(p.FieldConfig.Defaults.Unit, value(s.Values[len(s.Values)-1]))
					if p.Type == kindTable {
						if int64(s.Values[len(s.Values)-1][0].(float64)) < r.lastScrape() {
							continue // of an instance that has it no more
						}
						text = s.Metric["kinesis_stream"] + "   " + s.Metric["kinesis_shard"] + "   " + s.Metric["instance"]
					}
					label(at, down, 9, text)
					down += 0.9
				}
			}
		default:
			r.graph(&graphs, p, x(float64(at.X)), y(float64(at.Y+at.H)), x(float64(at.W)), float64(at.H)/float64(tall))
		}
	}
	script := fmt.Sprintf("set terminal pngcairo size %d,%d font 'DejaVu Sans,7' background rgb 'white'\nset output %s\nset multiplot\n",
		24*unitWidth, tall*unitHeight, quote(full)) +
		"set size 1,1\nset origin 0,0\nunset border\nunset tics\nunset key\n" + labels.String() + "plot [0:1][0:1] NaN\nunset label\n" +
		"set border 3 lc rgb '#888888'\nset tics nomirror tc rgb '#444444'\nset grid lc rgb '#dddddd' lt 1\nset format x '%g s'\n" +
		"set key below left Left reverse samplen 1 spacing 0.8 maxrows 3 noenhanced\n" + graphs.String() + "unset multiplot\n"
	out, err := exec.CommandContext(r.Context(), "gnuplot", r.write("dashboard.gnuplot", script)).CombinedOutput()
	require.NoError(r, err, "%s", out)
	r.shrink(full, file)
}

// shrink writes a picture with the colours that it has most of, which is a third of its
// size.
func (r *rig) shrink(from, to string) {
	r.Helper()
	raw, err := os.ReadFile(from)
	require.NoError(r, err)
	full, err := png.Decode(bytes.NewReader(raw))
	require.NoError(r, err)
	counts, bounds := map[color.RGBA]int{}, full.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(full.At(x, y)).(color.RGBA) }
	for x := range bounds.Dx() {
		for y := range bounds.Dy() {
			counts[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int { return cmp.Compare(counts[b], counts[a]) })
	var palette color.Palette
	for _, c := range colours[:min(64, len(colours))] {
		palette = append(palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	for _, c := range colours {
		nearest[c] = uint8(palette.Index(c))
	}
	small := image.NewPaletted(bounds, palette)
	for x := range bounds.Dx() {
		for y := range bounds.Dy() {
			small.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	var out bytes.Buffer
	require.NoError(r, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small))
	require.NoError(r, os.WriteFile(to, out.Bytes(), 0o644))
}

// lastScrape is the last second for which there are answers.
func (r *rig) lastScrape() int64 {
	s := r.ask("vector(1)")
	return int64(s[0].Values[len(s[0].Values)-1][0].(float64))
}

// graph writes a panel over time.
func (r *rig) graph(script *strings.Builder, p rendered, x, y, w, h float64) {
	r.Helper()
	unit := p.FieldConfig.Defaults.Unit
	var plots []string
	for _, each := range p.Targets {
		answer := r.ask(variablesOf(jobGroup).Replace(each.Expr))
		for i, s := range answer {
			block := fmt.Sprintf("$p%d%s%d", p.ID, each.RefID, i)
			fmt.Fprintf(script, "%s << EOD\n", block)
			last := math.Inf(1)
			for _, v := range s.Values {
				at := v[0].(float64) - float64(r.began.Unix())
				if at-last > 1.5 {
					fmt.Fprintln(script) // nothing is known in between
				}
				last = at
				fmt.Fprintf(script, "%g %g\n", at, value(v)*factors[unit])
			}
			fmt.Fprintln(script, "EOD")
			plots = append(plots, fmt.Sprintf("%s with lines lw 1.4 title %s", block, quote(legend(each.LegendFormat, s.Metric))))
		}
	}
	slices.Sort(plots)
	fmt.Fprintf(script, "set origin %g,%g\nset size %g,%g\nset title %s font ',9' noenhanced offset 0,-0.6\nset format y '%s'\nset xrange [0:%d]\nset yrange [0:*<1e12]\nplot %s\n",
		x, y, w, h, quote(p.Title), formats[unit], r.lastScrape()-r.began.Unix(), strings.Join(plots, ", "))
}

// What gnuplot is to multiply the values of a unit by, and how it is to write them.
var (
	factors = map[string]float64{"ms": 1e-3, "ns": 1e-9, "short": 1, "bytes": 1, "Bps": 1, "cps": 1, "reqps": 1}
	formats = map[string]string{"ms": "%.1s %cs", "ns": "%.1s %cs", "short": "%g", "bytes": "%.0s %cB", "Bps": "%.0s %cB/s", "cps": "%g /s", "reqps": "%g /s"}
)

func value(v [2]any) float64 {
	f, err := strconv.ParseFloat(v[1].(string), 64)
	if err != nil {
		panic(err)
	}
	return f
}

// humanized is a number as a panel of one number shows it.
func humanized(unit string, v float64) string {
	if unit != "ms" {
		return fmt.Sprintf("%.3g", v)
	}
	switch {
	case v >= 3600e3:
		return fmt.Sprintf("%.3g hours", v/3600e3)
	case v >= 1e3:
		return fmt.Sprintf("%.3g s", v/1e3)
	}
	return fmt.Sprintf("%.0f ms", v)
}

var placeholders = regexp.MustCompile(`\{\{(\w+)\}\}`)

// legend is that of a series, by the format of its query.
func legend(format string, labels map[string]string) string {
	if format == "" {
		return strings.Join(slices.Sorted(maps.Values(labels)), " ")
	}
	return placeholders.ReplaceAllStringFunc(format, func(found string) string { return labels[strings.Trim(found, "{}")] })
}

func quote(text string) string { return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"` }

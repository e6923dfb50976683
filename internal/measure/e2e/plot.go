package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

const (
	plotWidth  = 760
	labelWidth = 190
	barHeight  = 16
	groupGap   = 34
	scaleWidth = plotWidth - labelWidth - 90
)

var fills = []string{"#2563eb", "#9ca3af", "#dc2626", "#f59e0b"}

// plot draws the medians as bars, in groups of a column, on a scale of decades
// from the least to the most.
func plot(all []candidate, results []measured) string {
	least, most := math.Inf(1), 0.0
	for _, m := range results {
		for _, c := range all {
			if v := median(m.runs[c.name]).perRecord(); v > 0 {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	low := math.Floor(math.Log10(least))
	span := max(math.Log10(most)-low, 0.1)

	var body strings.Builder
	y := 50
	for _, m := range results {
		fmt.Fprintf(&body, "<text x=\"10\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y, html.EscapeString(m.column.name))
		y += 8
		for i, c := range all {
			r := median(m.runs[c.name])
			width := 0.0
			if v := r.perRecord(); v > 0 {
				width = (math.Log10(v) - low) / span * scaleWidth
			}
			fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", labelWidth-8, y+barHeight-4, html.EscapeString(c.name))
			fmt.Fprintf(&body, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", labelWidth, y, width, barHeight-3, fills[i%len(fills)])
			fmt.Fprintf(&body, "<text x=\"%.1f\" y=\"%d\">%s%s</text>\n", labelWidth+width+6, y+barHeight-4, figure(r), cutNote(r.cut))
			y += barHeight
		}
		y += groupGap
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="10" y="22" font-size="15">Processor time a record, us (logarithmic; shorter is better)</text>
%s</svg>
`, plotWidth, y, body.String())
}

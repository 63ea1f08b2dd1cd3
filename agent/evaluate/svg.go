package evaluate

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A small writer of diagrams in SVG 1.1: axes with ticks and titles, lines,
// filled steps and marks on a light ground.

const (
	plotWidth, plotHeight               = 760, 520
	plotLeft, plotRight, plotTop, below = 84, 28, 64, 76
	blue, orange, grey                  = "#0072B2", "#D55E00", "#666666" // Okabe and Ito: told apart by the colour-blind too
)

// tick is a labelled position of an axis.
type tick struct {
	at    float64
	label string
}

// axis maps low..high to the side of a diagram. A logarithmic one has both above 0.
type axis struct {
	title     string
	low, high float64
	log       bool
	ticks     []tick
}

// place is where v lies along the axis, 0 to 1; beyond its ends it stays there.
func (a *axis) place(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log10(max(v, a.low)), math.Log10(low), math.Log10(high)
	}
	return min(1, max(0, (v-low)/(high-low)))
}

// logAxis has a tick at each power of ten. Its ends are moved out to such powers.
func logAxis(title string, low, high float64) axis {
	from, to := int(math.Floor(math.Log10(low)+1e-9)), int(math.Ceil(math.Log10(high)-1e-9))
	to = max(to, from+1)
	a := axis{title: title, log: true, low: math.Pow10(from), high: math.Pow10(to)}
	for e := from; e <= to; e++ {
		a.ticks = append(a.ticks, tick{math.Pow10(e), power(e)})
	}
	return a
}

// power labels a share of 10^e in percent.
func power(e int) string { return strconv.FormatFloat(math.Pow10(e+2), 'f', -1, 64) + " %" }

// linearAxis has a tick at each multiple of step.
func linearAxis(title string, low, high, step float64, label func(float64) string) axis {
	a := axis{title: title, low: low, high: high}
	for i := math.Ceil(low/step - 1e-9); i*step <= high+1e-9*step; i++ {
		v := i * step
		if i == 0 {
			v = 0 // not -0
		}
		a.ticks = append(a.ticks, tick{v, label(v)})
	}
	return a
}

// xy is a point in the axes' units.
type xy struct{ x, y float64 }

// plot is a diagram in the making.
type plot struct {
	x, y axis
	body bytes.Buffer
	keys int
}

func newPlot(title, subtitle string, x, y axis) *plot {
	p := &plot{x: x, y: y}
	fmt.Fprintf(&p.body, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12" fill="#222222">
<rect width="100%%" height="100%%" fill="#ffffff"/>
`, plotWidth, plotHeight)
	p.words(plotLeft, 26, "start", `font-size="17" font-weight="bold"`, title)
	p.words(plotLeft, 46, "start", `fill="`+grey+`"`, subtitle)
	for _, t := range x.ticks {
		px := p.px(t.at)
		p.line(px, plotTop, px, plotHeight-below, `stroke="#e4e4e4"`)
		p.words(px, plotHeight-below+18, "middle", "", t.label)
	}
	for _, t := range y.ticks {
		py := p.py(t.at)
		p.line(plotLeft, py, plotWidth-plotRight, py, `stroke="#e4e4e4"`)
		p.words(plotLeft-8, py+4, "end", "", t.label)
	}
	p.words((plotLeft+plotWidth-plotRight)/2, plotHeight-below+40, "middle", `font-size="13"`, x.title)
	p.words(0, 0, "middle", fmt.Sprintf(`font-size="13" transform="translate(20,%d) rotate(-90)"`, (plotTop+plotHeight-below)/2), y.title)
	return p
}

func (p *plot) px(v float64) float64 {
	return plotLeft + p.x.place(v)*(plotWidth-plotLeft-plotRight)
}

func (p *plot) py(v float64) float64 {
	return plotHeight - below - p.y.place(v)*(plotHeight-below-plotTop)
}

func (p *plot) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(&p.body, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
}

func (p *plot) words(x, y float64, anchor, style, s string) {
	fmt.Fprintf(&p.body, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>`, x, y, anchor, style)
	// A bytes.Buffer takes everything.
	_ = xml.EscapeText(&p.body, []byte(s))
	p.body.WriteString("</text>\n")
}

// key explains a colour, in a row below the axes.
func (p *plot) key(colour, name string) {
	x := float64(plotLeft + 240*p.keys)
	p.keys++
	p.line(x, plotHeight-16, x+26, plotHeight-16, fmt.Sprintf(`stroke="%s" stroke-width="3"`, colour))
	p.words(x+34, plotHeight-12, "start", "", name)
}

func (p *plot) path(points []xy) string {
	var b strings.Builder
	for i, pt := range points {
		c := 'L'
		if i == 0 {
			c = 'M'
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", c, p.px(pt.x), p.py(pt.y))
	}
	return b.String()
}

func (p *plot) curve(colour string, points []xy) {
	if len(points) > 0 {
		fmt.Fprintf(&p.body, `<path d="%s" fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"/>`+"\n", p.path(points), colour)
	}
}

// area fills what lies between points and the bottom.
func (p *plot) area(colour string, points []xy) {
	if len(points) == 0 {
		return
	}
	first, last := points[0], points[len(points)-1]
	all := append([]xy{{first.x, p.y.low}}, append(points, xy{last.x, p.y.low})...)
	fmt.Fprintf(&p.body, `<path d="%sZ" fill="%s" fill-opacity="0.25" stroke="%s" stroke-width="1.2"/>`+"\n", p.path(all), colour, colour)
}

// shade greys out x from the left end to v and says why, along its left side: at the
// bottom, or at the top.
func (p *plot) shade(v float64, why string, top bool) {
	w := p.px(v) - plotLeft
	if w < 1 {
		return
	}
	fmt.Fprintf(&p.body, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="#888888" fill-opacity="0.13"/>`+"\n",
		plotLeft, plotTop, w, plotHeight-below-plotTop)
	anchor, y := "start", plotHeight-below-6
	if top {
		anchor, y = "end", plotTop+6
	}
	p.words(0, 0, anchor, fmt.Sprintf(`font-size="11" fill="%s" transform="translate(%.1f,%d) rotate(-90)"`, grey, plotLeft+14.0, y), why)
}

// mark is a circle with a label to its right, above or under it.
func (p *plot) mark(at xy, label string, under bool) {
	x, y := p.px(at.x), p.py(at.y)
	fmt.Fprintf(&p.body, `<circle cx="%.1f" cy="%.1f" r="4" fill="#ffffff" stroke="#222222" stroke-width="1.5"/>`+"\n", x, y)
	dy := -8.0
	if under {
		dy = 16
	}
	p.words(x+8, y+dy, "start", `font-size="11"`, label)
}

// threshold is a dashed vertical line with a label along it.
func (p *plot) threshold(v float64, label string) {
	x := p.px(v)
	p.line(x, plotTop, x, plotHeight-below, `stroke="#222222" stroke-dasharray="4 3"`)
	p.words(0, 0, "end", fmt.Sprintf(`font-size="11" transform="translate(%.1f,%d) rotate(-90)"`, x-4, plotTop+4), label)
}

// bytes closes the picture.
func (p *plot) bytes() []byte {
	fmt.Fprintf(&p.body, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#222222"/>`+"\n</svg>\n",
		plotLeft, plotTop, plotWidth-plotLeft-plotRight, plotHeight-below-plotTop)
	return p.body.Bytes()
}

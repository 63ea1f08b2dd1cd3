// Package report writes the PDF of a session: what was asked for, what each step came
// to, the faces that were compared, and who decided.
package report

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"

	"postern/agent"
	"postern/agent/cases"
)

// Report makes reports. Media finds the pictures; one that is gone is left out.
type Report struct {
	Media func(id string) (agent.Media, error)
	Now   func() time.Time
	By    string // who the report says it is from
}

const (
	margin = 18.0

	face = 52.0 // side of a picture, mm
)

// PDF writes the report of a session.
func (r *Report) PDF(s *cases.Session) ([]byte, error) {
	p := &page{Fpdf: fpdf.New("P", "mm", "A4", ""), report: r}
	p.start(s, r)
	p.summary(s)
	for i := range s.Steps {
		if st := &s.Steps[i]; st.Attempts > 0 || st.Skipped {
			p.step(st)
		}
	}
	p.reviews(s.Reviews)
	var out bytes.Buffer
	if err := p.Output(&out); err != nil {
		return nil, fmt.Errorf("write the report: %w", err)
	}
	return out.Bytes(), nil
}

// page is the document being written.
type page struct {
	*fpdf.Fpdf
	report   *Report
	pictures int
}

func (p *page) start(s *cases.Session, r *Report) {
	p.AddUTF8FontFromBytes("go", "", goregular.TTF)
	p.AddUTF8FontFromBytes("go", "B", gobold.TTF)
	now := r.Now().UTC()
	p.SetCreationDate(now)
	p.SetModificationDate(now)
	p.SetTitle("Session "+s.ID, true)
	p.SetMargins(margin, margin, margin)
	p.SetAutoPageBreak(true, margin+6)
	p.AliasNbPages("{pages}")
	p.SetFooterFunc(func() {
		p.SetY(-margin)
		p.SetFont("go", "", 8)
		p.SetTextColor(110, 110, 110)
		p.CellFormat(0, 5, fmt.Sprintf("%s · %s · page %d of {pages}", shown(r.By), now.Format("2006-01-02 15:04:05 UTC"), p.PageNo()), "", 0, "L", false, 0, "")
	})
	p.AddPage()
}

// shown is text that the font has letters for. Others become a mark, so that nobody
// takes a shorter name for the whole.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x0530 && unicode.IsPrint(r), r >= 0x1E00 && r < 0x2040 && unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '\u00bf'
	}, s)
}

func (p *page) heading(text string, size float64) {
	p.Ln(4)
	p.SetFont("go", "B", size)
	p.SetTextColor(20, 20, 20)
	p.MultiCell(0, size*0.5, shown(text), "", "L", false)
	p.Ln(1)
}

func (p *page) line(name, value string) {
	p.SetFont("go", "", 9.5)
	p.SetTextColor(110, 110, 110)
	p.CellFormat(48, 5.5, name, "", 0, "L", false, 0, "")
	p.SetTextColor(20, 20, 20)
	p.MultiCell(0, 5.5, shown(value), "", "L", false)
}

// colours of statuses: each is told in words too.
var colours = map[string][3]int{"Approved": {20, 110, 60}, "Declined": {170, 30, 30}, "In Review": {150, 100, 0}}

func (p *page) status(s string) {
	c, ok := colours[s]
	if !ok {
		c = [3]int{70, 70, 70}
	}
	p.SetFont("go", "B", 12)
	p.SetTextColor(c[0], c[1], c[2])
	p.CellFormat(0, 7, s, "", 1, "L", false, 0, "")
}

func (p *page) summary(s *cases.Session) {
	p.heading("Verification report", 18)
	p.status(string(s.Status))
	p.line("Session", fmt.Sprintf("%s, number %d", s.ID, s.Number))
	if s.API != "" {
		p.line("Standalone request", s.API)
	} else {
		p.line("Workflow", fmt.Sprintf("%s, version %d%s", s.WorkflowID, s.Version, also(", variant ", s.Variant)))
	}
	if s.VendorData != "" {
		p.line("vendor_data", s.VendorData)
	}
	if name := s.FullName(); name != "" {
		p.line("Expected name", name)
	}
	if s.SharedFrom != "" {
		p.line("Shared from session", s.SharedFrom)
	}
	p.line("Environment", s.Environment)
	p.line("Created", moment(s.CreatedAt))
	p.line("Last change", moment(s.UpdatedAt))
}

func also(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// titles of the features.
var titles = map[cases.Feature]string{cases.FaceMatch: "Face match 1:1", cases.Liveness: "Liveness", cases.IDVerification: "Portrait on the document",
	cases.FaceSearch: "Face search 1:N"}

func (p *page) step(st *cases.StepState) {
	p.heading(titles[st.Feature]+"  ("+st.Node+")", 13)
	if st.Skipped {
		p.line("Result", "skipped: the condition of this step did not hold")
		return
	}
	p.status(string(st.Outcome.Status))
	if st.Score != nil {
		p.line("Score", fmt.Sprintf("%.2f of 100", *st.Score))
	} else if st.Feature == cases.FaceMatch || st.Feature == cases.Liveness {
		p.line("Score", "none")
	}
	if st.Feature != cases.IDVerification {
		p.line("Thresholds", fmt.Sprintf("declined at or below %g, in review at or below %g", st.Thresholds.Decline, st.Thresholds.Review))
	}
	if st.Reference != "" {
		p.line("Compared with", strings.ReplaceAll(string(st.Reference), "_", " "))
	}
	p.line("Attempts", fmt.Sprintf("%d of %d", st.Attempts, st.MaxAttempts))
	if st.ModelID != "" {
		p.line("Model", st.ModelID+also(", calibration ", st.Calibration))
	}
	for _, m := range st.Matches {
		p.line("Found", fmt.Sprintf("%s, similarity %.2f%s%s", strings.ReplaceAll(m.Source, "_", " "), m.Similarity, also(", session ", m.SessionID), listed(m)))
	}
	for _, w := range st.Warnings {
		p.line(string(w.LogType), string(w.Risk)+": "+w.Long)
	}
	p.faces(st)
}

func listed(m cases.Match) string {
	switch {
	case m.Blocklisted:
		return ", in the blocklist"
	case m.Allowlisted:
		return ", in the allowlist"
	}
	return ""
}

// faces puts the pictures of a step side by side.
func (p *page) faces(st *cases.StepState) {
	x, drawn := margin, false
	p.Ln(2)
	if p.GetY()+face+8 > 297-margin-8 && (st.Source != "" || st.Target != "") {
		p.AddPage()
	}
	top := p.GetY()
	captions := [2]string{"Reference", "Capture"}
	if st.Feature == cases.IDVerification {
		captions = [2]string{"Portrait", "Document"}
	}
	for i, f := range []struct{ id, caption string }{{st.Source, captions[0]}, {st.Target, captions[1]}} {
		if i == 1 && f.id == st.Source {
			continue // one picture is shown once
		}
		if f.id == "" || !p.picture(f.id, x, top) {
			continue
		}
		p.SetXY(x, top+face+0.5)
		p.SetFont("go", "", 8)
		p.SetTextColor(110, 110, 110)
		p.CellFormat(face, 4, f.caption, "", 0, "L", false, 0, "")
		x, drawn = x+face+8, true
	}
	if drawn {
		p.SetXY(margin, top+face+6)
	}
}

// picture draws a stored picture within a square; false when there is none.
func (p *page) picture(id string, x, y float64) bool {
	m, err := p.report.Media(id)
	if err != nil || !p.report.Now().Before(m.ExpiresAt) {
		return false
	}
	kinds := map[string]string{"image/jpeg": "JPG", "image/png": "PNG"}
	kind, ok := kinds[m.ContentType]
	if !ok {
		return false // WebP and TIFF cannot be part of a PDF as they are
	}
	p.pictures++
	name := fmt.Sprintf("picture%d", p.pictures)
	o := fpdf.ImageOptions{ImageType: kind}
	info := p.RegisterImageOptionsReader(name, o, bytes.NewReader(m.Data))
	if p.Err() || info == nil || info.Width() <= 0 || info.Height() <= 0 {
		p.ClearError()
		return false
	}
	w, h := face, face*info.Height()/info.Width()
	if h > face {
		w, h = face*info.Width()/info.Height(), face
	}
	p.ImageOptions(name, x, y, w, h, false, o, 0, "")
	return true
}

func (p *page) reviews(rs []cases.Review) {
	if len(rs) == 0 {
		return
	}
	p.heading("Reviews", 13)
	for _, r := range rs {
		what := also("", string(r.NewStatus))
		if what == "" {
			what = "comment"
		}
		p.line(moment(r.CreatedAt), what+also(" by ", r.User)+also(": ", r.Comment))
	}
}

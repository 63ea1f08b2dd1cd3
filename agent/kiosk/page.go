package kiosk

import (
	"embed"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/agent/ui"
)

//go:embed assets templates
var files embed.FS

var pages = sync.OnceValue(func() *ui.Pages { return ui.Parse(files, "templates/*.html", "kiosk") })

// Look is what a deployer may choose about the page.
type Look struct {
	Language    string // en or ja; empty: as the browser asks
	Theme       string // dark or light; empty: as the device is set
	Name        string // whose door it is
	Logo        []byte // a picture: SVG, PNG, JPEG or WebP
	Attendant   string // where help is found
	PINPad      bool   // a PIN pad beside the door is another way in
	Controller  string // who is responsible for the pictures
	Contact     string
	Screensaver time.Duration // 0: none
	Sounds      bool
	KeepResults string // as in the settings: unlimited, or 30d
	KeepFaces   string
}

// kioskData is what the template shows.
type kioskData struct {
	Device, Attendant, Controller, Contact string
	Identify, Claims, PINPad, Sounds       bool
	KeepResults, KeepTemplates             string
	Saver                                  int
	FPS                                    float64
	Digits                                 []int
}

// assetsHandler serves the page's own files at /kiosk/.
func assetsHandler() http.Handler {
	sub, err := fs.Sub(files, "assets")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return http.StripPrefix("/kiosk/", ui.Static(sub))
}

// page serves one of the templates.
func (s *Server) page(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lang := ui.Negotiate(r, s.Look.Language)
		m := pages().Messages(lang)
		p := ui.Page{Lang: lang, Theme: ui.Theme(r, s.Look.Theme), Brand: s.brand(), Other: ui.Others(r, lang), Messages: m.Under("kiosk.", "common."), Data: s.data(m)}
		p.Title = m.T("kiosk.title", "device", s.Device)
		if name == "monitor" {
			p.Title = m.T("kiosk.monitor.title", "device", s.Device)
		}
		if err := pages().Render(w, http.StatusOK, name, p); err != nil {
			s.Log.Error("page not rendered", "page", name, "err", err)
		}
	}
}

func (s *Server) brand() ui.Brand {
	b := ui.Brand{Name: s.Look.Name}
	if len(s.Look.Logo) > 0 {
		b.Logo = "/kiosk-logo"
	}
	return b
}

func (s *Server) data(m ui.Messages) kioskData {
	return kioskData{Device: s.Device, Attendant: s.Look.Attendant, Controller: s.Look.Controller, Contact: s.Look.Contact,
		Identify: s.Identify, Claims: s.Claims != nil, PINPad: s.Look.PINPad, Sounds: s.Look.Sounds,
		KeepResults: kept(m, s.Look.KeepResults), KeepTemplates: kept(m, s.Look.KeepFaces), Saver: int(s.Look.Screensaver.Seconds()), FPS: s.LiveFPS,
		Digits: []int{1, 2, 3, 4, 5, 6, 7, 8, 9}}
}

// kept says how long something is kept, in words.
func kept(m ui.Messages, setting string) string {
	if days, err := strconv.Atoi(strings.TrimSuffix(setting, "d")); err == nil {
		return m.T("kiosk.keep.days", "days", days)
	}
	return m.T("kiosk.keep.unlimited")
}

// logo serves the deployer's picture. As a document of its own it may do nothing.
func (s *Server) logo(w http.ResponseWriter, r *http.Request) {
	if len(s.Look.Logo) == 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", ui.PictureType(s.Look.Logo))
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	_, _ = w.Write(s.Look.Logo) // the browser has gone
}

package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed assets
var assets embed.FS

// Assets serves the design system's own files; mount it at /ui/.
func Assets() http.Handler {
	sub, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return http.StripPrefix("/ui/", Static(sub))
}

// kinds are the types of files that a page may have. They are named here because the
// system's own table is not there on every device.
var kinds = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".json": "application/json", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8"}

// asset is a file, ready to be sent.
type asset struct {
	kind, tag  string
	raw, small []byte // small is raw, compressed
}

// Static serves the files of an embedded folder: compressed where the browser can take
// it, and asked for again only when they have changed. The path is that below the folder:
// mount it behind http.StripPrefix.
func Static(fsys fs.FS) http.Handler {
	files := map[string]asset{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(fsys, p)
		if err == nil {
			files[p] = newAsset(p, raw)
		}
		return err
	})
	if err != nil {
		panic(err) // embedded files can be read
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		a.serve(w, r)
	})
}

func newAsset(name string, raw []byte) asset {
	sum := sha256.Sum256(raw)
	a := asset{kind: kinds[path.Ext(name)], tag: `"` + hex.EncodeToString(sum[:8]) + `"`, raw: raw}
	if a.kind == "" {
		a.kind = mime.TypeByExtension(path.Ext(name))
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(raw); err == nil && z.Close() == nil && b.Len() < len(raw)*9/10 {
		a.small = b.Bytes()
	}
	return a
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache") // kept, and asked about
	h.Set("ETag", a.tag)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.raw
	if a.small != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.small
	}
	_, _ = w.Write(body) // the browser has gone
}

// PictureType tells the type of a logo from its first bytes: SVG, which Go's detector
// does not know, or what that finds.
func PictureType(raw []byte) string {
	head := raw[:min(len(raw), 512)]
	if bytes.Contains(head, []byte("<svg")) {
		return "image/svg+xml"
	}
	return http.DetectContentType(head)
}

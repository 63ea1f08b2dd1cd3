package camera

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/agent"
	"postern/agent/photo"
)

// pictureSuffixes are the names worth opening; what a file is comes from its
// content.
var pictureSuffixes = []string{".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}

// folder reads the pictures of a folder in the order of their names, which it
// lists once when opened; a loop sees what was added since.
type folder struct {
	o     Options
	names []string
	good  int // pictures that could be read
}

var _ Reader = (*folder)(nil)

func openFolder(o Options) (Reader, error) {
	entries, err := os.ReadDir(o.Target)
	switch {
	case os.IsNotExist(err):
		return nil, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("folder %q does not exist", o.Target)}
	case err != nil:
		return nil, unreadable("folder", o.Target, err)
	}
	f := &folder{o: o}
	for _, e := range entries { // sorted by name
		if !e.IsDir() && slices.Contains(pictureSuffixes, strings.ToLower(filepath.Ext(e.Name()))) {
			f.names = append(f.names, e.Name())
		}
	}
	if len(f.names) == 0 {
		return nil, invalid(fmt.Sprintf("folder %q holds no pictures", o.Target), "put JPEG, PNG, WebP or TIFF files into it")
	}
	return f, nil
}

// Read decodes the next picture. One that cannot be read is passed over with a
// note in the log; only a folder without a single good one is an error.
func (f *folder) Read() (Picture, error) {
	var last error
	for len(f.names) > 0 {
		name := f.names[0]
		f.names = f.names[1:]
		p, err := photo.Load(filepath.Join(f.o.Target, name))
		if err != nil {
			f.o.Log.Warn("picture passed over", "error", err)
			last = err
			continue
		}
		f.good++
		return Picture{Pix: p.Pix, Width: p.Width, Height: p.Height}, nil
	}
	if f.good == 0 && last != nil {
		return Picture{}, last
	}
	return Picture{}, io.EOF
}

// Rate is 0: Options.FPS is the pace of a folder.
func (f *folder) Rate() float64 { return 0 }

// Close has nothing to free.
func (f *folder) Close() error { return nil }

package main

import (
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"

	"golang.org/x/image/draw"

	"postern/agent"
	"postern/agent/photo"
)

// faceShare is the width of the face's box in the square pictures that bench makes:
// that of the usual test sets.
const faceShare = 0.4

// squares writes each picture as a size x size JPEG around its face to dir.
func squares(ctx context.Context, b *brain, paths []string, size int, dir string) ([]string, error) {
	out := make([]string, len(paths))
	for i, path := range paths {
		f, err := photo.Load(path)
		if err != nil {
			return nil, err
		}
		p, err := b.pool.Probe(ctx, f)
		if err != nil {
			return nil, err
		}
		if p.Face == nil {
			return nil, &agent.Error{Code: agent.CodeQuality, Message: fmt.Sprintf("no face was found in %q", path)}
		}
		out[i] = filepath.Join(dir, fmt.Sprintf("%d.jpg", i+1))
		if err := writeSquare(out[i], f, p.Face.Box, size); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func writeSquare(path string, f *agent.Frame, box agent.Box, size int) error {
	half := int(box.W / faceShare / 2)
	cx, cy := int(box.X+box.W/2), int(box.Y+box.H/2)
	dst := image.NewRGBA(image.Rect(0, 0, size, size))
	draw.CatmullRom.Scale(dst, dst.Bounds(), picture{f}, image.Rect(cx-half, cy-half, cx+half, cy+half), draw.Src, nil)
	w, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := jpeg.Encode(w, dst, &jpeg.Options{Quality: 90}); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postern/agent"
	"postern/agent/evaluate"
	"postern/agent/photo"
)

// writeCrops writes every aligned face as PNG, for calibrating a network with
// exactly what this pipeline feeds it.
func (c *cli) writeCrops(ctx context.Context, b *brain, d *evaluate.Dataset, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot make the new folder %q", dir), Err: err}
	}
	bar := c.bar("align", len(d.Images))
	defer bar.done()
	for i, im := range d.Images {
		f, err := photo.Load(im.Path)
		if err != nil {
			return err
		}
		face, err := b.pool.Aligned(ctx, f)
		if err != nil {
			return err
		}
		if face != nil {
			name := strings.TrimSuffix(filepath.Base(im.Path), filepath.Ext(im.Path)) + ".png"
			if err := savePicture(filepath.Join(dir, name), face); err != nil {
				return err
			}
		}
		bar.set(i + 1)
	}
	return nil
}

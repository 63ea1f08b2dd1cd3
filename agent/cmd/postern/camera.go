package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/camera"
	"postern/camera/sample"
)

func (c *cli) cameraCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "camera",
		Short:   "List cameras, take a picture",
		Example: "  postern camera list\n  postern camera snapshot me.jpg --set camera.source=1",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.cameraList(), c.cameraSnapshot(), c.cameraSample())
	return cmd
}

func (c *cli) cameraList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the cameras of this machine",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			ds, err := camera.List()
			if err != nil {
				return err
			}
			if len(ds) == 0 && !c.json {
				_, err := fmt.Fprintln(c.out, "no camera found; a video file, a folder of pictures or a stream address works too (camera.source)")
				return err
			}
			return c.print(ds, table("DEVICE\tNAME", len(ds), func(i int) string { return ds[i].Path + "\t" + ds[i].Name }))
		},
	}
}

func (c *cli) cameraSnapshot() *cobra.Command {
	return &cobra.Command{
		Use:     "snapshot FILE",
		Short:   "Take one picture with the configured camera (.jpg or .png)",
		Example: "  postern camera snapshot me.jpg",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), captureTime)
			defer cancel()
			s, err := openCamera(ctx, cfg, c.logger(cfg, true))
			if err != nil {
				return err
			}
			defer s.Close()
			f, err := s.Next(ctx, 0)
			if err != nil {
				return &agent.Error{Code: agent.CodeUnavailable, Message: "the camera gave no picture", Err: err}
			}
			if err := savePicture(a[0], f); err != nil {
				return err
			}
			return c.print(map[string]any{"file": a[0], "width": f.Width, "height": f.Height}, fmt.Sprintf("%s  %dx%d\n", a[0], f.Width, f.Height))
		},
	}
}

// savePicture writes a new file; it never overwrites one.
func savePicture(path string, f *agent.Frame) error {
	ext := strings.ToLower(filepath.Ext(path))
	if ext != ".jpg" && ext != ".jpeg" && ext != ".png" {
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("picture %q does not end in .jpg or .png", path)}
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("file %q exists already", path)}
	}
	if err != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot write picture %q", path), Err: err}
	}
	if ext == ".png" {
		err = png.Encode(w, picture{f})
	} else {
		err = jpeg.Encode(w, picture{f}, &jpeg.Options{Quality: 92})
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot write picture %q", path), Err: err}
	}
	return nil
}

// picture shows a frame to Go's encoders.
type picture struct{ f *agent.Frame }

func (p picture) ColorModel() color.Model { return color.RGBAModel }
func (p picture) Bounds() image.Rectangle { return image.Rect(0, 0, p.f.Width, p.f.Height) }
func (p picture) At(x, y int) color.Color {
	if !(image.Point{X: x, Y: y}).In(p.Bounds()) {
		return color.RGBA{}
	}
	i := (y*p.f.Width + x) * 3
	return color.RGBA{p.f.Pix[i], p.f.Pix[i+1], p.f.Pix[i+2], 255}
}

// cameraSample renders the film that "make run" shows to the agent.
func (c *cli) cameraSample() *cobra.Command {
	var faces, out string
	var from, long time.Duration
	cmd := &cobra.Command{
		Use:   "sample --faces DIR --out FILE",
		Short: "Render a sample camera feed from the test portraits",
		Long: `Render a film of 48 seconds, 1280x720: people come to an entrance and go, and a
printed photo is held up. It stands in for a camera where there is none. DIR holds
the portraits that "make setup" fetches.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if faces == "" || out == "" {
				return usageError{errors.New("name --faces and --out (usage: " + cmd.UseLine() + ")")}
			}
			cast, err := sample.LoadCast(faces)
			if err != nil {
				return err
			}
			var b bar
			o := sample.Options{From: from, For: long, Progress: func(done, total int) {
				if done == 1 {
					b = c.bar("render", total)
				}
				b.set(done)
			}}
			if err := sample.Render(cmd.Context(), out, cast, o); err != nil {
				return err
			}
			b.done()
			return c.print(map[string]string{"file": out}, out+"\n")
		},
	}
	cmd.Flags().StringVar(&faces, "faces", "", "folder of the portraits")
	cmd.Flags().StringVar(&out, "out", "", "file to write (.avi)")
	cmd.Flags().DurationVar(&from, "from", 0, "begin at this moment of the film")
	cmd.Flags().DurationVar(&long, "for", 0, "render so much of it; 0: to its end")
	return cmd
}

package camera

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Device is one V4L2 video device.
type Device struct {
	Index int    // n of /dev/videoN
	Path  string // "/dev/videoN"
	Name  string // as the driver calls it
	// Problem says why the device cannot be used now: no permission, or in use
	// exclusively. Empty when it can be opened.
	Problem string
}

// List returns the devices that capture pictures, by number. A machine without
// any gives an empty list and no error.
func List() ([]Device, error) { return list("/sys/class/video4linux", "/dev", captures) }

// list is List with its places in the file system. captures reports whether a
// device delivers pictures: a webcam has a second one for metadata.
func list(sys, dev string, captures func(path string) (bool, error)) ([]Device, error) {
	entries, err := os.ReadDir(sys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kernel makes the folder with the first device
	}
	if err != nil {
		return nil, fmt.Errorf("list cameras: %w", err)
	}
	var ds []Device
	for _, e := range entries {
		n, ok := strings.CutPrefix(e.Name(), "video")
		i, err := strconv.Atoi(n)
		if !ok || err != nil {
			continue // radio, vbi, subdevices
		}
		d := Device{Index: i, Path: filepath.Join(dev, e.Name()), Name: sysName(filepath.Join(sys, e.Name()))}
		yes, err := captures(d.Path)
		if err != nil {
			d.Problem = unwrapPath(err).Error()
		} else if !yes {
			continue
		}
		ds = append(ds, d)
	}
	slices.SortFunc(ds, func(a, b Device) int { return a.Index - b.Index })
	return ds, nil
}

func sysName(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "name"))
	if err != nil {
		return "unnamed"
	}
	return strings.TrimSpace(string(b))
}

// unwrapPath drops the path from an error whose reader knows it.
func unwrapPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// devicePath turns "0" into "/dev/video0".
func devicePath(target string) string {
	if _, err := strconv.ParseUint(target, 10, 16); err == nil {
		return "/dev/video" + target
	}
	return target
}

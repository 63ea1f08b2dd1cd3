// Package evaluate measures the accuracy of a pipeline on a folder of labelled
// faces: verification accuracy on given pairs, and FNMR at fixed FMR over all
// cross pairs.
//
// The folder has one sub-folder a person with their pictures, and optionally
// pairs.txt in the format of the Labeled Faces in the Wild view-2 protocol.
package evaluate

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postern/agent"
)

// Image is one labelled picture.
type Image struct {
	Person string
	Path   string
}

// Pair is one trial of the protocol: positions in Dataset.Images.
type Pair struct {
	A, B    int
	Genuine bool
	Fold    int
}

// Dataset is a folder of labelled pictures.
type Dataset struct {
	Images []Image
	Pairs  []Pair
	Folds  int
}

// Open lists the pictures of dir and reads pairs.txt if it is there.
func Open(dir string) (*Dataset, error) {
	d := &Dataset{}
	people, err := os.ReadDir(dir)
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("data folder %q cannot be read", dir), Err: err}
	}
	for _, p := range people {
		if !p.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(dir, p.Name()))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if isPicture(f.Name()) {
				d.Images = append(d.Images, Image{p.Name(), filepath.Join(dir, p.Name(), f.Name())})
			}
		}
	}
	if len(d.Images) == 0 {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("data folder %q has no sub-folders with pictures", dir),
			Fix: "one sub-folder a person"}
	}
	return d, d.readPairs(filepath.Join(dir, "pairs.txt"))
}

func isPicture(name string) bool {
	return slices.Contains([]string{".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}, strings.ToLower(filepath.Ext(name)))
}

// readPairs parses the protocol: a header "folds n", then for each fold n genuine
// lines "name i j" and n impostor lines "name i other j".
func (d *Dataset) readPairs(path string) error {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	byStem := map[string]int{}
	for i, im := range d.Images {
		base := filepath.Base(im.Path)
		byStem[strings.TrimSuffix(base, filepath.Ext(base))] = i
	}
	sc := bufio.NewScanner(f)
	perFold := 0
	for n := 1; sc.Scan(); n++ {
		fields := strings.Fields(sc.Text())
		if n == 1 {
			if d.Folds, perFold, err = header(fields); err != nil {
				return fmt.Errorf("%s:1: %w", path, err)
			}
			continue
		}
		p, err := parsePair(fields, byStem)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		p.Fold = len(d.Pairs) / (2 * perFold)
		d.Pairs = append(d.Pairs, p)
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if want := 2 * perFold * d.Folds; len(d.Pairs) != want || want == 0 {
		return fmt.Errorf("%s: %d pairs, the header says %d", path, len(d.Pairs), want)
	}
	return nil
}

// maxPairs bounds the header's numbers.
const maxPairs = 1_000_000

func header(f []string) (folds, perFold int, err error) {
	if len(f) != 2 {
		return 0, 0, fmt.Errorf("want two numbers, folds and pairs of each kind")
	}
	folds, err = strconv.Atoi(f[0])
	if err == nil {
		perFold, err = strconv.Atoi(f[1])
	}
	if err != nil || folds < 2 || perFold < 1 || folds > maxPairs || perFold > maxPairs {
		return 0, 0, fmt.Errorf("want two numbers, at least 2 folds and 1 pair of each kind")
	}
	return folds, perFold, nil
}

func parsePair(f []string, byStem map[string]int) (Pair, error) {
	var a, b string
	switch len(f) {
	case 3:
		a, b = stem(f[0], f[1]), stem(f[0], f[2])
	case 4:
		a, b = stem(f[0], f[1]), stem(f[2], f[3])
	default:
		return Pair{}, fmt.Errorf("want 3 or 4 fields, got %d", len(f))
	}
	i, ok := byStem[a]
	j, ok2 := byStem[b]
	if !ok || !ok2 {
		return Pair{}, fmt.Errorf("no picture %s or %s", a, b)
	}
	return Pair{A: i, B: j, Genuine: len(f) == 3}, nil
}

func stem(name, n string) string {
	if i, err := strconv.Atoi(n); err == nil {
		return fmt.Sprintf("%s_%04d", name, i)
	}
	return name + "_" + n
}

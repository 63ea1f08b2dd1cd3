package hosted

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"postern/agent"
	"postern/agent/ui"
)

// Brand is how the pages of one application look.
type Brand struct {
	Name     string                        `json:"name"`      // in the place of postern
	LogoFile string                        `json:"logo"`      // beside the brand's file: SVG, PNG, JPEG or WebP
	Accent   string                        `json:"accent"`    // #rrggbb of buttons and links
	OnAccent string                        `json:"on_accent"` // of the text on it
	Privacy  string                        `json:"privacy"`   // address of the privacy notice
	Contact  string                        `json:"contact"`
	Domains  []string                      `json:"domains"` // host names under which its pages are opened
	Texts    map[ui.Lang]map[string]string `json:"texts"`   // by language and key, in the place of the catalogue's

	id   string
	logo []byte
}

// Brands are the looks by application. The zero value has postern's only.
type Brands struct {
	byID     map[string]*Brand
	byDomain map[string]*Brand
}

// fallback is the look of who has none.
var fallback = &Brand{id: "default"}

// maxBrandFile bounds a brand's files, in bytes.
const maxBrandFile = 256 << 10

// LoadBrands reads <application>.json of a folder; default.json counts for all others.
// An empty name is no folder.
func LoadBrands(dir string) (Brands, error) {
	b := Brands{map[string]*Brand{}, map[string]*Brand{}}
	if dir == "" {
		return b, nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err == nil && len(files) == 0 {
		err = errors.New("it has no .json file")
	}
	if err != nil {
		return b, badBrand(dir, err)
	}
	for _, f := range files {
		one, err := readBrand(f)
		if err != nil {
			return b, badBrand(f, err)
		}
		b.byID[one.id] = one
		for _, d := range one.Domains {
			if other := b.byDomain[d]; other != nil {
				return b, badBrand(f, fmt.Errorf("domain %s belongs to %s too", d, other.id))
			}
			b.byDomain[d] = one
		}
	}
	return b, nil
}

func badBrand(file string, err error) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: "the brand " + file + " cannot be used", Err: err, Fix: "see docs/pages.md for its fields"}
}

func readBrand(file string) (*Brand, error) {
	raw, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	b := &Brand{id: strings.TrimSuffix(filepath.Base(file), ".json")}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(b); err != nil {
		return nil, err
	}
	if b.LogoFile != "" {
		if b.logo, err = readSmall(filepath.Join(filepath.Dir(file), filepath.Base(b.LogoFile))); err != nil {
			return nil, err
		}
	}
	return b, b.check()
}

func readSmall(file string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err == nil && len(raw) > maxBrandFile {
		err = fmt.Errorf("%s has %d bytes, more than %d", filepath.Base(file), len(raw), maxBrandFile)
	}
	return raw, err
}

var colour = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// leastContrast is that of WCAG AA for text.
const leastContrast = 4.5

func (b *Brand) check() error {
	if (b.Accent == "") != (b.OnAccent == "") {
		return errors.New("accent and on_accent come together")
	}
	if b.Accent != "" {
		if !colour.MatchString(b.Accent) || !colour.MatchString(b.OnAccent) {
			return errors.New("accent and on_accent are colours like #1b5b46")
		}
		if c := contrast(b.Accent, b.OnAccent); c < leastContrast {
			return fmt.Errorf("on_accent on accent has a contrast of %.1f, less than %.1f: it could not be read", c, leastContrast)
		}
	}
	if b.Privacy != "" && !strings.HasPrefix(b.Privacy, "https://") {
		return errors.New("privacy is not an https address")
	}
	for l, texts := range b.Texts {
		if !slices.Contains(ui.Langs, l) {
			return fmt.Errorf("there is no language %q", l)
		}
		known := ui.Catalogue(l, "hosted")
		for k := range texts {
			if _, ok := known[k]; !ok {
				return fmt.Errorf("there is no text %q", k)
			}
		}
	}
	return nil
}

// contrast is the ratio that WCAG 2.2 defines.
func contrast(a, b string) float64 {
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(hex string) float64 {
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			return 0
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// of finds the look of an application, or of the host that a page was asked from.
func (b Brands) of(application, host string) *Brand {
	host, _, _ = strings.Cut(host, ":")
	for _, one := range []*Brand{b.byID[application], b.byDomain[strings.ToLower(host)], b.byID["default"]} {
		if one != nil {
			return one
		}
	}
	return fallback
}

// css is the brand's own colours, which count in both themes.
func (b *Brand) css() string {
	if b.Accent == "" {
		return ""
	}
	return fmt.Sprintf(":root, :root[data-theme] { --brand: %s; --on-brand: %s; }\n.button:not(.quiet):not(.plain):not(.danger) { background: var(--brand); color: var(--on-brand); }\n", b.Accent, b.OnAccent)
}

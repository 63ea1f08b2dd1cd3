package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"postern/agent"
)

// EnvPrefix starts the environment variables: identify.enabled is
// POSTERN_IDENTIFY_ENABLED.
const EnvPrefix = "POSTERN_"

// reserved are POSTERN_* variables that are not configuration keys.
var reserved = []string{"POSTERN_CONFIG"}

// Load builds the configuration from the file at path ("" for none), environ
// (as from os.Environ) and key=value overrides.
func Load(path string, environ, overrides []string) (Config, error) {
	c := Default()
	if path != "" {
		if err := c.mergeFile(path); err != nil {
			return c, err
		}
	}
	if err := c.mergeEnv(environ); err != nil {
		return c, err
	}
	for _, o := range overrides {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			return c, invalid(fmt.Sprintf("setting %q is not key=value", o), "for example --set camera.source=0")
		}
		if err := c.set(key, value, "--set"); err != nil {
			return c, err
		}
	}
	if c.Device == "" {
		c.Device = hostname()
	}
	return c, c.Validate()
}

func hostname() string {
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "device"
}

func (c *Config) mergeFile(path string) error {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("configuration file %q does not exist", path),
			Fix: "\"postern config\" prints the defaults to start from"}
	}
	if err != nil {
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("cannot read configuration file %q", path), Err: err}
	}
	return c.merge(raw, path)
}

// merge applies one YAML document.
func (c *Config) merge(raw []byte, name string) error {
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // an empty file changes nothing
	} else if err != nil {
		return invalid(fmt.Sprintf("configuration file %q is not YAML: %v", name, err), "")
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return invalid(fmt.Sprintf("configuration file %q holds more than one document", name), "")
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil // comments only
	}
	return assign(doc.Content[0], reflect.ValueOf(c).Elem(), "", name)
}

// assign walks the document beside the struct, sets what it names and refuses
// what it does not know.
func assign(n *yaml.Node, v reflect.Value, key, name string) error {
	where := fmt.Sprintf("%s:%d: ", name, n.Line)
	if n.Kind == yaml.AliasNode {
		return invalid(where+"aliases are not supported", "")
	}
	if v.Kind() != reflect.Struct {
		if !setScalar(n, v) {
			return invalid(fmt.Sprintf("%s%q is not a value for %s (%s)", where, n.Value, key, v.Type()), "")
		}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		if key == "" {
			return invalid(fmt.Sprintf("configuration file %q is not a list of keys", name), "")
		}
		return invalid(fmt.Sprintf("%s%s wants keys below it", where, key), "")
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		where := fmt.Sprintf("%s:%d: ", name, k.Line)
		full := strings.TrimPrefix(key+"."+k.Value, ".")
		f := field(v, k.Value)
		switch {
		case k.Kind != yaml.ScalarNode || !f.IsValid():
			return unknown(where, full)
		case seen[k.Value]:
			return invalid(fmt.Sprintf("%s%s is set twice", where, full), "")
		}
		seen[k.Value] = true
		if err := assign(n.Content[i+1], f, full, name); err != nil {
			return err
		}
	}
	return nil
}

// setScalar assigns one plain value; it reports false when n is not a value of
// v's type. Nothing ("key:", null, ~) is not a value of any.
func setScalar(n *yaml.Node, v reflect.Value) bool {
	return n.Kind == yaml.ScalarNode && !isNull(n) && n.Decode(v.Addr().Interface()) == nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (c *Config) mergeEnv(environ []string) error {
	byName := map[string]string{}
	for _, k := range Keys() {
		byName[envName(k)] = k
	}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, EnvPrefix) || slices.Contains(reserved, name) {
			continue
		}
		key, ok := byName[name]
		if !ok {
			best := nearest(name, slices.Collect(keysOf(byName)))
			return invalid(fmt.Sprintf("environment variable %s is not a setting", name), "did you mean "+best+"?")
		}
		if err := c.set(key, value, name); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Keys lists every setting, dotted, in the order of the structs.
func Keys() []string { return keys(reflect.TypeFor[Config](), "") }

func keys(t reflect.Type, prefix string) []string {
	var out []string
	for f := range t.Fields() {
		k := prefix + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct {
			out = append(out, keys(f.Type, k+".")...)
			continue
		}
		out = append(out, k)
	}
	return out
}

// set assigns one setting from text, parsed as YAML would.
func (c *Config) set(key, value, from string) error {
	v := reflect.ValueOf(c).Elem()
	for _, part := range strings.Split(key, ".") {
		if v = field(v, part); !v.IsValid() {
			return unknown(from+": ", key)
		}
	}
	if v.Kind() == reflect.Struct {
		return invalid(fmt.Sprintf("%s: %s is a group of settings", from, key), "give one of them, for example "+keys(v.Type(), key+".")[0])
	}
	if v.Kind() == reflect.String {
		v.SetString(value)
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil || len(doc.Content) != 1 || !setScalar(doc.Content[0], v) {
		return invalid(fmt.Sprintf("%s: %q is not a value for %s (%s)", from, value, key, v.Type()), "")
	}
	return nil
}

func field(v reflect.Value, name string) reflect.Value {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	for f, fv := range v.Fields() {
		if f.Tag.Get("yaml") == name {
			return fv
		}
	}
	return reflect.Value{}
}

func unknown(where, key string) error {
	return invalid(fmt.Sprintf("%sunknown setting %q", where, key), "did you mean "+nearest(key, Keys())+"?")
}

func invalid(message, fix string) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: message, Fix: fix}
}

// nearest returns the candidate with the smallest edit distance to s.
func nearest(s string, candidates []string) string {
	slices.Sort(candidates)
	return slices.MinFunc(candidates, func(a, b string) int { return distance(s, a) - distance(s, b) })
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			sub := diag
			if a[i] != b[j] {
				sub++
			}
			diag = row[j+1]
			row[j+1] = min(sub, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// YAML renders the configuration as the file that would produce it.
func (c Config) YAML() ([]byte, error) { return yaml.Marshal(c) }

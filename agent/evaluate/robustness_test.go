package evaluate_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/evaluate"
)

// dimmed finds a face in a black picture only as long as it stays black, and none in
// those of nobody. Noise, and sunglasses, turn it away from its reference.
type dimmed struct{}

func (d dimmed) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	name := strings.TrimSuffix(f.Source, ".png")
	if strings.HasPrefix(name, "nobody") {
		return agent.Probe{}, nil
	}
	bright := 0
	for _, v := range f.Pix {
		bright += int(v)
	}
	p := agent.Probe{Face: &agent.Face{Mesh: evaluate.MeshOver(8, 8, 20, 3)},
		Quality: agent.Quality{EyeDistance: 6}, ModelID: "model-1", Embedding: at(0)}
	switch {
	case bright > 256*3*20: // a mask
		return agent.Probe{}, ctx.Err()
	case bright > 0:
		p.Embedding = at(50) // cosine 0.64: matches at 0.5, not at 0.7
	}
	return p, ctx.Err()
}

func TestRobustness(t *testing.T) {
	names := []string{"nobody_0001", "nobody_0002", "single_0001"}
	for i := range 4 {
		for j := range 3 {
			names = append(names, fmt.Sprintf("p%d_%04d", i, j+1))
		}
	}
	d := open(t, folder(t, "", names...))
	var started, seen int
	o := evaluate.RobustnessOptions{Workers: 2, Cosine: straight,
		Started: func(n int) { started = n }, Progress: func(n int) { seen = n }}
	r, err := evaluate.Robustness(context.Background(), d, dimmed{}, o)
	if err != nil {
		t.Fatal(err)
	}
	if started != 5 || seen != 5 || r.People != 4 || r.Skipped != 1 || r.EyeDistance != 6 || r.ModelID != "model-1" || len(r.Rows) != 21 {
		t.Fatalf("%d, %d, %+v", started, seen, r)
	}
	for _, row := range r.Rows {
		noFace, at50, at70 := 0, 0, 0
		switch {
		case row.Name == "wearing a mask":
			noFace, at50, at70 = 4, 4, 4
		case row.Name == "wearing sunglasses", strings.HasPrefix(row.Name, "gaussian noise"), strings.HasPrefix(row.Name, "low light"):
			at70 = 4
		}
		if row.NoFace != noFace || row.At[0].FNMR.Errors != at50 || row.At[1].FNMR.Errors != at70 || row.At[1].FNMR.Trials != 4 || row.At[1].Score != 70 {
			t.Errorf("%+v, want %d without a face, %d and %d misses", row, noFace, at50, at70)
		}
		// Everybody's reference is alike here: whom a probe finds in one it finds in all.
		if f := row.At[1].FMR; f.Trials != 12 || f.Errors != 3*(4-at70) {
			t.Errorf("%s: %+v", row.Name, f)
		}
	}
	again, err := evaluate.Robustness(context.Background(), d, dimmed{}, o)
	if err != nil || !reflect.DeepEqual(r, again) {
		t.Errorf("another answer the second time: %v", err)
	}
	o.People = 2
	if r, err := evaluate.Robustness(context.Background(), d, dimmed{}, o); err != nil || r.People+r.Skipped != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRobustnessFails(t *testing.T) {
	o := evaluate.RobustnessOptions{Cosine: straight}
	if _, err := evaluate.Robustness(context.Background(), open(t, folder(t, "", "a_0001", "b_0001")), dimmed{}, o); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("no pairs: %v", err)
	}
	d := open(t, folder(t, "", four...))
	if _, err := evaluate.Robustness(context.Background(), d, &failing{}, o); !errors.Is(err, errBroken) {
		t.Errorf("err = %v", err)
	}
	write(t, d.Images[1].Path, "not a picture")
	if _, err := evaluate.Robustness(context.Background(), d, dimmed{}, o); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("err = %v", err)
	}
}

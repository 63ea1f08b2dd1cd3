//go:build cgo

package litert

import (
	"fmt"
	"testing"
)

// BenchmarkInvoke is the time of one bare Run of each shipped network, copies
// included.
func BenchmarkInvoke(b *testing.B) {
	r := openRuntime(b, nil)
	for _, id := range shippedIDs {
		data := shippedModel(b, id)
		for _, n := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", id, n), func(b *testing.B) {
				m := loadModel(b, r, data, Options{Threads: n})
				in, out := buffers(m.Inputs()), buffers(m.Outputs())
				b.ReportAllocs()
				for b.Loop() {
					if err := m.Run(in, out); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkBorder is the cost of Run around a network that does next to nothing.
func BenchmarkBorder(b *testing.B) {
	m := loadModel(b, openRuntime(b, nil), halfNetwork().encode(), Options{})
	in, out := buffers(m.Inputs()), buffers(m.Outputs())
	for b.Loop() {
		if err := m.Run(in, out); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad is the time from bytes to a network ready to run.
func BenchmarkLoad(b *testing.B) {
	r := openRuntime(b, nil)
	for _, id := range shippedIDs {
		data := shippedModel(b, id)
		b.Run(id, func(b *testing.B) {
			for b.Loop() {
				m, err := r.Load(data, Options{})
				if err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
		b.Run(id+"/verify", func(b *testing.B) {
			for b.Loop() {
				if err := Verify(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRunDoesNotAllocate(t *testing.T) {
	r := openRuntime(t, nil)
	for _, id := range shippedIDs {
		m := loadModel(t, r, shippedModel(t, id), Options{})
		in, out := buffers(m.Inputs()), buffers(m.Outputs())
		run := func() {
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
		}
		run()
		if n := testing.AllocsPerRun(20, run); n != 0 {
			t.Errorf("%s: Run allocates %v times", id, n)
		}
	}
	x, y := make([]float32, 192), make([]float32, 64)
	m := loadModel(t, r, convNetwork().encode(), Options{})
	if n := testing.AllocsPerRun(20, func() {
		in, out := [1]Buffer{Data(x)}, [1]Buffer{Data(y)}
		if err := m.Run(in[:], out[:]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("making Buffers for Run allocates %v times", n)
	}
}

package inference

import (
	"fmt"

	"postern/agent"
	"postern/models"
)

// embedder runs the embedding network on an aligned face.
type embedder struct {
	*net
	spec models.Embedder
	buf  []float32

	toCrop affine // from the last frame to its aligned face
}

func newEmbedder(e Engine, m *models.Model, threads int) (*embedder, error) {
	n, err := load(e, m, threads)
	if err != nil {
		return nil, err
	}
	b := &embedder{net: n, spec: *m.Manifest.Embedder, buf: make([]float32, m.Manifest.Embedder.Dim)}
	if got := len(n.output("embedding", b.buf)); got != b.spec.Dim {
		n.close()
		return nil, fmt.Errorf("load model %s: embedding has %d values, the manifest says %d", m.Manifest.ID, got, b.spec.Dim)
	}
	return b, nil
}

// align warps the face onto the template; the picture stays in b.pix.
func (b *embedder) align(f *agent.Frame, points [5]agent.Point) error {
	m, ok := similarity(points, b.spec.Template)
	if !ok {
		return fmt.Errorf("the five face points coincide")
	}
	if b.toCrop, ok = m.invert(); !ok {
		return fmt.Errorf("the five face points lie on a line")
	}
	b.warp(b.pix, b.size, b.size, f, m)
	return nil
}

// embed runs the network on the picture that align left.
func (b *embedder) embed() (agent.Embedding, error) {
	b.fill()
	if err := b.nw.Run(b.in, b.out); err != nil {
		return nil, err
	}
	e := append(agent.Embedding(nil), b.output("embedding", b.buf)...)
	if !e.Normalise() {
		return nil, fmt.Errorf("the embedding has no direction")
	}
	return e, nil
}

// maxLikeness is the cosine above which two different pictures count as answered alike.
// For those of tellsApart the shipped networks give 0.15 and 0.17.
const maxLikeness = 0.9

// tellsApart runs the network on two pictures that have nothing in common. On a CPU
// whose instructions the runtime gets wrong a network may give every face the same
// embedding, and with that let everybody in; this finds it before anybody comes.
func (b *embedder) tellsApart() error {
	n := b.size
	var seen [2]agent.Embedding
	for i, at := range []func(x, y, c int) byte{
		func(x, y, _ int) byte { return byte(x * 255 / n) },
		func(x, y, c int) byte { return byte(((x/8 + y/8 + c) % 2) * 255) },
	} {
		for y := range n {
			for x := range n {
				for c := range 3 {
					b.pix[(y*n+x)*3+c] = at(x, y, c)
				}
			}
		}
		e, err := b.embed()
		if err != nil {
			return err
		}
		seen[i] = e
	}
	if c := seen[0].Cosine(seen[1]); !(c >= -1 && c <= maxLikeness) {
		return fmt.Errorf("model %s answers two different pictures alike (cosine %.4f): the runtime computes wrongly on this CPU, and every face would match every other", b.man.ID, c)
	}
	return nil
}

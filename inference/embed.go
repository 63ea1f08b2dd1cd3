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

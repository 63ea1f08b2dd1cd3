package inference

import (
	"errors"
	"fmt"

	"postern/models"
)

// ErrWrongAnswer is wrapped by the error for a network whose known answers do not come
// out: the runtime computes wrongly on this CPU, or the answers are of another network.
var ErrWrongAnswer = errors.New("a known answer does not come out")

// Verify loads a network, asks it what its manifest knows the answers to, and unloads
// it. Loading into a pipeline does the same; this is for a network that is not used yet.
func Verify(e Engine, m *models.Model) error {
	n, err := load(e, m, 1)
	if err != nil {
		return err
	}
	return n.close()
}

// verify compares the network's answers with those of its manifest. A CPU whose
// instructions the runtime gets wrong may give every face the same embedding, and with
// that let everybody in; this finds it, and any other arithmetic that is wrong, before
// anybody comes.
func (n *net) verify() error {
	for _, k := range n.man.KnownAnswers {
		pix, err := models.Draw(k.Picture, n.size)
		if err != nil {
			return err
		}
		copy(n.pix, pix)
		n.fill()
		if err := n.nw.Run(n.in, n.out); err != nil {
			return err
		}
		for _, o := range k.Outputs {
			spec, _ := n.man.Output(o.Name)
			if d := o.Distance(n.output(spec.Role, nil)); d > o.Tolerance {
				return fmt.Errorf("%w: at the picture %q, %s is %.3g away from what it must be, more than %.3g", ErrWrongAnswer, k.Picture, o.Name, d, o.Tolerance)
			}
		}
	}
	return nil
}

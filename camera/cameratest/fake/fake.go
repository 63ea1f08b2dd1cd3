// Package fake is a scripted camera for tests: it shows pictures, fails, hangs,
// is unplugged and comes back, as told. It plays its script through a real
// camera.Stream, so what a test sees is what a camera would do.
package fake

import (
	"errors"
	"io"
	"sync"
	"time"

	"postern/agent"
	"postern/camera"
)

// ErrUnplugged is the default reason of a failure.
var ErrUnplugged = errors.New("unplugged")

// Step is one thing the camera does when it is asked for a picture.
type Step struct {
	Show   *agent.Frame  // the picture to show; nil fails with Err
	Err    error         // io.EOF ends the source; ErrUnplugged when nil
	Absent int           // after a failure, how often opening is refused
	After  time.Duration // wait before the step, like the time between two frames
}

// Camera plays a script. Its methods may be called from any goroutine.
type Camera struct {
	// Hold, when not nil, is received from before every step: a test that sends
	// on it decides when the camera goes on, one that never does has a hung
	// driver. Closing it lets the camera run free.
	Hold chan struct{}
	// Repeat starts the script again at its end, which otherwise is io.EOF.
	Repeat bool

	mu     sync.Mutex // guards everything below
	script []Step
	next   int
	absent int
	opens  int
	live   int
}

// New returns a camera that plays the steps once.
func New(script ...Step) *Camera { return &Camera{script: script} }

// Frames are steps that show n pictures of the given size, one every interval.
// Every pixel of picture i, from 0, is i+1.
func Frames(n, width, height int, interval time.Duration) []Step {
	steps := make([]Step, n)
	for i := range steps {
		pix := make([]byte, width*height*3)
		for j := range pix {
			pix[j] = byte(i + 1)
		}
		steps[i] = Step{Show: &agent.Frame{Pix: pix, Width: width, Height: height}, After: interval}
	}
	return steps
}

// Open is what camera.OpenReader wants. It is refused while the camera is absent.
func (c *Camera) Open() (camera.Reader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opens++
	if c.absent > 0 {
		c.absent--
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: "the fake camera is unplugged", Err: ErrUnplugged}
	}
	c.live++
	return &reader{c}, nil
}

// Unplug refuses the next n attempts to open.
func (c *Camera) Unplug(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.absent = n
}

// Opens returns how often somebody tried to open the camera.
func (c *Camera) Opens() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opens
}

// Live returns how many readers are open; a test asserts 0 at its end.
func (c *Camera) Live() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// step takes the next step of the script.
func (c *Camera) step() (Step, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == len(c.script) {
		if !c.Repeat || len(c.script) == 0 {
			return Step{}, false
		}
		c.next = 0
	}
	s := c.script[c.next]
	c.next++
	return s, true
}

type reader struct{ c *Camera }

var _ camera.Reader = (*reader)(nil)

func (r *reader) Read() (camera.Picture, error) {
	if r.c.Hold != nil {
		<-r.c.Hold
	}
	s, ok := r.c.step()
	if !ok {
		return camera.Picture{}, io.EOF
	}
	time.Sleep(s.After) // virtual under testing/synctest
	if f := s.Show; f != nil {
		return camera.Picture{Pix: f.Pix, Width: f.Width, Height: f.Height}, nil
	}
	if s.Absent > 0 {
		r.c.Unplug(s.Absent)
	}
	if s.Err == nil {
		return camera.Picture{}, ErrUnplugged
	}
	return camera.Picture{}, s.Err
}

func (r *reader) Rate() float64 { return 0 }

func (r *reader) Close() error {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.live--
	return nil
}

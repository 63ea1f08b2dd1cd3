// Package sample renders the film that stands in for a camera where there is
// none: an entrance, people who come and go, and a printed photo held up to the
// lens. Only the content is made; the film is played through the same code as a
// camera.
//
// The same pictures, options and processor architecture give the same bytes.
//
// Where to start reading: Script, the scenes with their times; then Render.
package sample

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"postern/agent"
	"postern/camera/internal/avi"
)

// Options set the format of the film. The zero value is good.
type Options struct {
	FPS      float64               // 20 when 0
	From     time.Duration         // the moment of the script at which the film begins
	For      time.Duration         // how long it lasts; 0: to the end of the script
	Seed     uint64                // of the sensor noise
	Progress func(done, total int) // called after every frame, from one goroutine; may be nil
}

// The size of the film's pictures.
const (
	Width  = 1280
	Height = 720
)

// Render writes the film to the file out, which it replaces only when the film
// is complete.
func Render(ctx context.Context, out string, cast Cast, o Options) (err error) {
	if o.FPS == 0 {
		o.FPS = 20
	}
	st, err := newStage(cast, o)
	if err != nil {
		return err
	}
	part := out + ".part"
	f, err := os.Create(part)
	if err != nil {
		return storage(out, err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(part)
		}
	}()
	if err := st.film(ctx, f); err != nil {
		return storage(out, err)
	}
	if err := f.Sync(); err != nil {
		return storage(out, err)
	}
	if err := f.Close(); err != nil {
		return storage(out, err)
	}
	if err := os.Rename(part, out); err != nil {
		return storage(out, err)
	}
	return nil
}

func storage(out string, err error) error {
	return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot write the sample film %q", out), Err: err}
}

// film renders all frames, several at a time, and writes them in order.
func (st *stage) film(ctx context.Context, f *os.File) error {
	w, err := avi.NewWriter(f, Width, Height, st.o.FPS)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	total := st.frames()
	results, wait := st.render(ctx, total)
	defer wait()
	defer cancel() // runs before wait: the workers must know to stop
	for i := range total {
		select {
		case r := <-results[i%len(results)]:
			if r.err != nil {
				return r.err
			}
			if err := w.Add(r.jpeg); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if st.o.Progress != nil {
			st.o.Progress(i+1, total)
		}
	}
	return w.Close()
}

// result is one finished frame.
type result struct {
	jpeg []byte
	err  error
}

// render starts one worker a processor. Worker k makes the frames k, k+n, ...
// and sends them to channel k; so the order is known without sorting. wait
// returns when all workers have ended.
func (st *stage) render(ctx context.Context, total int) (results []chan result, wait func()) {
	n := max(1, min(8, runtime.GOMAXPROCS(0)))
	results = make([]chan result, n)
	done := make(chan struct{}, n)
	for k := range n {
		results[k] = make(chan result, 1)
		go func() {
			defer func() { done <- struct{}{} }()
			p := st.newPainter()
			for i := k; i < total; i += n {
				jpeg, err := p.frame(i)
				select {
				case results[k] <- result{jpeg, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return results, func() {
		for range n {
			<-done
		}
	}
}

// frames is how many the film has, one at least.
func (st *stage) frames() int {
	long := max(0, Length()-st.o.From)
	if st.o.For > 0 {
		long = min(long, st.o.For)
	}
	return max(1, int(long.Seconds()*st.o.FPS))
}

// at returns the moment of the script that frame i shows.
func (st *stage) at(i int) time.Duration {
	return st.o.From + time.Duration(float64(i)/st.o.FPS*float64(time.Second))
}

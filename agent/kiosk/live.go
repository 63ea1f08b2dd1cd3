package kiosk

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"net/http"
	"sync"
	"time"

	"postern/agent"
)

// maxViewWidth is the width above which the live view is reduced.
const maxViewWidth = 640

const boundary = "postern-frame"

// live streams the camera as multipart JPEG. Nothing is encoded while no page is
// open, and once for all pages.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
	rc := http.NewResponseController(w)
	pace := time.NewTicker(time.Duration(float64(time.Second) / s.LiveFPS))
	defer pace.Stop()
	var after uint64
	for {
		pic, seq, err := s.view.newest(r.Context(), s.Frames, after)
		if err != nil {
			return // the page reconnects; the update feed says what is wrong
		}
		after = seq
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := fmt.Fprintf(w, "--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", boundary, len(pic), pic); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-pace.C:
		case <-r.Context().Done():
			return
		}
	}
}

// view caches the newest encoded picture.
type view struct {
	mu  sync.Mutex // guards pic and seq
	pic []byte
	seq uint64
}

// newest returns a picture newer than after.
func (v *view) newest(ctx context.Context, src frameSource, after uint64) ([]byte, uint64, error) {
	f, err := src.Next(ctx, after)
	if err != nil {
		return nil, 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seq > after && v.seq >= f.Seq {
		return v.pic, v.seq, nil
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, reduce(f, maxViewWidth), &jpeg.Options{Quality: 75}); err != nil {
		return nil, 0, err
	}
	v.pic, v.seq = b.Bytes(), f.Seq
	return v.pic, v.seq, nil
}

// reduce shrinks by the smallest whole factor that fits the width, averaging.
func reduce(f *agent.Frame, width int) *image.RGBA {
	k := (f.Width + width - 1) / width
	w, h := f.Width/k, f.Height/k
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	n := k * k
	for y := range h {
		for x := range w {
			var sum [3]int
			for j := range k {
				row := f.Pix[((y*k+j)*f.Width+x*k)*3:]
				for i := 0; i < k*3; i += 3 {
					sum[0] += int(row[i])
					sum[1] += int(row[i+1])
					sum[2] += int(row[i+2])
				}
			}
			p := dst.Pix[y*dst.Stride+x*4:]
			p[0], p[1], p[2], p[3] = byte(sum[0]/n), byte(sum[1]/n), byte(sum[2]/n), 255
		}
	}
	return dst
}

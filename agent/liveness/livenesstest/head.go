// Package livenesstest makes face meshes for tests of liveness.
package livenesstest

import (
	"math"
	"math/rand/v2"

	"postern/agent"
)

// Pose is how a made-up head stands before the camera.
type Pose struct {
	X, Y  float64 // of its centre in the frame
	Yaw   float64 // degrees, positive: nose towards the right of the picture
	Open  float64 // of the eyes, 1 is open
	Grain float64 // noise of the mesh, pixels
}

// points is the number of points of a mesh.
const points = 468

// eyes are the vertices of each eye: corners, then upper and lower lid in two places.
var eyes = [2][6]int{{33, 133, 160, 144, 158, 153}, {362, 263, 385, 380, 387, 373}}

// Head is the mesh of an ellipsoid, 180 pixels wide and 240 high, with eyes.
func Head(p Pose, r *rand.Rand) []agent.Point3 {
	mesh := make([]agent.Point3, points)
	s, c := math.Sincos(p.Yaw * math.Pi / 180)
	at := func(u, v float64) agent.Point3 { // on the surface, u and v in -1..1
		x, z := 90*u, -90*math.Sqrt(math.Max(0, 1-u*u-v*v))
		return agent.Point3{
			X: float32(p.X + x*c - z*s + r.NormFloat64()*p.Grain), Y: float32(p.Y + 120*v + r.NormFloat64()*p.Grain),
			Z: float32(x*s + z*c),
		}
	}
	for i := range mesh {
		a, d := float64(i)*2.39996, math.Sqrt(float64(i)/points)*0.95
		mesh[i] = at(d*math.Cos(a), d*math.Sin(a))
	}
	for k, e := range eyes {
		mid, gap := -0.4+0.8*float64(k), 0.05*p.Open // an aspect ratio of 0.33
		mesh[e[0]], mesh[e[1]] = at(mid-0.2, -0.2), at(mid+0.2, -0.2)
		mesh[e[2]], mesh[e[3]] = at(mid-0.07, -0.2-gap), at(mid-0.07, -0.2+gap)
		mesh[e[4]], mesh[e[5]] = at(mid+0.07, -0.2-gap), at(mid+0.07, -0.2+gap)
	}
	return mesh
}

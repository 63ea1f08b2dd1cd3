package sample

import "time"

// Who names a role in the film.
type Who string

// The roles.
const (
	Nobody   Who = "nobody"
	Enrolled Who = "enrolled" // the enrolled person, in a picture other than the one enrolled from
	Stranger Who = "stranger"
	Again    Who = "again" // the enrolled person in a third picture, turned a little aside
	Print    Who = "print" // the enrolled person's portrait on paper, held up to the camera
)

// Scene is a part of the film with one person, or nobody, in view.
type Scene struct {
	From, To time.Duration
	Who      Who
	About    string
}

// Script returns the scenes in order, without gaps.
func Script() []Scene {
	const s = time.Second
	return []Scene{
		{0, 3 * s, Nobody, "the empty entrance; the light drifts"},
		{3 * s, 14 * s, Enrolled, "the enrolled person walks up, waits while the light dims, leaves"},
		{14 * s, 17 * s, Nobody, "empty"},
		{17 * s, 26 * s, Stranger, "a stranger walks up, waits, leaves"},
		{26 * s, 29 * s, Nobody, "empty"},
		{29 * s, 37 * s, Again, "the enrolled person again, speaking, head turned a little"},
		{37 * s, 39 * s, Nobody, "empty"},
		{39 * s, 47 * s, Print, "a printed photo of the enrolled person is held up and tilted"},
		{47 * s, 48 * s, Nobody, "empty"},
	}
}

// Length is how long the film lasts.
func Length() time.Duration {
	s := Script()
	return s[len(s)-1].To
}

// sceneAt returns the scene at time t, and t within it.
func sceneAt(t time.Duration) (Scene, float64) {
	s := Script()
	for _, sc := range s {
		if t < sc.To {
			return sc, (t - sc.From).Seconds()
		}
	}
	last := s[len(s)-1]
	return last, (t - last.From).Seconds()
}

// key is where a person is at a moment of a scene.
type key struct {
	t     float64 // seconds into the scene
	x     float64 // of the head's centre, in pixels of the film
	head  float64 // height of the head in pixels: how near the person is
	tilt  float64 // of the head, degrees clockwise
	light float64 // exposure, 1 is normal
}

// walks are the movements. A person comes from one side, nears the camera,
// stands with small movements, and goes.
var walks = map[Who][]key{
	Enrolled: {
		{0, -260, 140, 0, 1}, {1.2, 300, 160, 1, 1}, {3.2, 620, 275, -1.5, 1}, {5, 640, 290, 2, 1},
		{6, 652, 292, -2, 0.62}, {7.6, 628, 288, 1, 0.62}, {8.6, 640, 285, 0, 1.06}, {9.4, 700, 262, 2, 1}, {11, 1560, 225, 2, 1},
	},
	Stranger: {
		{0, 1540, 170, 0, 1}, {1.6, 1060, 230, -1, 1}, {3, 960, 285, 1, 1}, {5, 948, 295, -2, 1.05}, {7, 964, 290, 2, 0.9}, {7.6, 980, 285, 0, 1}, {9, 1600, 250, 0, 1},
	},
	Again: {
		{0, -330, 235, 0, 1}, {1.8, 520, 262, 2, 1}, {3.6, 600, 282, -1.5, 1}, {5, 590, 290, 1.5, 0.92}, {6.2, 610, 285, 0, 1}, {8, 1640, 250, 2, 1},
	},
	Print: {
		{0, 640, 700, -6, 1}, {1.4, 640, 20, -3, 1}, {3, 660, 0, 4, 1}, {4.5, 625, 10, -4, 1.03}, {6.4, 645, 0, 2, 1}, {8, 640, 760, 6, 1},
	},
}

// pose returns the movement of who at t seconds into the scene, eased between
// its keys.
func pose(who Who, t float64) key {
	ks := walks[who]
	if len(ks) == 0 {
		return key{light: 1}
	}
	for i := 1; i < len(ks); i++ {
		if a, b := ks[i-1], ks[i]; t < b.t {
			f := ease((t - a.t) / (b.t - a.t))
			return key{t, mix(a.x, b.x, f), mix(a.head, b.head, f), mix(a.tilt, b.tilt, f), mix(a.light, b.light, f)}
		}
	}
	return ks[len(ks)-1]
}

func mix(a, b, f float64) float64 { return a + (b-a)*f }

// ease starts and stops softly.
func ease(f float64) float64 {
	f = min(1, max(0, f))
	return f * f * (3 - 2*f)
}

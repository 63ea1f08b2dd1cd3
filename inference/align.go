package inference

import "postern/agent"

// similarity returns the map from template pixels to frame pixels that best
// lays the five points on the template (least squares over scale, rotation and
// translation: Umeyama 1991, in two dimensions). It reports false when the points
// coincide.
func similarity(points [5]agent.Point, template [][2]float64) (affine, bool) {
	var mx, my, mu, mv float64
	for i, p := range points {
		mx += float64(p.X) / 5
		my += float64(p.Y) / 5
		mu += template[i][0] / 5
		mv += template[i][1] / 5
	}
	var norm, dot, cross float64
	for i, p := range points {
		x, y := float64(p.X)-mx, float64(p.Y)-my
		u, v := template[i][0]-mu, template[i][1]-mv
		norm += x*x + y*y
		dot += x*u + y*v
		cross += x*v - y*u
	}
	if !(norm > 1e-6) {
		return affine{}, false
	}
	a, b := dot/norm, cross/norm
	toTemplate := affine{a: a, b: -b, d: b, e: a}
	toTemplate.c = mu - a*mx + b*my
	toTemplate.f = mv - b*mx - a*my
	inv, ok := toTemplate.invert()
	if !ok {
		return affine{}, false
	}
	// Points count from the corner of a pixel, the map from its centre; the
	// published template counts from pixel centres already.
	inv.c -= 0.5
	inv.f -= 0.5
	return inv, true
}

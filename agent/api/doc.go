// Package api serves the v3 HTTP API: authentication, limits and the endpoints that
// stand alone (face match, passive liveness, face search). Other resources add their
// routes with Server.Add; what it needs of the rest of the program it names as small
// interfaces. It knows no camera, no page and no store.
package api

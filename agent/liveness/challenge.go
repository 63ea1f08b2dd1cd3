package liveness

import (
	"math"
	"math/rand/v2"
	"time"

	"postern/agent"
)

// Task is one thing that a challenge asks for.
type Task string

// The tasks. Left and right are the person's own.
const (
	TurnLeft  Task = "turn_left"
	TurnRight Task = "turn_right"
	Blink     Task = "blink"
)

// Tasks lists them all.
func Tasks() []Task { return []Task{TurnLeft, TurnRight, Blink} }

// Limits of a challenge.
const (
	// minTurn is how far the head must turn from where it looked when the task was
	// asked, in degrees of yaw. It keeps within what a live frame may be turned.
	minTurn = 15
	// backTurn is how near to the start the head must come again: a task begins with
	// somebody who faces the camera.
	backTurn = 10
	// holdFrames in a row must show a turn, so that one wrong mesh is not one.
	holdFrames = 2
	// settleFrames are looked at before a task counts, for the person's own open eyes
	// and straight look.
	settleFrames = 3
)

// ChallengeState is how far a challenge has come.
type ChallengeState string

// The states.
const (
	ChallengePending ChallengeState = "pending"
	ChallengeMet     ChallengeState = "met"
	ChallengeMissed  ChallengeState = "missed" // time is up, or the head turned the wrong way
)

// Challenge asks for tasks in an order that nobody can know before, and watches
// whether they are done within a time. It is not safe for concurrent use.
type Challenge struct {
	tasks    []Task
	limit    time.Duration
	started  time.Time // of the first frame
	done     int
	missed   bool
	yaw0     float64
	open0    float64
	frames   int // since the task was asked
	held     int
	wasShut  bool
	facing   bool
	openings []float64
}

// NewChallenge draws n different tasks from r, to be done within limit of the first
// frame that is shown.
func NewChallenge(r *rand.Rand, n int, limit time.Duration) *Challenge {
	all := Tasks()
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return &Challenge{tasks: all[:max(1, min(n, len(all)))], limit: limit}
}

// Task returns what is asked for now, "" when nothing is.
func (c *Challenge) Task() Task {
	if c.State() != ChallengePending {
		return ""
	}
	return c.tasks[c.done]
}

// State returns how far it has come.
func (c *Challenge) State() ChallengeState {
	switch {
	case c.missed:
		return ChallengeMissed
	case c.done == len(c.tasks):
		return ChallengeMet
	}
	return ChallengePending
}

// Progress returns how many tasks are done, and of how many.
func (c *Challenge) Progress() (done, of int) { return c.done, len(c.tasks) }

// See shows the challenge one frame: its time and its face mesh.
func (c *Challenge) See(at time.Time, mesh []agent.Point3) {
	if c.started.IsZero() {
		c.started = at
	}
	if c.State() != ChallengePending || len(mesh) < meshPoints {
		return
	}
	if at.Sub(c.started) > c.limit || at.Before(c.started) {
		c.missed = true
		return
	}
	yaw, open := Yaw(mesh), Openness(mesh)
	if !c.settled(yaw, open) {
		return
	}
	switch c.tasks[c.done] {
	case TurnLeft: // the person's left is the right of the picture
		c.turn(yaw - c.yaw0)
	case TurnRight:
		c.turn(c.yaw0 - yaw)
	case Blink:
		c.blink(open)
	}
}

// settled gathers how the person looks before the task, and waits until the head
// faces the camera again.
func (c *Challenge) settled(yaw, open float64) bool {
	if !c.facing {
		if c.done > 0 && math.Abs(yaw-c.yaw0) > backTurn {
			return false
		}
		c.frames++
		c.openings = append(c.openings, open)
		c.yaw0 += (yaw - c.yaw0) / float64(c.frames)
		if c.frames >= settleFrames {
			c.facing, c.open0 = true, middle(c.openings)
		}
		return false
	}
	return true
}

func (c *Challenge) turn(by float64) {
	if by <= -minTurn { // a film that turns both ways must not pass by patience
		c.missed = true
		return
	}
	if by < minTurn {
		c.held = 0
		return
	}
	if c.held++; c.held >= holdFrames {
		c.next()
	}
}

func (c *Challenge) blink(open float64) {
	shut := open < shutShare*c.open0
	if c.wasShut && !shut {
		c.next()
		return
	}
	c.wasShut = shut
}

func (c *Challenge) next() {
	c.done++
	c.frames, c.held, c.wasShut, c.facing, c.openings = 0, 0, false, false, nil
}

// Yaw is the turn of the head in degrees, read from the mesh's own depth: positive
// when the nose points towards the right of the picture, the person's left.
func Yaw(mesh []agent.Point3) float64 {
	l, r := mesh[33], mesh[263] // outer corners of the eyes, left and right of the picture
	return math.Atan2(float64(r.Z-l.Z), float64(r.X-l.X)) * 180 / math.Pi
}

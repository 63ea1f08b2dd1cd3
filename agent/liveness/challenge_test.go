package liveness

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"postern/agent"
)

// act performs poses before a challenge, 50 ms apart.
func act(c *Challenge, ps ...pose) {
	for i, p := range ps {
		c.See(start.Add(time.Duration(i)*50*time.Millisecond), head(p, rand.New(rand.NewPCG(5, uint64(i)))))
	}
}

func look(yaw, open float64) pose { return pose{x: 480, y: 270, yaw: yaw, open: open} }

func repeat(p pose, n int) []pose { return slices.Repeat([]pose{p}, n) }

func play(parts ...[]pose) []pose { return slices.Concat(parts...) }

// only makes a challenge of these tasks.
func only(limit time.Duration, tasks ...Task) *Challenge {
	return &Challenge{tasks: tasks, limit: limit}
}

func TestChallenge(t *testing.T) {
	ahead := repeat(look(0, 1), 5)
	left, right := repeat(look(25, 1), 4), repeat(look(-25, 1), 4)
	shut := repeat(look(0, 0.2), 3)
	for _, c := range []struct {
		name  string
		tasks []Task
		acts  []pose
		want  ChallengeState
	}{
		{"left", []Task{TurnLeft}, play(ahead, left), ChallengeMet},
		{"right", []Task{TurnRight}, play(ahead, right), ChallengeMet},
		{"blink", []Task{Blink}, play(ahead, shut, ahead), ChallengeMet},
		{"eyes that stay shut", []Task{Blink}, play(ahead, shut), ChallengePending},
		{"the wrong way", []Task{TurnLeft}, play(ahead, right, ahead, left), ChallengeMissed},
		{"nothing", []Task{TurnLeft}, repeat(look(0, 1), 50), ChallengePending},
		{"too little", []Task{TurnLeft}, play(ahead, repeat(look(8, 1), 30)), ChallengePending},
		{"one odd frame", []Task{TurnLeft}, play(ahead, repeat(look(25, 1), 1), ahead), ChallengePending},
		{"turned from the start", []Task{TurnLeft}, repeat(look(25, 1), 40), ChallengePending},
		{"too late", []Task{TurnLeft}, play(repeat(look(0, 1), 110), left), ChallengeMissed},
		{"all three", []Task{Blink, TurnRight, TurnLeft}, play(ahead, shut, ahead, right, ahead, left), ChallengeMet},
		{"in another order", []Task{TurnRight, TurnLeft}, play(ahead, left, ahead, right), ChallengeMissed},
		{"a print that is turned about does not blink", []Task{TurnLeft, Blink}, play(ahead, left, repeat(look(0, 1), 40)), ChallengePending},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := only(5*time.Second, c.tasks...)
			act(ch, c.acts...)
			if got := ch.State(); got != c.want {
				done, of := ch.Progress()
				t.Errorf("%s (%d of %d), want %s", got, done, of, c.want)
			}
			if (ch.Task() != "") != (ch.State() == ChallengePending) {
				t.Errorf("asks for %q while %s", ch.Task(), ch.State())
			}
		})
	}
}

// TestChallengeIsRandom: the same source of chance gives the same tasks, and over many
// draws each order comes.
func TestChallengeIsRandom(t *testing.T) {
	seen := map[[2]Task]int{}
	for seed := range uint64(200) {
		a := NewChallenge(rand.New(rand.NewPCG(seed, 1)), 2, time.Second)
		b := NewChallenge(rand.New(rand.NewPCG(seed, 1)), 2, time.Second)
		if !slices.Equal(a.tasks, b.tasks) || len(a.tasks) != 2 || a.tasks[0] == a.tasks[1] {
			t.Fatalf("%v and %v", a.tasks, b.tasks)
		}
		seen[[2]Task{a.tasks[0], a.tasks[1]}]++
	}
	if len(seen) != 6 {
		t.Errorf("%d of 6 orders came: %v", len(seen), seen)
	}
}

// TestChallengeClock: a clock that runs backwards does not give more time.
func TestChallengeClock(t *testing.T) {
	c := only(5*time.Second, Blink)
	c.See(start, head(look(0, 1), rand.New(rand.NewPCG(1, 1))))
	c.See(start.Add(-time.Second), head(look(0, 1), rand.New(rand.NewPCG(1, 1))))
	if c.State() != ChallengeMissed {
		t.Errorf("%s", c.State())
	}
	c = only(5*time.Second, Blink)
	c.See(start, []agent.Point3{})
	if c.State() != ChallengePending {
		t.Errorf("without a mesh: %s", c.State())
	}
}

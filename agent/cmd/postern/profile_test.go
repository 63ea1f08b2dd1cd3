package main

import (
	"testing"

	"postern/agent"
	"postern/agent/config"
	"postern/models"
)

// TestModelsOfTheProfile: every command compares with the embedder that is configured.
func TestModelsOfTheProfile(t *testing.T) {
	for name, id := range models.Profiles {
		set, err := modelsOf(config.Config{Inference: config.Inference{Profile: name}})
		if err != nil || set.Embedder.Manifest.ID != id {
			t.Errorf("%s: %v, %+v", name, err, set)
		}
	}
	if _, err := modelsOf(config.Config{}); agent.ErrorCode(err) != agent.CodeUnavailable {
		t.Errorf("no profile: %v", err)
	}
}

// TestCalibrateInTheProfile: a model tried in place of the profile's is not mixed up with
// it, and without one the table is the profile's.
func TestCalibrateInTheProfile(t *testing.T) {
	c := &cli{set: []string{"inference.profile=" + models.Accurate, "inference.library=" + library(t)}}
	for dir, id := range map[string]string{"": models.AccurateEmbedder, root + "/models/" + models.FastEmbedder: models.FastEmbedder} {
		b, err := c.openModel(dir, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.set.Embedder.Manifest.ID; got != id {
			t.Errorf("model %q: %s, want %s", dir, got, id)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

package ui_test

import (
	"os"
	"testing"

	"postern/agent/ui/uitest"
)

func TestTexts(t *testing.T) {
	uitest.Check(t, os.DirFS("."), []string{"design"})
}

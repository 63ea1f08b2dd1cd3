package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"postern/agent/watch"
)

// firstUpdate reads one update from a running agent's event stream.
func firstUpdate(ctx context.Context, url string) (watch.Update, error) {
	var u watch.Update
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return u, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return u, err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for update := false; sc.Scan(); {
		if event, ok := strings.CutPrefix(sc.Text(), "event: "); ok {
			update = event == "update"
		}
		if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok && update {
			return u, json.Unmarshal([]byte(data), &u)
		}
	}
	return u, fmt.Errorf("the agent sent no update: %v", sc.Err())
}

package image

import "time"

// reconcile makes the entries that stand for layers as many as there are
// layers: the OCI image specification (config, "history") demands it, and
// docker refuses images that break it, but base images that were imported,
// squashed or built by simple tools often do. Which entries are wrong cannot
// be known, so the oldest ones change: missing entries are put first, and
// surplus ones lose their layer. The slice given is not changed.
func reconcile(history []History, layers int, created *time.Time) []History {
	have := 0
	for _, h := range history {
		if !h.EmptyLayer {
			have++
		}
	}
	out := make([]History, 0, len(history)+max(0, layers-have))
	for ; have < layers; have++ {
		out = append(out, History{Created: created, Comment: "layer without history"})
	}
	for _, h := range history {
		if !h.EmptyLayer && have > layers {
			h.EmptyLayer = true
			have--
		}
		out = append(out, h)
	}
	return out
}

package cli

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// startProfiles begins what --cpu-profile and --memory-profile ask for. The
// process that does the work calls it; the files are complete when the
// command has ended.
func (a *app) startProfiles() error {
	if name := a.global.cpuProfile; name != "" {
		f, err := os.Create(name)
		if err != nil {
			return fmt.Errorf("--cpu-profile: %w", err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("--cpu-profile: %w", errors.Join(err, f.Close()))
		}
		a.closers = append(a.closers, func() error {
			pprof.StopCPUProfile()
			return f.Close()
		})
	}
	if name := a.global.memoryProfile; name != "" {
		f, err := os.Create(name)
		if err != nil {
			return fmt.Errorf("--memory-profile: %w", err)
		}
		a.closers = append(a.closers, func() error {
			runtime.GC() // the profile is of the latest collection
			return errors.Join(pprof.WriteHeapProfile(f), f.Close())
		})
	}
	return nil
}

package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Slot says which step of which build a key belongs to, so that the next
// build of the same thing can be compared with it.
type Slot struct {
	// Build identifies what is built: context, Containerfile, platform.
	Build string
	// Stage and N are the place in it; Instruction its keyword.
	Stage       string
	N           int
	Instruction string
}

// A slot file is a symbolic link: the target, a key in base64url, fits into
// the inode, so that reading it is one system call and writing it touches no
// data block. Up to three links lead to a key:
//
//	place  the step at this place of this build
//	text   the step of this build with this instruction text, found again
//	       when lines were inserted above it
//	any    the step with this instruction text in any build, for a context
//	       that lies elsewhere each time (CI)

func placeSlot(s Slot) [sha256.Size]byte {
	return slotID("place", s.Build, s.Stage, strconv.Itoa(s.N), s.Instruction)
}

func textSlot(s Slot, text string) [sha256.Size]byte { return slotID("text", s.Build, text) }

func anySlot(s Slot, text string) [sha256.Size]byte { return slotID("any", s.Instruction, text) }

func slotID(fields ...string) [sha256.Size]byte {
	h := newFieldHash("strata cache slot 1\n")
	for _, f := range fields {
		h.field(f)
	}
	return h.sum()
}

// setSlots makes all of the step's slots lead to the key.
func setSlots(base string, s Slot, k *Key) error {
	target := encodeTarget(k.id())
	ids := [][sha256.Size]byte{placeSlot(s)}
	if text, ok := k.value(PartInstruction); ok {
		ids = append(ids, textSlot(s, text), anySlot(s, text))
	}
	for _, id := range ids {
		if err := setSlot(base, shardPath(base, "slots", id), target); err != nil {
			return fmt.Errorf("build cache: note the latest key of a step: %w", err)
		}
	}
	return nil
}

func setSlot(base, path, target string) error {
	buf := make([]byte, len(target)+1)
	n, err := unix.Readlink(path, buf)
	if err == nil && string(buf[:n]) == target {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		err = unix.Symlink(target, path)
		if errors.Is(err, unix.ENOENT) {
			if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
				err = unix.Symlink(target, path)
			}
		}
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	tmp := tempName(base)
	err = unix.Symlink(target, tmp)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(filepath.Dir(tmp), 0o700); err == nil {
			err = unix.Symlink(target, tmp)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "symlink", Old: target, New: tmp, Err: err}
	}
	return moveIn(tmp, path)
}

// readSlot returns the key that a slot leads to.
func readSlot(base string, slot [sha256.Size]byte) (id [sha256.Size]byte, ok bool) {
	buf := make([]byte, 64)
	n, err := unix.Readlink(shardPath(base, "slots", slot), buf)
	if err != nil {
		return id, false
	}
	return decodeTarget(buf[:n])
}

func encodeTarget(id [sha256.Size]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func decodeTarget(b []byte) (id [sha256.Size]byte, ok bool) {
	if base64.RawURLEncoding.DecodedLen(len(b)) != len(id) {
		return id, false
	}
	n, err := base64.RawURLEncoding.Decode(id[:], b)
	return id, err == nil && n == len(id)
}

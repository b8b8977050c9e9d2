package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
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

// Slots lie in logs: one log a build, and one for all. Whatever is written
// is appended, a few microseconds without a new inode; the last entry of a
// slot counts. A log that has grown is written anew without the entries that
// no longer count; what another process appends meanwhile is lost, and with
// it a good explanation, never a hit.
//
// Up to three slots lead to a key:
//
//	place  the step at this place of this build
//	text   the step of this build with this text, found again
//	       when lines were inserted above it
//	any    the step with this text in any build, for a context
//	       that lies elsewhere each time (CI); in the log for all
type slotID [16]byte

const (
	// An entry is a slot, a key's digest, and the CRC-32C of both.
	slotEntry = len(slotID{}) + sha256.Size + 4
	// maxSlotLog is the size at which a log is written anew; a third of it,
	// the latest, stays at most.
	maxSlotLog = 256 << 10
)

func placeSlot(s Slot) slotID { return newSlotID("place", s.Stage, strconv.Itoa(s.N), s.Instruction) }

func textSlot(text string) slotID { return newSlotID("text", text) }

func anySlot(s Slot, text string) slotID { return newSlotID("any", s.Instruction, text) }

func newSlotID(fields ...string) slotID {
	h := newFieldHash("strata cache slot 1\n")
	for _, f := range fields {
		h.field(f)
	}
	sum := h.sum()
	return slotID(sum[:len(slotID{})])
}

func buildLogPath(base string, s Slot) string {
	h := newFieldHash("strata cache build 1\n")
	h.field(s.Build)
	sum := h.sum()
	return filepath.Join(base, "slots", hex.EncodeToString(sum[:]))
}

func anyLogPath(base string) string { return filepath.Join(base, "slots", "any") }

// setSlots makes the step's slots lead to the key. When onlyChanges is set,
// it first looks whether they do already.
func (c *Cache) setSlots(base string, s Slot, k *Key, onlyChanges bool) error {
	id, log := k.id(), buildLogPath(base, s)
	text := k.text()
	if onlyChanges {
		slots, err := c.readLog(log)
		if err != nil {
			return fmt.Errorf("build cache: %w", err)
		}
		if slots[placeSlot(s)] == id && (text == "" || slots[textSlot(text)] == id) {
			return nil
		}
	}
	entries := appendSlot(nil, placeSlot(s), id)
	if text != "" {
		entries = appendSlot(entries, textSlot(text), id)
	}
	err := appendLog(base, log, entries)
	if err == nil && text != "" {
		err = appendLog(base, anyLogPath(base), appendSlot(nil, anySlot(s, text), id))
	}
	if err != nil {
		return fmt.Errorf("build cache: note the latest key of a step: %w", err)
	}
	return nil
}

func appendSlot(b []byte, slot slotID, key [sha256.Size]byte) []byte {
	start := len(b)
	b = append(b, slot[:]...)
	b = append(b, key[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// decodeSlots calls f for each sound entry. After damage (a write that was
// cut short) it goes on at the next sound entry.
func decodeSlots(b []byte, f func(slotID, [sha256.Size]byte)) {
	const sum = slotEntry - 4
	for len(b) >= slotEntry {
		if crc32.Checksum(b[:sum], castagnoli) != binary.LittleEndian.Uint32(b[sum:]) {
			b = b[1:]
			continue
		}
		f(slotID(b[:len(slotID{})]), [sha256.Size]byte(b[len(slotID{}):sum]))
		b = b[slotEntry:]
	}
}

// slotLog is a log as this process last read it.
type slotLog struct {
	ino   uint64
	size  int64
	slots map[slotID][sha256.Size]byte
}

// readLog returns the slots of a log, reading only what was appended since
// the last time. A log that is missing has none.
func (c *Cache) readLog(path string) (map[slotID][sha256.Size]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd, err := openFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil
	}
	log := c.logs[path]
	if log == nil || log.ino != st.Ino || st.Size < log.size {
		log = &slotLog{ino: st.Ino}
	}
	if log.size == st.Size && log.slots != nil {
		return log.slots, nil
	}
	// Appends are small: a file beyond twice the limit is not ours.
	b := make([]byte, min(st.Size-log.size, 2*maxSlotLog))
	n, err := readAt(fd, b, log.size)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	// The map that was handed out is not written to again.
	slots := make(map[slotID][sha256.Size]byte, len(log.slots)+n/slotEntry)
	for slot, id := range log.slots {
		slots[slot] = id
	}
	decodeSlots(b[:n], func(slot slotID, id [sha256.Size]byte) { slots[slot] = id })
	if c.logs == nil {
		c.logs = make(map[string]*slotLog)
	}
	c.logs[path] = &slotLog{ino: st.Ino, size: log.size + int64(n), slots: slots}
	return slots, nil
}

func appendLog(base, path string, entries []byte) error {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_APPEND | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := createFile(path, flags)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := writeAll(fd, entries); err != nil {
		return &os.PathError{Op: "append", Path: path, Err: err}
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil || size < maxSlotLog {
		return err
	}
	b := make([]byte, size)
	n, err := readAt(fd, b, 0)
	if err != nil {
		return &os.PathError{Op: "read", Path: path, Err: err}
	}
	return writeFile(base, path, allOf(compactSlots(b[:n], maxSlotLog/3, func([sha256.Size]byte) bool { return true })))
}

// compactSlots keeps the last entry of each slot whose key is wanted, and of
// those the latest, up to limit bytes.
func compactSlots(b []byte, limit int, wanted func(key [sha256.Size]byte) bool) []byte {
	type entry struct {
		slot slotID
		key  [sha256.Size]byte
	}
	var all []entry
	decodeSlots(b, func(slot slotID, key [sha256.Size]byte) { all = append(all, entry{slot, key}) })
	seen := make(map[slotID]bool, len(all))
	var kept []entry // latest first
	for i := len(all) - 1; i >= 0 && (len(kept)+1)*slotEntry <= limit; i-- {
		if e := all[i]; !seen[e.slot] {
			seen[e.slot] = true
			if wanted(e.key) {
				kept = append(kept, e)
			}
		}
	}
	var out []byte
	for i := len(kept) - 1; i >= 0; i-- {
		out = appendSlot(out, kept[i].slot, kept[i].key)
	}
	return out
}

package copier

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// xzGuard reads an xz stream and refuses blocks that ask for a dictionary of
// more than maxWindow. The decoder allocates whatever a block header says, up
// to 4 GiB, once per block, before it has seen any data.
//
// Block headers (xz file format 1.2, section 3.1) start at multiples of four
// bytes and carry a CRC32 of themselves, so that they are recognised without
// following the blocks. The guard passes no byte on that could complete a
// header it has not judged.
type xzGuard struct {
	r    io.Reader
	rest []byte // unjudged bytes, already passed on, starting at a multiple of 4
	err  error
}

func (g *xzGuard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.r.Read(p)
	g.rest = append(g.rest, p[:n]...)
	if g.err = g.judge(); g.err != nil {
		return 0, g.err
	}
	return n, err
}

// judge looks at all complete candidates in rest.
func (g *xzGuard) judge() error {
	b, i := g.rest, 0
	for ; i+4 <= len(b); i += 4 {
		// Size (0 is an index), flags with reserved bits, and for the one
		// filter that the decoder knows an id of 0x21 and one property byte.
		if b[i] == 0 || b[i+1]&0x3f != 0 {
			continue
		}
		size := (int(b[i]) + 1) * 4
		if b[i+1] == 0 && (b[i+2] != 0x21 || b[i+3] != 1) {
			continue
		}
		if i+size > len(b) {
			break
		}
		h := b[i : i+size]
		if crc32.ChecksumIEEE(h[:size-4]) != binary.LittleEndian.Uint32(h[size-4:]) {
			continue
		}
		if dict, ok := xzDictionary(h); ok && dict > maxWindow {
			return fmt.Errorf("its xz stream needs a dictionary of %d MiB, more than the %d MiB allowed", dict>>20, maxWindow>>20)
		}
	}
	g.rest = append(g.rest[:0], b[i:]...)
	return nil
}

// xzDictionary reads the dictionary size from a block header.
func xzDictionary(h []byte) (size uint64, ok bool) {
	flags, rest := h[1], h[2:len(h)-4]
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} {
		if !present {
			continue
		}
		// A variable-length integer ends with a byte below 0x80.
		i := 0
		for i < len(rest) && rest[i]&0x80 != 0 {
			i++
		}
		if i >= len(rest) {
			return 0, false
		}
		rest = rest[i+1:]
	}
	if len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 || rest[2] > 40 {
		return 0, false
	}
	bits := uint64(rest[2])
	return (2 | bits&1) << (bits/2 + 11), true
}

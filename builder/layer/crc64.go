package layer

import "encoding/binary"

// crc64 is the checksum that tar-split keeps of each file's content: the
// CRC-64 of ISO 3309, as hash/crc64 with crc64.ISO computes it, but about
// three times as fast. Start with 0; feed the result back in to go on.
//
// The polynomial x^64 + x^4 + x^3 + x + 1 has so few terms that multiplying by
// x^64 takes a few shifts in place of table look-ups, and in GF(2) its
// squares are as sparse: x^256 = x^16 + x^12 + x^4 + 1. So four words are
// carried along side by side, each moved 256 bits at a time, which keeps the
// processor's units busy, and are joined in the end. Bits are reflected: the
// lowest bit is the highest power, and shifting right multiplies by x.
func crc64(crc uint64, p []byte) uint64 {
	c := ^crc
	if len(p) >= 64 {
		c0 := c ^ binary.LittleEndian.Uint64(p)
		c1 := binary.LittleEndian.Uint64(p[8:])
		c2 := binary.LittleEndian.Uint64(p[16:])
		c3 := binary.LittleEndian.Uint64(p[24:])
		p = p[32:]
		for len(p) >= 32 {
			c0 = x256(c0) ^ binary.LittleEndian.Uint64(p)
			c1 = x256(c1) ^ binary.LittleEndian.Uint64(p[8:])
			c2 = x256(c2) ^ binary.LittleEndian.Uint64(p[16:])
			c3 = x256(c3) ^ binary.LittleEndian.Uint64(p[24:])
			p = p[32:]
		}
		c = x64(x64(x64(x64(c0)^c1)^c2) ^ c3)
	}
	for len(p) >= 8 {
		c = x64(c ^ binary.LittleEndian.Uint64(p))
		p = p[8:]
	}
	for _, b := range p {
		c ^= uint64(b)
		o := c << 56
		c = c>>8 ^ o ^ o>>1 ^ o>>3 ^ o>>4
	}
	return ^c
}

// x64 multiplies by x^64, which is x^4 + x^3 + x + 1. What is shifted out, o,
// stands for x^64 and above and comes back by the same rule.
func x64(c uint64) uint64 {
	o := c<<63 ^ c<<61 ^ c<<60
	return c ^ c>>1 ^ c>>3 ^ c>>4 ^ o ^ o>>1 ^ o>>3 ^ o>>4
}

// x256 multiplies by x^256, which is x^16 + x^12 + x^4 + 1.
func x256(c uint64) uint64 {
	o := c<<60 ^ c<<52 ^ c<<48
	return c ^ c>>4 ^ c>>12 ^ c>>16 ^ o ^ o>>1 ^ o>>3 ^ o>>4
}

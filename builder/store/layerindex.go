package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// LayerRecord is what the store's list of layers says of one.
type LayerRecord struct {
	ID, Parent string
	DiffID     digest.Digest // of the uncompressed layer; "" is not known
	Size       int64         // of that
	Created    time.Time
	// Mapped layers hold owners of a user namespace.
	Mapped bool
}

// Layer returns the record of the layer with exactly this ID, or an error that
// wraps storage.ErrLayerUnknown.
//
// The library reads and indexes the list of all layers before it answers,
// 0.1 s and 60 MiB for 20,000 of them. Here a list is searched for what is
// needed, and what was found of a long one is kept in a file of ours, which
// counts as long as the list's file is the same. What is not in the index is
// asked of the library, which knows further stores, and layers that were
// left incomplete.
func (s *Store) Layer(id string) (*LayerRecord, error) {
	if key, ok := layerKey(id); ok {
		list := filepath.Join(s.raw.GraphRoot(), s.raw.GraphDriverName()+"-layers", "layers.json")
		if rec, ok := s.layers.find(list, s.indexPath, key); ok {
			return rec, nil
		}
	}
	l, err := s.raw.Layer(id)
	if err != nil {
		return nil, err
	}
	return &LayerRecord{
		ID: l.ID, Parent: l.Parent, DiffID: l.UncompressedDigest, Size: l.UncompressedSize, Created: l.Created,
		Mapped: len(l.UIDMap) > 0 || len(l.GIDMap) > 0,
	}, nil
}

// layerIndex is what is known of layers.json in one of its states.
type layerIndex struct {
	mu    sync.Mutex
	state listState // of the list that the rest is about
	// all is the content, sorted; nil when it is in the file.
	all layerEntries
	// file is the index on disk, with its table.
	file  *os.File
	table layerTable
	later time.Duration // tests do not wait for time to pass
}

// listState tells one state of layers.json from the next: it is replaced by
// rename, never written to.
type listState struct {
	Dev, Ino     uint64
	Size         int64
	MTime, CTime int64
}

// An index of layers, little endian:
//
//	  0  8  magic
//	  8 40  listState
//	 48     table: for each first byte of an ID the number of entries up to
//	        and with it (4 bytes), and the CRC-32C of its entries (4 bytes)
//	2096 4  CRC-32C of all before
//	2100    entries, sorted by ID: ID, parent, diff ID (32 bytes each), size,
//	        time of creation in nanoseconds (8 bytes each), flags
const (
	layerMagic     = "strlays1"
	layerTableAt   = 48
	layerHead      = layerTableAt + 256*8 + 4
	layerEntrySize = 3*32 + 2*8 + 1
	// A list up to this size is read each time: it takes as long as the index.
	smallList = 64 << 10
	// maxList bounds what is read into memory.
	maxList = 512 << 20
	// A list written so lately may be replaced without a change of what stat
	// tells: the clock for files goes by ticks, of 10 ms at most, and on some
	// file systems by seconds.
	racyTicks, racySeconds = 100 * time.Millisecond, 2 * time.Second
)

const (
	layerHasParent = 1 << iota
	layerHasDiff
	layerMapped
)

type layerTable [256]struct{ End, Sum uint32 }

type layerEntries []byte

func (e layerEntries) at(i int) []byte { return e[i*layerEntrySize : (i+1)*layerEntrySize] }

func (e layerEntries) len() int { return len(e) / layerEntrySize }

// find returns the entry with the ID.
func (e layerEntries) find(key *[32]byte) []byte {
	lo, hi := 0, e.len()
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := bytes.Compare(e.at(mid)[:32], key[:]); {
		case c == 0:
			return e.at(mid)
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return nil
}

func layerKey(id string) (key [32]byte, ok bool) {
	if len(id) != 64 {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(id))
	return key, err == nil && hex.EncodeToString(key[:]) == id
}

func decodeLayer(e []byte) *LayerRecord {
	flags := e[layerEntrySize-1]
	r := &LayerRecord{
		ID: hex.EncodeToString(e[:32]), Size: int64(binary.LittleEndian.Uint64(e[96:])),
		Created: time.Unix(0, int64(binary.LittleEndian.Uint64(e[104:]))).UTC(), Mapped: flags&layerMapped != 0,
	}
	if flags&layerHasParent != 0 {
		r.Parent = hex.EncodeToString(e[32:64])
	}
	if flags&layerHasDiff != 0 {
		r.DiffID = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(e[64:96]))
	}
	return r
}

// find looks for the layer in the list as it is now; index is where the index
// of a long one lies.
func (x *layerIndex) find(list string, index func() (string, error), key [32]byte) (*LayerRecord, bool) {
	var st unix.Stat_t
	if unix.Lstat(list, &st) != nil {
		return nil, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if now := stateOfList(&st); x.state != now {
		x.drop()
		if !x.open(index, now) {
			var err error
			if x.all, x.state, err = readLayerList(list); err != nil {
				x.drop() // the library will say what is wrong
				return nil, false
			}
			x.save(index)
		}
	}
	part := x.all
	if part == nil {
		if part = x.part(key[0]); part == nil {
			return nil, false
		}
	}
	e := part.find(&key)
	if e == nil {
		return nil, false
	}
	return decodeLayer(e), true
}

func stateOfList(st *unix.Stat_t) listState {
	return listState{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// racy reports whether the next state may look like this one.
func (s listState) racy(now time.Time) bool {
	margin := racyTicks
	if s.MTime%int64(time.Second) == 0 && s.CTime%int64(time.Second) == 0 {
		margin = racySeconds
	}
	return now.Sub(time.Unix(0, max(s.MTime, s.CTime))) < margin
}

func (x *layerIndex) drop() {
	if x.file != nil {
		x.file.Close()
	}
	x.state, x.all, x.file = listState{}, nil, nil
}

// indexPath is where the index of a long list lies.
func (s *Store) indexPath() (string, error) {
	state, err := s.StateDir()
	return filepath.Join(state, "layers.index"), err
}

// open opens the file if it is about this state of the list.
func (x *layerIndex) open(index func() (string, error), now listState) bool {
	path, err := index()
	if err != nil || now.Size <= smallList {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	head := make([]byte, layerHead)
	if _, err = f.ReadAt(head, 0); err == nil && string(head[:8]) != layerMagic ||
		crc32.Checksum(head[:layerHead-4], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(head[layerHead-4:]) {
		err = errors.New("not an index")
	}
	var about listState
	if err == nil {
		err = binary.Read(bytes.NewReader(head[8:]), binary.LittleEndian, &about)
	}
	if err == nil {
		err = binary.Read(bytes.NewReader(head[layerTableAt:]), binary.LittleEndian, &x.table)
	}
	if err != nil || about != now {
		f.Close()
		return false
	}
	x.file, x.state = f, now
	return true
}

// part reads the entries whose IDs begin with the byte; nil when they are
// damaged or none.
func (x *layerIndex) part(first byte) layerEntries {
	start := uint32(0)
	if first > 0 {
		start = x.table[first-1].End
	}
	end := x.table[first].End
	if start >= end || end > maxList/layerEntrySize {
		return nil
	}
	b := make([]byte, int(end-start)*layerEntrySize)
	if _, err := x.file.ReadAt(b, layerHead+int64(start)*layerEntrySize); err != nil {
		return nil
	}
	if crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) != x.table[first].Sum {
		return nil
	}
	return b
}

// save writes the index of a long list for the next process. It is no more
// than a help: errors are not told.
func (x *layerIndex) save(index func() (string, error)) {
	if x.state.Size <= smallList || x.state.racy(time.Now().Add(x.later)) {
		return
	}
	path, err := index()
	if err != nil {
		return
	}
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	var table layerTable
	for first, i := 0, 0; first < 256; first++ {
		start := i
		for i < x.all.len() && int(x.all.at(i)[0]) == first {
			i++
		}
		table[first].End = uint32(i)
		table[first].Sum = crc32.Checksum(x.all[start*layerEntrySize:i*layerEntrySize], castagnoli)
	}
	var head bytes.Buffer
	head.WriteString(layerMagic)
	for _, v := range []any{x.state, table} {
		if binary.Write(&head, binary.LittleEndian, v) != nil {
			return
		}
	}
	_ = binary.Write(&head, binary.LittleEndian, crc32.Checksum(head.Bytes(), castagnoli)) // a buffer never fails
	tmp := path + "." + rand.Text()
	if err := os.WriteFile(tmp, append(head.Bytes(), x.all...), 0o600); err != nil || os.Rename(tmp, path) != nil {
		_ = os.Remove(tmp)
	}
}

// readLayerList reads layers.json. It fails when the list is not as the library
// writes it, and when a layer in it is incomplete, which the library removes.
func readLayerList(path string) (layerEntries, listState, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, listState{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, listState{}, err
	}
	if st.Size > maxList {
		return nil, listState{}, fmt.Errorf("%s: %d bytes", path, st.Size)
	}
	b := make([]byte, st.Size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, listState{}, err
	}
	all, err := scanLayers(b)
	if err != nil {
		return nil, listState{}, fmt.Errorf("%s: %w", path, err)
	}
	return sortLayers(all), stateOfList(&st), nil
}

// sortLayers orders by ID; of several with one ID the first counts, as for
// the library.
func sortLayers(all layerEntries) layerEntries {
	order := make([]int, all.len())
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(all.at(a)[:32], all.at(b)[:32]) })
	out := make(layerEntries, 0, len(all))
	for i, o := range order {
		if i > 0 && bytes.Equal(all.at(order[i-1])[:32], all.at(o)[:32]) {
			continue
		}
		out = append(out, all.at(o)...)
	}
	return out
}

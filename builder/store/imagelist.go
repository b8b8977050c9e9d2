package store

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// imageList is the library's list of images, images.json, in which a record is
// found by its text: nothing but that record is decoded.
type imageList struct {
	dir string // where the list and the images' data lie

	mu    sync.Mutex
	file  *os.File // of bytes: while it is open, no other file has its inode
	state listState
	bytes []byte
}

// maxImageList bounds what is read into memory.
const maxImageList = 256 << 20

var errImageList = errors.New("not a list of images as the library writes it")

// text is the list as it is now.
func (l *imageList) text() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := filepath.Join(l.dir, "images.json")
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, err
	}
	if l.file != nil && l.state == stateOfList(&st) {
		return l.bytes, nil
	}
	l.drop()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := l.read(f); err != nil {
		l.drop()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l.bytes, nil
}

func (l *imageList) read(f *os.File) error {
	l.file = f
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxImageList {
		return errImageList
	}
	l.state, l.bytes = stateOfList(&st), make([]byte, st.Size)
	if _, err := io.ReadFull(f, l.bytes); err != nil {
		return err
	}
	if string(l.bytes) != "[]" && !(bytes.HasPrefix(l.bytes, []byte("["+imageStart)) && bytes.HasSuffix(l.bytes, []byte("}]"))) {
		return errImageList
	}
	return nil
}

func (l *imageList) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
}

func (l *imageList) drop() {
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.state, l.bytes = nil, listState{}, nil
}

// imageStart is how the library begins each record.
const imageStart = `{"id":"`

// find returns the record of the image with this ID or name. When it returns
// none, sure tells that there is none; else the library has to be asked.
func (l *imageList) find(idOrName string) (rec *storage.Image, sure bool) {
	_, isID := layerKey(idOrName)
	if !isID && (!strings.ContainsAny(idOrName, "/:") || strings.ContainsFunc(idOrName, oddInName)) {
		return nil, false // the start of an ID, or written with escapes
	}
	text, err := l.text()
	if err != nil {
		return nil, false
	}
	quoted := []byte(`"` + idOrName + `"`)
	for at := 0; ; {
		i := indexLong(text[at:], quoted)
		if i < 0 {
			return rec, rec == nil
		}
		at += i + len(quoted)
		found, ok := decodeImage(text, at-len(quoted))
		switch {
		case !ok:
			return nil, false
		case isID && found.ID != idOrName, !isID && !slices.Contains(found.Names, idOrName):
			continue // a layer's ID, or a name of its past
		case rec != nil && rec.ID != found.ID:
			return nil, false
		}
		rec = found
	}
}

// oddInName are characters that JSON may write in another way.
func oddInName(c rune) bool {
	return c <= ' ' || c > '~' || strings.ContainsRune(`"\\<>&`, c)
}

// indexLong is bytes.Index, which searches for no more than 31 bytes with the
// vector instructions of every processor: a list may have many megabytes.
func indexLong(text, what []byte) int {
	const most = 31
	if len(what) <= most {
		return bytes.Index(text, what)
	}
	for at := 0; ; {
		i := bytes.Index(text[at:], what[:most])
		if i < 0 {
			return -1
		}
		if at += i; bytes.HasPrefix(text[at:], what) {
			return at
		}
		at++
	}
}

// decodeImage decodes the record around a place in the list. A record is an
// object that no quoted text can look like, since quotes in text are escaped.
func decodeImage(text []byte, place int) (*storage.Image, bool) {
	start := bytes.LastIndex(text[:min(len(text), place+1)], []byte(imageStart))
	if start < 0 {
		return nil, false
	}
	var rec storage.Image
	d := json.NewDecoder(bytes.NewReader(text[start:]))
	if d.Decode(&rec) != nil || start+int(d.InputOffset()) <= place {
		return nil, false
	}
	if _, ok := layerKey(rec.ID); !ok || completeDigests(&rec) != nil {
		return nil, false
	}
	return &rec, true
}

// completeDigests sets what the library derives from a record.
func completeDigests(rec *storage.Image) error {
	rec.Digests = []digest.Digest{}
	if rec.Digest != "" {
		rec.Digests = append(rec.Digests, rec.Digest)
	}
	for name, d := range rec.BigDataDigests {
		if (name == storage.ImageDigestBigDataKey || strings.HasPrefix(name, storage.ImageDigestManifestBigDataNamePrefix+"-")) && !slices.Contains(rec.Digests, d) {
			rec.Digests = append(rec.Digests, d)
		}
	}
	for _, d := range rec.Digests {
		if err := d.Validate(); err != nil {
			return err
		}
	}
	if rec.Digest == "" && len(rec.Digests) > 0 {
		rec.Digest = rec.Digests[0]
	}
	return nil
}

// BigDataFile is the name of the file that containers/storage keeps an item
// of an image in: its key, or, unless that is made of lower case letters,
// digits and dots, the key in base 64.
func BigDataFile(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" {
		return key
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(key))
}

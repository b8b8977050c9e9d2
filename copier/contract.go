package copier

import (
	"context"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
)

// Root is a directory that names are resolved in, held by an O_PATH
// descriptor. It is safe for concurrent use.
type Root struct {
	dir *os.File
}

// OpenRoot opens the directory at path, which is trusted, as a Root.
func OpenRoot(path string) (*Root, error) { panic("copier") }

// NewRoot makes a Root of an open directory (O_PATH is enough; a detached
// mount's descriptor is one). It duplicates the descriptor; the caller keeps
// and closes its own.
func NewRoot(dir *os.File) (*Root, error) { panic("copier") }

// Close releases the descriptor.
func (r *Root) Close() error { panic("copier") }

// File returns the descriptor, which stays the Root's.
func (r *Root) File() *os.File { return r.dir }

// Open opens the object that unsafePath names below r, following symbolic
// links inside r; flags are those of open(2). FIFOs, sockets and devices are
// refused unless flags has O_PATH.
func (r *Root) Open(unsafePath string, flags int) (*os.File, error) { panic("copier") }

// Stat describes what unsafePath names; follow says whether a symbolic link
// at its end is followed (those before always are, inside r).
func (r *Root) Stat(unsafePath string, follow bool) (Info, error) { panic("copier") }

// ReadFile reads a regular file of at most limit bytes; a larger one is an
// error that names it.
func (r *Root) ReadFile(unsafePath string, limit int64) ([]byte, error) { panic("copier") }

// Info is what lstat(2) tells of an object.
type Info struct {
	Mode     fs.FileMode // type, permission, setuid, setgid and sticky bits
	UID, GID int
	Size     int64
	ModTime  time.Time
	Link     string // target of a symbolic link
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Mkdir says how Root.MkdirAll makes what is missing.
type Mkdir struct {
	Owner Owner
	// Mode of the directories made; 0 is 0755.
	Mode fs.FileMode
	// ModTime of the directories made; zero: the modification time of the
	// nearest directory that existed, so that equal inputs give equal layers.
	// The times of directories that existed are kept.
	ModTime time.Time
}

// MkdirAll makes unsafePath and what is missing above it, inside r, and
// returns the paths it made, topmost first. A non-directory in the way is an
// error.
func (r *Root) MkdirAll(unsafePath string, m Mkdir) ([]string, error) { panic("copier") }

// RemoveAll removes unsafePath and all below it. What does not exist is no
// error. A symbolic link at its end is removed itself.
func (r *Root) RemoveAll(unsafePath string) error { panic("copier") }

// User is an account resolved in a root's /etc/passwd and /etc/group.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups; the primary group is among them
	// (CVE-2022-2990 and its kin).
	Groups []uint32
	// Home is "/" when the account is unknown.
	Home string
	// Name is the account's name, "" when unknown.
	Name string
}

// User resolves "name", "uid", "name:group", "uid:gid" and mixtures, as USER
// means them; "" is root. Digits are always numbers, even when an account
// of that name exists (CVE-2016-3697). Account files of more than 10 MiB are
// refused; numbers above 2^31-1 are errors.
func (r *Root) User(spec string) (User, error) { panic("copier") }

// Owner resolves --chown's "user[:group]" (group: the user's primary group
// for a known name; the same number as the user for an unknown number).
func (r *Root) Owner(spec string) (Owner, error) { panic("copier") }

// Matcher says which paths of a context are left out. Paths are relative to
// the source root, with slashes and without a leading one.
type Matcher interface {
	// Excluded reports whether path is left out. When it is a directory that
	// is left out, descend reports whether something below may still be in.
	Excluded(path string) (excluded, descend bool, err error)
}

// Index remembers digests of file contents by the identity that stat(2)
// gives, so that an unchanged file is not read again. Implementations decide
// what they trust; nil remembers nothing.
type Index interface {
	Lookup(FileID) (digest.Digest, bool)
	Remember(FileID, digest.Digest)
}

// FileID identifies one state of one file.
type FileID struct {
	Dev, Ino     uint64
	Size         int64
	MTime, CTime int64 // nanoseconds since the epoch
}

// Select describes one COPY or ADD.
type Select struct {
	// Patterns are the unsafe source names as written: relative to the root,
	// wildcards as path.Match reads them, a leading slash ignored.
	Patterns []string
	// Ignore leaves paths out; nil leaves out none.
	Ignore Matcher
	// Exclude holds --exclude patterns, relative to each source.
	Exclude []string
	// Parents keeps the source's directories (COPY --parents).
	Parents bool
}

// Selection is what one COPY or ADD takes from a source root. It holds names
// and metadata, no contents; it is valid while the root is open.
type Selection struct{ _ int }

// Select expands s below r. A pattern that matches nothing is an error that
// names it, and says so when the ignore file is why.
func (r *Root) Select(ctx context.Context, s Select) (*Selection, error) { panic("copier") }

// FileDigest is one named part of a cache key: a path as it will lie below
// the destination, and a digest over its type, mode, owner (when kept), link
// target, device number, extended attributes and content. Times do not count.
type FileDigest struct {
	Path   string
	Digest digest.Digest
}

// DigestOptions says what counts and where contents may be known from.
type DigestOptions struct {
	KeepOwner bool
	Index     Index
}

// Digests returns one entry per object, sorted by path.
func (s *Selection) Digests(ctx context.Context, o DigestOptions) ([]FileDigest, error) {
	panic("copier")
}

// Sources lists the selected top-level sources, in the order of the patterns
// and sorted within each.
func (s *Selection) Sources() []Source { panic("copier") }

// Source is one top-level object of a Selection.
type Source struct {
	Path string // relative to the source root
	Info Info
}

// Put says how a Selection lands.
type Put struct {
	// Dest is the unsafe destination below the root, absolute, with a
	// trailing slash when it must be a directory.
	Dest string
	// Owner for everything copied and made; nil keeps the source's for what
	// is copied, and 0:0 for directories made.
	Owner *Owner
	// Mode returns the permission bits for an object (--chmod); nil keeps.
	Mode func(fs.FileMode) fs.FileMode
	// Unpack extracts sources that are archives (ADD) in place of copying.
	Unpack bool
	// Upper is the overlay's upper directory, for writing new subtrees
	// without passing through the overlay; nil where there is none.
	Upper *Root
	// IgnoreChownErrors keeps going where an id cannot be given (a user
	// namespace with a single id).
	IgnoreChownErrors bool
	// Progress is told of each file's bytes; may be nil.
	Progress func(bytes int64)
}

// Put copies the selection below r as Docker's COPY does: a directory source
// gives its contents; several sources want a directory; a missing destination
// is made. Modes, times (ns), extended attributes, hard links and holes are
// kept. Nothing is written outside r whatever the tree below r holds.
func (s *Selection) Put(ctx context.Context, r *Root, p Put) error { panic("copier") }

// PutFile writes one file of the given contents at dest below r (a heredoc,
// a downloaded file): name is used when dest is a directory.
func (r *Root) PutFile(ctx context.Context, name string, content io.Reader, mode fs.FileMode, modTime time.Time, p Put) error {
	panic("copier")
}

// Extract says how an archive lands.
type Extract struct {
	Dest              string // unsafe, below the root; made when missing
	Owner             *Owner // nil keeps the archive's
	Mode              func(fs.FileMode) fs.FileMode
	IgnoreChownErrors bool
	// Limits against bombs; zero is no limit.
	MaxBytes   int64
	MaxMembers int64
	// Match leaves members out; nil takes all.
	Match func(name string) bool
}

// Extract unpacks a tar stream in any usual compression (none, gzip, bzip2,
// xz, zstd) below r. Every member is resolved inside r; members that are
// malformed are errors that name them.
func (r *Root) Extract(ctx context.Context, archive io.Reader, e Extract) error { panic("copier") }

// IsArchive reports whether head, the first 512 bytes or more of a file,
// starts a tar stream that Extract can read (compressed ones are looked into).
func IsArchive(head []byte) bool { panic("copier") }

// Tar writes the tree at unsafePath below r as a tar stream (for --output
// type=tar); sockets are left out.
func (r *Root) Tar(ctx context.Context, unsafePath string, w io.Writer) error { panic("copier") }

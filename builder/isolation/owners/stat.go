package owners

import (
	"unsafe"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// statxSyncType is AT_STATX_SYNC_TYPE.
const statxSyncType = 0x6000

// stat answers with the remembered owner. Everything else is the kernel's to
// answer.
func (l *Listener) stat(n *notification, c *call) response {
	if !l.remembers {
		return pass
	}
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	owner, remembered := l.owner(&o)
	if !remembered {
		return pass
	}
	answer, err := describeObject(&o, n, c, owner)
	if err != nil {
		return pass
	}
	if err := l.write(n, c.address(n.args[c.buffer]), answer); err != nil {
		return pass
	}
	return response{}
}

// describeObject makes what the call would write.
func describeObject(o *object, n *notification, c *call, owner copier.Owner) ([]byte, error) {
	if c.family == famStatx {
		var stx unix.Statx_t
		flags := int(int32(n.args[c.flags])) & (statxSyncType | unix.AT_NO_AUTOMOUNT)
		if err := unix.Statx(o.fd, "", flags|unix.AT_EMPTY_PATH, int(uint32(n.args[3])), &stx); err != nil {
			return nil, err
		}
		stx.Uid, stx.Gid = uint32(owner.UID), uint32(owner.GID)
		return unsafe.Slice((*byte)(unsafe.Pointer(&stx)), unsafe.Sizeof(stx)), nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(o.fd, "", &st, unix.AT_EMPTY_PATH); err != nil {
		return nil, err
	}
	st.Uid, st.Gid = uint32(owner.UID), uint32(owner.GID)
	return unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)), nil
}

// write puts an answer into the caller's memory. The memory is opened before
// the caller is asked for again: what is written to is then its own, whatever
// happens to its number.
func (l *Listener) write(n *notification, address uint64, b []byte) error {
	fd, err := unix.Openat(l.proc, procName(n.pid, "mem"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !l.valid(n.id) {
		return unix.ESRCH
	}
	if address > 1<<63-1-uint64(len(b)) {
		return unix.EFAULT
	}
	wrote, err := unix.Pwrite(fd, b, int64(address))
	if err == nil && wrote != len(b) {
		err = unix.EFAULT
	}
	return err
}

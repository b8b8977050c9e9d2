package copier

import "golang.org/x/sys/unix"

// writable reports whether somebody has the file behind fd, opened for reading,
// open for writing, through a shared mapping as well. Such a file may change
// without a change of its times: the kernel sets them at the first write to a
// page of a mapping, and not again before the page has gone to the disk. A
// read lease (fcntl(2)) is given for files only that nobody writes; whose
// owner is another user's, and on file systems without leases, it is not
// known, and times are all there is.
func writable(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err != nil {
		return err == unix.EAGAIN
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}

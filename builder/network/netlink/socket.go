package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Protocols of Dial.
const (
	Route     = unix.NETLINK_ROUTE
	Netfilter = unix.NETLINK_NETFILTER
)

// answerTime bounds the wait for the kernel, which answers at once.
const answerTime = 10 * time.Second

// Socket is a netlink socket. It belongs to the network namespace of the
// thread that dialled it, and is used by one goroutine at a time.
type Socket struct {
	fd       int
	sequence uint32
}

// Dial opens a socket in the network namespace of the calling thread.
func Dial(protocol int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	tv := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &Socket{fd: fd}, nil
}

// Close closes the socket; tables that it owns go with it, which the kernel
// waits for.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Detach ends the socket's use and returns its descriptor, which is then the
// caller's to close.
func (s *Socket) Detach() int { return s.fd }

// Batch is a list of requests, each with a name for errors.
type Batch struct {
	messages []*message
	names    []string
	// transaction: all of the requests or none (nf_tables).
	transaction bool
}

func (b *Batch) add(m *message, format string, args ...any) {
	b.messages = append(b.messages, m)
	b.names = append(b.names, fmt.Sprintf(format, args...))
}

// Do sends the requests and waits until all have been executed. The error is
// the first that failed, named; those of rtnetlink after it have been done or
// have failed like it. Only the last is to be acknowledged where they are no
// transaction: the others are answered if they fail, and before it.
func (s *Socket) Do(b *Batch) error {
	if len(b.messages) == 0 {
		return nil
	}
	first := s.sequence + 1
	var out []byte
	if b.transaction {
		out = append(out, batchMark(unix.NFNL_MSG_BATCH_BEGIN)...)
	}
	for i, m := range b.messages {
		s.sequence++
		if !b.transaction && i < len(b.messages)-1 {
			m.unacknowledged()
		}
		out = append(out, m.done(s.sequence)...)
	}
	if b.transaction {
		out = append(out, batchMark(unix.NFNL_MSG_BATCH_END)...)
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	var failed error
	last := s.sequence
	for {
		n, err := s.receive(func(h header, body []byte) (done bool, err error) {
			if h.kind != unix.NLMSG_ERROR || h.sequence < first || len(body) < 4 {
				return false, nil
			}
			at := int(h.sequence - first)
			if at >= len(b.names) {
				return false, nil
			}
			errno := -int32(binary.NativeEndian.Uint32(body))
			if errno != 0 && failed == nil {
				failed = fmt.Errorf("%s: %w", b.names[at], unix.Errno(errno))
			}
			return h.sequence == last, nil
		})
		if err != nil {
			return errors.Join(failed, err)
		}
		if n > 0 || failed != nil && b.transaction { // then the others are not answered one by one
			return failed
		}
	}
}

// dump sends one request and calls each for the bodies of the answers.
func (s *Socket) dump(m *message, each func(kind uint16, body []byte)) error {
	s.sequence++
	if err := unix.Sendto(s.fd, m.done(s.sequence), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	for {
		n, err := s.receive(func(h header, body []byte) (bool, error) {
			switch {
			case h.sequence != s.sequence:
				return false, nil
			case h.kind == unix.NLMSG_DONE:
				return true, nil
			case h.kind == unix.NLMSG_ERROR:
				if len(body) >= 4 {
					if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
						return true, unix.Errno(errno)
					}
				}
				return true, nil
			}
			each(h.kind, body)
			return false, nil
		})
		if err != nil || n > 0 {
			return err
		}
	}
}

// receive reads one datagram and gives its messages to f; it counts those that
// f calls done.
func (s *Socket) receive(f func(header, []byte) (bool, error)) (int, error) {
	buf := make([]byte, 64<<10)
	var n int
	for {
		var from unix.Sockaddr
		var err error
		n, from, err = unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("netlink: no answer: %w", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); ok && a.Pid == 0 {
			break
		}
	}
	count := 0
	for rest := buf[:n]; ; {
		var h header
		var body []byte
		var ok bool
		if h, body, rest, ok = next(rest); !ok {
			return count, nil
		}
		done, err := f(h, body)
		if err != nil {
			return count, err
		}
		if done {
			count++
		}
	}
}

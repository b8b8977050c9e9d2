// Package usernet is a network in user space: what processes of a network
// namespace send into a device is taken out by this process, and carried on
// by ordinary sockets of the host's. It needs no rights on the host, changes
// nothing there, and ends with the process.
//
// gVisor's network stack ends the TCP connections and reads the datagrams of
// the namespace, whatever address they go to; for each, a socket on the host
// is connected to that address. The stack is told its peer's hardware
// address and the peer is told the stack's: no ARP, no neighbour discovery.
//
// What is refused, whatever routes a process in the namespace has made:
// the host's loopback addresses and the unspecified ones, which mean the same
// to connect(2); multicast and broadcast; IPv4 in IPv6 clothes, which is
// looked at as IPv4. The gateway's address is special: port 53 is the host's
// resolver, all other ports are those of the host's own address, or of its
// loopback device where Options say so.
package usernet

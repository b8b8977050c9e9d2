// Package netlink speaks as much of two of the kernel's netlink protocols as
// the network of a build needs: rtnetlink(7) for devices, addresses, routes
// and neighbours, and nf_tables for one rule.
//
// A Batch collects requests, and Do sends all of them with one system call,
// so that a whole network is one round trip. nf_tables is here for one flag
// that libraries do not set: a table that its socket owns (NFT_TABLE_F_OWNER,
// Linux 5.12) is removed by the kernel when the socket closes, also when its
// process is killed.
//
// What the kernel answers is trusted to be the kernel's (the sender's port is
// 0), and its lengths are checked all the same.
package netlink

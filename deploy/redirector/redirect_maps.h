/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the proxy tells the programs: which connections to capture and where to send them.
 *
 * The proxy writes these maps and may change them at any time; a program reads them anew at every
 * connect. Only map types that Linux and ebpf-for-windows both have. proxy/redirect/ebpf_scope.py
 * writes the same bytes; tests/unit/redirect/test_ebpf_layout.py compares sizes and offsets.
 */
#ifndef SLUICEGATE_REDIRECT_MAPS_H
#define SLUICEGATE_REDIRECT_MAPS_H

/* sluicegate_settings.flags */
#define SG_IPV4 0x0001          /* capture IPv4 */
#define SG_IPV6 0x0002          /* capture IPv6 */
#define SG_LOCAL 0x0004         /* capture connections to this machine's own addresses too */
#define SG_UID 0x0008           /* only connections of `uid` */
#define SG_FOREIGN 0x0010       /* capture in other network namespaces too, send those to far4, far6 */
#define SG_BLOCK_QUIC 0x0020    /* refuse UDP to port 443 */
#define SG_INCLUDE 0x0040       /* only destinations in the include tries */
#define SG_ROUTES 0x0080        /* only destinations that the routes tries know a way to */
#define SG_EXEMPT_GROUPS 0x0100 /* there are exempt cgroups */

/* Values of the routes tries. */
#define SG_ROUTE_NONE 0    /* unreachable, blackhole, prohibit */
#define SG_ROUTE_AWAY 1    /* to another machine */
#define SG_ROUTE_LOCAL 2   /* an address of this machine */

/* Kinds of exemption. */
#define SG_EXEMPT_MARK 1    /* id: the socket's SO_MARK */
#define SG_EXEMPT_PROCESS 2 /* pid, and id: its start, in hundredths of a second since boot */
#define SG_EXEMPT_GROUP 3   /* id: a cgroup v2, with all that is below it */

struct sluicegate_settings {
    __u64 space;      /* cookie of the network namespace that the proxy listens in; 0 on Windows */
    __u32 flags;
    __u32 uid;
    __u32 near4;      /* where to send connections, network order: the proxy's listener */
    __u32 near6[4];
    __u32 far4;       /* the listener as other namespaces reach it; all 0: not at all */
    __u32 far6[4];
    __u16 port;       /* of the listener, network order */
    __u16 admin_port; /* network order, 0 for none */
    __u32 reserved;
};

struct sluicegate_net4 {
    __u32 prefix;
    __u32 address; /* network order, as all addresses here */
};

struct sluicegate_net6 {
    __u32 prefix;
    __u32 address[4];
};

struct sluicegate_exempt {
    __u32 kind;
    __u32 pid;
    __u64 id;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sluicegate_settings);
} settings SEC(".maps");

/* One bit for each TCP port. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, __u64);
} ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, struct sluicegate_exempt);
    __type(value, __u32);
} exempt SEC(".maps");

/* Linux takes tries only so; ebpf-for-windows has no such flag. */
#ifdef SG_NO_TRIE_FLAGS
#define SG_TRIE_FLAGS
#else
#define SG_TRIE_FLAGS __uint(map_flags, BPF_F_NO_PREALLOC);
#endif

#define SG_TRIE(name, key_type, entries)         \
    struct {                                     \
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);     \
        __uint(max_entries, entries);            \
        SG_TRIE_FLAGS                            \
        __type(key, key_type);                   \
        __type(value, __u32);                    \
    } name SEC(".maps")

SG_TRIE(exclude4, struct sluicegate_net4, 65536);
SG_TRIE(exclude6, struct sluicegate_net6, 65536);
SG_TRIE(include4, struct sluicegate_net4, 65536);
SG_TRIE(include6, struct sluicegate_net6, 65536);
SG_TRIE(routes4, struct sluicegate_net4, 262144);
SG_TRIE(routes6, struct sluicegate_net6, 262144);

#endif

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Linux only: give the proxy the context, show the client the address that it asked for, refuse QUIC
 * that is sent without a connect.
 *
 * Two sockops programs pass the context from the client's socket to the proxy's. The first runs for the
 * client just before its SYN (BPF_SOCK_OPS_TCP_CONNECT_CB), the second for the listener's new socket when
 * the handshake is complete (BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB): accept(2) waits for its end, for the
 * socket is locked until then. From there on the context belongs to that socket, whatever becomes of
 * the client, its port and its process.
 */
#ifndef SLUICEGATE_LINUX_ANSWERS_H
#define SLUICEGATE_LINUX_ANSWERS_H

#define SG_SOL_IP 0
#define SG_SOL_IPV6 41
#define SG_SO_ORIGINAL_DST 80    /* linux/netfilter_ipv4.h, ip6_tables.h */
#define SG_SO_CONTEXT 0x5347     /* struct sg_connection of the accepted socket's client */
#define SG_SO_SELF 0x5348        /* struct sg_self: that these programs answer, and who asks */
#define SG_AF_INET 2
#define SG_AF_INET6 10
#define SG_TCP_SYN_SENT 2        /* net/tcp_states.h */
#define SG_TCP_CLOSE 7
#define SG_LATE 60000000000ull   /* nanoseconds; SYN-ACKs are sent again for about as long, tcp(7) */

/* The end of a connection that the proxy sees as its peer. */
struct sg_source {
    __u32 address[4]; /* IPv4 in the first */
    __u32 family;     /* 4 or 6 */
    __u32 port;       /* network order */
    __u64 space;      /* 0: another namespace than the proxy's */
};

struct sg_self {
    __u32 magic;
    __u32 pid;        /* of the process that asks, in the first pid namespace */
    __u64 start;      /* its SG_EXEMPT_PROCESS id */
    __u64 space;      /* cookie of the socket's network namespace */
    __u64 reserved;
};

struct sg_sockaddr4 {
    __u16 family;
    __u16 port;
    __u32 address;
    __u64 zero;
};

struct sg_sockaddr6 {
    __u16 family;
    __u16 port;
    __u32 flow;
    __u32 address[4];
    __u32 scope;
};

/* Connections between their SYN and the end of their handshake. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, struct sg_source);
    __type(value, struct sg_connection);
} sources SEC(".maps");

/* Of a socket that the proxy accepts, for as long as the socket lives. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct sg_connection);
} accepted SEC(".maps");

/* --- from the client's socket to the proxy's */

/* Of an AF_INET6 socket: IPv4-mapped becomes IPv4. */
static __always_inline void sg_unmap(struct sg_source *source)
{
    source->family = 6;
    if (source->address[0] || source->address[1] || source->address[2] != bpf_htonl(0xffff))
        return;
    source->family = 4;
    source->address[0] = source->address[3];
    source->address[2] = source->address[3] = 0;
}

static __always_inline void sg_source_of(struct bpf_sock_ops *ops, struct sg_source *source)
{
    const struct sluicegate_settings *set = sg_settings();
    __u64 space = bpf_get_netns_cookie(ops);

    source->port = bpf_htons((__u16)ops->local_port); /* host order here, unlike remote_port */
    source->space = set && set->space == space ? space : 0;
    source->family = 4;
    if (ops->family == SG_AF_INET) {
        source->address[0] = ops->local_ip4;
        return;
    }
    source->address[0] = ops->local_ip6[0];
    source->address[1] = ops->local_ip6[1];
    source->address[2] = ops->local_ip6[2];
    source->address[3] = ops->local_ip6[3];
    sg_unmap(source);
}

static __always_inline void sg_index(struct bpf_sock_ops *ops)
{
    struct bpf_sock *sk = ops->sk;
    struct sg_connection *connection;
    struct sg_source source = {};
    __u32 *address;

    if (!sk)
        return;
    connection = bpf_sk_storage_get(&sockets, sk, 0, 0);
    if (!connection)
        return;
    sg_source_of(ops, &source);
    address = (__u32 *)connection->context.source_address;
    address[0] = source.address[0];
    address[1] = source.address[1];
    address[2] = source.address[2];
    address[3] = source.address[3];
    connection->context.source_port = (__u16)source.port;
    connection->context.flags |= SLUICEGATE_CONTEXT_SOURCE_KNOWN;
    bpf_map_update_elem(&sources, &source, connection, BPF_ANY);
    bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/*
 * The client's socket is closed. If the proxy's side has not come about yet it still may for a while,
 * unless there was no answer at all. What is left must not serve whoever gets the source address next.
 */
static __always_inline void sg_closed(struct bpf_sock_ops *ops)
{
    struct sg_source source = {};
    struct sg_connection *waiting;

    sg_source_of(ops, &source);
    waiting = bpf_map_lookup_elem(&sources, &source);
    if (!waiting || waiting->cookie != bpf_get_socket_cookie(ops))
        return;
    if (ops->args[0] == SG_TCP_SYN_SENT)
        bpf_map_delete_elem(&sources, &source);
    else
        waiting->closed = bpf_ktime_get_ns();
}

SEC("sockops")
int sluicegate_ops(struct bpf_sock_ops *ops)
{
    if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
        sg_index(ops);
    else if (ops->op == BPF_SOCK_OPS_STATE_CB && ops->args[1] == SG_TCP_CLOSE)
        sg_closed(ops);
    return 1;
}

static __always_inline struct sg_connection *sg_find(struct bpf_sock_ops *ops,
                                                     struct sg_source *source)
{
    struct sg_connection *found;

    source->port = bpf_htons((__u16)bpf_ntohl(ops->remote_port)); /* in the upper half */
    source->space = bpf_get_netns_cookie(ops);
    if (ops->family == SG_AF_INET) {
        source->family = 4;
        source->address[0] = ops->remote_ip4;
    } else {
        source->address[0] = ops->remote_ip6[0];
        source->address[1] = ops->remote_ip6[1];
        source->address[2] = ops->remote_ip6[2];
        source->address[3] = ops->remote_ip6[3];
        sg_unmap(source);
    }
    found = bpf_map_lookup_elem(&sources, source);
    if (found)
        return found;
    source->space = 0;
    return bpf_map_lookup_elem(&sources, source);
}

SEC("sockops")
int sluicegate_in(struct bpf_sock_ops *ops)
{
    const struct sluicegate_settings *set;
    struct sg_source source = {};
    struct sg_connection *found;
    struct bpf_sock *sk;

    if (ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        return 1;
    set = sg_settings();
    sk = ops->sk;
    if (!set || !sk || ops->local_port != bpf_ntohs(set->port))
        return 1;
    found = sg_find(ops, &source);
    if (!found)
        return 1;
    if (!found->closed || bpf_ktime_get_ns() - found->closed < SG_LATE)
        bpf_sk_storage_get(&accepted, sk, found, BPF_SK_STORAGE_GET_F_CREATE);
    bpf_map_delete_elem(&sources, &source);
    return 1;
}

/* --- the answer */

/* The connection whose server side this socket is. */
static __always_inline struct sg_connection *sg_asked_for(struct bpf_sockopt *ctx)
{
    struct bpf_sock *sk = ctx->sk;

    return sk ? bpf_sk_storage_get(&accepted, sk, 0, 0) : 0;
}

static __always_inline int sg_answered(struct bpf_sockopt *ctx, int size)
{
    ctx->optlen = size;
    barrier(); /* the verifier takes no store across two fields of the context */
    ctx->retval = 0;
    return 1;
}

static __always_inline int sg_answer_context(struct bpf_sockopt *ctx)
{
    struct sg_connection *connection = sg_asked_for(ctx);
    char *out = ctx->optval;

    if (!connection || (void *)(out + sizeof(*connection)) > ctx->optval_end)
        return 1;
    __builtin_memcpy(out, connection, sizeof(*connection));
    return sg_answered(ctx, sizeof(*connection));
}

static __always_inline int sg_answer_original4(struct bpf_sockopt *ctx)
{
    struct sg_connection *connection = sg_asked_for(ctx);
    struct sg_sockaddr4 *out = ctx->optval;

    if (!connection || connection->context.family != 4 || (void *)(out + 1) > ctx->optval_end)
        return 1;
    out->family = SG_AF_INET;
    out->port = connection->context.original_port;
    out->address = *(__u32 *)connection->context.original_address;
    out->zero = 0;
    return sg_answered(ctx, sizeof(*out));
}

static __always_inline int sg_answer_original6(struct bpf_sockopt *ctx)
{
    struct sg_connection *connection = sg_asked_for(ctx);
    struct sg_sockaddr6 *out = ctx->optval;

    if (!connection || connection->context.family != 6 || (void *)(out + 1) > ctx->optval_end)
        return 1;
    out->family = SG_AF_INET6;
    out->port = connection->context.original_port;
    out->flow = 0;
    __builtin_memcpy(out->address, connection->context.original_address, 16);
    out->scope = 0;
    return sg_answered(ctx, sizeof(*out));
}

static __always_inline int sg_answer_self(struct bpf_sockopt *ctx)
{
    struct sg_self *out = ctx->optval;

    if ((void *)(out + 1) > ctx->optval_end)
        return 1;
    out->magic = SLUICEGATE_CONTEXT_MAGIC;
    out->pid = bpf_get_current_pid_tgid() >> 32;
    out->start = sg_start_key();
    out->space = bpf_get_netns_cookie(ctx);
    out->reserved = 0;
    return sg_answered(ctx, sizeof(*out));
}

SEC("cgroup/getsockopt")
int sluicegate_opt(struct bpf_sockopt *ctx)
{
    if (ctx->level == SG_SOL_IPV6 && ctx->optname == SG_SO_ORIGINAL_DST)
        return sg_answer_original6(ctx);
    if (ctx->level != SG_SOL_IP)
        return 1;
    if (ctx->optname == SG_SO_CONTEXT)
        return sg_answer_context(ctx);
    if (ctx->optname == SG_SO_ORIGINAL_DST)
        return sg_answer_original4(ctx);
    if (ctx->optname == SG_SO_SELF)
        return sg_answer_self(ctx);
    return 1;
}

/* --- what the client sees */

SEC("cgroup/getpeername4")
int sluicegate_p4(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    struct sg_connection *connection = sk ? bpf_sk_storage_get(&sockets, sk, 0, 0) : 0;

    if (connection && connection->context.family == 4) {
        ctx->user_ip4 = *(__u32 *)connection->context.original_address;
        ctx->user_port = connection->context.original_port;
    }
    return 1;
}

SEC("cgroup/getpeername6")
int sluicegate_p6(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    struct sg_connection *connection = sk ? bpf_sk_storage_get(&sockets, sk, 0, 0) : 0;
    __u32 *address;

    if (!connection)
        return 1;
    address = (__u32 *)connection->context.original_address;
    if (connection->context.family == 4) {
        ctx->user_ip6[3] = address[0]; /* an IPv4-mapped address stays one */
    } else {
        ctx->user_ip6[0] = address[0];
        ctx->user_ip6[1] = address[1];
        ctx->user_ip6[2] = address[2];
        ctx->user_ip6[3] = address[3];
    }
    ctx->user_port = connection->context.original_port;
    return 1;
}

/* --- QUIC without a connect; the connect programs see the rest */

static __always_inline int sg_may_send(struct bpf_sock_addr *ctx, struct sg_destination *to)
{
    const struct sluicegate_settings *set = sg_settings();

    if (!set || !(set->flags & SG_BLOCK_QUIC) || to->port != bpf_htons(SG_QUIC_PORT))
        return SG_PROCEED;
    to->far = sg_space(ctx) != set->space;
    return sg_in_scope(ctx, set, to) ? SG_REJECT : SG_PROCEED;
}

SEC("cgroup/sendmsg4")
int sluicegate_s4(struct bpf_sock_addr *ctx)
{
    struct sg_destination to = {.family = 4};

    to.address[0] = ctx->user_ip4;
    to.port = sg_user_port(ctx);
    return sg_may_send(ctx, &to);
}

SEC("cgroup/sendmsg6")
int sluicegate_s6(struct bpf_sock_addr *ctx)
{
    struct sg_destination to = {.family = 6};

    to.address[0] = ctx->user_ip6[0];
    to.address[1] = ctx->user_ip6[1];
    to.address[2] = ctx->user_ip6[2];
    to.address[3] = ctx->user_ip6[3];
    to.port = sg_user_port(ctx);
    return sg_may_send(ctx, &to);
}

/* Of the two licences, the one under which Linux lends its helpers. */
char sluicegate_license[] SEC("license") = "GPL";

#endif

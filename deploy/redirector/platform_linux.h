/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What connect_redirect.bpf.c needs of Linux: bpf-helpers(7), the kernel's include/uapi/linux/bpf.h.
 *
 * The context is kept with the socket. When the connection gets its source address, a sockops program
 * indexes it by that; linux_answers.h hands it to the proxy.
 */
#ifndef SLUICEGATE_PLATFORM_LINUX_H
#define SLUICEGATE_PLATFORM_LINUX_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLUICEGATE_NO_STDINT
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
#include "redirect_context.h"
#include "redirect_maps.h"

#define SG_PROCEED 1
#define SG_REJECT 0
#define SG_TCP 6
#define SG_UDP 17
#define SG_COMM 16         /* TASK_COMM_LEN */
#define SG_TICK 10000000   /* nanoseconds; USER_HZ is 100 everywhere, proc_pid_stat(5) */
#define SG_GROUP_DEPTH 10  /* cgroups deeper than this are exempt by their own id only */
#define SG_SOL_SOCKET 1    /* asm-generic/socket.h */
#define SG_SO_BINDTODEVICE 25
#define SG_STREAM 1        /* linux/net.h: SOCK_STREAM */

typedef struct bpf_sock_addr sg_connect;

/* A connection that was redirected. */
struct sg_connection {
    struct sluicegate_context context;
    char comm[SG_COMM];
    __u64 stack;    /* where the program's stack begins; proc_pid_stat(5) shows it as startstack */
    __u32 execs;    /* how many programs the process has been */
    __u32 reserved;
    __u64 cookie;   /* of the client's socket */
    __u64 closed;   /* when the client closed it, nanoseconds since boot; 0: not yet */
};

/* Of a client's socket that was redirected, for as long as the socket lives. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct sg_connection);
} sockets SEC(".maps");

/* Fields of the kernel's structures; libbpf relocates them by the running kernel's BTF. */
struct mm_struct {
    unsigned long start_stack;
} __attribute__((preserve_access_index));

struct task_struct {
    struct task_struct *group_leader;
    struct mm_struct *mm;
    __u64 self_exec_id;
    __u64 start_boottime;
    char comm[SG_COMM];
} __attribute__((preserve_access_index));

static __always_inline __u16 sg_user_port(sg_connect *ctx)
{
    return (__u16)ctx->user_port;
}

static __always_inline __u64 sg_space(sg_connect *ctx)
{
    return bpf_get_netns_cookie(ctx);
}

static __always_inline __u32 sg_uid(void)
{
    return (__u32)bpf_get_current_uid_gid();
}

static __always_inline __u32 sg_pid(sg_connect *ctx)
{
    return bpf_get_current_pid_tgid() >> 32;
}

/* Nanoseconds since boot at which the thread group leader began. */
static __always_inline __u64 sg_process_start(void)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    return BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline __u64 sg_start_key(void)
{
    return sg_process_start() / SG_TICK;
}

static __always_inline __u32 sg_mark(sg_connect *ctx)
{
    return ctx->sk ? ctx->sk->mark : 0;
}

static __always_inline int sg_in_exempt_group(void)
{
    struct sluicegate_exempt key = {.kind = SG_EXEMPT_GROUP};
    int level;

    key.id = bpf_get_current_cgroup_id();
    if (bpf_map_lookup_elem(&exempt, &key))
        return 1;
#pragma unroll
    for (level = 1; level <= SG_GROUP_DEPTH; level++) {
        key.id = bpf_get_current_ancestor_cgroup_id(level);
        if (key.id && bpf_map_lookup_elem(&exempt, &key))
            return 1;
    }
    return 0;
}

/*
 * A socket that was bound to a device cannot reach the proxy on another (lo). The proxy dials by the
 * routing table anyway, and leaving the connection alone would let whoever binds escape.
 */
static __always_inline void sg_unbind(sg_connect *ctx)
{
    char none[4] = {};

    if (ctx->sk && ctx->sk->bound_dev_if)
        bpf_setsockopt(ctx, SG_SOL_SOCKET, SG_SO_BINDTODEVICE, none, sizeof(none));
}

/* Keep the context for the proxy. 0, or negative: then nothing may be redirected. */
static __always_inline int sg_hand_over(sg_connect *ctx, struct sluicegate_context *context)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    struct bpf_sock *sk = ctx->sk;
    struct sg_connection *kept;
    int length = 0;

    if (!sk)
        return -1;
    kept = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!kept)
        return -1;
    kept->context = *context;
    kept->context.process_start = sg_process_start();
    kept->context.uid = sg_uid();
    kept->context.group_id = bpf_get_current_cgroup_id();
    kept->context.space = bpf_get_netns_cookie(ctx);
    kept->stack = BPF_CORE_READ(task, mm, start_stack);
    kept->execs = (__u32)BPF_CORE_READ(task, group_leader, self_exec_id);
    BPF_CORE_READ_STR_INTO(&kept->comm, task, group_leader, comm);
#pragma unroll
    for (length = 0; length < SG_COMM; length++)
        if (!kept->comm[length])
            break;
    kept->context.application_size = length;
    kept->context.size = SLUICEGATE_CONTEXT_FIXED + length;
    sg_unbind(ctx);
    kept->cookie = bpf_get_socket_cookie(ctx);
    kept->closed = 0;
    return 0;
}

/* The socket may have been redirected in an earlier attempt, to another address. */
static __always_inline void sg_forget(sg_connect *ctx)
{
    if (ctx->sk)
        bpf_sk_storage_delete(&sockets, ctx->sk);
}

#endif

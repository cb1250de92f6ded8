/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What connect_redirect.bpf.c needs of ebpf-for-windows: its include/bpf_helpers.h,
 * include/ebpf_nethooks.h (bpf_sock_addr_t, bpf_sock_addr_set_redirect_context) and
 * docs/eBpfExtensions.md. https://github.com/microsoft/ebpf-for-windows
 *
 * The context goes with the connection: WFP gives it to whoever asks the accepted socket by
 * SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT. There are no marks, cgroups, uids and namespaces, and no
 * start time of a process in the form that user mode sees; those fields are 0 or unknown.
 */
#ifndef SLUICEGATE_PLATFORM_WINDOWS_H
#define SLUICEGATE_PLATFORM_WINDOWS_H

#include "bpf_endian.h"
#include "bpf_helpers.h"
#include "ebpf_nethooks.h"

typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define SG_NO_TRIE_FLAGS
#include "redirect_context.h"
#include "redirect_maps.h"

#define SG_PROCEED BPF_SOCK_ADDR_VERDICT_PROCEED
#define SG_REJECT BPF_SOCK_ADDR_VERDICT_REJECT
#define SG_TCP 6
#define SG_UDP 17

typedef bpf_sock_addr_t sg_connect;

static __always_inline __u16 sg_user_port(sg_connect *ctx)
{
    return ctx->user_port;
}

/* One listener serves all compartments. */
static __always_inline __u64 sg_space(sg_connect *ctx)
{
    (void)ctx;
    return 0;
}

static __always_inline __u32 sg_uid(void)
{
    return SLUICEGATE_UID_UNKNOWN;
}

static __always_inline __u32 sg_pid(sg_connect *ctx)
{
    (void)ctx;
    return (__u32)(bpf_get_current_pid_tgid() >> 32);
}

/* The proxy exempts itself by its pid alone, for as long as it lives. */
static __always_inline __u64 sg_start_key(void)
{
    return 0;
}

static __always_inline __u32 sg_mark(sg_connect *ctx)
{
    (void)ctx;
    return 0;
}

static __always_inline int sg_in_exempt_group(void)
{
    return 0;
}

/* Give the context to WFP. 0, or negative: then nothing may be redirected. */
static __always_inline int sg_hand_over(sg_connect *ctx, struct sluicegate_context *context)
{
    context->group_id = bpf_get_current_logon_id(ctx);
    context->space = ctx->compartment_id;
    return bpf_sock_addr_set_redirect_context(ctx, context, sizeof(*context));
}

/* A context belongs to its connection, so there is none of an earlier one. */
static __always_inline void sg_forget(sg_connect *ctx)
{
    (void)ctx;
}

#endif

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Sluicegate's redirector: sends connections that are in scope to the proxy's listener, and keeps for
 * the proxy where they were going and who made them (redirect_context.h).
 *
 * One source for two systems. `cgroup/connect4` and `cgroup/connect6` are Linux's hooks, and
 * ebpf-for-windows runs them at FWPM_LAYER_ALE_CONNECT_REDIRECT_V4/V6. Everything in this file keeps
 * to what both offer and to what PREVAIL, the verifier of ebpf-for-windows, accepts: no loops, and
 * arrays, hashes and LPM tries; what differs is behind platform_linux.h and platform_windows.h.
 *
 * INVARIANT: a connection in scope is either redirected with its context kept, or refused.
 */
#ifdef SLUICEGATE_WINDOWS
#include "platform_windows.h"
#else
#include "platform_linux.h"
#endif

#define SG_QUIC_PORT 443

/* Where a connection is going. IPv4-mapped IPv6 is IPv4 here. */
struct sg_destination {
    __u32 address[4]; /* network order; IPv4 in the first */
    __u16 port;       /* network order */
    __u8 family;      /* 4 or 6 */
    __u8 far;         /* made in another network namespace than the proxy's */
};

static __always_inline int sg_port_in_scope(__u16 port)
{
    __u32 number = bpf_ntohs(port);
    __u32 word = number >> 6;
    __u64 *bits = bpf_map_lookup_elem(&ports, &word);

    return bits && (*bits >> (number & 63)) & 1;
}

static __always_inline int sg_is_exempt(sg_connect *ctx, const struct sluicegate_settings *set)
{
    struct sluicegate_exempt key = {};

    key.kind = SG_EXEMPT_MARK;
    key.id = sg_mark(ctx);
    if (key.id && bpf_map_lookup_elem(&exempt, &key))
        return 1;
    key.kind = SG_EXEMPT_PROCESS;
    key.pid = sg_pid(ctx);
    key.id = sg_start_key();
    if (bpf_map_lookup_elem(&exempt, &key))
        return 1;
    return (set->flags & SG_EXEMPT_GROUPS) && sg_in_exempt_group();
}

/* Loopback addresses are of the namespace they are used in. */
static __always_inline int sg_is_loopback(const struct sg_destination *to)
{
    if (to->family == 4)
        return (bpf_ntohl(to->address[0]) >> 24) == 127 || !to->address[0];
    return !to->address[0] && !to->address[1] && !to->address[2] &&
           (!to->address[3] || to->address[3] == bpf_htonl(1));
}

/* What the tries know of a destination. */
struct sg_known {
    __u32 excluded;
    __u32 included;
    __u32 route;
};

static __always_inline void sg_look_up4(const struct sg_destination *to, struct sg_known *known)
{
    struct sluicegate_net4 key = {.prefix = 32, .address = to->address[0]};
    __u32 *route;

    known->excluded = bpf_map_lookup_elem(&exclude4, &key) != 0;
    known->included = bpf_map_lookup_elem(&include4, &key) != 0;
    route = bpf_map_lookup_elem(&routes4, &key);
    known->route = route ? *route : SG_ROUTE_NONE;
}

static __always_inline void sg_look_up6(const struct sg_destination *to, struct sg_known *known)
{
    struct sluicegate_net6 key = {.prefix = 128};
    __u32 *route;

    key.address[0] = to->address[0];
    key.address[1] = to->address[1];
    key.address[2] = to->address[2];
    key.address[3] = to->address[3];
    known->excluded = bpf_map_lookup_elem(&exclude6, &key) != 0;
    known->included = bpf_map_lookup_elem(&include6, &key) != 0;
    route = bpf_map_lookup_elem(&routes6, &key);
    known->route = route ? *route : SG_ROUTE_NONE;
}

/* A destination to which there is no way fails by itself; redirected it would seem to succeed, and a
 * client that tries IPv6 first (RFC 8305) would never go on to IPv4. */
static __always_inline int sg_has_way(const struct sg_destination *to,
                                      const struct sluicegate_settings *set, __u32 route)
{
    int own = to->port == set->port || (set->admin_port && to->port == set->admin_port);

    if (to->far) { /* nothing is known of the routes there */
        if (sg_is_loopback(to))
            return 0;
        return to->family == 4 ? set->far4 != 0
                               : (set->far6[0] | set->far6[1] | set->far6[2] | set->far6[3]) != 0;
    }
    if (route == SG_ROUTE_LOCAL || sg_is_loopback(to))
        return (set->flags & SG_LOCAL) && !own;
    return !(set->flags & SG_ROUTES) || route == SG_ROUTE_AWAY;
}

static __always_inline int sg_is_far_listener(const struct sg_destination *to,
                                              const struct sluicegate_settings *set)
{
    if (!to->far || to->port != set->port)
        return 0;
    if (to->family == 4)
        return to->address[0] == set->far4;
    return to->address[0] == set->far6[0] && to->address[1] == set->far6[1] &&
           to->address[2] == set->far6[2] && to->address[3] == set->far6[3];
}

static __always_inline int sg_in_scope(sg_connect *ctx, const struct sluicegate_settings *set,
                                       const struct sg_destination *to)
{
    struct sg_known known = {};

    if (!(set->flags & (to->family == 4 ? SG_IPV4 : SG_IPV6)))
        return 0;
    if (to->far && !(set->flags & SG_FOREIGN))
        return 0;
    if ((set->flags & SG_UID) && sg_uid() != set->uid)
        return 0;
    if (to->family == 4)
        sg_look_up4(to, &known);
    else
        sg_look_up6(to, &known);
    if (known.excluded || ((set->flags & SG_INCLUDE) && !known.included))
        return 0;
    if (!sg_has_way(to, set, known.route) || sg_is_far_listener(to, set))
        return 0;
    return !sg_is_exempt(ctx, set);
}

/* What a context says before the platform has added what it knows. */
static __always_inline void sg_describe(sg_connect *ctx, const struct sg_destination *to,
                                        struct sluicegate_context *context)
{
    __u32 *address = (__u32 *)context->original_address;

    context->magic = SLUICEGATE_CONTEXT_MAGIC;
    context->version = SLUICEGATE_CONTEXT_VERSION;
    context->size = SLUICEGATE_CONTEXT_FIXED;
    context->family = to->family;
    context->protocol = SLUICEGATE_PROTOCOL_TCP;
    context->pid = sg_pid(ctx);
    address[0] = to->address[0];
    if (to->family == 6) {
        address[1] = to->address[1];
        address[2] = to->address[2];
        address[3] = to->address[3];
    }
    context->original_port = to->port;
    context->uid = SLUICEGATE_UID_UNKNOWN;
}

enum sg_verdict { SG_LEAVE, SG_REFUSE, SG_REDIRECT };

static __always_inline enum sg_verdict sg_decide(sg_connect *ctx,
                                                 const struct sluicegate_settings *set,
                                                 const struct sg_destination *to)
{
    struct sluicegate_context context = {};

    if (ctx->protocol == SG_UDP) {
        if (!(set->flags & SG_BLOCK_QUIC) || to->port != bpf_htons(SG_QUIC_PORT))
            return SG_LEAVE;
        return sg_in_scope(ctx, set, to) ? SG_REFUSE : SG_LEAVE;
    }
    if (ctx->protocol != SG_TCP)
        return SG_LEAVE;
    if (!sg_port_in_scope(to->port) || !sg_in_scope(ctx, set, to)) {
        sg_forget(ctx);
        return SG_LEAVE;
    }
    sg_describe(ctx, to, &context);
    return sg_hand_over(ctx, &context) < 0 ? SG_REFUSE : SG_REDIRECT;
}

static __always_inline const struct sluicegate_settings *sg_settings(void)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline int sg_connect4(sg_connect *ctx)
{
    const struct sluicegate_settings *set = sg_settings();
    struct sg_destination to = {.family = 4};

    if (!set)
        return SG_PROCEED;
    to.address[0] = ctx->user_ip4;
    to.port = sg_user_port(ctx);
    to.far = sg_space(ctx) != set->space;
    switch (sg_decide(ctx, set, &to)) {
    case SG_REFUSE:
        return SG_REJECT;
    case SG_REDIRECT:
        ctx->user_ip4 = to.far ? set->far4 : set->near4;
        ctx->user_port = set->port;
        return SG_PROCEED;
    default:
        return SG_PROCEED;
    }
}

static __always_inline int sg_connect6(sg_connect *ctx)
{
    const struct sluicegate_settings *set = sg_settings();
    struct sg_destination to = {.family = 6};

    if (!set)
        return SG_PROCEED;
    to.address[0] = ctx->user_ip6[0];
    to.address[1] = ctx->user_ip6[1];
    to.address[2] = ctx->user_ip6[2];
    to.address[3] = ctx->user_ip6[3];
    if (!to.address[0] && !to.address[1] && to.address[2] == bpf_htonl(0xffff)) {
        to.family = 4; /* RFC 4291 2.5.5.2 */
        to.address[0] = to.address[3];
    }
    to.port = sg_user_port(ctx);
    to.far = sg_space(ctx) != set->space;
    switch (sg_decide(ctx, set, &to)) {
    case SG_REFUSE:
        return SG_REJECT;
    case SG_REDIRECT:
        break;
    default:
        return SG_PROCEED;
    }
    if (to.family == 4) {
        ctx->user_ip6[3] = to.far ? set->far4 : set->near4;
    } else {
        ctx->user_ip6[0] = to.far ? set->far6[0] : set->near6[0];
        ctx->user_ip6[1] = to.far ? set->far6[1] : set->near6[1];
        ctx->user_ip6[2] = to.far ? set->far6[2] : set->near6[2];
        ctx->user_ip6[3] = to.far ? set->far6[3] : set->near6[3];
    }
    ctx->user_port = set->port;
    return SG_PROCEED;
}

SEC("cgroup/connect4")
int sluicegate_c4(sg_connect *ctx)
{
    return sg_connect4(ctx);
}

SEC("cgroup/connect6")
int sluicegate_c6(sg_connect *ctx)
{
    return sg_connect6(ctx);
}

#ifndef SLUICEGATE_WINDOWS
#include "linux_answers.h"
#endif

/* ebpf-for-windows, include/ebpf_nethooks.h: the context of cgroup/connect4 and connect6. */
#pragma once
#include "bpf_helpers.h"

typedef enum {
    BPF_SOCK_ADDR_VERDICT_REJECT = 0,
    BPF_SOCK_ADDR_VERDICT_PROCEED = 1,
} ebpf_sock_addr_verdict_t;

typedef struct {
    uint32_t family;
    struct {
        union {
            uint32_t msg_src_ip4;    /* network order */
            uint32_t msg_src_ip6[4]; /* network order */
        };
        uint16_t msg_src_port; /* network order */
    };
    struct {
        union {
            uint32_t user_ip4;    /* network order */
            uint32_t user_ip6[4]; /* network order */
        };
        uint16_t user_port; /* network order */
    };
    uint32_t protocol;
    uint32_t compartment_id;
    uint64_t interface_luid;
} bpf_sock_addr_t;

/* Helpers of the extension have numbers of their own: SOCK_ADDR_EXT_HELPER_FN_BASE is 0xffff. */
static int (*const bpf_sock_addr_set_redirect_context)(const bpf_sock_addr_t *ctx, void *data,
                                                       uint32_t data_size) = (void *)0x10001;

/* The little of ebpf-for-windows that the redirector uses, written from its documentation, so that
 * types and calls are checked where it is not installed.
 * https://github.com/microsoft/ebpf-for-windows: include/bpf_helpers.h, include/ebpf_structs.h */
#pragma once

typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

/* ebpf_structs.h, bpf_map_type */
enum {
    BPF_MAP_TYPE_UNSPEC = 0,
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_LPM_TRIE = 7,
};

/* bpf_helper_defs.h: helpers of every program. The numbers here only tell them apart. */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static uint64_t (*const bpf_get_current_pid_tgid)(void) = (void *)19;
static uint64_t (*const bpf_get_current_logon_id)(const void *ctx) = (void *)20;

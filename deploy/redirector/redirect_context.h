/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Redirect context, layout v1: what a redirector of ours tells the proxy about a connection.
 *
 * The same bytes on every system. On Windows they are what SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
 * returns; on Linux, what getsockopt(SOL_IP, 0x5347) on the accepted socket returns.
 *
 * All integers are little-endian but for the two ports, which are in network order. The fixed part is
 * 88 bytes without padding; sid_size bytes of a binary SID follow it, then application_size bytes of
 * the application's name: comm on Linux, an NT path in UTF-16LE on Windows, neither with a final NUL.
 * What follows the size is the redirector's own and no part of the layout.
 * Addresses of IPv4 stand in the first 4 bytes, the other 12 are 0. IPv4-mapped IPv6 is written as IPv4.
 *
 * Include <stdint.h>, or define SLUICEGATE_NO_STDINT and the uintN_t types before.
 */
#ifndef SLUICEGATE_REDIRECT_CONTEXT_H
#define SLUICEGATE_REDIRECT_CONTEXT_H

#ifndef SLUICEGATE_NO_STDINT
#include <stdint.h>
#endif

#define SLUICEGATE_CONTEXT_MAGIC 0x31434753u /* "SGC1" */
#define SLUICEGATE_CONTEXT_VERSION 1

#define SLUICEGATE_CONTEXT_UTF16 0x0001u        /* application is UTF-16LE, else UTF-8 */
#define SLUICEGATE_CONTEXT_FULL_PATH 0x0002u    /* application is a full path, else a short name */
#define SLUICEGATE_CONTEXT_SOURCE_KNOWN 0x0004u /* source_address and source_port are filled in */
#define SLUICEGATE_CONTEXT_REDIRECTED 0x0008u   /* another redirector had changed the destination before */

#define SLUICEGATE_UID_UNKNOWN 0xffffffffu
#define SLUICEGATE_PROTOCOL_TCP 6

struct sluicegate_context {
    uint32_t magic;
    uint16_t version;
    uint16_t size;               /* of all of it, SID and application included */
    uint8_t family;              /* 4 or 6; not AF_INET, which differs between systems */
    uint8_t protocol;            /* SLUICEGATE_PROTOCOL_TCP */
    uint16_t flags;              /* SLUICEGATE_CONTEXT_... */
    uint32_t pid;                /* of the process (Linux: the thread group) that called connect */
    uint8_t original_address[16];
    uint8_t source_address[16];
    uint16_t original_port;      /* network order */
    uint16_t source_port;        /* network order */
    uint32_t uid;                /* SLUICEGATE_UID_UNKNOWN on Windows */
    uint64_t process_start;      /* Linux: nanoseconds since boot; Windows: FILETIME; 0 unknown */
    uint64_t group_id;           /* Linux: cgroup v2 id; Windows: logon id */
    uint64_t space;              /* Linux: cookie of the network namespace; Windows: compartment id */
    uint16_t sid_size;
    uint16_t application_size;
    uint32_t reserved;           /* 0 */
};

#define SLUICEGATE_CONTEXT_FIXED 88
#define SLUICEGATE_CONTEXT_MAX 4096 /* a decoder refuses more */

#if defined(__cplusplus)
static_assert(sizeof(struct sluicegate_context) == SLUICEGATE_CONTEXT_FIXED, "layout v1 is 88 bytes");
#else
_Static_assert(sizeof(struct sluicegate_context) == SLUICEGATE_CONTEXT_FIXED, "layout v1 is 88 bytes");
#endif

#endif

/* windows/win32/api/ws2def/: ns-ws2def-sockaddr_in, ns-ws2def-sockaddr_storage_lh. See README.md. */
#ifndef CHECK_WS2DEF_H
#define CHECK_WS2DEF_H

#include <ntifs.h>

#define AF_INET 2
#define AF_INET6 23
typedef USHORT ADDRESS_FAMILY;

/* ne-ws2def-ipproto */
typedef enum { IPPROTO_TCP = 6 } IPPROTO;

/* windows/win32/api/inaddr/ns-inaddr-in_addr, one union member of three */
typedef struct in_addr {
    union {
        ULONG S_addr;
    } S_un;
} IN_ADDR;

typedef struct sockaddr_in {
    ADDRESS_FAMILY sin_family;
    USHORT sin_port; /* network order */
    IN_ADDR sin_addr;
    CHAR sin_zero[8];
} SOCKADDR_IN;

/* 128 bytes, aligned to 8 */
typedef struct sockaddr_storage {
    ADDRESS_FAMILY ss_family;
    CHAR __ss_pad1[6];
    LONG64 __ss_align;
    CHAR __ss_pad2[112];
} SOCKADDR_STORAGE;

#endif

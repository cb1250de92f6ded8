/* windows/win32/api/ws2ipdef/ns-ws2ipdef-sockaddr_in6_lh, in6addr/ns-in6addr-in6_addr. See README.md. */
#ifndef CHECK_WS2IPDEF_H
#define CHECK_WS2IPDEF_H

#include "ws2def.h"

typedef struct in6_addr {
    union {
        UCHAR Byte[16];
        USHORT Word[8];
    } u;
} IN6_ADDR;

typedef struct sockaddr_in6 {
    ADDRESS_FAMILY sin6_family;
    USHORT sin6_port; /* network order */
    ULONG sin6_flowinfo;
    IN6_ADDR sin6_addr;
    ULONG sin6_scope_id;
} SOCKADDR_IN6;

#endif

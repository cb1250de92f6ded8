/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which connections are captured, and the context that goes with them: no kernel call, no lock, no
 * allocation. Compiled into the driver, and on any system into its test.
 */
#ifndef SLUICEGATE_SCOPE_H
#define SLUICEGATE_SCOPE_H

#include <stddef.h>

#include "../redirect_context.h"
#include "control.h"

/* A connection as the redirect layer shows it. IPv4-mapped IPv6 is given as IPv4, `mapped` set. */
struct sg_connection {
    uint8_t family; /* 4 or 6 */
    uint8_t mapped;
    uint8_t source_known;
    uint8_t redirected_before;
    uint8_t remote[16];
    uint8_t source[16];
    uint16_t remote_port; /* host order */
    uint16_t source_port;
    uint32_t pid;
    uint64_t process_start; /* FILETIME, 0 unknown */
    uint64_t logon_id;
    uint64_t compartment;
};

enum sg_verdict {
    SG_CAPTURE = 0,
    SG_LEAVE_OWN,
    SG_LEAVE_EXEMPT,
    SG_LEAVE_FAMILY,
    SG_LEAVE_PORT,
    SG_LEAVE_ADDRESS, /* unspecified, link-local, or loopback that was not asked for */
    SG_LEAVE_NETWORK
};

/* Is this a configuration, whole and consistent? Nothing else here may be called with one that is not. */
int sg_config_valid(const void *bytes, size_t size);

enum sg_verdict sg_scope(const struct sluicegate_config *config, const struct sg_connection *connection);

/* From the 16 bytes of an IPv6 address; IPv4-mapped ones become IPv4. */
void sg_set_v6(struct sg_connection *connection, const uint8_t remote[16], const uint8_t source[16]);

/* Bytes of the context (layout v1). An application's name that would not fit is left out whole, for a
 * path cut short could be taken for another's. */
uint16_t sg_context_size(uint16_t sid_size, uint32_t application_size);

/* Writes exactly sg_context_size(...) bytes. `application`: UTF-16LE without its final NUL. */
void sg_context_write(void *out, const struct sg_connection *connection, const void *sid,
                      uint16_t sid_size, const void *application, uint32_t application_size);

#endif

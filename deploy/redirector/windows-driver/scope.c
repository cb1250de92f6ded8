/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which connections are captured, and the context that goes with them. See scope.h. */

#include "scope.h"

#include <string.h>

static const struct sluicegate_exempt *exempts(const struct sluicegate_config *config)
{
    return (const struct sluicegate_exempt *)(config + 1);
}

static const struct sluicegate_network *networks(const struct sluicegate_config *config)
{
    return (const struct sluicegate_network *)(exempts(config) + config->exempt_count);
}

static const struct sluicegate_ports *ports(const struct sluicegate_config *config)
{
    return (const struct sluicegate_ports *)(networks(config) + config->network_count);
}

static int lists_valid(const struct sluicegate_config *config)
{
    uint32_t i;

    for (i = 0; i < config->network_count; i++) {
        const struct sluicegate_network *network = &networks(config)[i];
        if ((network->family != 4 && network->family != 6) ||
            network->prefix > (network->family == 4 ? 32 : 128))
            return 0;
    }
    for (i = 0; i < config->port_count; i++) {
        if (ports(config)[i].first == 0 || ports(config)[i].first > ports(config)[i].last)
            return 0;
    }
    return 1;
}

int sg_config_valid(const void *bytes, size_t size)
{
    const struct sluicegate_config *config = bytes;
    size_t whole;

    if (size < sizeof(*config) || size > SLUICEGATE_CONFIG_MAX)
        return 0;
    if (config->magic != SLUICEGATE_CONFIG_MAGIC || config->version != SLUICEGATE_CONFIG_VERSION ||
        (config->flags & ~SLUICEGATE_CONFIG_FLAGS) != 0)
        return 0;
    /* Three counts of 16 bits cannot overflow a size_t of 32. */
    whole = sizeof(*config) + config->exempt_count * sizeof(struct sluicegate_exempt) +
            config->network_count * sizeof(struct sluicegate_network) +
            config->port_count * sizeof(struct sluicegate_ports);
    if (config->size != size || whole != size)
        return 0;
    if (((config->flags & SLUICEGATE_CONFIG_IPV4) && config->listen_port_v4 == 0) ||
        ((config->flags & SLUICEGATE_CONFIG_IPV6) && config->listen_port_v6 == 0))
        return 0;
    return lists_valid(config);
}

static int all_zero(const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        if (bytes[--size] != 0)
            return 0;
    }
    return 1;
}

static int is_loopback(const struct sg_connection *connection)
{
    if (connection->family == 4)
        return connection->remote[0] == 127;
    return all_zero(connection->remote, 15) && connection->remote[15] == 1;
}

/* An IPv6 link-local address means nothing without its zone, which the context does not carry. */
static int is_link_local_v6(const struct sg_connection *connection)
{
    return connection->family == 6 && connection->remote[0] == 0xfe &&
           (connection->remote[1] & 0xc0) == 0x80;
}

static int in_network(const struct sluicegate_network *network, const struct sg_connection *connection)
{
    unsigned int whole = network->prefix / 8, rest = network->prefix % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);

    if (network->family != connection->family)
        return 0;
    if (memcmp(network->address, connection->remote, whole) != 0)
        return 0;
    return rest == 0 || ((network->address[whole] ^ connection->remote[whole]) & mask) == 0;
}

static int is_exempt(const struct sluicegate_config *config, const struct sg_connection *connection)
{
    uint32_t i;

    for (i = 0; i < config->exempt_count; i++) {
        const struct sluicegate_exempt *exempt = &exempts(config)[i];
        /* A pid is reused: with a start time given, an unknown one is no match. */
        if (exempt->pid == connection->pid &&
            (exempt->process_start == 0 || exempt->process_start == connection->process_start))
            return 1;
    }
    return 0;
}

static int port_captured(const struct sluicegate_config *config, uint16_t port)
{
    uint32_t i;

    for (i = 0; i < config->port_count; i++) {
        if (ports(config)[i].first <= port && port <= ports(config)[i].last)
            return 1;
    }
    return 0;
}

static int address_captured(const struct sluicegate_config *config,
                            const struct sg_connection *connection)
{
    if (all_zero(connection->remote, 16) || is_link_local_v6(connection))
        return 0;
    return (config->flags & SLUICEGATE_CONFIG_LOOPBACK) != 0 || !is_loopback(connection);
}

/* The proxy's own listener on loopback: a client that connects to it directly must reach it. */
static int is_listener(const struct sluicegate_config *config, const struct sg_connection *connection)
{
    uint16_t port = connection->family == 4 ? config->listen_port_v4 : config->listen_port_v6;

    return is_loopback(connection) && connection->remote_port == port;
}

enum sg_verdict sg_scope(const struct sluicegate_config *config, const struct sg_connection *connection)
{
    uint16_t family = connection->family == 4 ? SLUICEGATE_CONFIG_IPV4 : SLUICEGATE_CONFIG_IPV6;
    uint32_t i;

    if (connection->pid == config->proxy_pid || is_listener(config, connection))
        return SG_LEAVE_OWN;
    if ((config->flags & family) == 0)
        return SG_LEAVE_FAMILY;
    if (!port_captured(config, connection->remote_port))
        return SG_LEAVE_PORT;
    if (!address_captured(config, connection))
        return SG_LEAVE_ADDRESS;
    if (is_exempt(config, connection))
        return SG_LEAVE_EXEMPT;
    for (i = 0; i < config->network_count; i++) {
        if (in_network(&networks(config)[i], connection))
            return SG_LEAVE_NETWORK;
    }
    return SG_CAPTURE;
}

void sg_set_v6(struct sg_connection *connection, const uint8_t remote[16], const uint8_t source[16])
{
    /* RFC 4291 2.5.5.2: 80 bits of 0, 16 of 1, then the IPv4 address. */
    connection->mapped = (uint8_t)(all_zero(remote, 10) && remote[10] == 0xff && remote[11] == 0xff);
    connection->family = connection->mapped ? 4 : 6;
    memset(connection->remote, 0, 16);
    memset(connection->source, 0, 16);
    if (connection->mapped) {
        memcpy(connection->remote, remote + 12, 4);
        memcpy(connection->source, source + 12, 4);
    } else {
        memcpy(connection->remote, remote, 16);
        memcpy(connection->source, source, 16);
    }
}

static int application_fits(uint16_t sid_size, uint32_t application_size)
{
    uint32_t room = SLUICEGATE_CONTEXT_MAX - SLUICEGATE_CONTEXT_FIXED;

    return sid_size <= room && application_size <= room - sid_size;
}

uint16_t sg_context_size(uint16_t sid_size, uint32_t application_size)
{
    uint32_t size = SLUICEGATE_CONTEXT_FIXED + sid_size;

    if (application_fits(sid_size, application_size))
        size += application_size;
    return (uint16_t)size;
}

static uint16_t network_order(uint16_t port)
{
    return (uint16_t)((port << 8) | (port >> 8));
}

static uint16_t context_flags(const struct sg_connection *connection, uint32_t application_size)
{
    uint16_t flags = SLUICEGATE_CONTEXT_UTF16;

    if (application_size != 0)
        flags |= SLUICEGATE_CONTEXT_FULL_PATH;
    if (connection->source_known)
        flags |= SLUICEGATE_CONTEXT_SOURCE_KNOWN;
    if (connection->redirected_before)
        flags |= SLUICEGATE_CONTEXT_REDIRECTED;
    return flags;
}

void sg_context_write(void *out, const struct sg_connection *connection, const void *sid,
                      uint16_t sid_size, const void *application, uint32_t application_size)
{
    struct sluicegate_context *context = out;
    uint8_t *tail = (uint8_t *)(context + 1);

    if (!application_fits(sid_size, application_size))
        application_size = 0;
    memset(context, 0, sizeof(*context));
    context->magic = SLUICEGATE_CONTEXT_MAGIC;
    context->version = SLUICEGATE_CONTEXT_VERSION;
    context->size = sg_context_size(sid_size, application_size);
    context->family = connection->family;
    context->protocol = SLUICEGATE_PROTOCOL_TCP;
    context->flags = context_flags(connection, application_size);
    context->pid = connection->pid;
    memcpy(context->original_address, connection->remote, 16);
    context->original_port = network_order(connection->remote_port);
    if (connection->source_known) {
        memcpy(context->source_address, connection->source, 16);
        context->source_port = network_order(connection->source_port);
    }
    context->uid = SLUICEGATE_UID_UNKNOWN;
    context->process_start = connection->process_start;
    context->group_id = connection->logon_id;
    context->space = connection->compartment;
    context->sid_size = sid_size;
    context->application_size = (uint16_t)application_size;
    if (sid_size != 0)
        memcpy(tail, sid, sid_size);
    if (application_size != 0)
        memcpy(tail + sid_size, application, application_size);
}

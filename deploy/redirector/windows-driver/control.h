/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * How the proxy and the driver talk: the device, its four control codes and their data.
 *
 * Plain C for kernel and user mode alike. All integers are little-endian, ports in host order, addresses
 * of IPv4 in the first 4 bytes. proxy/redirect/driver_windows.py writes the same bytes; a test compares.
 */
#ifndef SLUICEGATE_CONTROL_H
#define SLUICEGATE_CONTROL_H

#include <stdint.h>

/* Kernel name and DOS name; user mode opens \\.\Sluicegate */
#define SLUICEGATE_DEVICE_NAME L"\\Device\\Sluicegate"
#define SLUICEGATE_LINK_NAME L"\\DosDevices\\Sluicegate"

/* CTL_CODE(FILE_DEVICE_NETWORK 0x12, 0x801.., METHOD_BUFFERED, FILE_WRITE_ACCESS 2 or FILE_READ_ACCESS 1):
 * "Defining I/O Control Codes", (type << 16) | (access << 14) | (function << 2) | method. */
#define SLUICEGATE_IOCTL(function, access) ((0x12u << 16) | ((access) << 14) | ((function) << 2))
#define SLUICEGATE_IOCTL_CONFIGURE SLUICEGATE_IOCTL(0x801u, 2u) /* in: sluicegate_config and its lists */
#define SLUICEGATE_IOCTL_START SLUICEGATE_IOCTL(0x802u, 2u)     /* nothing in, nothing out */
#define SLUICEGATE_IOCTL_STOP SLUICEGATE_IOCTL(0x803u, 2u)      /* nothing in, nothing out */
#define SLUICEGATE_IOCTL_STATUS SLUICEGATE_IOCTL(0x804u, 1u)    /* out: sluicegate_status */

#define SLUICEGATE_CONFIG_MAGIC 0x31444753u /* "SGD1" */
#define SLUICEGATE_CONFIG_VERSION 1
#define SLUICEGATE_CONFIG_MAX 65536 /* bytes, lists included */

#define SLUICEGATE_CONFIG_IPV4 0x0001u
#define SLUICEGATE_CONFIG_IPV6 0x0002u
#define SLUICEGATE_CONFIG_LOOPBACK 0x0004u      /* capture connections to loopback, too */
#define SLUICEGATE_CONFIG_KEEP_ON_CLOSE 0x0008u /* on_crash = "closed": stay when the proxy's handle closes */
#define SLUICEGATE_CONFIG_FLAGS 0x000fu

/* What is captured. Behind it stand, in this order and without gaps: exempt_count sluicegate_exempt,
 * network_count sluicegate_network, port_count sluicegate_ports. */
struct sluicegate_config {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    uint32_t size;      /* whole, with the lists */
    uint32_t proxy_pid; /* who listens; its own connections are never captured */
    uint16_t listen_port_v4;
    uint16_t listen_port_v6;
    uint16_t exempt_count;
    uint16_t network_count;
    uint16_t port_count; /* 0 captures nothing: name ports */
    uint16_t reserved[3];
};

struct sluicegate_exempt {
    uint64_t process_start; /* FILETIME; 0: whenever it was started */
    uint32_t pid;
    uint32_t reserved;
};

struct sluicegate_network { /* never captured */
    uint8_t family;         /* 4 or 6 */
    uint8_t prefix;         /* bits */
    uint8_t reserved[2];
    uint8_t address[16];
};

struct sluicegate_ports { /* both ends included */
    uint16_t first;
    uint16_t last;
};

struct sluicegate_status {
    uint32_t version; /* SLUICEGATE_CONFIG_VERSION */
    uint32_t started;
    uint32_t proxy_pid;
    uint32_t orphaned;        /* the proxy has gone, the redirect stays */
    uint64_t redirected;      /* connections sent to the proxy */
    uint64_t left_alone;      /* outside the scope, or exempt */
    uint64_t own;             /* redirected by us before: not again */
    uint64_t another_local;   /* another redirector has a local proxy for it */
    uint64_t no_right;        /* a callout above us had decided: FWPS_RIGHT_ACTION_WRITE was clear */
    uint64_t blocked;         /* should have been redirected and could not be: no memory, no handle */
};

#endif

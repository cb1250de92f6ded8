/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the parts of the driver share. One global state: there is one device and one redirect.
 *
 * Order of locks: `control` (a mutex, PASSIVE_LEVEL) before `config_lock` (a spin lock, raises to
 * DISPATCH_LEVEL). classifyFn takes the second only, shared, and calls nothing while it holds it.
 */
#ifndef SLUICEGATE_DRIVER_H
#define SLUICEGATE_DRIVER_H

#include <ntifs.h>

#include <ws2def.h>
#include <ws2ipdef.h>

#include <fwpsk.h>

#include <fwpmk.h>

#include "scope.h"

#define SG_POOL_CONFIG 'cGgS'  /* !poolused shows SgGc, SgGx */
#define SG_POOL_CONTEXT 'xGgS'

struct sg_state {
    PDEVICE_OBJECT device;
    HANDLE redirect_handle; /* made once, used for every redirection */

    KMUTEX control;         /* one start, stop or configure at a time */
    HANDLE engine;          /* dynamic session of the filter engine; NULL: not started */
    UINT32 callout_v4;      /* run-time ids; 0: not registered */
    UINT32 callout_v6;
    PFILE_OBJECT owner;     /* the handle that started it */
    BOOLEAN orphaned;       /* the owner has gone, the redirect stays */

    EX_SPIN_LOCK config_lock;
    struct sluicegate_config *config; /* nonpaged; replaced whole */

    EX_RUNDOWN_REF classifying; /* held while classifyFn is in our code */

    /* Interlocked */
    volatile LONG64 redirected;
    volatile LONG64 left_alone;
    volatile LONG64 own;
    volatile LONG64 another_local;
    volatile LONG64 no_right;
    volatile LONG64 blocked;
};

extern struct sg_state g_sg;

/* filters.c: IRQL PASSIVE_LEVEL, `control` held */
extern const GUID SG_PROVIDER; /* of our objects, and of the redirect handle */
NTSTATUS SgRegister(void);
void SgUnregister(void);

/* classify.c: IRQL <= DISPATCH_LEVEL */
void NTAPI SgClassify(const FWPS_INCOMING_VALUES0 *values, const FWPS_INCOMING_METADATA_VALUES0 *meta,
                      void *layerData, const void *classifyContext, const FWPS_FILTER1 *filter,
                      UINT64 flowContext, FWPS_CLASSIFY_OUT0 *out);
NTSTATUS NTAPI SgNotify(FWPS_CALLOUT_NOTIFY_TYPE type, const GUID *filterKey, FWPS_FILTER1 *filter);

/* process.c: IRQL PASSIVE_LEVEL; what cannot be told stays zero */
struct sg_process {
    uint64_t start;    /* FILETIME */
    uint64_t logon_id;
    uint16_t sid_size; /* 0: unknown */
    uint8_t sid[SECURITY_MAX_SID_SIZE];
};
void SgLookProcess(uint32_t pid, struct sg_process *process);

DRIVER_INITIALIZE DriverEntry;

#endif

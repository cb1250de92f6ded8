/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the filter engine knows of us: provider, sublayer, two callouts, two filters.
 *
 * All management objects live in one dynamic session: they vanish with its handle, so nothing of us is
 * left in the engine whatever ends us (fwpmtypes.h, FWPM_SESSION_FLAG_DYNAMIC).
 *
 * Everything here runs at PASSIVE_LEVEL with `control` held.
 */

#include <initguid.h>

#include "driver.h"

/* Ours: c8d73135-dd4f-406a-8623-85cfd80e3a98 */
DEFINE_GUID(SG_PROVIDER, 0xc8d73135, 0xdd4f, 0x406a, 0x86, 0x23, 0x85, 0xcf, 0xd8, 0x0e, 0x3a, 0x98);
/* b2e20f23-5c4a-4242-a11e-0d5a662e97f3 */
DEFINE_GUID(SG_SUBLAYER, 0xb2e20f23, 0x5c4a, 0x4242, 0xa1, 0x1e, 0x0d, 0x5a, 0x66, 0x2e, 0x97, 0xf3);
/* 7b9f39da-12d6-43c5-8f6b-2b02c59dcbbb */
DEFINE_GUID(SG_CALLOUT_V4, 0x7b9f39da, 0x12d6, 0x43c5, 0x8f, 0x6b, 0x2b, 0x02, 0xc5, 0x9d, 0xcb, 0xbb);
/* f76c38eb-f0dd-4e45-a385-b01bed8b3eec */
DEFINE_GUID(SG_CALLOUT_V6, 0xf76c38eb, 0xf0dd, 0x4e45, 0xa3, 0x85, 0xb0, 0x1b, 0xed, 0x8b, 0x3e, 0xec);

#define SG_SUBLAYER_WEIGHT 0x8000 /* the middle: firewalls above and below keep their say */

static WCHAR g_name[] = L"Sluicegate redirector";
static WCHAR g_description[] = L"Sends captured outgoing connections to the local Sluicegate proxy";

static FWPM_DISPLAY_DATA0 Display(void)
{
    FWPM_DISPLAY_DATA0 display;

    display.name = g_name;
    display.description = g_description;
    return display;
}

static NTSTATUS RegisterCallout(const GUID *key, UINT32 *id)
{
    FWPS_CALLOUT1 callout;

    RtlZeroMemory(&callout, sizeof(callout));
    callout.calloutKey = *key;
    callout.classifyFn = SgClassify;
    callout.notifyFn = SgNotify;
    /* The redirect layers need FwpsCalloutRegister1 or later. */
    return FwpsCalloutRegister1(g_sg.device, &callout, id);
}

static NTSTATUS AddProviderAndSublayer(HANDLE engine)
{
    FWPM_PROVIDER0 provider;
    FWPM_SUBLAYER0 sublayer;
    NTSTATUS status;

    RtlZeroMemory(&provider, sizeof(provider));
    provider.providerKey = SG_PROVIDER;
    provider.displayData = Display();
    status = FwpmProviderAdd0(engine, &provider, NULL);
    if (!NT_SUCCESS(status))
        return status;
    RtlZeroMemory(&sublayer, sizeof(sublayer));
    sublayer.subLayerKey = SG_SUBLAYER;
    sublayer.displayData = Display();
    sublayer.providerKey = (GUID *)&SG_PROVIDER;
    sublayer.weight = SG_SUBLAYER_WEIGHT;
    return FwpmSubLayerAdd0(engine, &sublayer, NULL);
}

static NTSTATUS AddCallout(HANDLE engine, const GUID *key, const GUID *layer)
{
    FWPM_CALLOUT0 callout;

    RtlZeroMemory(&callout, sizeof(callout));
    callout.calloutKey = *key;
    callout.displayData = Display();
    callout.providerKey = (GUID *)&SG_PROVIDER;
    callout.applicableLayer = *layer;
    return FwpmCalloutAdd0(engine, &callout, NULL, NULL);
}

/* TCP only: UDP and QUIC pass. Ports and networks are asked in classifyFn, where they change at once. */
static NTSTATUS AddFilter(HANDLE engine, const GUID *key, const GUID *layer)
{
    FWPM_FILTER_CONDITION0 condition;
    FWPM_FILTER0 filter;

    RtlZeroMemory(&condition, sizeof(condition));
    condition.fieldKey = FWPM_CONDITION_IP_PROTOCOL;
    condition.matchType = FWP_MATCH_EQUAL;
    condition.conditionValue.type = FWP_UINT8;
    condition.conditionValue.uint8 = IPPROTO_TCP;
    RtlZeroMemory(&filter, sizeof(filter));
    filter.displayData = Display();
    filter.providerKey = (GUID *)&SG_PROVIDER;
    filter.layerKey = *layer;
    filter.subLayerKey = SG_SUBLAYER;
    filter.weight.type = FWP_EMPTY; /* the engine's choice: it is alone in its sublayer */
    filter.numFilterConditions = 1;
    filter.filterCondition = &condition;
    /* Terminating: without its callout such a filter blocks, so a driver that fails does not let go. */
    filter.action.type = FWP_ACTION_CALLOUT_TERMINATING;
    filter.action.calloutKey = *key;
    return FwpmFilterAdd0(engine, &filter, NULL, NULL);
}

static NTSTATUS AddAll(HANDLE engine)
{
    NTSTATUS status = AddProviderAndSublayer(engine);

    if (NT_SUCCESS(status))
        status = AddCallout(engine, &SG_CALLOUT_V4, &FWPM_LAYER_ALE_CONNECT_REDIRECT_V4);
    if (NT_SUCCESS(status))
        status = AddCallout(engine, &SG_CALLOUT_V6, &FWPM_LAYER_ALE_CONNECT_REDIRECT_V6);
    if (NT_SUCCESS(status))
        status = AddFilter(engine, &SG_CALLOUT_V4, &FWPM_LAYER_ALE_CONNECT_REDIRECT_V4);
    if (NT_SUCCESS(status))
        status = AddFilter(engine, &SG_CALLOUT_V6, &FWPM_LAYER_ALE_CONNECT_REDIRECT_V6);
    return status;
}

static NTSTATUS OpenEngine(HANDLE *engine)
{
    FWPM_SESSION0 session;

    RtlZeroMemory(&session, sizeof(session));
    session.displayData = Display();
    session.flags = FWPM_SESSION_FLAG_DYNAMIC;
    return FwpmEngineOpen0(NULL, RPC_C_AUTHN_WINNT, NULL, &session, engine);
}

/* All or nothing: both families are captured from one moment on. */
static NTSTATUS AddInTransaction(HANDLE engine)
{
    NTSTATUS status = FwpmTransactionBegin0(engine, 0);

    if (!NT_SUCCESS(status))
        return status;
    status = AddAll(engine);
    if (NT_SUCCESS(status))
        status = FwpmTransactionCommit0(engine);
    if (!NT_SUCCESS(status))
        FwpmTransactionAbort0(engine);
    return status;
}

NTSTATUS SgRegister(void)
{
    NTSTATUS status = RegisterCallout(&SG_CALLOUT_V4, &g_sg.callout_v4);

    if (NT_SUCCESS(status))
        status = RegisterCallout(&SG_CALLOUT_V6, &g_sg.callout_v6);
    if (NT_SUCCESS(status))
        status = OpenEngine(&g_sg.engine);
    if (NT_SUCCESS(status))
        status = AddInTransaction(g_sg.engine);
    if (!NT_SUCCESS(status))
        SgUnregister();
    return status;
}

static void UnregisterCallout(UINT32 *id)
{
    /* STATUS_DEVICE_BUSY needs flows with a context of ours: this driver associates none. */
    if (*id != 0)
        (void)FwpsCalloutUnregisterById0(*id);
    *id = 0;
}

/* Filters first: a terminating filter without its callout blocks what it matches. */
void SgUnregister(void)
{
    if (g_sg.engine != NULL)
        FwpmEngineClose0(g_sg.engine);
    g_sg.engine = NULL;
    UnregisterCallout(&g_sg.callout_v4);
    UnregisterCallout(&g_sg.callout_v6);
}

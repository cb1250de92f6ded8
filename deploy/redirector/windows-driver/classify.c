/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The callout at FWPM_LAYER_ALE_CONNECT_REDIRECT_V4 and _V6: sends captured connections to the proxy.
 *
 * Follows "Using Bind or Connect Redirection"
 * (learn.microsoft.com/windows-hardware/drivers/network/using-bind-or-connect-redirection), inline:
 * the classification is never pended.
 *
 * Pool and IRQL: classifyFn runs at IRQL <= DISPATCH_LEVEL, so whatever it touches is nonpaged. The context
 * is ours until FwpsApplyModifiedLayerData0, then WFP's, who frees it (FWPS_CONNECT_REQUEST0).
 *
 * INVARIANT: a connection that is in scope goes to the proxy or nowhere. What keeps us from
 * rewriting it (no memory, no classify handle) blocks it.
 */

#include "driver.h"

#define LOOPBACK_V4 0x0100007fu /* 127.0.0.1 in network order on a little-endian machine */

struct field_indexes {
    UINT16 application, compartment, local_address, local_port, remote_address, remote_port;
};

static struct field_indexes FieldsOf(UINT16 layer)
{
    static const struct field_indexes v4 = {
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_ALE_APP_ID,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_COMPARTMENT_ID,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_LOCAL_ADDRESS,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_LOCAL_PORT,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_REMOTE_ADDRESS,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_REMOTE_PORT,
    };
    static const struct field_indexes v6 = {
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_ALE_APP_ID,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_COMPARTMENT_ID,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_LOCAL_ADDRESS,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_LOCAL_PORT,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_REMOTE_ADDRESS,
        FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_REMOTE_PORT,
    };

    return layer == FWPS_LAYER_ALE_CONNECT_REDIRECT_V4 ? v4 : v6;
}

/* What the layer indicates: ports and IPv4 addresses in host order ("Data Field Identifiers"). */
static void ReadFixed(const FWPS_INCOMING_VALUES0 *values, struct sg_connection *connection)
{
    struct field_indexes at = FieldsOf(values->layerId);
    const FWPS_INCOMING_VALUE0 *field = values->incomingValue;

    if (values->layerId == FWPS_LAYER_ALE_CONNECT_REDIRECT_V4) {
        UINT32 remote = RtlUlongByteSwap(field[at.remote_address].value.uint32);
        UINT32 local = RtlUlongByteSwap(field[at.local_address].value.uint32);
        connection->family = 4;
        RtlCopyMemory(connection->remote, &remote, 4);
        RtlCopyMemory(connection->source, &local, 4);
    } else {
        sg_set_v6(connection, field[at.remote_address].value.byteArray16->byteArray16,
                  field[at.local_address].value.byteArray16->byteArray16);
    }
    connection->remote_port = field[at.remote_port].value.uint16;
    connection->source_port = field[at.local_port].value.uint16;
}

/* What is asked for now: another callout may have changed it after the layer was indicated. Network order. */
static void ReadRequest(const FWPS_CONNECT_REQUEST0 *request, struct sg_connection *connection)
{
    if (request->remoteAddressAndPort.ss_family == AF_INET) {
        const SOCKADDR_IN *remote = (const SOCKADDR_IN *)&request->remoteAddressAndPort;
        const SOCKADDR_IN *local = (const SOCKADDR_IN *)&request->localAddressAndPort;
        connection->family = 4;
        RtlCopyMemory(connection->remote, &remote->sin_addr, 4);
        RtlCopyMemory(connection->source, &local->sin_addr, 4);
        connection->remote_port = RtlUshortByteSwap(remote->sin_port);
        connection->source_port = RtlUshortByteSwap(local->sin_port);
    } else {
        const SOCKADDR_IN6 *remote = (const SOCKADDR_IN6 *)&request->remoteAddressAndPort;
        const SOCKADDR_IN6 *local = (const SOCKADDR_IN6 *)&request->localAddressAndPort;
        sg_set_v6(connection, (const uint8_t *)&remote->sin6_addr, (const uint8_t *)&local->sin6_addr);
        connection->remote_port = RtlUshortByteSwap(remote->sin6_port);
        connection->source_port = RtlUshortByteSwap(local->sin6_port);
    }
    /* Before an implicit bind the local port is 0: then there is no source to tell. */
    connection->source_known = connection->source_port != 0;
    if (request->previousVersion != NULL)
        connection->redirected_before = 1;
}

/* Another local proxy already has this connection: "your callout driver should not attempt to redirect it". */
static BOOLEAN HasLocalRedirect(const FWPS_CONNECT_REQUEST0 *request)
{
    const FWPS_CONNECT_REQUEST0 *version;

    for (version = request->previousVersion; version != NULL; version = version->previousVersion) {
        if (version->localRedirectHandle != NULL)
            return TRUE;
    }
    return FALSE;
}

/* TRUE: sg_scope said capture, and `target` is where to. */
static BOOLEAN InScope(const struct sg_connection *connection, struct sluicegate_config *target)
{
    enum sg_verdict verdict = SG_LEAVE_PORT;
    KIRQL irql = ExAcquireSpinLockShared(&g_sg.config_lock);

    if (g_sg.config != NULL) {
        verdict = sg_scope(g_sg.config, connection);
        *target = *g_sg.config;
    }
    ExReleaseSpinLockShared(&g_sg.config_lock, irql);
    return verdict == SG_CAPTURE;
}

/*
 * To the address the client is bound to, if it is, else to loopback, so that no zone of the stack is
 * crossed. A mapped destination stays mapped: the client's socket is a dual-stack one.
 */
static void RewriteRemote(FWPS_CONNECT_REQUEST0 *request, const struct sg_connection *connection,
                          const struct sluicegate_config *target)
{
    static const uint8_t zero[16];
    BOOLEAN bound = RtlCompareMemory(connection->source, zero, 16) != 16;
    UINT16 port = connection->family == 4 ? target->listen_port_v4 : target->listen_port_v6;

    if (request->remoteAddressAndPort.ss_family == AF_INET) {
        SOCKADDR_IN *remote = (SOCKADDR_IN *)&request->remoteAddressAndPort;
        UINT32 loopback = LOOPBACK_V4;
        RtlCopyMemory(&remote->sin_addr, bound ? (const void *)connection->source : &loopback, 4);
        remote->sin_port = RtlUshortByteSwap(port);
    } else {
        SOCKADDR_IN6 *remote = (SOCKADDR_IN6 *)&request->remoteAddressAndPort;
        uint8_t *address = (uint8_t *)&remote->sin6_addr;
        if (bound) {
            const SOCKADDR_IN6 *local = (const SOCKADDR_IN6 *)&request->localAddressAndPort;
            RtlCopyMemory(address, &local->sin6_addr, 16);
        } else if (connection->mapped) {
            UINT32 loopback = LOOPBACK_V4;
            RtlCopyMemory(address + 12, &loopback, 4); /* the prefix ::ffff: is there already */
        } else {
            RtlZeroMemory(address, 16);
            address[15] = 1;
        }
        remote->sin6_port = RtlUshortByteSwap(port);
    }
}

static void *MakeContext(const struct sg_connection *connection, const struct sg_process *process,
                         const FWP_BYTE_BLOB *application, SIZE_T *size)
{
    UINT32 length = application == NULL ? 0 : application->size & ~1u;
    void *context;

    /* The blob is a string with its final NUL; the layout has none. */
    while (length >= 2 && application->data[length - 1] == 0 && application->data[length - 2] == 0)
        length -= 2;
    *size = sg_context_size(process->sid_size, length);
    context = ExAllocatePool2(POOL_FLAG_NON_PAGED, *size, SG_POOL_CONTEXT);
    if (context != NULL)
        sg_context_write(context, connection, process->sid, process->sid_size,
                         application == NULL ? NULL : application->data, length);
    return context;
}

static const FWP_BYTE_BLOB *ApplicationOf(const FWPS_INCOMING_VALUES0 *values)
{
    const FWP_VALUE0 *value = &values->incomingValue[FieldsOf(values->layerId).application].value;

    return value->type == FWP_BYTE_BLOB_TYPE ? value->byteBlob : NULL;
}

static UINT32 CompartmentOf(const FWPS_INCOMING_VALUES0 *values)
{
    const FWP_VALUE0 *value = &values->incomingValue[FieldsOf(values->layerId).compartment].value;

    return value->type == FWP_UINT32 ? value->uint32 : 0;
}

/* Between acquiring and applying: FwpsApplyModifiedLayerData0 is owed whatever happens.
 * FALSE: it could not be redirected. */
static BOOLEAN Rewrite(const FWPS_INCOMING_VALUES0 *values, FWPS_CONNECT_REQUEST0 *request,
                       const struct sluicegate_config *target, const struct sg_process *process,
                       struct sg_connection *connection)
{
    SIZE_T size;
    void *context;

    if (HasLocalRedirect(request)) {
        InterlockedIncrement64(&g_sg.another_local);
        return TRUE;
    }
    ReadRequest(request, connection);
    context = MakeContext(connection, process, ApplicationOf(values), &size);
    if (context == NULL)
        return FALSE;
    RewriteRemote(request, connection, target);
    request->localRedirectTargetPID = target->proxy_pid;
    request->localRedirectHandle = g_sg.redirect_handle;
    request->localRedirectContext = context; /* WFP's from here on */
    request->localRedirectContextSize = size;
    InterlockedIncrement64(&g_sg.redirected);
    return TRUE;
}

static BOOLEAN Redirect(const FWPS_INCOMING_VALUES0 *values, const void *classifyContext,
                        const FWPS_FILTER1 *filter, const struct sluicegate_config *target,
                        const struct sg_process *process, struct sg_connection *connection,
                        FWPS_CLASSIFY_OUT0 *out)
{
    FWPS_CONNECT_REQUEST0 *request = NULL;
    UINT64 handle = 0;
    BOOLEAN done = FALSE;
    NTSTATUS status;

    if (!NT_SUCCESS(FwpsAcquireClassifyHandle0((void *)classifyContext, 0, &handle)))
        return FALSE;
    status = FwpsAcquireWritableLayerDataPointer0(handle, filter->filterId, 0, (PVOID *)&request, out);
    if (NT_SUCCESS(status) && request != NULL) {
        done = Rewrite(values, request, target, process, connection);
        /* Inline: flags are 0. FWPS_CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS is for pended ones. */
        FwpsApplyModifiedLayerData0(handle, request, 0);
    }
    FwpsReleaseClassifyHandle0(handle);
    return done;
}

/* FALSE: leave the connection as it is. */
static BOOLEAN MayRedirect(const FWPS_INCOMING_METADATA_VALUES0 *meta, struct sg_connection *connection)
{
    FWPS_CONNECTION_REDIRECT_STATE state = FWPS_CONNECTION_NOT_REDIRECTED;

    if (FWPS_IS_METADATA_FIELD_PRESENT(meta, FWPS_METADATA_FIELD_REDIRECT_RECORD_HANDLE))
        state = FwpsQueryConnectionRedirectState0(meta->redirectRecords, g_sg.redirect_handle, NULL);
    switch (state) {
    case FWPS_CONNECTION_NOT_REDIRECTED:
        return TRUE;
    case FWPS_CONNECTION_REDIRECTED_BY_OTHER:
        /* Another proxy's connection to the server: inspected like any, and marked. */
        connection->redirected_before = 1;
        return TRUE;
    default:
        /* REDIRECTED_BY_SELF: our proxy's upstream connection, by its records.
         * PREVIOUSLY_REDIRECTED_BY_SELF: "must not perform redirection", or two drivers go round for ever. */
        InterlockedIncrement64(&g_sg.own);
        return FALSE;
    }
}

static void Block(FWPS_CLASSIFY_OUT0 *out)
{
    InterlockedIncrement64(&g_sg.blocked);
    out->actionType = FWP_ACTION_BLOCK;
    out->rights &= ~(UINT32)FWPS_RIGHT_ACTION_WRITE;
}

/* Asked twice: the process is looked up only for connections that are captured otherwise. */
static BOOLEAN IsCaptured(const FWPS_INCOMING_VALUES0 *values, struct sluicegate_config *target,
                          struct sg_process *process, struct sg_connection *connection)
{
    ReadFixed(values, connection);
    if (!InScope(connection, target))
        return FALSE;
    SgLookProcess(connection->pid, process);
    connection->process_start = process->start;
    connection->logon_id = process->logon_id;
    connection->compartment = CompartmentOf(values);
    return InScope(connection, target);
}

static void Classify(const FWPS_INCOMING_VALUES0 *values, const FWPS_INCOMING_METADATA_VALUES0 *meta,
                     const void *classifyContext, const FWPS_FILTER1 *filter, FWPS_CLASSIFY_OUT0 *out)
{
    struct sluicegate_config target;
    struct sg_connection connection;
    struct sg_process process;
    UINT32 rights = out->rights;

    RtlZeroMemory(&connection, sizeof(connection));
    if (!MayRedirect(meta, &connection))
        return;
    if (FWPS_IS_METADATA_FIELD_PRESENT(meta, FWPS_METADATA_FIELD_PROCESS_ID))
        connection.pid = (uint32_t)meta->processId;
    if (!IsCaptured(values, &target, &process, &connection)) {
        InterlockedIncrement64(&g_sg.left_alone);
        return;
    }
    if (!Redirect(values, classifyContext, filter, &target, &process, &connection, out)) {
        Block(out);
        return;
    }
    /* FwpsAcquireWritableLayerDataPointer0 has set BLOCK and taken the right to write away. */
    out->actionType = FWP_ACTION_PERMIT;
    out->rights = rights;
    if (filter->flags & FWPS_FILTER_FLAG_CLEAR_ACTION_RIGHT)
        out->rights &= ~(UINT32)FWPS_RIGHT_ACTION_WRITE;
}

void NTAPI SgClassify(const FWPS_INCOMING_VALUES0 *values, const FWPS_INCOMING_METADATA_VALUES0 *meta,
                      void *layerData, const void *classifyContext, const FWPS_FILTER1 *filter,
                      UINT64 flowContext, FWPS_CLASSIFY_OUT0 *out)
{
    UNREFERENCED_PARAMETER(layerData);
    UNREFERENCED_PARAMETER(flowContext);

    if ((out->rights & FWPS_RIGHT_ACTION_WRITE) == 0) {
        /* Somebody above has decided. A permit of theirs stands: the connection is not ours to take. */
        InterlockedIncrement64(&g_sg.no_right);
        return;
    }
    out->actionType = FWP_ACTION_PERMIT;
    if (classifyContext == NULL || !ExAcquireRundownProtection(&g_sg.classifying))
        return; /* being unloaded: the filters are gone already, this one was on its way */
    Classify(values, meta, classifyContext, filter, out);
    ExReleaseRundownProtection(&g_sg.classifying);
}

NTSTATUS NTAPI SgNotify(FWPS_CALLOUT_NOTIFY_TYPE type, const GUID *filterKey, FWPS_FILTER1 *filter)
{
    UNREFERENCED_PARAMETER(type);
    UNREFERENCED_PARAMETER(filterKey);
    UNREFERENCED_PARAMETER(filter);
    return STATUS_SUCCESS;
}

/* Declarations for callout drivers, from the documentation. See README.md; pages stand at each. */
#ifndef CHECK_FWPSK_H
#define CHECK_FWPSK_H

#include <ntifs.h>

#include "ws2def.h"

/* --- fwptypes.h: windows/win32/api/fwptypes/ */

/* windows/win32/api/fwpmtypes/ns-fwpmtypes-fwpm_action0, "type": the actions and their flags */
typedef UINT32 FWP_ACTION_TYPE;
#define FWP_ACTION_FLAG_TERMINATING 0x00001000
#define FWP_ACTION_FLAG_CALLOUT 0x00004000
#define FWP_ACTION_BLOCK (0x00000001 | FWP_ACTION_FLAG_TERMINATING)
#define FWP_ACTION_PERMIT (0x00000002 | FWP_ACTION_FLAG_TERMINATING)
#define FWP_ACTION_CALLOUT_TERMINATING \
    (0x00000003 | FWP_ACTION_FLAG_CALLOUT | FWP_ACTION_FLAG_TERMINATING)

/* ne-fwptypes-fwp_data_type: in the page's order, from FWP_EMPTY */
typedef enum {
    FWP_EMPTY, FWP_UINT8, FWP_UINT16, FWP_UINT32, FWP_UINT64, FWP_INT8, FWP_INT16, FWP_INT32, FWP_INT64,
    FWP_FLOAT, FWP_DOUBLE, FWP_BYTE_ARRAY16_TYPE, FWP_BYTE_BLOB_TYPE
} FWP_DATA_TYPE;

/* ne-fwptypes-fwp_match_type */
typedef enum { FWP_MATCH_EQUAL } FWP_MATCH_TYPE;

/* ns-fwptypes-fwp_byte_blob, ns-fwptypes-fwp_byte_array16 */
typedef struct { UINT32 size; UINT8 *data; } FWP_BYTE_BLOB;
typedef struct { UINT8 byteArray16[16]; } FWP_BYTE_ARRAY16;

/* ns-fwptypes-fwp_value0: the members that are used */
typedef struct {
    FWP_DATA_TYPE type;
    union {
        UINT8 uint8;
        UINT16 uint16;
        UINT32 uint32;
        FWP_BYTE_ARRAY16 *byteArray16;
        FWP_BYTE_BLOB *byteBlob;
    };
} FWP_VALUE0;

/* --- fwpstypes.h: windows/win32/api/fwpstypes/ */

/* ns-fwpstypes-fwps_incoming_value0, ns-fwpstypes-fwps_incoming_values0 */
typedef struct { FWP_VALUE0 value; } FWPS_INCOMING_VALUE0;
typedef struct {
    UINT16 layerId;
    UINT32 valueCount;
    FWPS_INCOMING_VALUE0 *incomingValue;
} FWPS_INCOMING_VALUES0;

/* ns-fwpstypes-fwps_filter1: the members that are used */
typedef struct {
    UINT64 filterId;
    UINT16 flags;
} FWPS_FILTER1;
#define FWPS_FILTER_FLAG_CLEAR_ACTION_RIGHT 0x0001 /* same page */

/* ns-fwpstypes-fwps_classify_out0 */
typedef struct {
    FWP_ACTION_TYPE actionType;
    UINT64 outContext;
    UINT64 filterId;
    UINT32 rights;
    UINT32 flags;
    UINT32 reserved;
} FWPS_CLASSIFY_OUT0;
#define FWPS_RIGHT_ACTION_WRITE 0x00000001 /* same page */

/* --- fwpsk.h: windows-hardware/drivers/ddi/fwpsk/ */

/* ne-fwpsk-fwps_builtin_layers; the numbers are stand-ins */
typedef enum {
    FWPS_LAYER_ALE_CONNECT_REDIRECT_V4 = 64,
    FWPS_LAYER_ALE_CONNECT_REDIRECT_V6
} FWPS_BUILTIN_LAYERS;

/* ne-fwpsk-fwps_fields_ale_connect_redirect_v4_ and _v6_: in the pages' order */
typedef enum {
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_ALE_APP_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_ALE_USER_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_LOCAL_ADDRESS,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_LOCAL_ADDRESS_TYPE,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_LOCAL_PORT,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_PROTOCOL,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_REMOTE_ADDRESS,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_DESTINATION_ADDRESS_TYPE,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_IP_REMOTE_PORT,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_FLAGS,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_ALE_ORIGINAL_APP_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_ALE_PACKAGE_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_ALE_SECURITY_ATTRIBUTE_FQBN_VALUE,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V4_COMPARTMENT_ID
} FWPS_FIELDS_ALE_CONNECT_REDIRECT_V4;
typedef enum {
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_ALE_APP_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_ALE_USER_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_LOCAL_ADDRESS,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_LOCAL_ADDRESS_TYPE,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_LOCAL_PORT,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_PROTOCOL,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_REMOTE_ADDRESS,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_DESTINATION_ADDRESS_TYPE,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_IP_REMOTE_PORT,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_FLAGS,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_ALE_ORIGINAL_APP_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_ALE_PACKAGE_ID,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_ALE_SECURITY_ATTRIBUTE_FQBN_VALUE,
    FWPS_FIELD_ALE_CONNECT_REDIRECT_V6_COMPARTMENT_ID
} FWPS_FIELDS_ALE_CONNECT_REDIRECT_V6;

/* ns-fwpsk-fwps_incoming_metadata_values0_: the members that are used */
typedef struct {
    UINT32 currentMetadataValues;
    UINT64 processId;
    HANDLE redirectRecords;
} FWPS_INCOMING_METADATA_VALUES0;

/* windows-hardware/drivers/network/metadata-field-identifiers, .../metadata-fields-at-each-filtering-layer:
 * both are available at ALE_CONNECT_REDIRECT. The numbers are stand-ins. */
#define FWPS_METADATA_FIELD_PROCESS_ID 0x00000040
#define FWPS_METADATA_FIELD_REDIRECT_RECORD_HANDLE 0x02000000

/* nf-fwpsk-fwps_is_metadata_field_present */
#define FWPS_IS_METADATA_FIELD_PRESENT(values, field) (((values)->currentMetadataValues & (field)) != 0)

/* ns-fwpsk-_fwps_connect_request0 */
typedef struct _FWPS_CONNECT_REQUEST0 {
    SOCKADDR_STORAGE localAddressAndPort;
    SOCKADDR_STORAGE remoteAddressAndPort;
    UINT64 portReservationToken;
    ULONG localRedirectTargetPID; /* DWORD */
    struct _FWPS_CONNECT_REQUEST0 *previousVersion;
    UINT64 modifierFilterId;
    HANDLE localRedirectHandle;
    void *localRedirectContext;
    SIZE_T localRedirectContextSize;
} FWPS_CONNECT_REQUEST0;

/* ne-fwpsk-fwps_connection_redirect_state_ */
typedef enum {
    FWPS_CONNECTION_NOT_REDIRECTED,
    FWPS_CONNECTION_REDIRECTED_BY_SELF,
    FWPS_CONNECTION_REDIRECTED_BY_OTHER,
    FWPS_CONNECTION_PREVIOUSLY_REDIRECTED_BY_SELF,
    FWPS_CONNECTION_REDIRECT_STATE_MAX
} FWPS_CONNECTION_REDIRECT_STATE;

/* nc-fwpsk-fwps_callout_notify_fn1; ne-...-fwps_callout_notify_type */
typedef enum {
    FWPS_CALLOUT_NOTIFY_ADD_FILTER,
    FWPS_CALLOUT_NOTIFY_DELETE_FILTER
} FWPS_CALLOUT_NOTIFY_TYPE;
typedef NTSTATUS(NTAPI *FWPS_CALLOUT_NOTIFY_FN1)(FWPS_CALLOUT_NOTIFY_TYPE notifyType,
                                                 const GUID *filterKey, FWPS_FILTER1 *filter);

/* nc-fwpsk-fwps_callout_classify_fn1; IRQL <= DISPATCH_LEVEL */
typedef void(NTAPI *FWPS_CALLOUT_CLASSIFY_FN1)(const FWPS_INCOMING_VALUES0 *inFixedValues,
                                               const FWPS_INCOMING_METADATA_VALUES0 *inMetaValues,
                                               void *layerData, const void *classifyContext,
                                               const FWPS_FILTER1 *filter, UINT64 flowContext,
                                               FWPS_CLASSIFY_OUT0 *classifyOut);

/* nc-fwpsk-fwps_callout_flow_delete_notify_fn0 */
typedef void(NTAPI *FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0)(UINT16 layerId, UINT32 calloutId,
                                                         UINT64 flowContext);

/* ns-fwpsk-fwps_callout1_ */
typedef struct {
    GUID calloutKey;
    UINT32 flags;
    FWPS_CALLOUT_CLASSIFY_FN1 classifyFn;
    FWPS_CALLOUT_NOTIFY_FN1 notifyFn;
    FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0 flowDeleteFn;
} FWPS_CALLOUT1;

/* nf-fwpsk-fwpscalloutregister1, nf-fwpsk-fwpscalloutunregisterbyid0; PASSIVE_LEVEL */
NTSTATUS NTAPI FwpsCalloutRegister1(void *deviceObject, const FWPS_CALLOUT1 *callout, UINT32 *calloutId);
NTSTATUS NTAPI FwpsCalloutUnregisterById0(const UINT32 calloutId);

/* nf-fwpsk-fwpsredirecthandlecreate0, nf-fwpsk-fwpsredirecthandledestroy0; PASSIVE_LEVEL */
NTSTATUS NTAPI FwpsRedirectHandleCreate0(const GUID *providerGuid, UINT32 flags, HANDLE *redirectHandle);
void NTAPI FwpsRedirectHandleDestroy0(HANDLE redirectHandle);

/* nf-fwpsk-fwpsqueryconnectionredirectstate0; <= DISPATCH_LEVEL, as all that follow */
FWPS_CONNECTION_REDIRECT_STATE NTAPI FwpsQueryConnectionRedirectState0(HANDLE redirectRecords,
                                                                       HANDLE redirectHandle,
                                                                       void **redirectContext);

/* nf-fwpsk-fwpsacquireclassifyhandle0, nf-fwpsk-fwpsreleaseclassifyhandle0 */
NTSTATUS NTAPI FwpsAcquireClassifyHandle0(void *classifyContext, UINT32 flags, UINT64 *classifyHandle);
void NTAPI FwpsReleaseClassifyHandle0(UINT64 classifyHandle);

/* nf-fwpsk-fwpsacquirewritablelayerdatapointer0, nf-fwpsk-fwpsapplymodifiedlayerdata0 */
NTSTATUS NTAPI FwpsAcquireWritableLayerDataPointer0(UINT64 classifyHandle, UINT64 filterId,
                                                    UINT32 flags, PVOID *writableLayerData,
                                                    FWPS_CLASSIFY_OUT0 *classifyOut);
void NTAPI FwpsApplyModifiedLayerData0(UINT64 classifyHandle, PVOID modifiedLayerData, UINT32 flags);

#endif

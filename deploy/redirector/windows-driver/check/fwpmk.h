/* Management of the filter engine from the kernel, from the documentation. See README.md. */
#ifndef CHECK_FWPMK_H
#define CHECK_FWPMK_H

#include "fwpsk.h"

/* windows/win32/fwp/management-filtering-layer-identifiers-, .../filtering-conditions-available-at-each-layer */
DEFINE_GUID(FWPM_LAYER_ALE_CONNECT_REDIRECT_V4, 0xc6e63c8c, 0xb784, 0x4562, 0xaa, 0x7d, 0x0a, 0x67, 0xcf,
            0xca, 0xf9, 0xa3);
DEFINE_GUID(FWPM_LAYER_ALE_CONNECT_REDIRECT_V6, 0x587e54a7, 0x8046, 0x42ba, 0xa0, 0xaa, 0xb7, 0x16, 0x25,
            0x0f, 0xc7, 0xfd);
DEFINE_GUID(FWPM_CONDITION_IP_PROTOCOL, 0x3971ef2b, 0x623e, 0x4f9a, 0x8c, 0xb1, 0x6e, 0x79, 0xb8, 0x06,
            0xb9, 0xa7);

/* --- fwpmtypes.h: windows/win32/api/fwpmtypes/ */

/* windows/win32/api/fwptypes/ns-fwptypes-fwp_condition_value0: the members that are used */
typedef struct {
    FWP_DATA_TYPE type;
    union {
        UINT8 uint8;
        UINT16 uint16;
        UINT32 uint32;
        FWP_BYTE_BLOB *byteBlob;
    };
} FWP_CONDITION_VALUE0;

/* windows/win32/api/fwpmtypes/ns-fwpmtypes-fwpm_display_data0 (fwptypes.h) */
typedef struct {
    wchar_t *name;
    wchar_t *description;
} FWPM_DISPLAY_DATA0;

/* ns-fwpmtypes-fwpm_session0; FWPM_SESSION_FLAG_DYNAMIC: same page */
typedef struct {
    GUID sessionKey;
    FWPM_DISPLAY_DATA0 displayData;
    UINT32 flags;
    UINT32 txnWaitTimeoutInMSec;
    ULONG processId;
    SID *sid;
    wchar_t *username;
    int kernelMode;
} FWPM_SESSION0;
#define FWPM_SESSION_FLAG_DYNAMIC 0x00000001

/* ns-fwpmtypes-fwpm_provider0 */
typedef struct {
    GUID providerKey;
    FWPM_DISPLAY_DATA0 displayData;
    UINT32 flags;
    FWP_BYTE_BLOB providerData;
    wchar_t *serviceName;
} FWPM_PROVIDER0;

/* ns-fwpmtypes-fwpm_sublayer0 */
typedef struct {
    GUID subLayerKey;
    FWPM_DISPLAY_DATA0 displayData;
    UINT32 flags;
    GUID *providerKey;
    FWP_BYTE_BLOB providerData;
    UINT16 weight;
} FWPM_SUBLAYER0;

/* ns-fwpmtypes-fwpm_callout0 */
typedef struct {
    GUID calloutKey;
    FWPM_DISPLAY_DATA0 displayData;
    UINT32 flags;
    GUID *providerKey;
    FWP_BYTE_BLOB providerData;
    GUID applicableLayer;
    UINT32 calloutId;
} FWPM_CALLOUT0;

/* ns-fwpmtypes-fwpm_action0 */
typedef struct {
    FWP_ACTION_TYPE type;
    union {
        GUID filterType;
        GUID calloutKey;
    };
} FWPM_ACTION0;

/* ns-fwpmtypes-fwpm_filter_condition0 */
typedef struct {
    GUID fieldKey;
    FWP_MATCH_TYPE matchType;
    FWP_CONDITION_VALUE0 conditionValue;
} FWPM_FILTER_CONDITION0;

/* ns-fwpmtypes-fwpm_filter0 */
typedef struct {
    GUID filterKey;
    FWPM_DISPLAY_DATA0 displayData;
    UINT32 flags;
    GUID *providerKey;
    FWP_BYTE_BLOB providerData;
    GUID layerKey;
    GUID subLayerKey;
    FWP_VALUE0 weight;
    UINT32 numFilterConditions;
    FWPM_FILTER_CONDITION0 *filterCondition;
    FWPM_ACTION0 action;
    union {
        UINT64 rawContext;
        GUID providerContextKey;
    };
    GUID *reserved;
    UINT64 filterId;
    FWP_VALUE0 effectiveWeight;
} FWPM_FILTER0;

/* --- fwpmk.h: windows-hardware/drivers/ddi/fwpmk/, all at PASSIVE_LEVEL */

typedef void SEC_WINNT_AUTH_IDENTITY_W;
#define RPC_C_AUTHN_WINNT 10 /* windows/win32/rpc/authentication-service-constants */

/* nf-fwpmk-fwpmengineopen0, nf-fwpmk-fwpmengineclose0 */
NTSTATUS NTAPI FwpmEngineOpen0(const wchar_t *serverName, UINT32 authnService,
                               SEC_WINNT_AUTH_IDENTITY_W *authIdentity, const FWPM_SESSION0 *session,
                               HANDLE *engineHandle);
NTSTATUS NTAPI FwpmEngineClose0(HANDLE engineHandle);

/* nf-fwpmk-fwpmtransactionbegin0, -commit0, -abort0 */
NTSTATUS NTAPI FwpmTransactionBegin0(HANDLE engineHandle, UINT32 flags);
NTSTATUS NTAPI FwpmTransactionCommit0(HANDLE engineHandle);
NTSTATUS NTAPI FwpmTransactionAbort0(HANDLE engineHandle);

/* nf-fwpmk-fwpmprovideradd0, nf-fwpmk-fwpmsublayeradd0 */
NTSTATUS NTAPI FwpmProviderAdd0(HANDLE engineHandle, const FWPM_PROVIDER0 *provider, PSECURITY_DESCRIPTOR sd);
NTSTATUS NTAPI FwpmSubLayerAdd0(HANDLE engineHandle, const FWPM_SUBLAYER0 *subLayer, PSECURITY_DESCRIPTOR sd);

/* nf-fwpmk-fwpmcalloutadd0, nf-fwpmk-fwpmfilteradd0 */
NTSTATUS NTAPI FwpmCalloutAdd0(HANDLE engineHandle, const FWPM_CALLOUT0 *callout, PSECURITY_DESCRIPTOR sd,
                               UINT32 *id);
NTSTATUS NTAPI FwpmFilterAdd0(HANDLE engineHandle, const FWPM_FILTER0 *filter, PSECURITY_DESCRIPTOR sd,
                              UINT64 *id);

#endif

/* Declarations that mingw-w64's wdm.h lacks; included before every file by the check. See README.md. */
#ifndef CHECK_KERNEL_EXTRA_H
#define CHECK_KERNEL_EXTRA_H

#include <ntifs.h>

/* ddi/wdm/nf-wdm-exallocatepool2: PVOID ExAllocatePool2(POOL_FLAGS, SIZE_T, ULONG); the memory is zeroed.
 * POOL_FLAG_NON_PAGED 0x40: same page, table of flags. */
typedef ULONG64 POOL_FLAGS;
#define POOL_FLAG_NON_PAGED 0x0000000000000040ULL
PVOID NTAPI ExAllocatePool2(POOL_FLAGS Flags, SIZE_T NumberOfBytes, ULONG Tag);

/* ddi/wdm/nf-wdm-exacquirespinlockshared and three more; IRQL <= DISPATCH_LEVEL, returns the old IRQL.
 * EX_SPIN_LOCK is a LONG, zero when free ("Reader-Writer Spin Locks"). */
typedef volatile LONG EX_SPIN_LOCK, *PEX_SPIN_LOCK;
KIRQL NTAPI ExAcquireSpinLockShared(PEX_SPIN_LOCK SpinLock);
VOID NTAPI ExReleaseSpinLockShared(PEX_SPIN_LOCK SpinLock, KIRQL OldIrql);
KIRQL NTAPI ExAcquireSpinLockExclusive(PEX_SPIN_LOCK SpinLock);
VOID NTAPI ExReleaseSpinLockExclusive(PEX_SPIN_LOCK SpinLock, KIRQL OldIrql);

/* windows/win32/secauthz/sid-components, winnt.h: sizeof(SID) - sizeof(DWORD) + 15 sub-authorities */
#ifndef SECURITY_MAX_SID_SIZE
#define SECURITY_MAX_SID_SIZE 68
#endif

#endif

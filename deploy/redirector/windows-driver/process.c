/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who a process is: when it was started, as whom, in which logon session.
 *
 * Start and token are asked of the process that is connecting now, in its own context or while it waits for
 * us, so the pid cannot have been reused in between. PsLookupProcessByProcessId: IRQL <= APC_LEVEL;
 * SeQueryInformationToken, SeQueryAuthenticationIdToken: PASSIVE_LEVEL (ntifs.h reference).
 */

#include "driver.h"

static void CopySid(PACCESS_TOKEN token, struct sg_process *process)
{
    TOKEN_USER *user = NULL;
    ULONG size;

    /* Allocates what it returns; freed with ExFreePool. */
    if (!NT_SUCCESS(SeQueryInformationToken(token, TokenUser, (PVOID *)&user)))
        return;
    size = RtlLengthSid(user->User.Sid);
    if (size <= sizeof(process->sid)) {
        RtlCopyMemory(process->sid, user->User.Sid, size);
        process->sid_size = (uint16_t)size;
    }
    ExFreePool(user);
}

static void LookToken(PEPROCESS object, struct sg_process *process)
{
    PACCESS_TOKEN token = PsReferencePrimaryToken(object);
    LUID logon;

    if (NT_SUCCESS(SeQueryAuthenticationIdToken(token, &logon)))
        process->logon_id = ((uint64_t)(uint32_t)logon.HighPart << 32) | logon.LowPart;
    CopySid(token, process);
    PsDereferencePrimaryToken(token);
}

void SgLookProcess(uint32_t pid, struct sg_process *process)
{
    PEPROCESS object;

    RtlZeroMemory(process, sizeof(*process));
    /* classifyFn may be called at DISPATCH_LEVEL: then user mode looks the pid up, and says so. */
    if (KeGetCurrentIrql() != PASSIVE_LEVEL)
        return;
    if (!NT_SUCCESS(PsLookupProcessByProcessId((HANDLE)(ULONG_PTR)pid, &object)))
        return;
    process->start = (uint64_t)PsGetProcessCreateTimeQuadPart(object);
    LookToken(object, process);
    ObDereferenceObject(object);
}

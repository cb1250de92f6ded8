/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The driver as the system sees it: entry, unload, one device with four control codes.
 *
 * A WDM driver without hardware ("software driver"): no PnP, no power. IRP_MJ_CREATE, CLOSE, CLEANUP and
 * DEVICE_CONTROL come at PASSIVE_LEVEL in the caller's context (METHOD_BUFFERED; nobody is above us).
 *
 * The device is open to SYSTEM and administrators only (SDDL_DEVOBJ_SYS_ALL_ADM_ALL), as whoever may
 * redirect connections reads them all.
 */

#include "driver.h"

#include <wdmsec.h>

/* Only a name for IoCreateDeviceSecure: class of this device, 4b7ae9b8-4ed8-47d7-9498-8ef41c4c6d0a */
static const GUID SG_DEVICE_CLASS = {
    0x4b7ae9b8, 0x4ed8, 0x47d7, {0x94, 0x98, 0x8e, 0xf4, 0x1c, 0x4c, 0x6d, 0x0a}};

struct sg_state g_sg;

static DRIVER_UNLOAD SgUnload;
static DRIVER_DISPATCH SgCreate, SgCleanup, SgClose, SgControl;

static void TakeControl(void)
{
    KeWaitForSingleObject(&g_sg.control, Executive, KernelMode, FALSE, NULL);
}

static void GiveControl(void)
{
    KeReleaseMutex(&g_sg.control, FALSE);
}

static void ReplaceConfig(struct sluicegate_config *config)
{
    struct sluicegate_config *before;
    KIRQL irql = ExAcquireSpinLockExclusive(&g_sg.config_lock);

    before = g_sg.config;
    g_sg.config = config;
    ExReleaseSpinLockExclusive(&g_sg.config_lock, irql);
    if (before != NULL)
        ExFreePoolWithTag(before, SG_POOL_CONFIG);
}

/* While the owner lives, only it may change or end the redirect. An orphan is anybody's. */
static BOOLEAN IsAnothers(PFILE_OBJECT file)
{
    return g_sg.owner != NULL && g_sg.owner != file;
}

static NTSTATUS Configure(PFILE_OBJECT file, const void *bytes, ULONG size)
{
    struct sluicegate_config *config;

    if (IsAnothers(file))
        return STATUS_DEVICE_BUSY;
    if (!sg_config_valid(bytes, size))
        return STATUS_INVALID_PARAMETER;
    config = ExAllocatePool2(POOL_FLAG_NON_PAGED, size, SG_POOL_CONFIG);
    if (config == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(config, bytes, size);
    ReplaceConfig(config);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFILE_OBJECT file)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (IsAnothers(file))
        return STATUS_DEVICE_BUSY;
    if (g_sg.config == NULL)
        return STATUS_INVALID_DEVICE_STATE; /* configure first */
    if (g_sg.engine == NULL)
        status = SgRegister();
    if (NT_SUCCESS(status)) {
        g_sg.owner = file;
        g_sg.orphaned = FALSE;
    }
    return status;
}

static void StopAll(void)
{
    SgUnregister();
    g_sg.owner = NULL;
    g_sg.orphaned = FALSE;
    ReplaceConfig(NULL);
}

static NTSTATUS Stop(PFILE_OBJECT file)
{
    if (IsAnothers(file))
        return STATUS_DEVICE_BUSY;
    StopAll();
    return STATUS_SUCCESS;
}

static NTSTATUS Status(void *out, ULONG size, ULONG_PTR *written)
{
    struct sluicegate_status *status = out;

    if (size < sizeof(*status))
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(status, sizeof(*status));
    status->version = SLUICEGATE_CONFIG_VERSION;
    status->started = g_sg.engine != NULL;
    status->orphaned = g_sg.orphaned;
    status->proxy_pid = g_sg.config == NULL ? 0 : g_sg.config->proxy_pid;
    status->redirected = (uint64_t)g_sg.redirected;
    status->left_alone = (uint64_t)g_sg.left_alone;
    status->own = (uint64_t)g_sg.own;
    status->another_local = (uint64_t)g_sg.another_local;
    status->no_right = (uint64_t)g_sg.no_right;
    status->blocked = (uint64_t)g_sg.blocked;
    *written = sizeof(*status);
    return STATUS_SUCCESS;
}

static NTSTATUS Complete(PIRP irp, NTSTATUS status, ULONG_PTR written)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = written;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI SgControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    void *buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR written = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(device);
    TakeControl();
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case SLUICEGATE_IOCTL_CONFIGURE:
        status = Configure(stack->FileObject, buffer, in);
        break;
    case SLUICEGATE_IOCTL_START:
        status = Start(stack->FileObject);
        break;
    case SLUICEGATE_IOCTL_STOP:
        status = Stop(stack->FileObject);
        break;
    case SLUICEGATE_IOCTL_STATUS:
        status = Status(buffer, out, &written);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    GiveControl();
    return Complete(irp, status, written);
}

static NTSTATUS NTAPI SgCreate(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Complete(irp, STATUS_SUCCESS, 0);
}

/* The last handle of a file object has closed: the proxy ended, or was ended. */
static NTSTATUS NTAPI SgCleanup(PDEVICE_OBJECT device, PIRP irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;

    UNREFERENCED_PARAMETER(device);
    TakeControl();
    if (g_sg.owner == file) {
        if (g_sg.config != NULL && (g_sg.config->flags & SLUICEGATE_CONFIG_KEEP_ON_CLOSE)) {
            /* Captured connections go to a port where nobody listens, and are refused. */
            g_sg.owner = NULL;
            g_sg.orphaned = TRUE;
        } else {
            StopAll();
        }
    }
    GiveControl();
    return Complete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SgClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Complete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS CreateDevice(PDRIVER_OBJECT driver)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    RtlInitUnicodeString(&name, SLUICEGATE_DEVICE_NAME);
    RtlInitUnicodeString(&link, SLUICEGATE_LINK_NAME);
    status = IoCreateDeviceSecure(driver, 0, &name, FILE_DEVICE_NETWORK, FILE_DEVICE_SECURE_OPEN, FALSE,
                                  &SDDL_DEVOBJ_SYS_ALL_ADM_ALL, &SG_DEVICE_CLASS, &g_sg.device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(g_sg.device);
        g_sg.device = NULL;
    }
    return status;
}

static void DeleteDevice(void)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, SLUICEGATE_LINK_NAME);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(g_sg.device);
}

/*
 * The order: filters (nothing new is indicated), callouts, those who are still in classifyFn, the redirect
 * handle, the device. Open handles keep the system from calling this.
 */
static void NTAPI SgUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    TakeControl();
    SgUnregister();
    GiveControl();
    ExWaitForRundownProtectionRelease(&g_sg.classifying);
    FwpsRedirectHandleDestroy0(g_sg.redirect_handle);
    ReplaceConfig(NULL);
    DeleteDevice();
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(registryPath);
    KeInitializeMutex(&g_sg.control, 0);
    ExInitializeRundownProtection(&g_sg.classifying);
    status = FwpsRedirectHandleCreate0(&SG_PROVIDER, 0, &g_sg.redirect_handle);
    if (!NT_SUCCESS(status))
        return status;
    status = CreateDevice(driver);
    if (!NT_SUCCESS(status)) {
        FwpsRedirectHandleDestroy0(g_sg.redirect_handle);
        return status;
    }
    driver->DriverUnload = SgUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = SgCreate;
    driver->MajorFunction[IRP_MJ_CLEANUP] = SgCleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = SgClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SgControl;
    g_sg.device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

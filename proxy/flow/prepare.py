"""The new upstream socket before bind and connect: marks or redirect records, or the exception.

On Windows the records make our connection count as its application's. A host firewall's rules
for applications would be bypassed without them, so it is not made then, unless the exception
table says so.
"""

from __future__ import annotations

import socket

from proxy.contract import DialFailure
from proxy.errors import RecordsNotSettable
from proxy.flow.dial import DialError
from proxy.flow.shell import FlowShell
from proxy.limits import Cause, OnException
from proxy.model import RedirectInfo
from proxy.records import ExceptionApplied


def prepare_upstream(shell: FlowShell, info: RedirectInfo, sock: socket.socket) -> None:
    """Let the redirect provider do its part. Raises DialError, OSError."""
    services = shell.services
    try:
        services.provider.prepare_upstream(sock, info)
    except RecordsNotSettable as error:
        action = services.config.exceptions.records_not_settable
        cause = Cause.RECORDS_NOT_SETTABLE
        shell.record(ExceptionApplied(cause, action, detail=str(error)))
        if action is OnException.CLOSED:
            raise DialError(DialFailure.DENIED, str(error)) from error

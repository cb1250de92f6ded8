"""The story of one flow, from the accepted socket to its account. Read it top to bottom.

identify -> guard -> authorise -> dial -> (bytes, by callbacks) -> end -> account
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from dataclasses import dataclass, replace
from functools import partial

from proxy.account.ledger import FlowOutcome
from proxy.contract import DialFailure, How
from proxy.errors import BadPreamble, NotRedirected, RedirectError
from proxy.flow.authorise import how_of
from proxy.flow.consult import Consultation
from proxy.flow.dial import DialError, dial, keep_alive, resolve
from proxy.flow.patience import until_needed
from proxy.flow.prepare import prepare_upstream
from proxy.flow.services import Services
from proxy.flow.shell import FlowShell
from proxy.flow.side import reset_on_close
from proxy.limits import Cause, OnException
from proxy.model import Endpoint, FlowInfo, Layer, RedirectInfo
from proxy.policy.ruling import Ruling
from proxy.redirect.provider import Identified


async def run_flow(services: Services, sock: socket.socket, client: Endpoint) -> None:
    """Take one accepted non-blocking socket through its whole life. Never raises for the flow."""
    identified = await _identify(services, sock, client)
    if identified is None:
        return
    info = FlowInfo(id=secrets.token_hex(8), redirect=identified.info, opened_at=services.wall())
    account = services.accounts.open_flow(info)
    try:
        shell = FlowShell(services, info, account, sock)
    except BaseException:
        sock.close()
        account.close(FlowOutcome.ERROR, "a callout could not be made")
        raise
    services.flows.add(shell)
    try:
        keep_alive(sock)
        await _live(shell, identified.leftover)
    finally:
        services.flows.discard(shell)
        shell.tear_down()


async def _identify(services: Services, sock: socket.socket, client: Endpoint) -> Identified | None:
    """Where the connection was going; None when it was refused (and said so)."""
    reply = b""
    try:
        found = await services.provider.identify(sock, client, services.times.identify_seconds)
        info = found.info
        if info.captured and (client, info.original_dst) in services.dialled:
            raise _Refused("loop", "the client is this proxy itself")
        problem = services.guard.check(info.original_dst)
        if problem is None:
            if info.provider != services.provider.name:  # `unredirected: allow` took over
                services.accounts.exception(
                    Cause.NO_REDIRECT_INFO, OnException.OPEN, f"taken as {info.provider}"
                )
            return found
        raise _Refused("self", problem)
    except _Refused as error:
        reason, detail = error.reason, str(error)
    except NotRedirected as error:
        reason, detail = "not_redirected", str(error)
        services.accounts.exception(Cause.NO_REDIRECT_INFO, OnException.CLOSED, detail)
    except BadPreamble as error:
        reason, detail, reply = "bad_preamble", str(error), error.reply
    except (RedirectError, OSError) as error:
        reason, detail = "no_redirect_info", str(error)
    services.accounts.refused(client, reason, detail)
    await _say_goodbye(services, sock, reply)
    return None


class _Refused(Exception):
    """One of our own guards says no."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


async def _say_goodbye(services: Services, sock: socket.socket, reply: bytes) -> None:
    """RST, or a last word that is not lost: unread bytes at close would turn it into a RST."""
    try:
        if not reply:
            reset_on_close(sock)
            return
        async with asyncio.timeout(services.times.linger_seconds):
            await services.loop.sock_sendall(sock, reply)
            sock.shutdown(socket.SHUT_WR)
            while await services.loop.sock_recv(sock, 65536):
                pass
    except OSError:
        pass  # TimeoutError too: the client does not leave; EPIPE, ECONNRESET: it has left
    finally:
        sock.close()


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which ways to try, in order; when none: why, and how policy wants the client told."""

    ways: tuple[RedirectInfo, ...] = ()
    failure: DialFailure = DialFailure.DENIED
    detail: str = ""
    how: How = How.RESET
    outcome: FlowOutcome = FlowOutcome.BLOCKED


async def _live(shell: FlowShell, leftover: bytes) -> None:
    """Authorise, then serve: dial when asked to, sleep otherwise, until the flow is over."""
    redirect = shell.info.redirect
    if shell.services.connections:  # they may take their time
        shell.client.watch_hangup(lambda error: _client_gone(shell, error))
    plan = await _plan(shell, redirect.original_dst)
    if shell.outcome is not None:
        return
    told = redirect.explicit or redirect.preamble is not None  # it speaks to a proxy
    if not plan.ways and not told:
        shell.end(plan.how, plan.outcome, plan.detail)
        return
    await shell.client.attach(shell.services.loop)
    if leftover:
        shell.on_data(shell.client.reads, leftover)
    if plan.ways:
        await until_needed(shell)
    if shell.outcome is None and not shell.answered_alone:
        await _follow(shell, plan)
    while shell.outcome is None:
        shell.wake.clear()
        if shell.target is None:
            await shell.wake.wait()
            continue
        wanted, shell.target = shell.target, None
        await _follow(shell, await _plan(shell, wanted))


def _client_gone(shell: FlowShell, error: int) -> None:
    """The client has reset its connection before any of its bytes was looked at."""
    shell.end(How.RESET, FlowOutcome.RESET, os.strerror(error) if error else "client gone")


async def _plan(shell: FlowShell, wanted: Endpoint) -> _Plan:
    """Resolve, guard and authorise a destination: every address is judged by itself."""
    services, info = shell.services, shell.info
    try:
        found = await resolve(services.loop, wanted, services.times.connect_seconds)
    except DialError as error:
        return _Plan(failure=error.failure, detail=error.detail)
    name = None if wanted.ip is not None else wanted.host
    authorisation, refusal = shell.authorisation(), _Plan()
    ways: dict[Endpoint, RedirectInfo] = {}
    consultation = Consultation(info, shell.account, services, authorisation.policy.number)
    for endpoint in found:
        info.redirect = replace(
            info.redirect, original_dst=endpoint, dst_name=name, redirect_to=None, loopback=None
        )
        against = services.guard.check(endpoint) or authorisation.forbids()
        if isinstance(against, str):
            refusal = _Plan(detail=against)
        elif against is not None:
            refusal = _Plan(detail=f"blocked by {against.rule}", how=how_of(against))
        elif why := await _consult(shell, consultation, authorisation.granted):
            refusal = _Plan(detail=why)
            if consultation.failed:
                return replace(refusal, outcome=FlowOutcome.REFUSED)
        else:
            ways.setdefault(info.redirect.destination, info.redirect)
    return replace(refusal, ways=tuple(ways.values()))


async def _consult(shell: FlowShell, consultation: Consultation, granted: Ruling | None) -> str:
    """What the connection callouts say, unless the flow ends meanwhile."""
    shell.connecting = asyncio.current_task()
    try:
        return await consultation.refusal(granted)
    except asyncio.CancelledError:
        if shell.outcome is None or _uncancel() > 0:
            raise
        return "the flow has ended"
    finally:
        shell.connecting = None


async def _follow(shell: FlowShell, plan: _Plan) -> None:
    """Dial the plan's ways in order and hand the first that answers to the flow."""
    if not plan.ways:
        shell.failed(plan.failure, plan.detail)
        return
    shell.connecting = asyncio.current_task()
    try:
        sock = await _dial_first(shell, plan.ways)
    except DialError as error:
        shell.connecting = None
        shell.failed(error.failure, error.detail)
        return
    except asyncio.CancelledError:
        # The flow ended while we dialled (`FlowShell.end`), or the task itself is cancelled.
        if shell.outcome is None or _uncancel() > 0:
            raise
        return
    finally:
        shell.connecting = None
    await _establish(shell, sock)


def _uncancel() -> int:
    task = asyncio.current_task()
    return task.uncancel() if task is not None else 0


async def _dial_first(shell: FlowShell, ways: tuple[RedirectInfo, ...]) -> socket.socket:
    """Happy path first: the ways in order, the time-out shared among those that are left."""
    services = shell.services
    deadline = services.loop.time() + services.times.connect_seconds
    problem = DialError(DialFailure.UNREACHABLE, "no address")
    for index, info in enumerate(ways):
        share = (deadline - services.loop.time()) / (len(ways) - index)
        try:
            sock = await dial(
                services.loop,
                info.destination,
                partial(prepare_upstream, shell, info),
                partial(shell.remember_dial, remote=info.destination),
                max(share, 0.05),
            )
        except DialError as error:
            problem = error
        else:
            shell.info.redirect = info
            return sock
    raise problem


async def _establish(shell: FlowShell, sock: socket.socket) -> None:
    """The last connection layer, before any byte goes to the upstream."""
    ruling = shell.authorisation().judge(Layer.FLOW_ESTABLISHED)
    if ruling is not None and ruling.blocked:
        reset_on_close(sock)
        sock.close()
        shell.end(how_of(ruling), FlowOutcome.BLOCKED, f"blocked by {ruling.rule}")
        return
    keep_alive(sock)
    await shell.connected(sock)
    shell.account.established()

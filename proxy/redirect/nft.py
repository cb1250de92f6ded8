"""nftables REDIRECT for IPv4 and IPv6: Linux, root (or CAP_NET_ADMIN).

Captured are connections made after `install`; those that are open already go on past us. Our
own upstream sockets carry SO_MARK and are exempt. The kernel does not say which process made
a connection, so the principal stays unknown: looking it up in /proc would be late and may
name the wrong one.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.explicit import ExplicitProvider
from proxy.redirect.nft_command import NftTimeout, TableOwner, run
from proxy.redirect.nft_rules import clear_line, table_line
from proxy.redirect.options import OnCrash, RedirectOptions, Unredirected
from proxy.redirect.original_dst import original_destination
from proxy.redirect.provider import Health, Identified, Provider
from proxy.redirect.static import StaticProvider

_SO_MARK = 36  # asm-generic/socket.h; the socket module has it on Linux only
_CGROUPS = Path("/sys/fs/cgroup")


class NftProvider:
    """The redirect is one table of ours, in force from `install` to `remove`."""

    name = "nft"

    def __init__(self, options: RedirectOptions) -> None:
        self._options = options
        self._installed = False
        self._owner: TableOwner | None = None
        self._direct = _for_direct_clients(options)

    def install(self) -> None:
        options = self._options
        _check_listener(options)
        _check_mark(options.mark)
        table = table_line(options, *_locate(options.cgroup))
        if options.on_crash is OnCrash.OPEN:
            self._install_owned(table)
        else:
            self._install_plain(table)

    def remove(self) -> None:
        if not self._installed:
            return
        if self._owner is None:
            run(clear_line(self._options.table, owned=False))
        self._close_owner()
        self._installed = False

    def health(self) -> Health:
        if not self._installed:
            return Health(False, "the redirect is not installed")
        if self._owner is not None and not self._owner.alive:
            return Health(False, "the nft process that owns the redirect has ended")
        table = f"inet {self._options.table}"
        try:
            present = f"table {table}" in run("list tables").splitlines()
        except RedirectError as error:
            return Health(False, str(error))
        if not present:
            return Health(False, f"nftables table {table} was removed by somebody else")
        return Health(True, f"nftables table {table}, on_crash {self._options.on_crash}")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        try:
            original = original_destination(sock)
        except NotRedirected:
            if self._direct is None:
                raise
            return await self._direct.identify(sock, client, within)
        return Identified(RedirectInfo(self.name, original, client, captured=True))

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, self._options.mark)

    def _install_plain(self, table: str) -> None:
        try:
            run(f"{clear_line(self._options.table, owned=False)}; {table}")
        except NftTimeout:
            self._installed = True  # it may be in force: `remove` will see to it
            raise
        self._installed = True

    def _install_owned(self, table: str) -> None:
        """A living owner replaces its own table; a new one, what a dead proxy has left."""
        name = self._options.table
        if self._owner is not None and self._owner.alive:
            self._owner.apply(f"{clear_line(name, owned=True)}; {table}")
            return
        self._close_owner()
        owner = TableOwner()
        try:
            owner.apply(f"{clear_line(name, owned=False)}; {table}")
        except RedirectError:
            owner.close()
            raise
        self._owner, self._installed = owner, True

    def _close_owner(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()


def _for_direct_clients(options: RedirectOptions) -> Provider | None:
    """What serves clients that were not redirected; None: they are refused."""
    if options.unredirected is Unredirected.REFUSE:
        return None
    return ExplicitProvider() if options.upstream is None else StaticProvider(options)


def _check_listener(options: RedirectOptions) -> None:
    """REDIRECT delivers to 127.0.0.1 and ::1, or to the interface it came in by."""
    listen = options.listen
    wildcard = listen.host in ("0.0.0.0", "::")
    if not wildcard and listen.host not in ("127.0.0.1", "::1"):
        raise RedirectError(
            f"nft redirects to this machine's loopback: listen on 127.0.0.1:{listen.port} "
            f"or [::]:{listen.port} instead of {listen}"
        )
    if options.prerouting and not wildcard:
        raise RedirectError(
            f"connections that arrive on {', '.join(options.prerouting)} are redirected to that "
            f"interface's address: listen on [::]:{listen.port} instead of {listen}"
        )
    if options.ipv6 and listen.host == "0.0.0.0":
        raise RedirectError(
            f"{listen} takes no IPv6: listen on [::]:{listen.port}, or redirect IPv4 only"
        )
    if options.ipv4 and listen.host == "::1":
        raise RedirectError(
            f"{listen} takes no IPv4: listen on [::]:{listen.port}, or redirect IPv6 only"
        )


def _check_mark(mark: int) -> None:
    """Could our own connections be told apart? Without the mark they would come back to us."""
    if not sys.platform.startswith("linux"):
        raise RedirectError("provider nft works on Linux only")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        except PermissionError as error:
            raise RedirectError(
                "provider nft needs CAP_NET_ADMIN (SO_MARK, nftables): run as root or grant "
                "the capability; provider explicit needs no privileges"
            ) from error


def _locate(cgroup: str | None) -> tuple[int, str]:
    """Depth of a cgroup v2 path, and where v2 is mounted below /sys/fs/cgroup."""
    if cgroup is None:
        return 0, ""
    for root in ("", "unified/"):  # alone, or beside v1 (hybrid)
        mount = _CGROUPS / root
        if (mount / "cgroup.procs").is_file() and (mount / "cgroup.controllers").is_file():
            if not (mount / cgroup).is_dir():
                raise RedirectError(f"there is no cgroup {mount / cgroup}: make it first")
            return len(Path(cgroup).parts), root
    raise RedirectError(f"cgroup v2 is not mounted in {_CGROUPS}")

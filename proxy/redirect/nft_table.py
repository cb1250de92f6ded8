"""One nftables table of ours: put in place, looked at and taken away, as `on_crash` says.

`closed`: a plain table that stays until somebody deletes it. `open`: a table with `flags owner`
(Linux 5.12), held by an nft process that ends with us.
"""

from __future__ import annotations

from proxy.errors import RedirectError
from proxy.redirect.nft_command import NftTimeout, TableOwner, run
from proxy.redirect.nft_rules import OURS, clear_line
from proxy.redirect.options import OnCrash
from proxy.redirect.provider import Health


class NftTable:
    """`put` .. `remove`, each again without harm."""

    def __init__(self, name: str, on_crash: OnCrash) -> None:
        self._name = name
        self._on_crash = on_crash
        self._ours = False
        self._owner: TableOwner | None = None

    @property
    def ours(self) -> bool:
        """Have we put it there, or taken it over?"""
        return self._ours

    def put(self, line: str) -> None:
        """Make the table, in place of one of that name. Raises RedirectError."""
        if not self._ours:
            self._check_name()
        if self._on_crash is OnCrash.OPEN:
            self._put_owned(line)
        else:
            self._put_plain(line)

    def adopt(self) -> None:
        """Take over a plain table that another process made, be it there or not."""
        self._ours = True

    def remove(self) -> None:
        """Leave nothing behind. Raises RedirectError."""
        if not self._ours:
            return
        if self._owner is None:
            run(clear_line(self._name, owned=False))
        self._close_owner()
        self._ours = False

    def health(self) -> Health:
        if not self._ours:
            return Health(False, "the redirect is not installed")
        if self._owner is not None and not self._owner.alive:
            return Health(False, "the nft process that owns the redirect has ended")
        table = f"inet {self._name}"
        try:
            present = f"table {table}" in run("list tables").splitlines()
        except RedirectError as error:
            return Health(False, str(error))
        if not present:
            return Health(False, f"nftables table {table} was removed by somebody else")
        return Health(True, f"nftables table {table}, on_crash {self._on_crash}")

    def text(self) -> str:
        """The table as the kernel has it. Raises RedirectError."""
        return run(f"list table inet {self._name}")

    def _check_name(self) -> None:
        """Is there another's table of that name? One that a dead proxy left is ours."""
        if f"table inet {self._name}" not in run("list tables").splitlines():
            return
        if f'comment "{OURS} ' not in self.text():
            raise RedirectError(
                f"nftables table inet {self._name} is there and not ours: "
                "choose another name with redirect.nft_table"
            )

    def _put_plain(self, line: str) -> None:
        try:
            run(f"{clear_line(self._name, owned=False)}; {line}")
        except NftTimeout:
            self._ours = True  # it may be in force: `remove` will see to it
            raise
        self._ours = True

    def _put_owned(self, line: str) -> None:
        """A living owner replaces its own table; a new one, what a dead proxy has left."""
        name = self._name
        if self._owner is not None and self._owner.alive:
            self._owner.apply(f"{clear_line(name, owned=True)}; {line}")
            return
        self._close_owner()
        owner = TableOwner()
        try:
            owner.apply(f"{clear_line(name, owned=False)}; {line}")
        except RedirectError:
            owner.close()
            raise
        self._owner, self._ours = owner, True

    def _close_owner(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

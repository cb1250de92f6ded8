"""Policy routing for TPROXY: packets with our mark are delivered to this machine.

    ip rule:   from all fwmark M lookup M, protocol 83
    ip route:  local default dev lo table M, protocol 83

The mark and the table share a number that is ours alone. The protocol says who made an entry
(ip-rule(8), ip-route(8)): with it, what is left of a dead proxy is told from what others made
there, which is named and never touched.
"""

from __future__ import annotations

from typing import Any

from proxy.errors import RedirectError
from proxy.redirect.ip_command import change, show

_PROTOCOL = "83"  #: "S"; in no rt_protos of iproute2
_PRIORITY = 530  #: before the rules of VPNs, which would send the packets away
_ALL = 0xFFFFFFFF

_Entry = dict[str, Any]


class PolicyRoutes:
    """Of one number and some families ("-4", "-6")."""

    def __init__(self, number: int, families: tuple[str, ...]) -> None:
        self._number = number
        self._families = families
        self._route = ("local", "default", "dev", "lo", "table", str(number), "proto", _PROTOCOL)
        self._rule = (
            *("fwmark", hex(number), "lookup", str(number)),
            *("priority", str(_PRIORITY), "protocol", _PROTOCOL),
        )

    def put(self) -> None:
        """The route first: a rule must not lead nowhere. Raises RedirectError, nothing left."""
        for family in self._families:
            self._check(family)
        try:
            for family in self._families:
                change(family, "route", "replace", *self._route)
                if not self._rules(family):
                    change(family, "rule", "add", *self._rule)
        except RedirectError:
            self.remove()
            raise

    def remove(self) -> None:
        """What is ours, be it there or not. Raises RedirectError."""
        for family in self._families:
            for _ in self._rules(family):
                change(family, "rule", "del", *self._rule)
            for _ in self._routes(family):
                change(family, "route", "del", *self._route)

    def missing(self) -> str:
        """What is not there any more, or "". Raises RedirectError."""
        for family in self._families:
            if not self._rules(family):
                return f"ip {family} rule {' '.join(self._rule)}"
            if not self._routes(family):
                return f"ip {family} route {' '.join(self._route)}"
        return ""

    def _check(self, family: str) -> None:
        """Is the number free? Raises RedirectError that names who has it."""
        for rule in show(family, "rule", "list"):
            if self._takes(rule) and not self._is_ours(rule):
                said = f"from {rule.get('src')} fwmark {rule.get('fwmark', '-')}"
                raise self._taken(f"ip {family} rule {rule.get('priority')}: {said}", rule)
        for route in self._listed(family):
            if not _our_route(route):
                raise self._taken(f"ip {family} route {route.get('dst')}", route)

    def _taken(self, what: str, entry: _Entry) -> RedirectError:
        return RedirectError(
            f"mark and routing table {hex(self._number)} are in use: {what} in table "
            f"{entry.get('table', self._number)}; choose another number with redirect.route_mark"
        )

    def _takes(self, rule: _Entry) -> bool:
        """Would this rule see our packets by their mark, or does it lead to our table?"""
        if str(rule.get("table")) == str(self._number):
            return True
        if "fwmark" not in rule or "not" in rule:
            return False
        mask = int(str(rule.get("fwmask", hex(_ALL))), 0)
        return self._number & mask == int(str(rule["fwmark"]), 0)

    def _is_ours(self, rule: _Entry) -> bool:
        return (
            str(rule.get("protocol")) == _PROTOCOL
            and str(rule.get("table")) == str(self._number)
            and rule.get("priority") == _PRIORITY
        )

    def _rules(self, family: str) -> list[_Entry]:
        return [rule for rule in show(family, "rule", "list") if self._is_ours(rule)]

    def _routes(self, family: str) -> list[_Entry]:
        return [route for route in self._listed(family) if _our_route(route)]

    def _listed(self, family: str) -> list[_Entry]:
        return show(family, "route", "show", "table", str(self._number))


def _our_route(route: _Entry) -> bool:
    return str(route.get("protocol")) == _PROTOCOL and route.get("dst") == "default"

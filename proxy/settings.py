"""Restart-only settings: one TOML file, then the environment, then flags; the later wins.

Every mistake is reported at once, with its place (file and line, or the variable's name), what
was expected and the nearest valid name. Limits, times and exception policies are the fields of
the dataclasses in `proxy.limits`, so that there is one list of them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from proxy.errors import RedirectError, SettingsError
from proxy.limits import ExceptionPolicies, FlowTimes, Limits, StreamConfig
from proxy.model import Endpoint
from proxy.policy.store import default_policies_dir
from proxy.redirect.options import (
    DEFAULT_MARK,
    OnCrash,
    PortRange,
    RedirectOptions,
    Unredirected,
)
from proxy.redirect.options import DEFAULT_PORTS as REDIRECT_PORTS
from proxy.settings_sources import collect, explain
from proxy.units import to_bytes, to_seconds

_FDS_PER_FLOW = 2
_FDS_RESERVED = 64  #: listeners, policies, logs, the admin endpoint and its connections


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _endpoint(value: object) -> str:
    """Keep the text, once it is known to be ADDRESS:PORT."""
    return str(Endpoint.parse(str(value)))


EndpointText = Annotated[str, BeforeValidator(_endpoint)]
Port = int | str


def _from_dataclass(name: str, kind: type, convert: Any) -> type[_Section]:
    """A section with the fields and defaults of a frozen dataclass of proxy.limits."""
    defaults = kind()
    fields: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):
        default = getattr(defaults, entry.name)
        annotation = Annotated[type(default), BeforeValidator(convert(entry.name, default))]
        fields[entry.name] = (annotation, default)
    return create_model(name, __base__=_Section, **fields)


def _amount(name: str, default: object) -> Any:
    def convert(value: object) -> object:
        amount = to_seconds(value) if isinstance(default, float) else to_bytes(value)
        if amount < 0 or (amount == 0 and default != 0):
            raise ValueError("must be greater than 0")
        return amount

    return convert


def _as_is(name: str, default: object) -> Any:
    return lambda value: value


LimitsSection = _from_dataclass("LimitsSection", Limits, _amount)
TimesSection = _from_dataclass("TimesSection", FlowTimes, _amount)
ExceptionsSection = _from_dataclass("ExceptionsSection", ExceptionPolicies, _as_is)


class AdminSection(_Section):
    """The endpoint for metrics, health, status and reload."""

    listen: EndpointText = "127.0.0.1:15021"
    token: str = ""
    token_file: str = ""


class RedirectSection(_Section):
    """Where connections come from; the keys are those of RedirectOptions."""

    provider: Literal["static", "explicit", "nft"] = "static"
    upstream: EndpointText | None = None
    unredirected: Unredirected = Unredirected.REFUSE
    on_crash: OnCrash = OnCrash.CLOSED
    mark: int = DEFAULT_MARK
    ports: tuple[Port, ...] = tuple(str(ports) for ports in REDIRECT_PORTS)
    ipv4: bool = True
    ipv6: bool = True
    exclude: tuple[str, ...] = ()
    include_loopback: bool = False
    uid: int | None = None
    cgroup: str | None = None
    output: bool = True
    prerouting: tuple[str, ...] = ()
    nft_table: str = ""


class EventsSection(_Section):
    """Event records: a file, `-` for standard output, or nothing."""

    path: str | None = None
    log_query: bool = False


class Settings(_Section):
    """Everything that needs a restart. Frozen."""

    listen: EndpointText = "127.0.0.1:15001"
    policies: str | None = None
    loop: Literal["auto", "uvloop", "asyncio", "winloop"] = "auto"
    max_flows: int = Field(default=0, ge=0)
    admin: AdminSection = AdminSection()
    redirect: RedirectSection = RedirectSection()
    events: EventsSection = EventsSection()
    limits: LimitsSection = LimitsSection()  # type: ignore[valid-type]
    times: TimesSection = TimesSection()  # type: ignore[valid-type]
    exceptions: ExceptionsSection = ExceptionsSection()  # type: ignore[valid-type]

    def listen_endpoint(self) -> Endpoint:
        return Endpoint.parse(self.listen)

    def admin_endpoint(self) -> Endpoint:
        return Endpoint.parse(self.admin.listen)

    def admin_token(self) -> str | None:
        """The token itself, or the first line of its file. Raises SettingsError."""
        if not self.admin.token_file:
            return self.admin.token or None
        try:
            return Path(self.admin.token_file).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeError) as error:
            raise SettingsError([explain("admin.token_file", f"cannot be read: {error}")]) from None

    def policies_dir(self) -> Path:
        return Path(self.policies) if self.policies else default_policies_dir()

    def flow_limit(self) -> int:
        """`max_flows`, or what the limit of open files leaves room for."""
        return self.max_flows or max(16, (_open_files() - _FDS_RESERVED) // _FDS_PER_FLOW)

    def stream_config(self) -> StreamConfig:
        return StreamConfig(
            limits=Limits(**self.limits.model_dump()),  # type: ignore[attr-defined]
            exceptions=ExceptionPolicies(**self.exceptions.model_dump()),  # type: ignore[attr-defined]
        )

    def flow_times(self) -> FlowTimes:
        return FlowTimes(**self.times.model_dump())  # type: ignore[attr-defined]

    def redirect_options(self, listen: Endpoint, admin: Endpoint) -> RedirectOptions:
        """For the endpoints that were really bound. Raises RedirectError, SettingsError."""
        values = self.redirect.model_dump(exclude={"provider", "ports", "upstream"})
        try:
            ports = tuple(PortRange.parse(value) for value in self.redirect.ports)
        except ValueError as error:
            raise SettingsError([explain("redirect.ports", str(error))]) from None
        upstream = self.redirect.upstream
        return RedirectOptions(
            listen=listen,
            admin=admin,
            upstream=Endpoint.parse(upstream) if upstream else None,
            ports=ports,
            **values,
        )


def load_settings(
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    serving: bool = True,
) -> Settings:
    """Read, merge and check. `flags` maps dotted keys to values. Raises SettingsError.

    `serving`: also what only a service needs (an upstream for the static provider).
    """
    variables = os.environ if environment is None else environment
    settings = collect(Settings, path, variables, flags or {})
    if not serving:
        return settings
    problems = []
    for cidr in settings.redirect.exclude:
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError as error:
            problems.append(explain("redirect.exclude", str(error)))
    if settings.redirect.provider == "static" and settings.redirect.upstream is None:
        problems.append(
            explain("redirect.upstream", "provider static needs it: --upstream ADDRESS:PORT")
        )
    if problems:
        raise SettingsError(problems)
    try:
        settings.redirect_options(settings.listen_endpoint(), settings.admin_endpoint())
    except RedirectError as error:
        raise SettingsError([explain("redirect", str(error))]) from None
    return settings


def _open_files() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 16
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

"""Restart-only settings: one TOML file, then the environment, then flags; the later wins.

Every mistake is reported at once, with its place (file and line, or the variable's name), what
was expected and the nearest valid name. Limits, times and exception policies are the fields of
the dataclasses in `proxy.limits`, so that there is one list of them; `deploy/sluicegate.toml`
shows every key at its default.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
)

from proxy.errors import RedirectError, SettingsError
from proxy.limits import ExceptionPolicies, FlowTimes, Limits, OnException, StreamConfig
from proxy.model import Endpoint
from proxy.redirect.context_layouts import decoder
from proxy.redirect.options import (
    DEFAULT_MARK,
    DEFAULT_PORTS,
    Managed,
    OnCrash,
    PortRange,
    RedirectOptions,
    Unredirected,
)
from proxy.settings_callouts import CalloutSection
from proxy.settings_sources import CONFIG_VARIABLE, Sources
from proxy.units import to_bytes, to_seconds

_FDS_PER_FLOW = 2
_FDS_RESERVED = 128  #: listeners, policies, logs, the admin endpoint, and pipes for bulk
_Dataclass = TypeVar("_Dataclass", Limits, FlowTimes, ExceptionPolicies)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


# --- how values are written


def _endpoint(value: object) -> str:
    """ADDRESS:PORT of this machine or, for an upstream, of a name too; in canonical form."""
    endpoint = Endpoint.parse(str(value))
    if not endpoint.host:
        raise ValueError("expected ADDRESS:PORT; to listen everywhere write 0.0.0.0 or [::]")
    return str(endpoint)


def _address(value: object) -> str:
    if Endpoint.parse(_endpoint(value)).ip is None:
        raise ValueError("expected an IP address to listen on, not a name")
    return _endpoint(value)


def _upstream(value: object) -> str:
    if Endpoint.parse(_endpoint(value)).port == 0:
        raise ValueError("expected a port from 1 to 65535")
    return _endpoint(value)


def _or_none(value: object) -> object:
    """TOML has no null and an environment no absence: empty text is none."""
    return None if value == "" else value


def _integer(value: object) -> object:
    """`0x5347` in a variable, as TOML writes it in a file."""
    return int(value, 0) if isinstance(value, str) and value.startswith("0x") else value


def _port(value: object) -> str:
    return str(PortRange.parse(value if isinstance(value, int) else str(value)))


_Optional = BeforeValidator(_or_none)
_Listen = Annotated[str, BeforeValidator(_address)]
_Upstream = Annotated[str, BeforeValidator(_upstream)]
_Port = Annotated[str, BeforeValidator(_port)]
_User = Annotated[Annotated[int, Field(ge=0, lt=2**32 - 1)] | None, _Optional]


def _amount(default: int | float, *, zero: bool) -> Callable[[object], int | float]:
    """A size or a duration, as the default is; `zero`: 0 means none."""

    def convert(value: object) -> int | float:
        amount = to_seconds(value) if isinstance(default, float) else to_bytes(value)
        if amount == 0 and not zero:
            raise ValueError("must be greater than 0")
        return amount

    return convert


def _section_of(kind: type[_Dataclass]) -> type[_Section]:
    """A section with the fields and defaults of a frozen dataclass of proxy.limits."""
    fields: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):
        default = entry.default
        annotation: Any = type(default)
        if isinstance(default, int | float):
            zero = entry.metadata.get("zero", default == 0)
            annotation = Annotated[annotation, BeforeValidator(_amount(default, zero=zero))]
        fields[entry.name] = (annotation, default)
    return create_model(f"{kind.__name__}Section", __base__=_Section, **fields)


# --- the sections


class AdminSection(_Section):
    """The endpoint for metrics, health, status and reload."""

    listen: _Listen = "127.0.0.1:15021"
    token: str = Field(default="", repr=False)
    token_file: str = ""


class RedirectSection(_Section):
    """Where connections come from; the keys are those of RedirectOptions."""

    provider: Literal[
        "static",
        "explicit",
        "nft",
        "tproxy",
        "ebpf",
        "proxy-protocol",
        "wfp",
        "wfp-driver",
        "wfp-hns",
    ] = "static"
    upstream: Annotated[_Upstream | None, _Optional] = None
    unredirected: Unredirected = Unredirected.REFUSE
    on_crash: OnCrash = OnCrash.CLOSED
    managed: Managed = Managed.SELF
    mark: Annotated[int, BeforeValidator(_integer)] = DEFAULT_MARK
    ports: tuple[_Port, ...] = tuple(map(str, DEFAULT_PORTS))
    ipv4: bool = True
    ipv6: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include_loopback: bool = False
    uid: _User = None
    cgroup: Annotated[str | None, _Optional] = None
    exempt_uid: _User = None
    exempt_cgroups: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    block_quic: bool = False
    output: bool = True
    prerouting: tuple[str, ...] = ()
    nft_table: str = ""
    route_mark: Annotated[int, BeforeValidator(_integer)] = 0
    keep_client_address: bool = False
    trusted: tuple[str, ...] = ()
    context_layout: str = "sluicegate"
    context_fields: tuple[str, ...] = ()

    @field_validator(
        *("mark", "ports", "include", "exclude", "cgroup", "exempt_uid", "prerouting"),
        *("nft_table", "route_mark", "trusted", "context_layout", "context_fields"),
        *("exempt_cgroups", "foreign"),
    )
    @classmethod
    def _as_a_provider_takes_it(cls, value: Any, info: ValidationInfo) -> Any:
        """RedirectOptions knows what it accepts; asked key by key, each complaint has its place."""
        try:
            RedirectOptions(Endpoint("127.0.0.1", 1), **{str(info.field_name): value})
        except RedirectError as error:
            raise ValueError(str(error).removeprefix(f"{info.field_name}: ")) from None
        return value


class EventsSection(_Section):
    """Event records: a file, `-` for standard output, or nothing."""

    path: Annotated[str | None, _Optional] = None
    log_query: bool = False


LimitsSection = _section_of(Limits)
TimesSection = _section_of(FlowTimes)
ExceptionsSection = _section_of(ExceptionPolicies)


class Settings(_Section):
    """Everything that needs a restart. Frozen."""

    listen: _Listen = "127.0.0.1:15001"
    policies: Annotated[str | None, _Optional] = None
    loop: Literal["auto", "uvloop", "asyncio", "winloop"] = "auto"
    max_flows: int = Field(default=0, ge=0)
    offload: bool = True
    admin: AdminSection = AdminSection()
    redirect: RedirectSection = RedirectSection()
    events: EventsSection = EventsSection()
    limits: LimitsSection = LimitsSection()  # type: ignore[valid-type]
    times: TimesSection = TimesSection()  # type: ignore[valid-type]
    exceptions: ExceptionsSection = ExceptionsSection()  # type: ignore[valid-type]
    callouts: tuple[CalloutSection, ...] = ()

    @field_validator("callouts")
    @classmethod
    def _names_differ(cls, value: tuple[CalloutSection, ...]) -> tuple[CalloutSection, ...]:
        names = [callout.name for callout in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are two called {name!r}")
        return value

    def listen_endpoint(self) -> Endpoint:
        return Endpoint.parse(self.listen)

    def admin_endpoint(self) -> Endpoint:
        return Endpoint.parse(self.admin.listen)

    def admin_token(self) -> str | None:
        """The token itself, or the text of its file; None where there is none.

        Raises SettingsError when the file cannot be read.
        """
        if not self.admin.token_file:
            return self.admin.token or None
        return _read_token(Path(self.admin.token_file))

    def policies_dir(self) -> Path:
        """The directory of policies; the shipped ones where none is named."""
        from proxy.policy.store import default_policies_dir

        return Path(self.policies) if self.policies else default_policies_dir()

    def flow_limit(self) -> int:
        """`max_flows`, or what the limit of open files leaves room for."""
        return self.max_flows or max(16, (_open_files() - _FDS_RESERVED) // _FDS_PER_FLOW)

    def stream_config(self) -> StreamConfig:
        return StreamConfig(
            limits=_filled(Limits, self.limits),
            exceptions=_filled(ExceptionPolicies, self.exceptions),
        )

    def flow_times(self) -> FlowTimes:
        return _filled(FlowTimes, self.times)

    def redirect_options(self, listen: Endpoint, admin: Endpoint | None) -> RedirectOptions:
        """For the endpoints that were really bound."""
        values = self.redirect.model_dump(exclude={"provider", "ports", "upstream"})
        if self.stream_config().exceptions.no_redirect_info is OnException.OPEN:
            values["unredirected"] = Unredirected.ALLOW  # the same choice, by its other name
        upstream = self.redirect.upstream
        return RedirectOptions(
            listen=listen,
            admin=admin,
            upstream=Endpoint.parse(upstream) if upstream else None,
            ports=tuple(PortRange.parse(value) for value in self.redirect.ports),
            **values,
        )


def load_settings(
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    flag_names: Mapping[str, str] | None = None,
    serving: bool = True,
) -> Settings:
    """Read, merge and check. Raises SettingsError.

    `flags` maps dotted keys to values, `flag_names` to what a complaint calls them; without
    `path` the variable SLUICEGATE_CONFIG names the file. `serving`: also what only a service
    needs.
    """
    variables = os.environ if environment is None else environment
    if path is None and variables.get(CONFIG_VARIABLE):
        path = Path(variables[CONFIG_VARIABLE])
    sources = Sources(Settings, path, variables)
    for key, value in (flags or {}).items():
        sources.put(key, value, (flag_names or {}).get(key, "--set"))
    settings = sources.validate(Settings)
    for number, callout in enumerate(settings.callouts):
        callout.stand(sources.problem(f"callouts.{number}", ""))
    if serving:
        _check_together(settings, sources)
    return settings


def _check_together(settings: Settings, sources: Sources) -> None:
    """What is wrong only in combination. Raises SettingsError."""
    problems = []
    redirect, admin = settings.redirect, settings.admin
    if redirect.provider == "static" and redirect.upstream is None:
        message = "provider static needs a destination"
        problems.append(sources.problem("redirect.upstream", message, "--upstream ADDRESS:PORT"))
    if redirect.provider in ("nft", "tproxy") and not (redirect.ipv4 or redirect.ipv6):
        problems.append(sources.problem("redirect.ipv4", "with ipv6 off too, nothing is captured"))
    if redirect.provider == "nft" and not (redirect.output or redirect.prerouting):
        message = "with no interface in prerouting either, nothing is captured"
        problems.append(sources.problem("redirect.output", message))
    if redirect.provider == "wfp":
        try:
            decoder(redirect.context_layout, redirect.context_fields)
        except RedirectError as error:
            problems.append(sources.problem("redirect.context_fields", str(error)))
    if redirect.provider == "proxy-protocol" and not redirect.trusted:
        message = "provider proxy-protocol must know whose headers to believe"
        problems.append(sources.problem("redirect.trusted", message, 'such as ["10.0.0.5"]'))
    if redirect.provider == "tproxy" and not redirect.prerouting:
        message = "provider tproxy captures what arrives on interfaces; name them"
        problems.append(sources.problem("redirect.prerouting", message, 'such as ["eth1"]'))
    if admin.token and admin.token_file:
        message = "there is a token already; keep one of the two"
        problems.append(sources.problem("admin.token_file", message))
    if settings.listen == admin.listen and settings.listen_endpoint().port:
        message = f"{admin.listen} is the listener's own address"
        problems.append(sources.problem("admin.listen", message))
    if problems:
        raise SettingsError(problems)


def _filled(kind: type[_Dataclass], section: BaseModel) -> _Dataclass:
    return kind(**section.model_dump())


def _read_token(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeError) as error:
        message = f"{path} cannot be read: {error}"
    raise SettingsError([Sources(Settings, None, {}).problem("admin.token_file", message)])


def _open_files() -> int:
    """The limit of open files as it is now."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 16
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft

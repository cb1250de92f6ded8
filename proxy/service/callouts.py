"""Load the callouts that the settings name, and find every mistake before there is traffic.

A callout is foreign code: whatever it raises at import or on trial becomes a complaint with the
place of its `[[callouts]]` table (`SettingsError`), never a traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from proxy.api import Interest
from proxy.callouts.out_of_band import OutOfBandStage
from proxy.callouts.registration import ConnectionRegistration, HttpRegistration
from proxy.contract import FlowHandle, Mode
from proxy.engine.registration import Registration
from proxy.engine.stages import PROTOCOL_WEIGHT
from proxy.errors import Problem, SettingsError
from proxy.service.trial import TrialFlow
from proxy.settings_callouts import CalloutSection

_METHODS = {
    Interest.REQUEST: "request",
    Interest.RESPONSE: "response",
    Interest.REQUEST_BODY: "body",
    Interest.RESPONSE_BODY: "body",
    Interest.REQUEST_DATA: "data",
    Interest.RESPONSE_DATA: "data",
}
_WANTED = {
    "stream": "(flow: FlowHandle, options)",
    "http": "(flow: FlowInfo, options)",
    "connection": "(options)",
}


@dataclass(frozen=True, slots=True)
class LoadedCallouts:
    """By type, in order of weight from high to low."""

    streams: tuple[Registration, ...] = ()
    http: tuple[HttpRegistration, ...] = ()
    connections: tuple[ConnectionRegistration, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of them; what metrics may be labelled with."""
        streams = [one.name for one in self.streams]
        http = [one.name for one in self.http]
        return (*streams, *http, *(one.name for one in self.connections))


def load_callouts(sections: Sequence[CalloutSection]) -> LoadedCallouts:
    """Import, try and register. Raises SettingsError with every problem."""
    loader, problems = _Loader(), list[Problem]()
    for section in sorted(sections, key=lambda one: -one.weight):
        try:
            loader.load(section)
        except _Unusable as error:
            problems.append(section.problem(str(error), error.hint))
    if problems:
        raise SettingsError(problems)
    return LoadedCallouts(tuple(loader.streams), tuple(loader.http), tuple(loader.connections))


class _Unusable(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class _Loader:
    """A file that several callouts come from is loaded once."""

    def __init__(self) -> None:
        self.streams: list[Registration] = []
        self.http: list[HttpRegistration] = []
        self.connections: list[ConnectionRegistration] = []
        self._files: dict[Path, ModuleType] = {}

    def load(self, section: CalloutSection) -> None:
        """Raises _Unusable."""
        factory = self._factory(section)
        match section.type:
            case "stream":
                self.streams.append(_stream(section, factory))
            case "http":
                self.http.append(_http(section, factory))
            case "connection":
                self.connections.append(_connection(section, factory))

    def _factory(self, section: CalloutSection) -> Callable[..., Any]:
        where, name = section.factory
        module = _imported(where) if section.module else self._file(section.base / where)
        factory: Callable[..., Any] | None = getattr(module, name, None)
        if factory is None:
            there = [one for one in vars(module) if callable(vars(module)[one]) and one[0] != "_"]
            raise _Unusable(
                f"there is no {name!r} in {where}",
                f"write {where}:NAME with one of {', '.join(there[:8])}" if there else "",
            )
        if not callable(factory):
            raise _Unusable(f"{name!r} in {where} is a {type(factory).__name__}, not a factory")
        if inspect.iscoroutinefunction(factory):
            raise _Unusable(f"the factory {name!r} is a coroutine function", "write a plain one")
        return factory

    def _file(self, path: Path) -> ModuleType:
        path = path.resolve()
        if path not in self._files:
            self._files[path] = _from_file(path)
        return self._files[path]


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            hint = "install it, or name its file with path = '...'"
            raise _Unusable(f"there is no module {error.name!r}", hint) from None
        raise _failed(f"module {name}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"module {name}", error) from error


def _from_file(path: Path) -> ModuleType:
    """Execute a file as a module of its own, under a name that hides no other."""
    if not path.is_file():
        raise _Unusable(f"there is no file {path}", "a relative path counts from the settings file")
    name = f"sluicegate_callout_{abs(hash(path)):x}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _Unusable(f"{path} is not a Python file", "its name ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed(str(path), error) from error
    return module


def _failed(what: str, error: BaseException) -> _Unusable:
    """Where in the author's file it happened: the innermost frame."""
    frame, line = error.__traceback__, 0
    while frame is not None:
        line, code = frame.tb_lineno, frame.tb_frame.f_code.co_filename
        frame = frame.tb_next
    if isinstance(error, SyntaxError):
        line, code = error.lineno or 0, error.filename or what
    return _Unusable(f"{what} fails: {type(error).__name__}: {error} ({Path(code).name}:{line})")


# --- one by one


def _stream(section: CalloutSection, factory: Callable[..., Any]) -> Registration:
    def make(flow: FlowHandle) -> Any:
        return factory(flow, section.options)

    trial = _try(section, factory, TrialFlow(), section.options)
    waits = _coroutine(section, trial, "classify")
    for method in ("signal", "closed"):
        if _coroutine(section, trial, method):
            raise _Unusable(f"{method}() is a coroutine function", "only classify() may wait")
    inline = section.mode is Mode.INLINE
    if waits and inline:
        raise _Unusable("classify() is a coroutine function", "write mode = 'out_of_band'")
    trial.closed("trial")
    return Registration(
        name=section.name,
        weight=PROTOCOL_WEIGHT + section.weight,
        kind=section.kind,
        mode=section.mode,
        make=(lambda flow: OutOfBandStage(flow, make, section.timeout)) if waits else make,
        on_error=section.on_error,
    )


def _http(section: CalloutSection, factory: Callable[..., Any]) -> HttpRegistration:
    def make(flow: Any) -> Any:
        return factory(flow, section.options)

    trial = _try(section, factory, TrialFlow().info, section.options)
    for interest, method in _METHODS.items():
        if interest in section.interests:
            _check_mode(section, method, waits=_coroutine(section, trial, method))
    return HttpRegistration(
        name=section.name,
        weight=section.weight,
        kind=section.kind,
        mode=section.mode,
        interest=section.interests,
        make=make,
        timeout=section.timeout,
        on_error=section.on_error,
        body_bytes=section.body_bytes,
    )


def _connection(section: CalloutSection, factory: Callable[..., Any]) -> ConnectionRegistration:
    callout = _try(section, factory, section.options)
    _check_mode(section, "authorise", waits=_coroutine(section, callout, "authorise"))
    return ConnectionRegistration(
        name=section.name,
        weight=section.weight,
        mode=section.mode,
        callout=callout,
        timeout=section.timeout,
        on_error=section.on_error,
    )


def _try(section: CalloutSection, factory: Callable[..., Any], *arguments: object) -> Any:
    """The factory's product. What it raises is told as the author's or the options' mistake."""
    try:
        inspect.signature(factory).bind(*arguments)
    except TypeError as error:
        hint = f"it takes {_WANTED[section.type]}"
        raise _Unusable(f"its factory cannot be called: {error}", hint) from None
    except ValueError:
        pass  # written in C: it does not tell its signature
    try:
        made = factory(*arguments)
    except Exception as error:
        raise _failed(f"its factory, called with {_keys(section.options)},", error) from error
    if inspect.isawaitable(made):
        raise _Unusable("its factory returned an awaitable", "return the callout itself")
    return made


def _keys(options: dict[str, Any]) -> str:
    """Names of options only: values may be secrets."""
    return f"options {', '.join(sorted(options))}" if options else "no options"


def _coroutine(section: CalloutSection, callout: object, method: str) -> bool:
    """Whether a method is a coroutine function. Raises _Unusable when there is no such method."""
    found = getattr(callout, method, None)
    if not callable(found):
        hint = f"it is registered with type = {section.type!r}"
        if section.type == "stream":
            hint += "; derive from proxy.api.StreamBase to have signal() and closed()"
        elif section.type == "http":
            hint += f" and interest = {list(section.interest)}"
        raise _Unusable(f"{type(callout).__name__} has no method {method}()", hint)
    return inspect.iscoroutinefunction(found)


def _check_mode(section: CalloutSection, method: str, *, waits: bool) -> None:
    if waits and section.mode is Mode.INLINE:
        raise _Unusable(f"{method}() is a coroutine function", "write mode = 'out_of_band'")
    if not waits and section.mode is Mode.OUT_OF_BAND:
        hint = f"write async def {method}, or mode = 'inline'"
        raise _Unusable(f"{method}() is a plain function", hint)

"""`sluicegate redirect up|confirm|down|status`: a redirect that stands apart from its proxy.

`up` installs what the settings and flags say, for a proxy that runs (or will run) as another
process with `redirect.managed = "external"`; `down` removes exactly that. What was made is noted
below /run, so that neither needs the other's settings.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.verbs.output import FINDINGS, GREEN, OK, RED, YELLOW, paint, print_json

if TYPE_CHECKING:
    from proxy.redirect.external import LastingProvider
    from proxy.redirect.options import OnCrash
    from proxy.redirect.standing import Notes, Record
    from proxy.settings import Settings

_LISTS = ("ports", "include", "exclude", "prerouting")
_USERS = ("uid", "exempt_uid")
#: From a flag's name to the setting that it overrides.
_FLAGS = {
    "provider": "redirect.provider",
    "listen": "listen",
    "cgroup": "redirect.cgroup",
    **{name: f"redirect.{name}" for name in (*_USERS, *_LISTS)},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")
    up = verbs.add_parser("up", help="install it; it stays until `down`")
    _up_arguments(up)
    for name, text in (
        ("confirm", "keep a redirect that is on trial"),
        ("down", "remove it, and exactly it"),
        ("status", "what is installed, whose, and whether it is whole"),
    ):
        sub = verbs.add_parser(name, help=text, description=text)
        sub.add_argument("--listen", metavar="ADDR:PORT", help="only the one to this listener")
        _shared_arguments(sub)


def _up_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="settings file (TOML), the proxy's own")
    add("--provider", choices=("nft", "tproxy", "ebpf"), help="how (default: settings, else nft)")
    add("--listen", metavar="ADDR:PORT", help="the proxy's listener")
    add("--uid", metavar="USER", help="only this user's connections")
    add("--cgroup", metavar="PATH", help="only connections of this cgroup v2 and below")
    add("--ports", metavar="LIST", help="destination ports, such as 80,443,8000-8100")
    add("--include", "--cidr", metavar="CIDRS", help="only to these networks")
    add("--exclude", metavar="CIDRS", help="not to these networks")
    add("--prerouting", "--interface", metavar="NAMES", help="what arrives there (a router)")
    add("--exempt-uid", metavar="USER", help="the unprivileged user whom the proxy runs as")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="any other setting")
    add("--confirm", metavar="TIME", help="take it back unless `redirect confirm` comes in time")
    _shared_arguments(parser)


def _shared_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", metavar="DIR", type=Path, help="where it is noted")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    actions = {"up": _up, "confirm": _confirm, "down": _down, "status": _status}
    return actions[arguments.action](arguments, _notes(arguments))


# --- actions


def _up(arguments: argparse.Namespace, notes: Notes) -> int:
    from proxy.redirect.options import OnCrash
    from proxy.redirect.trial import Trial, begin, make
    from proxy.units import to_seconds

    settings = _settings(arguments)
    record = _record(settings)
    staying = _provider(record, OnCrash.CLOSED)
    _check_free(notes, record)
    if arguments.confirm is None:
        record = make(notes, record, staying)
    else:
        try:
            seconds = to_seconds(arguments.confirm)
        except ValueError as error:
            raise _usage("--confirm", str(error)) from None
        begin(Trial(notes, record, _provider(record, OnCrash.OPEN), staying, seconds))
        record = notes.get(record.port) or record
    return _show([record], as_json=arguments.json)


def _confirm(arguments: argparse.Namespace, notes: Notes) -> int:
    from proxy.errors import RedirectError
    from proxy.redirect.standing import State
    from proxy.redirect.trial import confirm

    trials = [one for one in _chosen(arguments, notes) if one.state is State.TRIAL]
    if not trials:
        raise RedirectError("no redirect is on trial (its time may be over: `redirect status`)")
    return _show([confirm(notes, one) for one in trials], as_json=arguments.json)


def _down(arguments: argparse.Namespace, notes: Notes) -> int:
    from proxy.redirect.options import OnCrash
    from proxy.redirect.trial import end

    gone = _chosen(arguments, notes)
    for record in gone:
        end(record)
        provider = _provider(record, OnCrash.CLOSED)
        provider.adopt()
        provider.remove()
        notes.delete(record.port)
    if arguments.json:
        print_json({"removed": [_listener(record) for record in gone]})
    else:
        for record in gone:
            print(f"removed: {record.provider} to {_listener(record)}")
        if not gone:
            print("nothing is installed")
    return OK


def _status(arguments: argparse.Namespace, notes: Notes) -> int:
    return _show(_chosen(arguments, notes), as_json=arguments.json)


# --- what they share


def _notes(arguments: argparse.Namespace) -> Notes:
    from proxy.redirect.standing import STATE, Notes

    return Notes(arguments.state or STATE)


def _chosen(arguments: argparse.Namespace, notes: Notes) -> list[Record]:
    """All in this network namespace, or the one to `--listen`."""
    from proxy.model import Endpoint

    if arguments.listen is None:
        return notes.all()
    try:
        port = Endpoint.parse(arguments.listen).port
    except ValueError as error:
        raise _usage("--listen", str(error)) from None
    found = notes.get(port)
    return [] if found is None else [found]


def _settings(arguments: argparse.Namespace) -> Settings:
    """The proxy's settings under the flags; what makes no sense apart from it is refused."""
    from proxy.redirect.options import OnCrash
    from proxy.settings import load_settings

    flags: dict[str, object] = {}
    for pair in arguments.set:
        key, _, value = pair.partition("=")
        flags[key.strip()] = value.strip()
    for name, key in _FLAGS.items():
        if (value := getattr(arguments, name)) is not None:
            flags[key] = _user_id(name, value) if name in _USERS else value
    names = {key: f"--{name.replace('_', '-')}" for name, key in _FLAGS.items()}
    settings = load_settings(arguments.config, flags=flags, flag_names=names, serving=False)
    if settings.listen_endpoint().port == 0:
        raise _usage("--listen", "name the port on which the proxy listens")
    if settings.redirect.on_crash is OnCrash.OPEN:
        raise _usage(
            "redirect.on_crash", "a redirect that stands apart from the proxy stays when it dies"
        )
    return settings


def _record(settings: Settings) -> Record:
    """Of a redirect that is not made yet. Where settings name no redirector it is nft."""
    import time

    from proxy.redirect.standing import Record, this_space

    kept = settings.model_dump(mode="json", include={"listen", "redirect"})
    kept["admin"] = {"listen": settings.admin.listen}
    kept["redirect"]["managed"] = "self"
    if settings.redirect.provider == "static":
        kept["redirect"]["provider"] = "nft"
    return Record(
        space=this_space(),
        port=settings.listen_endpoint().port,
        provider=kept["redirect"]["provider"],
        settings=kept,
        made_at=time.time(),
        made_by=os.environ.get("SUDO_USER") or _user_name(os.geteuid()),
    )


def _provider(record: Record, on_crash: OnCrash) -> LastingProvider:
    """Made of what is noted, so that `down` works without the settings. Raises RedirectError."""
    from proxy.redirect.external import lasting
    from proxy.redirect.registry import make_provider
    from proxy.settings import Settings

    settings = Settings.model_validate(record.settings)
    options = settings.redirect_options(settings.listen_endpoint(), settings.admin_endpoint())
    return lasting(make_provider(record.provider, replace(options, on_crash=on_crash)))


def _check_free(notes: Notes, record: Record) -> None:
    """Again is harmless; but a trial, or another provider's redirect, must be ended first."""
    from proxy.errors import RedirectError
    from proxy.redirect.standing import State

    there = notes.get(record.port)
    if there is None:
        return
    if there.state is State.TRIAL and there.watching() is not None:
        raise RedirectError("a redirect to this listener is on trial: confirm it or take it down")
    if _made_of(there) != _made_of(record):
        raise RedirectError(
            f"another redirect to {_listener(there)} is installed ({there.provider}): "
            "sluicegate redirect down"
        )


def _made_of(record: Record) -> tuple[object, ...]:
    """What says where a redirect is; the rest may change by installing it again."""
    redirect = record.settings["redirect"]
    return record.provider, *(redirect[key] for key in ("nft_table", "route_mark", "cgroup"))


def _usage(place: str, message: str) -> Exception:
    from proxy.errors import Problem, SettingsError

    return SettingsError([Problem(place, 0, 0, message)])


def _user_id(flag: str, value: str) -> int:
    """A user's number, from its name or number."""
    if value.isdecimal():
        return int(value)
    try:
        import pwd

        return pwd.getpwnam(value).pw_uid
    except (ImportError, KeyError):
        raise _usage(f"--{flag.replace('_', '-')}", f"there is no user {value!r}") from None


def _user_name(number: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


# --- what is said


def _show(records: list[Record], *, as_json: bool) -> int:
    from proxy.verbs.redirect_story import story

    told = [story(record, _provider) for record in records]
    if as_json:
        print_json({"redirects": told})
    else:
        for one in told:
            colour = {True: GREEN, False: RED}.get(one["whole"], YELLOW)
            print(f"{paint(colour, one['state'])}: {one['provider']} to {one['listen']}")
            for key in ("scope", "made", "detail", "proxy", "trial"):
                if one[key]:
                    print(f"  {key:8} {one[key]}")
        if not told:
            print("no redirect is installed by `sluicegate redirect up`")
    return FINDINGS if any(one["whole"] is False for one in told) else OK


def _listener(record: Record) -> str:
    return str(record.settings["listen"])

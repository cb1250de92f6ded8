"""`sluicegate service`: Sluicegate as a service of this machine, under systemd or on Windows."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import StartError
from proxy.verbs.output import FINDINGS, GREEN, GREY, OK, paint, print_json, shown

if TYPE_CHECKING:
    from proxy.service.installation import Installer, Step

_ACTS = {
    "install": "write the systemd unit, or make the Windows service",
    "uninstall": "stop it and remove it",
    "status": "is it installed, is it running",
    "host": "what Windows' service manager starts; not for people",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    acts = "; ".join(f"{act}: {text}" for act, text in _ACTS.items())
    add("act", choices=tuple(_ACTS), metavar="|".join(_ACTS), help=acts)
    add("--name", default="sluicegate", help="of the service (default: sluicegate)")
    add("--config", metavar="FILE", type=Path, help="settings file that the service runs with")
    add("--user", default="sluicegate", help="systemd: run as this user (default: sluicegate)")
    add("--root", metavar="DIR", type=Path, default=Path("/"), help="systemd: install below DIR")
    add("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    add("--json", action="store_true", help="status: print JSON")


def run(arguments: argparse.Namespace) -> int:
    from proxy.service.installation import make_installer

    if arguments.act == "host":
        return _host(arguments)
    _check_name(arguments.name)
    installer = make_installer(arguments.name, arguments.root)
    if arguments.act == "install":
        return _install(arguments, installer)
    if arguments.act == "uninstall":
        return _uninstall(arguments, installer)
    return _status(arguments, installer)


def _install(arguments: argparse.Namespace, installer: Installer) -> int:
    config = arguments.config
    if config is not None and not config.is_file():
        raise StartError(f"there is no settings file {config}")
    _carry_out(installer.plan_install(config, arguments.user), dry=arguments.dry_run)
    if not arguments.dry_run:
        print(paint(GREEN, "installed; ") + installer.after_install(arguments.user))
    return OK


def _uninstall(arguments: argparse.Namespace, installer: Installer) -> int:
    steps = installer.plan_uninstall()
    if not steps:
        print(f"there is no service {arguments.name}")
        return FINDINGS
    _carry_out(steps, dry=arguments.dry_run)
    return OK


def _carry_out(steps: list[Step], *, dry: bool) -> None:
    for step in steps:
        print(paint(GREY, f"would {step.text}") if dry else step.text)
        if not dry:
            step.act()


def _status(arguments: argparse.Namespace, installer: Installer) -> int:
    report = installer.report()
    if arguments.json:
        print_json(asdict(report))
    else:
        for key, value in asdict(report).items():
            print(f"{key:10} {shown(value)}")
    return OK if report.running else FINDINGS


def _check_name(name: str) -> None:
    """A file's name on Linux, a key's on Windows."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise StartError(f"{name!r} is not a name for a service: letters, digits, - and _")


def _host(arguments: argparse.Namespace) -> int:
    from proxy.service.scm import WindowsDispatcher
    from proxy.service.windows_service import WindowsService
    from proxy.settings import load_settings

    dispatcher = WindowsDispatcher(arguments.name)
    WindowsService(dispatcher, lambda: load_settings(arguments.config)).run()
    return OK

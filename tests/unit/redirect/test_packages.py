"""The package of a process, by the names that snapd, Flatpak and systemd give control groups."""

from __future__ import annotations

import pytest

from proxy.redirect.packages import package_of_cgroup

_USER = "/user.slice/user-1000.slice/user@1000.service/app.slice"


@pytest.mark.parametrize(
    ("cgroup", "package"),
    [
        (
            f"{_USER}/snap.firefox.firefox-5d7a2f0c-1111-2222-3333-444455556666.scope",
            "snap:firefox",
        ),
        (f"{_USER}/snap.firefox.geckodriver.5d7a2f0c-1111-2222.scope", "snap:firefox"),
        ("/system.slice/snap.lxd.daemon.service", "snap:lxd"),
        ("/system.slice/snap.app_second.daemon.service", "snap:app_second"),
        (f"{_USER}/app-flatpak-org.mozilla.firefox-12345.scope", "flatpak:org.mozilla.firefox"),
        (f"{_USER}/app-flatpak-org.x.a\\x2db-7.scope/child", "flatpak:org.x.a-b"),
        (f"{_USER}/app-gnome-org.gnome.Terminal-99.scope", ""),
        ("/system.slice/snapd.service", ""),
        ("/system.slice/mysnap.firefox.x.service", ""),
        ("/system.slice/docker-4f2a77e0.scope", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_the_group_names_the_package(cgroup: str, package: str) -> None:
    assert package_of_cgroup(cgroup) == package

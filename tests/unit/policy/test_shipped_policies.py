"""The policies that ship: they load, each alone and all together, and do what they promise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from proxy.anomalies import ANOMALIES
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, Protocol, RedirectInfo
from proxy.policy.facts import Facts
from proxy.policy.generation import Generation
from proxy.policy.ruling import Ruling
from proxy.policy.store import PolicyStore, check_directory, default_policies_dir

POLICIES = Path(__file__).parents[3] / "policies"
EXAMPLES = sorted(
    set((POLICIES / "examples").glob("*.yaml")) - set((POLICIES / "examples").glob("*_test.yaml"))
)


def load(directory: Path) -> Generation:
    store = PolicyStore(directory, lambda result: None)
    store.load_initial()
    return store.current


@pytest.fixture(scope="module")
def baseline() -> Generation:
    return load(POLICIES)


@pytest.fixture(scope="module")
def examples() -> Generation:
    return load(POLICIES / "examples")


#: A program that no example names: one that is unknown would count as those that are blocked.
PROGRAM = Principal(pid=7, exe="/usr/bin/thunderbird", uid=1000, confidence=Confidence.EXACT)


def info(dst: str = "192.0.2.1:80") -> FlowInfo:
    redirect = RedirectInfo(
        "ebpf", Endpoint.parse(dst), Endpoint.parse("10.0.0.9:4000"), principal=PROGRAM
    )
    return FlowInfo(id="f", redirect=redirect, opened_at=0.0)


def connect(generation: Generation, dst: str) -> Ruling:
    return generation.decide(Layer.AUTH_CONNECT, Facts(flow=info(dst), wall=0.0))


def fields(headers: dict[str, str]) -> tuple[Field, ...]:
    return tuple(Field(k.encode(), k.lower().encode(), v.encode()) for k, v in headers.items())


def ask(
    generation: Generation, host: str, path: str, method: str = "GET", **headers: str
) -> Ruling:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    head = RequestHead(
        b"1.1", fields({"Host": host, **named}), method=method.encode(), target=path.encode()
    )
    return generation.decide(Layer.HTTP_REQUEST, Facts(flow=info(), wall=0.0, request=head))


def answered(
    generation: Generation, headers: dict[str, str], status: int = 200, sniffed: str | None = None
) -> Ruling:
    asked = RequestHead(b"1.1", fields({"Host": "x.test"}), method=b"GET", target=b"/")
    head = ResponseHead(b"1.1", fields(headers), status=status)
    return generation.decide(
        Layer.HTTP_RESPONSE,
        Facts(flow=info(), wall=0.0, request=asked, response=head, sniffed=sniffed),
    )


def hits(ruling: Ruling) -> list[str]:
    return [hit.rule for hit in ruling.hits]


# --- all of them ---------------------------------------------------------------------------


def test_only_the_baseline_is_on_by_default(baseline: Generation) -> None:
    assert baseline.policies == ("baseline",)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_works_beside_the_baseline(path: Path, tmp_path: Path) -> None:
    shutil.copy(POLICIES / "baseline.yaml", tmp_path)
    shutil.copy(path, tmp_path)
    for folder in ("lists", "pages", "local"):
        shutil.copytree(POLICIES / "examples" / folder, tmp_path / folder)
    report = check_directory(tmp_path)
    assert report.problems == ()
    assert report.policies == tuple(sorted(["baseline", path.stem]))


@pytest.mark.parametrize("path", [*EXAMPLES, POLICIES / "baseline.yaml"], ids=lambda p: p.stem)
def test_each_names_the_schema_and_describes_itself(path: Path) -> None:
    first, *_, text = path.read_text(encoding="utf-8").split("\n", 1)
    _, _, where = first.partition("$schema=")
    assert (path.parent / where).resolve() == (POLICIES / "policy.schema.json").resolve()
    assert "\ndescription: " in text


def test_the_shipped_policies_are_found_in_a_checkout() -> None:
    assert default_policies_dir() == POLICIES


# --- the baseline --------------------------------------------------------------------------


def test_the_baseline_forbids_no_offload(baseline: Generation) -> None:
    """Its rules look at connections only: no layer that needs the bytes."""
    assert set(baseline.layers) == {Layer.AUTH_CONNECT}


def test_the_baseline_is_not_evaded_by_another_version_of_http(baseline: Generation) -> None:
    """It refuses irregular HTTP, so HTTP that cannot be inspected is not let pass unseen."""
    assert baseline.protocols == {Protocol.HTTP1}


def test_the_baseline_says_what_holds_without_it(baseline: Generation) -> None:
    found = {name: baseline.anomaly_action(name) for name in ANOMALIES}
    assert found == {name: anomaly.default for name, anomaly in ANOMALIES.items()}


@pytest.mark.parametrize(
    ("dst", "blocked"),
    [
        ("192.0.2.1:80", False),
        ("192.0.2.1:443", False),
        ("192.0.2.1:22", False),
        ("192.0.2.1:3389", False),
        ("192.0.2.1:514", False),
        ("192.0.2.1:23", True),
        ("10.0.0.1:23", True),
        ("192.0.2.1:513", True),
        ("198.51.100.1:445", True),
        ("[2001:db8::1]:445", True),
        ("10.1.2.3:445", False),
        ("172.31.0.1:139", False),
        ("172.32.0.1:139", True),
        ("[fd00::1]:445", False),
        ("169.254.169.254:80", False),
    ],
)
def test_baseline_ports(baseline: Generation, dst: str, blocked: bool) -> None:
    assert connect(baseline, dst).blocked is blocked


@pytest.mark.parametrize("dst", ["169.254.169.254:80", "[fd00:ec2::254]:80", "100.100.100.200:80"])
def test_asking_for_cloud_credentials_is_reported(baseline: Generation, dst: str) -> None:
    (hit,) = connect(baseline, dst).hits
    assert (hit.rule, hit.shadow, hit.severity) == ("baseline-cloud-metadata", True, "high")


def test_a_permit_in_a_lighter_sublayer_overrides_the_baseline(tmp_path: Path) -> None:
    shutil.copy(POLICIES / "baseline.yaml", tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "version: 1\npolicy: mine\nrules: [{id: lab, layer: auth_connect,"
        " when: {dst.ip: 192.0.2.0/24, dst.port: 23}, then: {permit: true}}]\n"
    )
    mine = load(tmp_path)
    assert not connect(mine, "192.0.2.1:23").blocked
    assert connect(mine, "198.51.100.1:23").blocked


# --- the examples --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "blocked"),
    [
        ("ads.example", True),
        ("cdn.ads.example", True),
        ("metrics.test", True),
        ("notads.example", False),
        ("example", False),
    ],
)
def test_ad_hosts(examples: Generation, host: str, blocked: bool) -> None:
    assert ask(examples, host, "/").blocked is blocked


@pytest.mark.parametrize(
    ("host", "path", "blocked"),
    [
        ("dl.test", "/setup.exe", True),
        ("dl.test", "/SETUP.EXE", True),
        ("dl.test", "/setup%2eexe", True),
        ("dl.test", "/setup.exe.html", False),
        ("dl.test", "/example.com", False),
        ("packages.example.org", "/x.apk", False),
    ],
)
def test_programs_by_name(examples: Generation, host: str, path: str, blocked: bool) -> None:
    assert ask(examples, host, path).blocked is blocked


def test_programs_by_what_the_response_is(examples: Generation) -> None:
    image = {"Content-Type": "image/png"}
    assert not answered(examples, image, sniffed="image/png").blocked
    assert (
        answered(examples, image, sniffed="application/x-msdownload").rule == "exe-by-first-bytes"
    )
    named = {"Content-Disposition": 'attachment; filename="Invoice.EXE"'}
    assert answered(examples, named).rule == "exe-by-disposition"
    declared = {"Content-Type": "application/x-msdownload; x=y"}
    assert answered(examples, declared).rule == "exe-by-declared-type"


def test_plaintext_credentials_are_reported_and_nothing_else(examples: Generation) -> None:
    basic = ask(examples, "x.test", "/", Authorization="Basic dTpw")
    assert "cleartext-basic" in hits(basic)
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert "cleartext-login-form" in hits(ask(examples, "x.test", "/user/login", "POST", **form))
    assert "cleartext-login-form" not in hits(ask(examples, "x.test", "/blogindex", "POST", **form))
    assert "cleartext-password-in-query" in hits(ask(examples, "x.test", "/?a=1&Password=x"))
    assert "cleartext-basic-asked" in hits(answered(examples, {"WWW-Authenticate": "Basic"}, 401))
    ftp = connect(examples, "192.0.2.1:21")
    assert hits(ftp) == ["cleartext-protocols"]
    for ruling in (basic, ftp):
        assert not ruling.blocked


def test_a_banner_for_pages_only(examples: Generation) -> None:
    html, image = {"Content-Type": "text/html"}, {"Content-Type": "image/png"}
    assert "banner-html" in hits(answered(examples, html))
    assert "banner-html" not in hits(answered(examples, html, 404))
    assert "banner-html" not in hits(answered(examples, image))


def test_headers_that_are_there_are_not_added_again(examples: Generation) -> None:
    html = {"Content-Type": "text/html"}
    assert "hygiene-html-frames" in hits(answered(examples, html))
    assert "hygiene-html-frames" not in hits(
        answered(examples, {**html, "X-Frame-Options": "DENY"})
    )


def test_mail_goes_by_the_relays_only(examples: Generation) -> None:
    assert connect(examples, "198.51.100.1:587").rule == "smtp-elsewhere"
    assert not connect(examples, "10.20.0.25:25").blocked

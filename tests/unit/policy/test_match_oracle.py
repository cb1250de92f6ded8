"""Random rules on random facts: the compiled generation against a naive evaluator.

The evaluator knows nothing of indexes, sharing or closures: it walks the syntax tree with
three-valued min and max. And the generation with its indexes must answer exactly as without.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.heads import Field, RequestHead
from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, RedirectInfo
from proxy.policy import ast
from proxy.policy.ast import Compare, Op
from proxy.policy.compile import compile_policies
from proxy.policy.facts import Facts
from proxy.policy.generation import Generation
from proxy.policy.ruling import RuleVerdict, Ruling
from proxy.policy.scope import Scope

MARK = ast.Mark("p.yaml", 1, 1)
HOSTS = ("a.test", "x.a.test", "y.x.a.test", "b.test", "10.0.0.1")
LISTS = (
    ast.ListDef("under_a", ast.ListType.DOMAIN, ("a.test",), MARK),
    ast.ListDef("mixed", ast.ListType.DOMAIN, ("*.a.test", "b.test"), MARK),
    ast.ListDef("exact", ast.ListType.STRING, ("x.a.test", "B.test"), MARK),
)
IN_LIST: dict[str, Any] = {
    "under_a": lambda h: h == "a.test" or h.endswith(".a.test"),
    "mixed": lambda h: h.endswith((".a.test", ".b.test")) or h == "b.test",
    "exact": lambda h: h in ("x.a.test", "b.test"),
}
#: as sent, and every reading of it
PATHS = {
    "/public/x": ("/public/x",),
    "/admin/x": ("/admin/x",),
    "/public/../admin/x": ("/public/../admin/x", "/admin/x"),
    "/%61dmin/x": ("/%61dmin/x", "/admin/x"),
}


def is_(field: str, *values: Any, arg: str | None = None) -> ast.Test:
    return ast.Test(field, arg, (Compare(Op.IS, values),), MARK)


host_patterns = st.lists(
    st.sampled_from([*HOSTS, "*.a.test", "*.test", "*"]), min_size=1, max_size=3
)
tests = st.one_of(
    host_patterns.map(lambda v: is_("host", *v)),
    st.sampled_from(sorted(IN_LIST)).map(
        lambda n: ast.Test("host", None, (Compare(Op.IN, n),), MARK)
    ),
    st.sampled_from(["/public/x", "/admin/x"]).map(lambda v: is_("path", v)),
    st.sampled_from(["GET", "POST"]).map(lambda v: is_("method", v)),
    st.sampled_from([80, 443]).map(lambda v: is_("dst.port", v)),
    st.sampled_from(["t1", "t2"]).map(lambda v: is_("tag", v)),
    st.sampled_from(["root", "me"]).map(lambda v: is_("principal.user", v)),
    st.booleans().map(lambda v: ast.Test("header", "x-a", (Compare(Op.EXISTS, v),), MARK)),
)
conditions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: ast.All(tuple(parts), MARK)),
        st.lists(inner, max_size=3).map(lambda parts: ast.AnyOf(tuple(parts), MARK)),
        inner.map(lambda part: ast.Not(part, MARK)),
    ),
    max_leaves=6,
)
actions: st.SearchStrategy[tuple[ast.Action, ...]] = st.sampled_from(
    [
        (ast.Block(),),
        (ast.Block(hard=False),),
        (ast.Permit(),),
        (ast.Permit(hard=True),),
        (ast.Tag(("t1",)),),
        (ast.Tag(("t2",)), ast.Log("m")),
        (ast.Log("m"),),
    ]
)


@st.composite
def policy_files(draw: st.DrawFn, layer: Layer) -> list[ast.PolicyFile]:
    rules = [
        ast.Rule(
            id=f"r{number}",
            layer=layer,
            when=draw(st.none() | conditions),
            unless=draw(st.none() | tests),
            then=draw(actions),
            mark=ast.Mark("p.yaml", number + 1, 1),
            sublayer=draw(st.sampled_from(["high", "default", "low"])),
            weight=draw(st.sampled_from([50, 100])),
            shadow=draw(st.integers(0, 4)) == 0,
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    cut = draw(st.integers(0, len(rules)))
    return [
        ast.PolicyFile("1.yaml", "one", "", tuple(rules[:cut]), LISTS, (("high", 900),)),
        ast.PolicyFile("2.yaml", "two", "", tuple(rules[cut:]), LISTS, (("low", 1),)),
    ]


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    user = draw(st.sampled_from([None, "root", "me"]))
    confidence = Confidence.EXACT if user is not None else Confidence.NONE
    redirect = RedirectInfo(
        "static",
        Endpoint("10.0.0.1", draw(st.sampled_from([80, 443]))),
        Endpoint("127.0.0.1", 1),
        principal=Principal(user=user, confidence=confidence),
    )
    host = draw(st.sampled_from([*HOSTS, "A.TEST:80", ""]))
    lines = [Field(b"Host", b"host", host.encode())] if host else []
    if draw(st.booleans()):
        lines.append(Field(b"X-A", b"x-a", b"1"))
    request = RequestHead(
        b"1.1",
        tuple(lines),
        method=draw(st.sampled_from([b"GET", b"POST"])),
        target=draw(st.sampled_from([p.encode() for p in PATHS])),
    )
    return Facts(
        FlowInfo("1", redirect, 0.0, tags=draw(st.sampled_from([[], ["t1"]]))),
        0.0,
        request=draw(st.sampled_from([request, request, request, None])),
        unknown=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"host"})])),
    )


# --- the naive evaluator -------------------------------------------------------------------

RANK: dict[bool | None, int] = {False: 0, None: 1, True: 2}
VALUE: list[bool | None] = [False, None, True]


def naive(c: ast.Condition | None, facts: Facts, tags: list[str], every: bool) -> bool | None:
    match c:
        case None:
            return True
        case ast.Not():
            inner = naive(c.part, facts, tags, not every)
            return VALUE[2 - RANK[inner]]
        case ast.All():
            parts = [naive(p, facts, tags, every) for p in c.parts]
            return VALUE[min((RANK[p] for p in parts), default=2)]
        case ast.AnyOf():
            parts = [naive(p, facts, tags, every) for p in c.parts]
            return VALUE[max((RANK[p] for p in parts), default=0)]
        case ast.Test():
            return naive_test(c, facts, tags, every)


def naive_test(c: ast.Test, facts: Facts, tags: list[str], every: bool) -> bool | None:
    compare = c.compares[0]
    request = facts.request
    if c.field in facts.unknown:
        return None
    match c.field:
        case "principal.user":
            user = facts.flow.redirect.principal.user
            return None if user is None else user in compare.value
        case "dst.port":
            return facts.flow.redirect.original_dst.port in compare.value
        case "tag":
            return compare.value[0] in [*facts.flow.tags, *tags]
        case "header":
            has = request is not None and any(f.key == b"x-a" for f in request.fields)
            return has is compare.value
    if request is None:
        return False
    match c.field:
        case "method":
            return request.method.decode() in compare.value
        case "path":
            found = [r in compare.value for r in PATHS[request.target.decode()]]
            return all(found) if every else any(found)
        case "host":
            host = request.host
            if not host:
                return False
            if compare.op is Op.IN:
                return bool(IN_LIST[compare.value](host))
            return any(naive_domain(pattern, host) for pattern in compare.value)
    raise AssertionError(c.field)


def naive_domain(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    return host.endswith(pattern[1:]) if pattern[0] == "*" else host == pattern


def naive_applies(rule: ast.Rule, facts: Facts, tags: list[str]) -> bool:
    every = any(isinstance(a, ast.Permit) for a in rule.then)
    unless = naive(rule.unless, facts, tags, not every) if rule.unless is not None else False
    value = min(RANK[naive(rule.when, facts, tags, every)], 2 - RANK[unless])
    denies = any(isinstance(a, ast.Block) for a in rule.then)
    return value == 2 or (value == 1 and denies)


def ordered(files: list[ast.PolicyFile]) -> list[ast.Rule]:
    weights = {"high": 900, "default": 100, "low": 1}
    rules = [rule for file in files for rule in file.rules]
    return sorted(rules, key=lambda r: (-weights[r.sublayer], -r.weight))


def naive_sequence(files: list[ast.PolicyFile], facts: Facts) -> tuple[Any, ...]:
    tags: list[str] = []
    hits = []
    for rule in ordered(files):
        if not naive_applies(rule, facts, tags):
            continue
        hits.append((rule.id, rule.shadow))
        if rule.shadow:
            continue
        for action in rule.then:
            if isinstance(action, ast.Tag):
                tags += action.tags
        for action in rule.then:
            if isinstance(action, ast.Block | ast.Permit):
                verdict = "block" if isinstance(action, ast.Block) else "permit"
                return verdict, rule.id, hits, list(dict.fromkeys(tags))
    return "permit", None, hits, list(dict.fromkeys(tags))


def naive_sublayers(files: list[ast.PolicyFile], facts: Facts) -> tuple[Any, ...]:
    """WFP's arbitration told as rights: who may write, and who insists."""
    tags: list[str] = []
    action: tuple[str, str, bool] | None = None  # verdict, rule, may still be overridden
    veto, done = False, None
    for rule in ordered(files):
        if rule.sublayer == done or not naive_applies(rule, facts, tags):
            continue
        if rule.shadow:
            continue
        tags += [tag for a in rule.then if isinstance(a, ast.Tag) for tag in a.tags]
        terminal = next((a for a in rule.then if isinstance(a, ast.Block | ast.Permit)), None)
        if terminal is None:
            continue
        done = rule.sublayer
        says = (
            "block" if isinstance(terminal, ast.Block) else "permit",
            rule.id,
            not terminal.hard,
        )
        if action is None:
            action = says
        elif action[2]:
            same = action[0] == says[0]
            if not same or (not says[2]):
                action = says
        elif action[0] == "permit" and says[0] == "block" and terminal.hard:
            action, veto = says, True
    verdict, decider = (action[0], action[1]) if action is not None else ("permit", None)
    return verdict, decider, veto, list(dict.fromkeys(tags))


# --- the comparisons -----------------------------------------------------------------------


class Everyone:
    """Candidates without any index."""

    def __init__(self, count: int) -> None:
        self.count = count

    def positions(self, scope: Scope) -> range:
        return range(self.count)


def without_indexes(generation: Generation) -> Generation:
    layers = {
        layer: replace(rules, candidates=Everyone(len(rules.rules)))  # type: ignore[arg-type]
        for layer, rules in generation.layers.items()
    }
    return replace(generation, layers=MappingProxyType(layers))


def summary(ruling: Ruling) -> tuple[Any, ...]:
    hits = [(hit.rule, hit.shadow) for hit in ruling.hits]
    return ruling.verdict.value, ruling.rule, hits, list(ruling.tags)


@given(policy_files(Layer.HTTP_REQUEST), some_facts())
def test_message_layers_agree_with_the_naive_evaluator(
    files: list[ast.PolicyFile], facts: Facts
) -> None:
    generation = compile_policies(files, 1)
    ruling = generation.decide(Layer.HTTP_REQUEST, facts)
    assert summary(ruling) == naive_sequence(files, facts)
    assert ruling == without_indexes(generation).decide(Layer.HTTP_REQUEST, facts)


connection_tests = {"tag", "dst.port", "principal.user"}


@st.composite
def connection_files(draw: st.DrawFn) -> list[ast.PolicyFile]:
    """The same rules with the conditions that a connection can answer."""

    def kept(c: ast.Condition | None) -> ast.Condition | None:
        match c:
            case ast.Test():
                return c if c.field in connection_tests else is_("dst.port", 80)
            case ast.All() | ast.AnyOf():
                return replace(c, parts=tuple(p for p in map(kept, c.parts) if p is not None))
            case ast.Not():
                return replace(c, part=kept(c.part) or c.part)
        return None

    files = draw(policy_files(Layer.AUTH_CONNECT))
    return [
        replace(
            file,
            rules=tuple(replace(r, when=kept(r.when), unless=kept(r.unless)) for r in file.rules),
        )
        for file in files
    ]


@given(connection_files(), some_facts())
def test_connection_layers_agree_with_the_naive_evaluator(
    files: list[ast.PolicyFile], facts: Facts
) -> None:
    generation = compile_policies(files, 1)
    ruling = generation.decide(Layer.AUTH_CONNECT, facts)
    found = (ruling.verdict.value, ruling.rule, ruling.veto, list(ruling.tags))
    assert found == naive_sublayers(files, facts)
    assert ruling == without_indexes(generation).decide(Layer.AUTH_CONNECT, facts)


@given(policy_files(Layer.HTTP_REQUEST), some_facts())
def test_what_a_shadow_rule_says_changes_nothing(files: list[ast.PolicyFile], facts: Facts) -> None:
    def enforced(file: ast.PolicyFile) -> ast.PolicyFile:
        return replace(file, rules=tuple(r for r in file.rules if not r.shadow))

    with_them = compile_policies(files, 1).decide(Layer.HTTP_REQUEST, facts)
    without = compile_policies([enforced(f) for f in files], 1).decide(Layer.HTTP_REQUEST, facts)
    acted = tuple(hit for hit in with_them.hits if not hit.shadow)
    assert replace(with_them, hits=acted) == without


@given(conditions, some_facts())
def test_deciding_twice_gives_the_same(condition: ast.Condition, facts: Facts) -> None:
    rule = ast.Rule("r", Layer.HTTP_REQUEST, condition, None, (ast.Block(),), MARK)
    generation = compile_policies([ast.PolicyFile("p", "p", "", (rule,), LISTS)], 1)
    first = generation.decide(Layer.HTTP_REQUEST, facts)
    assert generation.decide(Layer.HTTP_REQUEST, facts) == first
    assert first.verdict in (RuleVerdict.BLOCK, RuleVerdict.PERMIT)

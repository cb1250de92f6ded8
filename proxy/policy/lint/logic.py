"""What follows from a conjunction, and what cannot be: sound, and far from complete.

Whatever is said here holds for every exchange. What would take more than comparing values,
bounds and fixed ends of globs is not said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from proxy.policy.ast import Op
from proxy.policy.extract import READINGS
from proxy.policy.fields import FIELDS, Kind
from proxy.policy.lint.facets import Atom, Choice, Conjunct, Negation, atoms_of

#: Fields that every decision knows: never unknown, whatever the flow.
_ALWAYS_KNOWN = (
    "method host path query url header request.header response.header cookie content_type "
    "status dst.port dst.host original.port client.port provider time weekday direction protocol "
    "redirected reauthorize principal.confidence"
)
ALWAYS_KNOWN = frozenset(_ALWAYS_KNOWN.split())
#: Fields with one value at most, so that two values exclude each other.
_SINGLE = (
    "host method status dst.port dst.ip dst.host client.ip client.port provider weekday "
    "protocol direction sni content_type.sniffed body.size original.ip original.port ip_version "
    "loopback redirected reauthorize principal.pid principal.exe principal.name "
    "principal.deleted principal.uid principal.user principal.cgroup principal.container "
    "principal.package principal.confidence"
)
SINGLE = frozenset(_SINGLE.split())
_BOUNDS = {
    "status": (100, 999),
    "dst.port": (0, 65535),
    "original.port": (0, 65535),
    "client.port": (0, 65535),
    "ip_version": (4, 6),
}
_LOWER, _UPPER = (Op.GT, Op.GE), (Op.LT, Op.LE)
_Span = tuple[float, float]


def known(conjuncts: Iterable[Conjunct]) -> bool:
    """Whether none of it can be unknown."""
    return all(atom.field in ALWAYS_KNOWN for c in conjuncts for atom in atoms_of(c))


# --- what follows --------------------------------------------------------------------------


def follows(conclusion: Sequence[Conjunct], premises: frozenset[Conjunct]) -> bool:
    """Whether all of the conclusion holds wherever all premises hold.

    Also in Kleene's logic: where premises are true or unknown, so is the conclusion.
    """
    return all(_follows(conjunct, premises) for conjunct in conclusion)


def _follows(conjunct: Conjunct, premises: frozenset[Conjunct]) -> bool:
    if any(atom.field == "tag" for atom in atoms_of(conjunct)):
        return False  # tags are put between the two
    if conjunct in premises:
        return True
    match conjunct:
        case Atom():
            return any(isinstance(p, Atom) and _entails(p, conjunct) for p in premises)
        case Choice():
            return any(follows(tuple(part), premises) for part in conjunct.parts)
        case Negation():
            return False


def _entails(premise: Atom, atom: Atom) -> bool:
    if premise.name != atom.name or (atom.every and not premise.every):
        return False
    if premise.op is Op.EXISTS:
        return atom.op is Op.EXISTS and premise.values == atom.values
    if atom.op is Op.EXISTS:
        return bool(atom.values[0])
    if FIELDS[atom.field].kind is not Kind.NUMBER:
        within = premise.op is atom.op is Op.IS and set(premise.values) <= set(atom.values)
        return within or (premise.op, premise.values) == (atom.op, atom.values)
    spans, wanted = _spans(premise), _spans(atom)
    return all(any(low <= s[0] and s[1] <= high for low, high in wanted) for s in spans)


# --- what cannot be ------------------------------------------------------------------------


def contradiction(
    conjuncts: Iterable[Conjunct], single: frozenset[str] = SINGLE
) -> tuple[Conjunct, ...]:
    """Conjuncts that cannot hold together, or () where none were found.

    `single`: fields that are taken to have one value.
    """
    found = list(dict.fromkeys(conjuncts))
    for conjunct in found:
        if isinstance(conjunct, Atom) and _impossible(conjunct):
            return (conjunct,)
    for first, second in combinations(found, 2):
        if _excludes(first, second, single):
            return first, second
    return ()


def _impossible(atom: Atom) -> bool:
    bounds = _BOUNDS.get(atom.field)
    if bounds is None or atom.op in (Op.EXISTS, Op.IN, Op.REGEX):
        return False
    return not any(low <= bounds[1] and bounds[0] <= high for low, high in _spans(atom))


def _excludes(first: Conjunct, second: Conjunct, single: frozenset[str]) -> bool:
    for one, other in ((first, second), (second, first)):
        if isinstance(one, Negation) and one.part == other:
            # Of several readings one may match and another not; tags are one set at one time.
            return not any(atom.field in READINGS for atom in atoms_of(other))
    if not (isinstance(first, Atom) and isinstance(second, Atom)) or first.name != second.name:
        return False
    if Op.EXISTS in (first.op, second.op):
        return _absent(first) is not _absent(second)
    if first.field not in single:
        return False
    return _disjoint(first, second)


def _absent(atom: Atom) -> bool:
    return atom.op is Op.EXISTS and not atom.values[0]


def _disjoint(first: Atom, second: Atom) -> bool:
    if Op.IN in (first.op, second.op) or Op.REGEX in (first.op, second.op):
        return False
    kind = FIELDS[first.field].kind
    if kind is Kind.NUMBER:
        spans = _spans(second)
        return not any(a <= d and c <= b for a, b in _spans(first) for c, d in spans)
    if kind in (Kind.IP, Kind.TIME, Kind.CONTENT):
        return False
    fold = str.lower if kind is Kind.PATH else str  # some paths compare without case
    return all(_apart(fold(str(a)), fold(str(b))) for a in first.values for b in second.values)


def _apart(one: str, other: str) -> bool:
    """Whether no text fits both globs, by their fixed beginnings and ends."""
    for a, b in ((_fixed(one), _fixed(other)), (_fixed(one[::-1]), _fixed(other[::-1]))):
        if not (a.startswith(b) or b.startswith(a)):
            return True
    return one != other and not _is_glob(one) and not _is_glob(other)


def _fixed(glob: str) -> str:
    """What stands before the first wildcard."""
    ends = [at for at in (glob.find("*"), glob.find("?")) if at >= 0]
    return glob[: min(ends)] if ends else glob


def _is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def _spans(atom: Atom) -> list[_Span]:
    """The numbers that satisfy an atom, as closed intervals; whole numbers only."""
    first = atom.values[0]
    if atom.op in _LOWER and isinstance(first, int):
        return [(first + (atom.op is Op.GT), float("inf"))]
    if atom.op in _UPPER and isinstance(first, int):
        return [(float("-inf"), first - (atom.op is Op.LT))]
    return [v if isinstance(v, tuple) else (float(str(v)), float(str(v))) for v in atom.values]

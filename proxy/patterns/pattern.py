"""A pattern with a finite maximum match: checked, measured, with its live prefixes as a regex."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.patterns import engine, syntax, tree
from proxy.patterns.errors import PatternError
from proxy.patterns.text import variants

MATCH_LIMIT = 4096  #: bytes of the longest match
STATE_LIMIT = 16384  #: octets, once every quantifier is written out


@dataclass(frozen=True, slots=True)
class StreamPattern:
    """`source` as the policy has it; `regex` RE2 text over octets (UTF-8), the same meaning.

    `plain` is `regex` without capturing groups. `live` matches the proper prefixes of what the
    pattern matches, and the empty string: anchored at the end of the bytes that are here, it
    finds what may still become a match.
    """

    source: str
    regex: str
    literal: bool
    max_bytes: int
    plain: str
    live: str
    states: int
    groups: int = 0
    boundary: bool = False  #: looks at the octets around a match
    word: bytes | None = None  #: the octets of a literal, if they or their lower case are all
    fold: bool = False  #: `word` is in lower case, and either case matches


def literal(text: str, *, ignore_case: bool = False) -> StreamPattern:
    """A text to be found as it is. Raises PatternError for an empty one."""
    if not text:
        raise PatternError("an empty text would be found everywhere")
    if ignore_case:
        node: tree.Node = tree.Seq(tuple(syntax.any_of(variants(char)) for char in text))
    else:
        node = tree.text(syntax.encoded(text))
    if not ignore_case:
        return _pattern(text, node, is_literal=True, word=syntax.encoded(text))
    word = text.lower().encode() if text.isascii() else None
    return _pattern(text, node, is_literal=True, word=word, fold=True)


def regex(text: str) -> StreamPattern:
    """A regular expression whose matches are not empty and have a finite maximum length.

    Raises PatternError, with a hint, for everything else (see `proxy.patterns.syntax`).
    """
    node = syntax.parse(text)
    syntax.limits_of(node)
    return _pattern(text, node, is_literal=False)


def _pattern(
    source: str,
    node: tree.Node,
    *,
    is_literal: bool,
    word: bytes | None = None,
    fold: bool = False,
) -> StreamPattern:
    size = tree.measure(node)
    _check(size)
    live = tree.live_prefix(node) or tree.EMPTY
    pattern = StreamPattern(
        source=source,
        regex=tree.render(node, capture=True),
        literal=is_literal,
        max_bytes=size.longest,
        plain=tree.render(node, capture=False),
        live=tree.render(live, capture=False),
        states=size.states,
        groups=size.groups,
        boundary=size.boundary,
        word=word,
        fold=fold,
    )
    engine.compiled(pattern.regex, pattern.states)
    return pattern


def _check(size: tree.Size) -> None:
    if size.shortest == 0:
        raise PatternError("it matches the empty text", "something must be there in any case")
    if size.longest > MATCH_LIMIT:
        hint = "lower the upper bounds: what is held back of a stream is bounded"
        raise PatternError(f"a match may have {size.longest} bytes, more than {MATCH_LIMIT}", hint)
    if size.states > STATE_LIMIT:
        raise PatternError("it is too big: too many choices", "lower the upper bounds")

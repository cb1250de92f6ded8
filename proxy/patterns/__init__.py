"""Patterns for streams: what can be searched for in bytes that come in pieces.

A pattern may be a literal or a regular expression of a finite maximum length; then a bounded
tail of what was seen is enough to find every match, whatever way the stream was cut. Needed by
policies (to check them) and by the filters (to search), so it stands below both.
"""

from __future__ import annotations

from proxy.patterns.errors import PatternError
from proxy.patterns.pattern import StreamPattern, literal, regex
from proxy.patterns.sets import Found, PatternSet

__all__ = ["Found", "PatternError", "PatternSet", "StreamPattern", "literal", "regex"]

"""Objects that nest deeper than any decoder goes: fields without a schema take what people write, thousands of levels.

The API server takes ten thousand; a decoder that recurses ends with RecursionError after some hundred.
"""

import re

MAX_DEPTH = 200
"""Levels that are read; objects of Kubernetes need a few dozen."""
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def shallow(text: bytes) -> bytes:
    """JSON without what is nested deeper than MAX_DEPTH, in whose place stands null; the time is linear."""
    parts: list[bytes] = []
    depth = kept = 0
    for token in _TOKENS.finditer(text):
        match token[0]:
            case b"{" | b"[":
                depth += 1
                if depth == MAX_DEPTH + 1:
                    parts += (text[kept : token.start()], b"null")
            case b"}" | b"]":
                if depth == MAX_DEPTH + 1:
                    kept = token.end()
                depth -= 1
            case _:
                pass
    return b"".join((*parts, text[kept:]))

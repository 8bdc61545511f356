"""Texts in cells of CSV that no spreadsheet computes, and back again without a loss.

What a spreadsheet takes for a formula when it opens a file (OWASP, CSV injection) gets an apostrophe in front, also
where one would begin a cell because it splits at semicolons or tabs and drops quotes and spaces that come next. Since
each such place gets one, whatever stood before it, taking one away again gives what it was.
"""

import re
from typing import Final

_FORMULA: Final = "=+@＝＋－＠-"
_BEGINS: Final = re.compile(rf"(^|[;\t\r\n])([\"' ]*)(?=[{_FORMULA}])")
_GUARDED: Final = re.compile(rf"(^|[;\t\r\n])([\"' ]*)'(?=[{_FORMULA}])")
_IN_JSON: Final = re.compile(rf"(;[\"' ]*)([{_FORMULA}])")


def guarded(text: str) -> str:
    """``text`` with an apostrophe wherever a formula could begin."""
    return _BEGINS.sub(r"\1\2'", text)


def unguarded(cell: str) -> str:
    """The inverse of ``guarded``."""
    return _GUARDED.sub(r"\1\2", cell) if "'" in cell else cell


def guarded_json(text: str) -> str:
    """The same JSON object or list, with the signs that could begin a formula escaped.

    Outside a string no such sign follows a semicolon, and inside one tabs and line ends are escaped already.
    """
    return _IN_JSON.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", text) if ";" in text else text

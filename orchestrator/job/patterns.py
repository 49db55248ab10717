"""Patterns of items, as `include` and `exclude` of a job have them: globs of their paths below the audio folder."""

import functools
import re
import typing as tp

from orchestrator.errors import JobError

_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_SPECIAL, _ESCAPED = r"([\\\]\[^&~|])", r"\\\1"  # in a set
_WORDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def takes(patterns: tp.Iterable[str], item: str) -> bool:
    """Return whether any pattern takes an item.

    One without `/` is of names at any depth. Else it is of paths from the top, where `*` and `?` stop at `/`,
    and `**/` stands for any number of folders, none as well. A pattern of a folder takes all below it.
    """
    return any(_compiled(pattern).match(item) for pattern in patterns)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    whole = pattern.removeprefix("./").rstrip("/")
    parts = [_WORDS.get(part) or _literal(part) for part in _PARTS.findall(whole)]
    try:
        return re.compile(f"{'' if '/' in whole else '(?:.*/)?'}{''.join(parts)}(?:/.*)?\\Z", re.DOTALL)
    except re.error as error:
        raise JobError(f"include and exclude: {pattern!r}: {error}; write [[] for a bracket") from error


def _literal(part: str) -> str:
    """Return a character as it is, or a set of them, where `!` at its begin means all others."""
    begin = "^" if part.startswith("[!") else ""
    inner = part[1 + len(begin) : -1]
    return f"(?!/)[{begin}{re.sub(_SPECIAL, _ESCAPED, inner)}]" if inner else re.escape(part)

"""Names of outputs: the item's path without its extension, and never the same name twice."""

import collections
import hashlib
import os
import types
import typing as tp
import unicodedata


def assign(
    ids: tp.Iterable[str], kept: tp.Mapping[str, str], parts: tp.Mapping[str, str] = types.MappingProxyType({})
) -> tp.Mapping[str, str]:
    """Return the output name of every item, and maybe of others that are kept.

    Args:
        ids: paths relative to the audio root, with extension.
        kept: names that items already have; they keep them, whoever comes later.
        parts: of items that are segments: what their ids add to the path of the file.

    Returns:
        `a/b` for `a/b.wav`, `a/b#1.000-2.000` for a segment of it; items that would share a name keep their
        extension (`a.wav`, `a.mp3`); twins that differ in case or Unicode normalisation only, and would be one
        file on some disks, get `~` and eight hex digits of their id.
    """
    if len(set(kept.values())) < len(kept):  # a record was changed by hand: what two claim is nobody's
        claims = collections.Counter(kept.values())
        kept = {item: name for item, name in kept.items() if claims[name] == 1}
    new = [item for item in ids if item not in kept]
    if not new:
        return kept  # as it is: there may be 100,000
    names = {item: kept[item] for item in ids if item in kept}
    taken = {_fold(name) for name in kept.values()}
    stems = {item: os.path.splitext(item.removesuffix(parts.get(item, "")))[0] + parts.get(item, "") for item in new}
    crowd = collections.Counter(_fold(stem) for stem in stems.values())
    plain = {i: s if crowd[_fold(s)] == 1 and _fold(s) not in taken else i for i, s in stems.items()}
    twins = collections.Counter(_fold(name) for name in plain.values())
    for item, name in plain.items():
        if twins[_fold(name)] > 1 or _fold(name) in taken:
            name = f"{name}~{hashlib.sha256(item.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        names[item] = name
    return names


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

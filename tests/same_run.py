"""Hold two output folders to each other, byte for byte: python tests/same_run.py BEFORE AFTER

Arrays are equal in bytes; a manifest's line may differ in `context` alone, and a context in the hash of the
worker's code alone. What a refactoring must keep.
"""

import hashlib
import json
import pathlib
import sys

ALLOWED = {"worker"}  # of contexts


def main(before: str, after: str) -> int:
    """Print what differs; return 0 where nothing does that must not."""
    troubles = list(compare(pathlib.Path(before), pathlib.Path(after)))
    print("\n".join(troubles) or f"{len(lines(pathlib.Path(before)))} arrays, their lines and contexts are the same")
    return int(bool(troubles))


def compare(before: pathlib.Path, after: pathlib.Path):
    """Yield a line for each difference."""
    old, new = lines(before), lines(after)
    if len(old) != len(new):
        yield f"{len(old)} lines in the manifest before, {len(new)} after"
    for was, now in zip(old, new):
        where = f"{was['path']}:"
        for key in sorted(was.keys() | now.keys()):
            if key != "context" and was.get(key) != now.get(key):
                yield f"{where} {key} was {was.get(key)!r}, is {now.get(key)!r}"
        if (before / was["path"]).read_bytes() != (after / now["path"]).read_bytes():
            yield f"{where} other bytes"
        if hashlib.sha256((after / now["path"]).read_bytes()).hexdigest() != now["sha256"]:
            yield f"{where} not what its record says"
        one, other = context(before, was), context(after, now)
        for key in sorted({key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} - ALLOWED):
            yield f"{where} context: {key} was {one.get(key)!r}, is {other.get(key)!r}"


def lines(folder: pathlib.Path):
    """Return the manifest's lines, in its order."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text("ascii").splitlines()]


def context(folder: pathlib.Path, record):
    """Return what an array was made with."""
    return json.loads((folder / ".consort" / "contexts" / f"{record['context']}.json").read_text("ascii"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))

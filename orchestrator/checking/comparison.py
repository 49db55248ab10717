"""Compare the arrays of two output folders: by item, model, output, window, key and sha256, then by value.

Equal bytes are the rule. What has the same key and other bytes is laid over each other, and counts as the same
only where a tolerance is granted.
"""

import collections
import dataclasses
import typing as tp
import zipfile

import numpy as np

from orchestrator import errors
from orchestrator.checking import verify
from orchestrator.checking.run_folder import RunFolder
from orchestrator.checking.verify import Checked
from orchestrator.output.ledger import Key
from orchestrator.text import table
from worker import formats
from worker.protocol import Record

TOLERANCE = 1e-5  # absolute, and relative
SHARE = 1e-3  # of integers that may differ
_EQUAL, _CLOSE = "equal", "close"  # the kinds that count as the same
_KINDS = {  # in the words of the verdict
    _EQUAL: "to the byte",
    _CLOSE: "within the tolerance",  # where other bytes are granted
    "bytes": "with other bytes alone",  # the same, not granted
    "values": "with other values",
    "key": "of another source, other parameters or another version",
    "gone": "only in {0}",
    "new": "only in {1}",
    "unreadable": "unreadable",
    "damaged": "damaged",  # on the disk
}


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    target: RunFolder
    arrays: tp.Mapping[Key, Record]
    broken: tp.AbstractSet[str] = frozenset()  # paths of files that are not what their records say

    def values(self, key: Key) -> np.ndarray:
        """Return an array."""
        record = self.arrays[key]
        place = self.target.place(record.path)
        if place is None:
            raise ValueError("leads out of the output folder")
        return formats.read(place, record.dtype, record.shape)


@dataclasses.dataclass(frozen=True)
class Match:
    """What came of one array."""

    item: str
    model: str
    output: str
    window: int
    kind: str  # one of `_KINDS`
    text: str = ""
    largest: float | None = None

    @property
    def name(self) -> str:
        number = f"[{self.window}]" if self.window else ""
        return f"{self.model}.{self.output}{number} of {self.item}"


@dataclasses.dataclass
class Comparison:
    """What came of all arrays, and of hashing both folders again."""

    names: tuple[str, str]
    tolerance: float
    matches: list[Match]
    checked: list[Checked] = dataclasses.field(default_factory=list)

    @property
    def exit_code(self) -> int:
        same = all(match.kind in (_EQUAL, _CLOSE) for match in self.matches)
        return errors.OK if same and not any(c.problems for c in self.checked) else errors.ITEMS_FAILED

    def json(self) -> dict[str, tp.Any]:
        """Return everything as plain values; of equal arrays the number."""
        return {
            "names": list(self.names),
            "tolerance": self.tolerance,
            "counts": dict(collections.Counter(match.kind for match in self.matches)),
            "differences": [dataclasses.asdict(match) for match in self.matches if match.kind != _EQUAL],
            "checked": [found.json() for found in self.checked],
        }

    def lines(self, everything: bool) -> list[str]:
        """Return the problems of both folders, a line for each difference, a table by model, and the verdict."""
        shown = [m for m in self.matches if m.kind != _EQUAL and (everything or m.kind != _CLOSE)]
        broken = [line for found in self.checked if found.problems for line in found.lines(everything)]
        different = verify.listed([(m.kind, f"{m.name}: {m.text}") for m in shown], everything)
        return [*broken, *different, *table(self._rows()).splitlines(), self._verdict()]

    def _rows(self) -> list[tuple[str, ...]]:
        groups: dict[tuple[str, str], list[Match]] = {}
        for match in self.matches:
            groups.setdefault((match.model, match.output), []).append(match)
        seen = {match.kind for match in self.matches}
        kinds = [kind for kind in _KINDS if kind in seen or kind == _EQUAL]
        rows: list[tuple[str, ...]] = [("model", "output", *kinds, "largest difference")]
        for (model, output), mine in sorted(groups.items()):
            counts = collections.Counter(match.kind for match in mine)
            values = [match.largest for match in mine if match.largest is not None]
            largest = f"{max(values):.3g}" if values else "-"
            rows.append((model, output, *(str(counts[kind]) for kind in kinds), largest))
        return rows

    def _verdict(self) -> str:
        counts = collections.Counter(match.kind for match in self.matches)
        allowed = f"tolerance {self.tolerance:g} + {self.tolerance:g} x value, {SHARE:.1%} of integers"
        if self.exit_code == errors.OK:
            close = f", {counts[_CLOSE]} within the {allowed}" if counts[_CLOSE] else ""
            return f"the same: {counts[_EQUAL]} arrays to the byte{close}"
        parts = [f"{counts[kind]} {_KINDS[kind]}" for kind in _KINDS if counts[kind] and kind not in (_EQUAL, _CLOSE)]
        words = ", ".join(parts or ["contexts are lost"]).format(*self.names)
        hint = "; --tolerance lets other bytes pass" if counts["bytes"] else ""
        return f"not the same: {words} ({allowed}){hint}"


def compare(one: RunFolder, other: RunFolder, tolerance: float | None = None) -> Comparison:
    """Return what two output folders have in common; both are hashed again first.

    Other bytes count as the same within `tolerance`; None grants none.

    Raises:
        JobError: nothing was written there.
        RunFailed: a run is writing there.
    """
    with one.at_rest(), other.at_rest():
        checked, sides = [], []
        for target in (one, other):
            ledger = target.ledger()
            checked.append(verify.examine(target, ledger))
            sides.append(Side(target, ledger.records, checked[-1].broken))
    matches = match(sides[0], sides[1], tolerance)
    return Comparison((one.name, other.name), TOLERANCE if tolerance is None else tolerance, matches, checked)


def match(one: Side, other: Side, tolerance: float | None, unlike: tp.Collection[Key] = ()) -> list[Match]:
    """Return what came of each array, in order; without a tolerance those `unlike` may differ by the usual one."""
    allowed = TOLERANCE if tolerance is None else tolerance
    found = []
    for key in sorted(one.arrays.keys() | other.arrays.keys()):
        a, b = one.arrays.get(key), other.arrays.get(key)
        if a is None or b is None:
            kind, name = ("new", other.target.name) if a is None else ("gone", one.target.name)
            found.append(Match(*key, kind, f"only in {name}"))
        elif a.path in one.broken or b.path in other.broken:
            found.append(Match(*key, "damaged", "is not what its record says"))
        elif a.key != b.key:
            what = "made of another source" if a.source != b.source else "made with other parameters or another version"
            found.append(Match(*key, "key", what))
        elif a.sha256 == b.sha256:
            found.append(Match(*key, _EQUAL))
        else:
            found.append(_by_value(key, one, other, allowed, tolerance is not None or key in unlike))
    return found


def _by_value(key: Key, one: Side, other: Side, tolerance: float, granted: bool) -> Match:
    try:
        found = between(one.values(key), other.values(key), tolerance)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return Match(*key, "unreadable", " ".join(str(error).split()))
    kind = (_CLOSE if granted else "bytes") if found.within else "values"
    return Match(*key, kind, found.text, found.largest)


@dataclasses.dataclass(frozen=True)
class Difference:
    """What came of laying two arrays over each other."""

    largest: float | None  # None where there is no such number: shapes differ, or values are not finite
    within: bool
    text: str


def between(a: np.ndarray, b: np.ndarray, tolerance: float = TOLERANCE) -> Difference:
    """Return how far apart two arrays are, and whether rounding explains it.

    Another processor, a GPU, another batch or another worker rounds differently. Floats may differ by a tolerance
    plus that tolerance times their size; of integers, which are codes and decisions, one in a thousand may differ,
    as near ties may fall either way. float16 may differ by one unit in the last place besides, which is what another
    rounding of float32 makes.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(None, False, f"{a.dtype} {list(a.shape)}, then {b.dtype} {list(b.shape)}")
    if not a.size:
        return Difference(0.0, True, "both are empty")
    relative = max(tolerance, float(np.finfo(a.dtype).eps) if a.dtype == np.float16 else 0.0)
    kind, same = a.dtype.kind, np.atleast_1d(a == b)
    first, second = (np.atleast_1d(values).astype(np.float64) for values in (a, b))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = np.abs(first - second)
    distance[same] = 0
    distance[np.isnan(distance)] = np.inf
    largest = float(distance.max())
    finite = largest if np.isfinite(largest) else None
    if kind != "f":
        share = float((~same).mean())
        return Difference(finite, share <= SHARE, f"{share:.3%} of the values differ, by up to {largest:g}")
    allowed = tolerance + relative * np.maximum(np.abs(first), np.abs(second))
    share = float((~(distance <= allowed) | np.isinf(distance)).mean())
    beyond = f", {share:.3%} of them beyond the tolerance" if share else ", within the tolerance"
    return Difference(finite, not share, f"values differ by up to {largest:.3g}{beyond}")

"""Hold an output folder to its records: hash every array again, and find what no record names.

What was damaged on the disk still has the place and size that its record says, so a resumed run takes it for
done. Here it is found, and with `repair` removed, so that the next run makes it again.
"""

import collections
import concurrent.futures
import dataclasses
import os
import shlex
import stat
import typing as tp

from orchestrator import errors
from orchestrator.checking.run_folder import RunFolder
from orchestrator.errors import RunFailed
from orchestrator.files import sha256_of
from orchestrator.output import contexts
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import INNER, OutputDir
from orchestrator.output.ledger import Ledger
from orchestrator.text import size
from worker import formats
from worker.protocol import Record

_SHOWN = 10  # lines of a kind that are listed without --verbose
_THREADS = min(8, 2 * (os.cpu_count() or 1))


@dataclasses.dataclass(frozen=True)
class Problem:
    """A file that is not what the records say."""

    kind: str  # missing, size, hash, unreadable or outside; context of what arrays were made with, which is no array
    path: str  # below the output folder
    text: str
    damaged: bool = False  # it is there, and `repair` removes it


@dataclasses.dataclass
class Checked:
    """What was found in one output folder."""

    name: str  # of the folder, as the user gave it
    command: str  # that makes its arrays again
    arrays: int
    bytes: int
    problems: list[Problem]
    orphans: list[str]  # arrays that no record names; no failure, as they may be the user's own
    contexts: bool  # whether what arrays were made with is kept there
    removed: list[str] = dataclasses.field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return errors.ITEMS_FAILED if self.problems else errors.OK

    @property
    def broken(self) -> frozenset[str]:
        """The paths of files that are not what their records say."""
        return frozenset(problem.path for problem in self.problems)

    def json(self) -> dict[str, tp.Any]:
        """Return everything as plain values."""
        return dataclasses.asdict(self)

    def lines(self, everything: bool) -> list[str]:
        """Return a line for each problem and orphan, a summary, and what to do next."""
        problems = [(p.kind, f"{p.path}: {p.text}") for p in self.problems]
        orphans = [("orphan", f"{path}: no record names it") for path in self.orphans]
        return [
            *listed([*problems, *orphans], everything),
            self._summary(),
            *(f"removed: {path}" for path in self.removed),
            *(f"next: {words}" for words in self._next()),
        ]

    def _summary(self) -> str:
        found = collections.Counter(problem.kind for problem in self.problems)
        bad = sum(number for kind, number in found.items() if kind != "context")
        parts = [f"{self.arrays - bad} of {self.arrays} arrays ({size(self.bytes)}) are as recorded"]
        parts += [f"{number} {kind}" for kind, number in sorted(found.items())]
        parts += [f"{len(self.orphans)} orphaned"] if self.orphans else []
        parts += [] if self.contexts else [f"no {INNER} beside them, so their contexts were not checked"]
        return f"{self.name}: {', '.join(parts)}"

    def _next(self) -> tp.Iterator[str]:
        left = [problem for problem in self.problems if problem.path not in self.removed]
        if any(problem.damaged for problem in left):
            yield f"`consort verify {shlex.quote(self.name)} --repair` removes what is damaged"
        if any(problem.kind == "context" for problem in self.problems):
            yield f"`{self.command} --resume strict` makes what is missing again, and arrays whose context is lost"
        elif any(problem.damaged or problem.kind == "missing" for problem in self.problems):
            yield f"`{self.command}` makes what is missing again, where its audio is still part of the job"


def check(target: RunFolder, repair: bool = False) -> Checked:
    """Hash all arrays of an output folder, and the contexts that their records name; `repair` removes what is damaged.

    Raises:
        JobError: nothing was written there.
        RunFailed: a run is writing there, or a damaged file cannot be removed.
    """
    with target.in_hand() if repair else target.at_rest():
        found = examine(target, target.ledger())
        if repair:
            _repair(target.output, found)
    return found


def examine(target: RunFolder, ledger: Ledger) -> Checked:
    """Return what differs from the records; nothing may write there meanwhile."""
    everything = sorted(ledger.records.values(), key=lambda record: record.path)
    output = target.output
    problems = [found for found in _each(lambda record: _problem(target, record), everything) if found]
    kept = output.inner.is_dir()
    if kept:
        names = sorted({record.context for record in everything})
        problems += [found for name in names if (found := _context_problem(output, name))]
    total = sum(record.bytes for record in everything)
    return Checked(target.name, target.command, len(everything), total, problems, _orphans(output, everything), kept)


def listed(lines: tp.Iterable[tuple[str, str]], everything: bool) -> list[str]:
    """Return lines that begin with their kind; without `everything` the first few of each kind."""
    kinds: dict[str, list[str]] = {}
    for kind, text in lines:
        kinds.setdefault(kind, []).append(f"  {kind:<10}  {text}")
    shown = []
    for kind, mine in kinds.items():
        shown += mine if everything else mine[:_SHOWN]
        if not everything and len(mine) > _SHOWN:
            shown.append(f"  {kind:<10}  ... and {len(mine) - _SHOWN} more; --verbose lists them all")
    return shown


def _each(work: tp.Callable[[Record], Problem | None], entries: tp.Sequence[Record]) -> tp.Iterator[Problem | None]:
    """Yield what `work` says of each record, in order, from several threads: hashing lets go of the GIL."""
    step = max(1, min(256, len(entries) // (8 * _THREADS)))  # a task for each small file would cost more than the file
    parts = [entries[begin : begin + step] for begin in range(0, len(entries), step)]
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="verify")
    try:
        for part in pool.map(lambda part: [work(entry) for entry in part], parts):
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)  # a Ctrl-C must not wait for a terabyte


def _problem(target: RunFolder, record: Record) -> Problem | None:
    """Return what is wrong with one array."""
    place = target.place(record.path)
    if place is None:
        return Problem("outside", record.path, "leads out of the output folder, and is not read; move it back")
    try:
        status = place.stat()
        if not stat.S_ISREG(status.st_mode):
            return Problem("unreadable", record.path, "is no file; move it away")
        if status.st_size != record.bytes:
            return Problem("size", record.path, f"{status.st_size} bytes, recorded {record.bytes}", damaged=True)
        found = sha256_of(place)
    except (FileNotFoundError, NotADirectoryError):
        return Problem("missing", record.path, "is not there")
    except OSError as error:
        return Problem("unreadable", record.path, f"{error.strerror}; mend its rights or the disk")
    if found == record.sha256:
        return None
    return Problem("hash", record.path, f"sha256 {found[:12]}..., recorded {record.sha256[:12]}...", damaged=True)


def _context_problem(output: OutputDir, name: str) -> Problem | None:
    if not contexts.NAME.match(name):
        return Problem("context", output.manifest.name, f"{name!r} names no context")
    path = (output.contexts / f"{name}.json").relative_to(output.root).as_posix()
    try:
        problem = contexts.Contexts(output.contexts).problem(name)
    except PermissionError as error:
        return Problem("context", path, f"{error.strerror}; mend its rights")
    return Problem("context", path, problem, damaged=problem != contexts.LOST) if problem else None


def _orphans(output: OutputDir, named: tp.Iterable[Record]) -> list[str]:
    """Return the arrays that no record names; texts only beside recorded ones, as others may be notes."""
    known = {record.path for record in named}
    folders = {path.partition("/")[0] for path in known}
    found = []
    for base, names in ledgers.walk(output.root):
        below = os.path.relpath(base, output.root)
        top = below.partition("/")[0]
        for name in names if top not in (".", INNER) else ():
            kind = formats.find(name)
            array = kind and (not kind.common or top in folders)
            found += [f"{below}/{name}"] if array and f"{below}/{name}" not in known else []
    return sorted(found)


def _repair(output: OutputDir, found: Checked) -> None:
    """Remove what is damaged; the plan of the next run misses it then."""
    for problem in [p for p in found.problems if p.damaged]:
        try:
            if place := output.place(problem.path):
                place.unlink()
        except OSError as error:
            raise RunFailed(f"{problem.path}: cannot be removed: {error.strerror}; remove it yourself") from error
        found.removed.append(problem.path)

"""What has been produced: read for resume, folded into the manifest when a run ends.

Worker attempts append events to files of their own below `.consort/records`. `fold` turns them into
`manifest.jsonl` (arrays), `failures.jsonl` and `sources.jsonl`, and removes them. Folding the same
files twice gives the same result, so a death in the middle of it costs nothing.

No clock says which word is the newest: runs are in the order of their names, which count on from each other, and
within a run attempts are. Where two runs claim one file, or a worker died before it could claim what it may have
written, the file's hash decides: a record that it does not fit is none.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import re
import shutil
import time
import typing as tp

from orchestrator import files
from orchestrator.errors import RunFailed
from orchestrator.output.folder import INNER, RUN, OutputDir
from worker import protocol, regular, schema
from worker.protocol import Event, Facts, Failure, Record

# What `worker.work.store` and `files.replace` leave when they die; a user's own `.film.part` is not ours to remove.
# Until version 0.4 their names did not end in random digits.
_PARTIAL = re.compile(r"\..+(\.[0-9a-f]{16}|\.\d+-\d+|\.(jsonl?|csv|txt)\.\d+)\.part\Z")

Key = tuple[str, str, str, int]  # item, model, output, window
_E = tp.TypeVar("_E")
# Fields in which many entries, or several files, say the same: kept once, or 100,000 files would need more memory.
_EQUAL = ("item", "model", "output", "dtype", "decoder", "context", "source", "axes", "shape", "flags")
_NUMBERS = ("frame_rate", "start", "duration", "sample_rate", "bytes", "size")
_ATTEMPT = re.compile(r"\.(\d+)\.jsonl\Z")


@dataclasses.dataclass
class Ledger:
    """Everything that is known about an output folder."""

    records: dict[Key, Record] = dataclasses.field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = dataclasses.field(default_factory=dict)
    sources: dict[str, Facts] = dataclasses.field(default_factory=dict)  # read again only when they change
    # arrays that others have replaced: the hash by the path
    outlived: dict[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    _owners: dict[str, Key] = dataclasses.field(default_factory=dict, compare=False, repr=False)  # by path

    def put(self, record: Record) -> None:
        """Take in a record in the place of an older one; an item may have fewer windows than before."""
        key = _key_of(record)
        self._drop(key)
        owner = self.records.get(self._owners.get(record.path, key))
        if owner is not None and (owner.window is None) != (record.window is None):
            del self.records[self._owners[record.path]]  # `a_frag0.wav`, whose file is a window of `a.wav` by now
        self.records[key], self._owners[record.path] = record, key
        number = record.windows or 1
        while record.window in (None, 0) and self._drop((*key[:3], number)):
            number += 1

    def forget(self, record: Record) -> None:
        """Take out a record; a fold removes its file first."""
        self._drop(_key_of(record))

    def _drop(self, key: Key) -> bool:
        """Forget a record, and remember its file as replaced; return whether there was one."""
        gone = self.records.pop(key, None)
        if gone is None:
            return False
        if self._owners.get(gone.path) == key:
            del self._owners[gone.path]
            self.outlived[gone.path] = gone.sha256
        return True

    def of(self, item: str, model: str, output: str) -> list[Record]:
        """Return the records of one output: of the whole item, or of its windows; none if one is missing."""
        first = self.records.get((item, model, output, 0))
        count = first.windows or 1 if first else 0
        found = [self.records.get((item, model, output, number)) for number in range(count)]
        whole = [record for record in found if record is not None]
        return whole if len(whole) == count else []

    def add(self, event: Event) -> None:
        """Take in what an event says; the newest word about an (item, model) counts."""
        match event.kind:
            case "wrote" if event.record:
                self.put(event.record)
                self.failures.pop((event.record.item, event.record.model), None)
            case "failed" if event.failure:
                self.failures[event.failure.item, event.failure.model] = event.failure
                self._see(event)
            case "decoded":
                self._see(event)
            case "wrote" | "failed" | "hello" | "loading" | "loaded" | "opened" | "batch_reduced" | "heartbeat":
                pass
            case "device_missing" | "device_lost" | "model_refused" | "output_lost" | "finished":
                pass  # of the attempt, and forgotten with it
            case "progress" | "note" | "fitted":
                pass  # of a fit, which leaves no records
            case _:
                protocol.refuse_kind(event.kind)

    def _see(self, event: Event) -> None:
        if event.item is not None and event.facts is not None and event.facts.sha256:
            self.sources[event.item] = event.facts


def _key_of(record: Record) -> Key:
    return record.item, record.model, record.output, record.window or 0


def read(output: OutputDir) -> Ledger:
    """Return the ledger of a folder from its files alone; works while a run is going."""
    ledger = Ledger()
    told = {path.name: list(events(path)) for path in attempts(output)}  # first: a fold moves them on
    known: dict[tp.Any, tp.Any] = {}
    for record in _entries(output.manifest, lambda line: Record(**line), known, _EQUAL):
        ledger.put(record)
    ledger.failures = {(f.item, f.model): f for f in _entries(output.failures, lambda line: Failure(**line), known)}
    facts = _entries(output.sources, lambda line: (line.pop("item"), Facts(**line)), known, ("item", "sha256"))
    ledger.sources = dict(facts)
    claims = [*_claims(ledger, told)] if told else []
    for event in itertools.chain.from_iterable(told.values()):
        ledger.add(event)
    for claimed in claims:
        _settle(output, ledger, claimed)
    return ledger


def _claims(ledger: Ledger, told: tp.Mapping[str, list[Event]]) -> tp.Iterator[list[Record]]:
    """Yield the records, oldest first, that may be of one file, where their order alone cannot be believed.

    Args:
        ledger: what was folded before.
        told: events by the name of their file, oldest first.
    """
    claims: dict[str, dict[str, Record]] = collections.defaultdict(dict)  # the last of each run by path
    begun: set[tuple[str, str]] = set()
    for name, happened in told.items():
        for event in happened:
            pair = (event.item or "", event.model or "")
            if event.kind == "opened" and event.model:
                begun.add(pair)
            elif event.kind == "wrote":
                begun.discard(pair)
            if event.record is not None:
                claims[event.record.path][_run_of(name)] = event.record
    disputed = {path for path, found in claims.items() if len(found) > 1}
    known = list(ledger.records.values()) if disputed or begun else []
    for record in [*known, *(record for found in claims.values() for record in found.values())]:
        if (record.item, record.model) in begun:
            disputed.add(record.path)
    before = {record.path: record for record in known if record.path in disputed}
    for path in disputed:
        yield [*([before[path]] if path in before else []), *claims[path].values()]


def _settle(output: OutputDir, ledger: Ledger, claimed: list[Record]) -> None:
    """Keep the newest of some records that their file fits; none where it is another one."""
    place = output.place(claimed[0].path)
    if place is None or not output.holds(claimed[0].path):
        return  # there is no file, so that none of them counts as done
    for record in claimed:
        if ledger.records.get(_key_of(record)) == record:
            ledger.forget(record)
    size = place.stat().st_size
    fitting = [record for record in claimed if record.bytes == size]
    found = files.sha256_of(place) if fitting else ""
    for record in [record for record in fitting if record.sha256 == found][-1:]:
        if _key_of(record) not in ledger.records:  # or a newer one has another name
            ledger.put(record)
    ledger.outlived.pop(claimed[0].path, None)  # what is there by now, these records did not replace


def _run_of(name: str) -> str:
    """Return which run an event file is of; one that no run names is alone."""
    found = RUN.match(name)
    return found.group() if found else name


def random_models(ledger: Ledger) -> set[str]:
    """Return the models that have written arrays with weights that were never trained."""
    return {record.model for record in ledger.records.values() if "random_weights" in record.flags}


def attempts(output: OutputDir) -> list[pathlib.Path]:
    """Return the event files that are not folded yet, oldest first: those of no run, then by run and attempt."""
    return sorted(output.records.glob("*.jsonl") if output.records.is_dir() else (), key=_order)


def _order(path: pathlib.Path) -> tuple[bool, str, float, str]:
    """Return what event files are sorted by; what the host says of a run comes after its attempts."""
    attempt = _ATTEMPT.search(path.name)
    return bool(RUN.match(path.name)), _run_of(path.name), float(attempt.group(1)) if attempt else math.inf, path.name


def events(path: pathlib.Path) -> tp.Iterator[Event]:
    """Yield the whole lines of an event file; a line that a death cut short is left out."""
    try:
        with os.fdopen(regular.open_file(path), "r", encoding="ascii", errors="replace") as f:
            text = f.read()
    except FileNotFoundError:
        return  # folded since it was listed
    except OSError as error:
        raise RunFailed(f"{path} cannot be read: {error.strerror}") from error
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            yield protocol.decode(line)


def fold(output: OutputDir, change: tp.Callable[[Ledger], None] = lambda ledger: None) -> Ledger:
    """Fold all event files into the manifest and its companions, and remove them; the caller holds the folder's lock.

    What `change` does to the ledger is done before anything is written.

    Raises:
        RunFailed: the folder cannot be written, or a worker has planted links there; nothing is lost.
    """
    output.refuse_links()
    ledger = read(output)
    change(ledger)
    # first: a death in between leaves the records, and with them the knowledge of what is to go
    for name in sorted(ledger.outlived.keys() - {record.path for record in ledger.records.values()}):
        _remove(output.place(name), ledger.outlived[name])
    files.replace(output.manifest, _lines(ledger.records))
    files.replace(output.failures, _lines(ledger.failures))
    sources = {item: {"item": item, **dataclasses.asdict(facts)} for item, facts in ledger.sources.items()}
    files.replace(output.sources, _lines(sources))
    for path in attempts(output):
        path.unlink()
    return ledger


def _remove(place: pathlib.Path | None, sha256: str) -> None:
    """Remove an array that others have replaced; what a record does not fit is nobody's to remove."""
    with contextlib.suppress(OSError):
        if place is not None and place.is_file() and files.sha256_of(place) == sha256:
            place.unlink()


def fold_left(output: OutputDir) -> None:
    """Fold what runs that died have left, so that the next run's events never stand beside those of another."""
    if attempts(output):
        fold(output)


def sweep(output: OutputDir, patience: float = 30.0) -> int:
    """Remove what dead attempts left half-written, and return how many temporary files; wait for those still ending.

    Args:
        output: its lock is held by the caller, so no attempt of a living run is among them.
        patience: seconds to wait for workers whose orchestrator died; they end by themselves.

    Raises:
        RunFailed: a worker of a dead run does not end.
    """
    left = attempts(output)
    deadline = time.monotonic() + patience
    while any(locked(path) for path in left):
        if time.monotonic() > deadline:
            raise RunFailed(f"output {output.root}: a worker of an earlier run is still writing; end it first")
        time.sleep(0.1)
    scratch = list(output.scratch.iterdir())
    for path in scratch:
        shutil.rmtree(path, ignore_errors=True)
        if path.is_file():
            path.unlink()
    count = _remove_partials(output.root, os.listdir(output.root))
    # Only an attempt leaves something among the arrays; without one a large folder is not walked.
    walked = output.root if left or scratch else output.inner
    return count + sum(_remove_partials(pathlib.Path(folder), names) for folder, names in walk(walked))


def walk(root: pathlib.Path) -> tp.Iterator[tuple[str, list[str]]]:
    """Yield folders with their files, but for output folders of other jobs, whose runs may be under way."""
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not os.path.isdir(os.path.join(folder, name, INNER))]
        yield folder, names


def _remove_partials(folder: pathlib.Path, names: list[str]) -> int:
    partials = [name for name in names if _PARTIAL.match(name)]
    for name in partials + [name for name in names if name.endswith(".part") and folder.name == "contexts"]:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            (folder / name).unlink()
    return len(partials)


def locked(path: pathlib.Path) -> bool:
    """Return whether the writer of an event file lives."""
    try:
        with os.fdopen(regular.open_file(path), "rb") as f:
            return not files.try_lock(f, shared=True)
    except PermissionError:
        return True
    except OSError:
        return False  # folded since it was listed, or no file that a worker writes


def _lines(entries: tp.Mapping[tp.Any, tp.Any]) -> str:
    return "".join(protocol.canonical(schema.dump(entries[key])) + "\n" for key in sorted(entries))


def _entries(
    path: pathlib.Path,
    build: tp.Callable[[dict[str, tp.Any]], _E],
    known: dict[tp.Any, tp.Any],
    equal: tp.Collection[str] = (),
) -> tp.Iterator[_E]:
    try:
        for entry in files.read_json_lines(path):
            for name in equal:
                value = entry[name]
                entry[name] = known.setdefault(tuple(value) if isinstance(value, list) else value, value)
            for name in entry.keys() & _NUMBERS:
                entry[name] = known.setdefault((type(entry[name]), entry[name]), entry[name])  # 1 and 1.0 are equal
            yield build(entry)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunFailed(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise RunFailed(f"{path.name} is damaged ({error}); restore it or remove it and run again") from error

"""Compute some items of an output folder again, and compare: what hashes cannot show, as they could be wrong alike.

The job is the one that the last run kept, or the one that the user names; only where it writes, which items it
takes and that it resumes nothing are changed. Arrays that were made alike on a CPU must be equal to the byte;
others are compared by value.
"""

import collections
import contextlib
import dataclasses
import os
import random
import shutil
import tempfile
import typing as tp

from orchestrator import errors
from orchestrator.checking import comparison, verify
from orchestrator.checking.comparison import TOLERANCE, Comparison, Match, Side
from orchestrator.checking.run_folder import RunFolder
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import reading, scan
from orchestrator.job.items import Audio, Source
from orchestrator.job.spec import JobSpec
from orchestrator.output import ledger as ledgers
from orchestrator.output.contexts import Contexts
from orchestrator.output.ledger import Key, Ledger
from orchestrator.planning import survey
from orchestrator.planning.survey import Survey
from orchestrator.running import placement, run, weights
from orchestrator.running.progress import Progress
from orchestrator.running.report import Report
from worker.protocol import Failure, Record

_ALIKE = ("lock", "worker", "device")  # of contexts: what decides how numbers are rounded, besides the processor
_UNFINISHED = (errors.INTERRUPTED, errors.UNAVAILABLE, errors.LOST)  # exit codes


@dataclasses.dataclass(frozen=True)
class Sample:
    """Which items are computed again, and where."""

    count: int
    seed: int | None = None  # draws them; None spreads them evenly over the sorted ids
    runtime: str | None = None  # in the place of the job's own


@dataclasses.dataclass
class Recomputed(Comparison):
    """What came of the items that were computed again, and of hashing the folder before."""

    items: list[str] = dataclasses.field(default_factory=list)
    alike: int = 0  # arrays that were made alike, and must be equal to the byte
    unlike: dict[str, int] = dataclasses.field(default_factory=dict)  # how many others, by what is another one
    left_out: list[str] = dataclasses.field(default_factory=list)  # outputs that the job does not ask for
    placement: dict[str, str] = dataclasses.field(default_factory=dict)
    code: int = errors.OK  # of the run

    @property
    def exit_code(self) -> int:
        return self.code if self.code in _UNFINISHED else super().exit_code

    def json(self) -> dict[str, tp.Any]:
        """Return everything as plain values."""
        facts = {name: getattr(self, name) for name in ("items", "alike", "unlike", "left_out", "placement")}
        return {**super().json(), **facts}

    def lines(self, everything: bool) -> list[str]:
        """Return a line for each difference, a table by model, the verdict, and what was not looked at."""
        whole = [line for found in self.checked if not found.problems for line in found.lines(everything)]
        where = f"runtime {self.placement['runtime']}, device {self.placement['devices']}"
        held = f"made alike, so that every byte should be equal: {self.alike} of {len(self.matches)} arrays"
        held += "".join(f"; with another {what}: {number}" for what, number in sorted(self.unlike.items()))
        said = [f"items computed again: {len(self.items)} ({where})", held, *super().lines(everything)]
        if self.left_out:
            said.append(f"not computed again, as the job does not ask for it: {', '.join(self.left_out)}")
        if any(match.kind in ("bytes", "values") for match in self.matches):
            said.append(f"next: remove what should not differ; `{self.checked[0].command}` makes it again")
        return [*whole, *said]


def recompute(
    target: RunFolder, choice: Sample, tolerance: float | None, progress: Progress, repair: bool = False
) -> Recomputed:
    """Hash an output folder again, and return how some of its items come out today; `repair` removes what is damaged.

    Other bytes count as the same within `tolerance` even where arrays were made alike.

    Raises:
        JobError: no job was kept, or its audio is out of reach.
        RunFailed: a run is writing there, or there is no room for the arrays.
    """
    ledger = target.ledger()
    if target.job is None:
        raise JobError(f"{target.name}: its job was not kept; name the job file instead of the folder")
    job = reading.read(target.job, [("output", str(target.output.root))])
    audio = Audio(scan.root_of(job), _choose(job, ledger, choice))
    checked = verify.check(target, repair)
    with contextlib.ExitStack() as stack:
        scratch = tempfile.mkdtemp(prefix="consort-verify-")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        runtime = choice.runtime or job.runtime
        changed = dataclasses.replace(job, output=scratch, resume="never", limit=None, runtime=runtime)
        surveyed, report = _run(changed, audio, progress)
        if report.exit_code in (errors.UNAVAILABLE, errors.LOST):
            stack.pop_all()  # the folder is kept, as its logs say why
        asked, left_out = _asked(surveyed, ledger)
        matches, ways = _match(Side(target, asked, checked.broken), RunFolder(scratch), tolerance)
        failures = ledgers.read(surveyed.output).failures
    return Recomputed(
        names=(target.name, "the new run"),
        tolerance=TOLERANCE if tolerance is None else tolerance,
        matches=[_explain(match, report, failures) for match in matches],
        checked=[checked],
        items=[source.id for source in audio.sources],
        alike=ways.pop("", 0),
        unlike=dict(ways),
        left_out=left_out,
        placement=report.placement,
        code=report.exit_code,
    )


def _choose(job: JobSpec, ledger: Ledger, choice: Sample) -> list[Source]:
    """Return some of the items that the job's models have written and whose audio is there."""
    models = {model.name for model in job.models}
    root = scan.root_of(job)
    written = sorted({(r.item, r.segment or "") for r in ledger.records.values() if r.model in models})
    # a manifest from elsewhere must not lead out of the audio folder
    below = [(item, part) for item, part in written if not os.path.isabs(item) and ".." not in item.split("/")]
    there = [source for item, part in below if (source := scan.find(job, item, part or None)).size >= 0]
    if not there:
        raise JobError(f"audio: nothing of what was read is in {root}; bring it back, or name a job file that has it")
    return pick(there, choice.count, choice.seed)


def pick(entries: list[Source], count: int, seed: int | None = None) -> list[Source]:
    """Return `count` entries in their order: evenly spread, or drawn."""
    if count >= len(entries):
        return entries
    if seed is None:
        return [entries[(2 * n + 1) * len(entries) // (2 * count)] for n in range(count)]
    drawn = random.Random(seed).sample(range(len(entries)), count)  # noqa: S311 - a sample, no secret
    return [entries[n] for n in sorted(drawn)]


def _run(job: JobSpec, audio: Audio, progress: Progress) -> tuple[Survey, Report]:
    placed = placement.choose(job)
    weights.fetch_unpinned(job, progress)
    surveyed = survey.take(job, audio)
    if trouble := surveyed.lacking_room():
        raise RunFailed(f"{trouble}; let TMPDIR name a folder with more room, or ask for fewer items")
    surveyed.output.create()
    progress.say(f"computing {len(audio.sources)} items again, runtime {placed.runtime.name} ({placed.why})")
    with surveyed.output.lock():
        report, _ = run.extract(surveyed, placed, progress)
    return surveyed, report


def _asked(surveyed: Survey, ledger: Ledger) -> tuple[dict[Key, Record], list[str]]:
    """Return the records that the new run should make again, and the names of outputs that its job does not make."""
    wanted = {(model.name, output) for model in surveyed.plan.models for output in model.task.outputs}
    items = {source.id for source in surveyed.audio.sources}
    of_job = {key: record for key, record in ledger.records.items() if (record.model, record.output) in wanted}
    others = {f"{r.model}.{r.output}" for r in ledger.records.values() if (r.model, r.output) not in wanted}
    return {key: record for key, record in of_job.items() if record.item in items}, sorted(others)


def _match(before: Side, fresh: RunFolder, tolerance: float | None) -> tuple[list[Match], "collections.Counter[str]"]:
    """Return what came of each array, and how many were made in which other way; alike is ""."""
    made = ledgers.read(fresh.output).records
    computed = {key: record for key, record in made.items() if key in before.arrays}
    ways = {key: _unlike(before.target, before.arrays[key], fresh, now) for key, now in computed.items()}
    unlike = {key for key, way in ways.items() if way}
    return comparison.match(before, Side(fresh, computed), tolerance, unlike), collections.Counter(ways.values())


def _unlike(target: RunFolder, before: Record, fresh: RunFolder, now: Record) -> str:
    """Return what lets the bytes of two arrays differ; empty where nothing does."""
    old, new = (Contexts(t.output.contexts).read(r.context) for t, r in ((target, before), (fresh, now)))
    differing = [name for name in _ALIKE if name not in old or old[name] != new.get(name)]
    if not differing and old["device"] != "cpu":
        return "batch"  # on a GPU it holds windows of several items, here those of fewer
    return ", ".join(differing)


def _explain(match: Match, report: Report, failures: tp.Mapping[tuple[str, str], Failure]) -> Match:
    """Say why an array was not computed again."""
    if match.kind != "gone":
        return match
    failure = failures.get((match.item, match.model))
    trouble = report.models[match.model].unavailable or "; ".join(report.lost) or "its run did not finish"
    why = failure.message if failure else trouble
    return dataclasses.replace(match, text=f"was not computed again: {why}")

"""What a job has done so far: while it runs, after it, and from the files alone."""

import collections
import dataclasses
import itertools
import json
import os

from orchestrator import files
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import reading, scan
from orchestrator.job.items import Audio, LeftOut
from orchestrator.job.spec import JobSpec
from orchestrator.output import flagged
from orchestrator.output import ledger as ledgers
from orchestrator.output.contexts import Contexts
from orchestrator.output.flagged import Flagged
from orchestrator.output.folder import INNER, OutputDir, RunDir
from orchestrator.output.ledger import Ledger
from orchestrator.planning import survey
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.plan import DONE, FAILED, REUSED, STALE, TODO, WAITING
from orchestrator.planning.survey import Survey
from worker import protocol
from worker.protocol import Failure, Record


@dataclasses.dataclass(frozen=True)
class ModelStatus:
    """Counts of items of one model."""

    done: int
    pending: int
    failed: dict[str, int]  # by class; transient ones are pending as well
    stale: int  # items with an array of other parameters or of another source
    orphaned: int  # arrays that no record names, or whose item is no longer part of the job
    waiting: int = 0  # items of a model that `consort fit` has yet to make
    devices: list[str] = dataclasses.field(default_factory=list)  # what its arrays were computed on


@dataclasses.dataclass(frozen=True)
class Status:
    """All models, and the failures with their reasons."""

    output: str
    models: dict[str, ModelStatus]
    failures: list[Failure]
    running: bool
    random_weights: list[str]  # models whose arrays come from weights that were never trained
    flagged: Flagged = dataclasses.field(default_factory=dict)  # items whose source is not what it seems
    flags: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)  # their numbers, by model
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)  # by the scan


def of_output(root: str) -> Status:
    """Return the status of an output folder: of the job that its last run kept, and of others' models.

    Raises:
        JobError: no run has written there.
    """
    return _of(look(*kept(root)), others=True)


def kept(root: str) -> tuple[JobSpec, Audio]:
    """Return the job that the last run in an output folder kept, and its items.

    Raises:
        JobError: no run has written there.
    """
    output = OutputDir(os.path.abspath(root))
    run = output.last_run()
    if run is None:
        raise JobError(f"{root}: no run has written here; name a job file or an output folder")
    # the folder may have been moved since
    job = reading.read(str(run.job), [("output", str(output.root))])
    return job, _asked(run, job, ledgers.read(output))


def of_job(job: JobSpec, audio: Audio | None = None) -> Status:
    """Return the status of a job.

    Args:
        job: how it resumes and whether it tries failures again do not change what is done.
        audio: the items that count; None scans the job's audio.
    """
    return _of(look(job, audio))


def look(job: JobSpec, audio: Audio | None = None) -> Survey:
    """Return a job as its status is told of: whatever it resumes by, what is done is done."""
    resume = "key" if job.resume == "never" else job.resume
    asked = dataclasses.replace(job, resume=resume, retry_failed=False, limit=None)
    return survey.take(asked, audio, sample=False)  # a worker may be replacing them at this moment


def _of(surveyed: Survey, others: bool = False) -> Status:
    """Return the status of a job's models, and of `others` that other jobs have written into the same folder."""
    plan, ledger = surveyed.plan, surveyed.ledger
    strangers = collections.Counter(model for model, _ in orphans(surveyed))
    states = {(c.source.id, model): state for c in plan.choices for model, state in c.states.items()}
    current = [f for key, f in ledger.failures.items() if states.get(key, DONE) != DONE]
    computed_on = _devices(surveyed.output, ledger)
    models = {}
    for model in plan.models:
        models[model.name] = ModelStatus(
            done=plan.count(model.name, DONE),
            pending=sum(plan.count(model.name, state) for state in (TODO, STALE, REUSED)),
            failed=dict(collections.Counter(f.kind for f in current if f.model == model.name)),
            stale=len({record.item for record in stale(surveyed, model)}),
            orphaned=strangers[model.name],
            waiting=plan.count(model.name, WAITING),
            devices=computed_on.get(model.name, []),
        )
    current.sort(key=lambda f: (f.item, f.model))
    for name in sorted({r.model for r in ledger.records.values()} - set(models)) if others else ():
        done = len({r.item for r in ledger.records.values() if r.model == name})
        failed = collections.Counter(f.kind for f in ledger.failures.values() if f.model == name)
        models[name] = ModelStatus(done, 0, dict(failed), 0, 0, devices=computed_on.get(name, []))
    random = sorted(ledgers.random_models(ledger) & set(models))
    running = any(map(ledgers.locked, ledgers.attempts(surveyed.output)))
    told = collections.defaultdict[str, list[Record]](list)
    for record in ledger.records.values():
        if states.get((record.item, record.model)) == DONE:
            told[record.model].append(record)
    wrong = flagged.find(itertools.chain(*told.values()))
    numbers = {name: flagged.count(flagged.find(records)) for name, records in told.items()}
    told_out = surveyed.audio.left_out
    return Status(surveyed.job.output, models, current, running, random, wrong, numbers, told_out)


def stale(surveyed: Survey, model: ModelPlan) -> list[Record]:
    """Return the records of arrays that are to be renewed, and of those that nothing will renew.

    The latter's items fail by now, or an output that is no longer asked for was made with other parameters.
    """
    states = {c.source.id: c.states[model.name] for c in surveyed.plan.choices}
    found = []
    for record in surveyed.ledger.records.values():
        state = states.get(record.item) if record.model == model.name else None
        asked = record.output in model.task.outputs
        same = record.key == protocol.key_of(model.task.key, record.output, record.source, record.segment)
        if state == FAILED or (state == STALE and asked) or (state in (DONE, STALE) and not asked and not same):
            found.append(record)
    return found


def _devices(output: OutputDir, ledger: Ledger) -> dict[str, list[str]]:
    """Return what the arrays of each model were computed on, and whether a GPU was meant to do it."""
    seen = {(r.model, r.context, "cpu_fallback" in r.flags) for r in ledger.records.values()}
    found: dict[str, set[str]] = {}
    contexts = Contexts(output.contexts)
    for model, name, fallback in seen:
        context = contexts.find(name)
        if context is not None:  # where it is lost, its records are there all the same
            device = context.get("device", "?")
            found.setdefault(model, set()).add(f"{device} (fallback)" if fallback else device)
    return {model: sorted(devices) for model, devices in found.items()}


def _asked(run: RunDir, job: JobSpec, ledger: Ledger) -> Audio:
    """Return the items of a run; where the audio is out of reach, as they were when they were read."""
    sources = []
    for item, part in _items(run):
        source = scan.find(job, item, part)
        seen = ledger.sources.get(item)
        if source.size < 0 and seen:
            source = dataclasses.replace(source, size=seen.size, mtime_ns=seen.mtime_ns, ctime_ns=seen.ctime_ns)
        sources.append(source)
    return Audio(scan.root_of(job), sources, _left_out(run))


def _left_out(run: RunDir) -> list[LeftOut]:
    """Return what the scan of a run left out; until version 0.4 nothing was written down."""
    try:
        return [LeftOut(**one) for one in json.loads(files.read_text(run.plan)).get("left_out", [])]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunFailed(f"{run.plan} is damaged ({error}); name the job file instead") from error


def _items(run: RunDir) -> list[tuple[str, str | None]]:
    """Return the ids of a run's items, and the segments of those that are ones."""
    try:
        lines = map(json.loads, files.read_text(run.items).splitlines())
        return [(line["id"], line.get("segment")) for line in lines]
    except OSError as error:
        raise RunFailed(f"{run.items} cannot be read: {error.strerror}; name the job file instead") from error
    except (ValueError, LookupError, TypeError) as error:
        raise RunFailed(f"{run.items} is damaged ({error}); name the job file instead") from error


def orphans(surveyed: Survey) -> list[tuple[str, str]]:
    """Return (model, path) of the files in the folders of models that no record of a chosen item names."""
    chosen = {choice.source.id for choice in surveyed.plan.choices}
    named = {r.path for r in surveyed.ledger.records.values() if r.item in chosen}
    sources = {os.path.join(surveyed.audio.root, source.file) for source in surveyed.audio.sources}
    found = []
    for model in surveyed.plan.models:
        for folder in [surveyed.output.root / name for name in model.spec.folders]:
            for base, names in ledgers.walk(folder) if not (folder / INNER).exists() else ():
                for place in [os.path.join(base, file) for file in names if not file.endswith(".part")]:
                    path = os.path.relpath(place, surveyed.output.root).replace(os.sep, "/")
                    if path not in named and place not in sources:
                        found.append((model.name, path))
    return found

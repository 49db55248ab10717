"""Everything a plan needs to be decided: the scan, the ledger, and answers about files."""

import dataclasses
import functools
import pathlib
import shutil

import yaml

from orchestrator import files
from orchestrator.environments import definitions
from orchestrator.files import sha256_of
from orchestrator.job import scan
from orchestrator.job.scan import Audio, Source
from orchestrator.job.spec import JobSpec
from orchestrator.output import ledger as ledgers
from orchestrator.output.contexts import Contexts
from orchestrator.output.folder import OutputDir, RunDir
from orchestrator.output.ledger import Ledger
from orchestrator.planning import keys, plan
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.plan import Plan
from orchestrator.text import size
from orchestrator.weights.store import Weights
from worker import protocol, schema
from worker.extractor import Checkpoint
from worker.protocol import Facts, Record


@dataclasses.dataclass(frozen=True)
class Survey:
    """A job that has been looked at; nothing is started yet."""

    job: JobSpec
    audio: Audio
    output: OutputDir
    ledger: Ledger
    plan: Plan
    weights: Weights

    def keep(self, run: RunDir) -> None:
        """Write what was asked and decided into the folder of a run."""
        files.replace(run.job, yaml.safe_dump(schema.dump(self.job), sort_keys=False), "utf-8")
        lines = [
            protocol.canonical({"id": c.source.id, "name": c.name, "labels": c.source.labels}) + "\n"
            for c in self.plan.choices
        ]
        files.replace(run.items, "".join(lines))
        files.replace(run.plan, plan.summary(self.plan))

    def lacking_room(self) -> str | None:
        """Return why the arrays cannot fit on the disk, or None."""
        existing = next(p for p in (self.output.root, *self.output.root.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        needed = self.plan.bytes()
        if needed * 1.05 + (64 << 20) <= free:
            return None
        return f"output {self.output.root}: about {size(needed)} are needed, {size(free)} are free"


def take(job: JobSpec, audio: Audio | None = None) -> Survey:
    """Read what is there, and decide what is to do.

    Args:
        job: checked.
        audio: what a scan found; None scans now.

    Raises:
        JobError: the audio is missing or there is none, or an environment of the job's is none.
    """
    definitions.add(job.environments)
    audio = audio or scan.scan(job)
    output = OutputDir(job.output)
    ledger = ledgers.read(output)
    weights = Weights()
    models = [keys.model_plan(model, functools.partial(_hash_of, weights)) for model in job.models]
    seconds = scan.estimate_seconds(audio.root, audio.sources)
    made = plan.make(job, models, audio.sources, ledger, seconds, _Files(audio.root, output))
    return Survey(job, audio, output, ledger, made, weights)


def _hash_of(weights: Weights, checkpoint: Checkpoint) -> str:
    if checkpoint.sha256:
        return checkpoint.sha256
    try:
        return weights.sha256(checkpoint)
    except OSError:
        locked = weights.lock.find(checkpoint)
        if locked is not None:
            return locked.sha256  # arrays made with it are done, whether it is still here or not
        return f"missing {checkpoint.name} {checkpoint.file}"  # the run says so; its items stay to do


class _Files:
    """Answers the plan's questions from the disk."""

    def __init__(self, audio: str, output: OutputDir) -> None:
        self._audio = audio
        self._output = output
        self._locks: dict[str, bool] = {}

    def sha256(self, source: Source, ledger: Ledger) -> str:
        seen = ledger.sources.get(source.id)
        if seen is not None and (seen.size, seen.mtime_ns) == (source.size, source.mtime_ns):
            return seen.sha256
        path = pathlib.Path(self._audio, source.id)
        if source.size < 0 or not path.is_file():
            return ""
        try:
            found = sha256_of(path)
        except OSError:
            return ""
        ledger.sources[source.id] = Facts(found, source.size, source.mtime_ns)
        return found

    def present(self, path: str, size: int | None) -> bool:
        return self._output.holds(path, size)

    def strict(self, record: Record, model: ModelPlan) -> bool:
        if record.context not in self._locks:
            self._locks[record.context] = self._same_lock(record.context, model)
        return self._locks[record.context]

    def _same_lock(self, context: str, model: ModelPlan) -> bool:
        found = Contexts(self._output.contexts).read(context)
        environment = definitions.find(model.environment)
        locks = [environment.lock_sha256(variant) for variant in environment.spec.locks]
        device = str(found.get("device", "cpu")).partition(" ")[0]
        backend = model.extractor.asked(device=device).describe().get("backend")
        return bool(found.get("lock") in locks and found.get("details", {}).get("backend") == backend)

"""Everything a plan needs to be decided: the scan, the ledger, and answers about files."""

import contextlib
import dataclasses
import functools
import shutil

import yaml

from orchestrator import files
from orchestrator.environments import definitions
from orchestrator.job import scan
from orchestrator.job.items import Audio
from orchestrator.job.spec import JobSpec
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import OutputDir, RunDir
from orchestrator.output.ledger import Ledger
from orchestrator.planning import keys, plan
from orchestrator.planning.look import Look
from orchestrator.planning.plan import Choice, Plan
from orchestrator.text import size
from orchestrator.weights.store import Weights
from worker import protocol, schema
from worker.extractor import Checkpoint
from worker.protocol import Event, Facts


@dataclasses.dataclass(frozen=True)
class Survey:
    """A job that has been looked at; nothing is started yet."""

    job: JobSpec
    audio: Audio
    output: OutputDir
    ledger: Ledger
    plan: Plan
    weights: Weights
    read: dict[str, Facts] = dataclasses.field(default_factory=dict)  # of sources that had to be hashed again

    def keep(self, run: RunDir, runtime: str) -> None:
        """Write what was asked and decided, and the runtime that does it, into the folder of a run."""
        if self.read:  # an event of its own, or the next run would read them all again
            with contextlib.closing(protocol.Channel(str(self.output.records / f"{run.id}-read.jsonl"))) as channel:
                seconds = self.plan.seconds
                channel.emit(*(Event("decoded", item=i, seconds=seconds[i], facts=f) for i, f in self.read.items()))
        files.replace(run.job, yaml.safe_dump(schema.dump(self.job), sort_keys=False), "utf-8")
        files.replace(run.items, "".join(map(_line, self.plan.choices)))
        files.replace(run.plan, plan.summary(self.plan, runtime, self.audio.left_out))

    def lacking_room(self) -> str | None:
        """Return why the arrays cannot fit on the disk, or None."""
        existing = next(p for p in (self.output.root, *self.output.root.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        needed = self.plan.bytes()
        if needed * 1.05 + (64 << 20) <= free:
            return None
        return f"output {self.output.root}: about {size(needed)} are needed, {size(free)} are free"


def _line(choice: Choice) -> str:
    """Return an item as the folder of a run keeps it; where several rows name it, with the labels of all."""
    labels = [row.labels for row in choice.source.rows]
    part = {} if choice.source.part is None else {"segment": choice.source.part}
    kept = {
        **part,
        "id": choice.source.id,
        "name": choice.name,
        "labels": labels if len(labels) > 1 else (*labels, {})[0],
    }
    return protocol.canonical(kept) + "\n"


def take(job: JobSpec, audio: Audio | None = None, sample: bool = True) -> Survey:
    """Read what is there, and decide what is to do.

    Args:
        job: checked.
        audio: what a scan found; None scans now.
        sample: hash some of the arrays that count as done.

    Raises:
        RunFailed: the output is a file, or what it holds is damaged.
        JobError: the audio is missing or there is none, or an environment of the job's is none.
    """
    definitions.add(job.environments)
    audio = audio or scan.scan(job)
    output = OutputDir(job.output)
    output.refuse_file()
    ledger = ledgers.read(output)
    weights = Weights()
    models = [keys.model_plan(model, functools.partial(hash_of, weights)) for model in job.models]
    seconds = scan.estimate_seconds(audio.root, audio.sources)
    look = Look(audio.root, output)
    made = plan.make(job, models, audio.sources, ledger, seconds, look, sample)
    return Survey(job, audio, output, ledger, made, weights, look.read)


def hash_of(weights: Weights, checkpoint: Checkpoint) -> str:
    """Return the hash of a checkpoint; of one that is not here what was written down, else words that are no hash."""
    if checkpoint.sha256:
        return checkpoint.sha256
    try:
        return weights.sha256(checkpoint)
    except OSError:
        locked = weights.lock.find(checkpoint)
        if locked is not None:
            return locked.sha256  # arrays made with it are done, whether it is still here or not
        return f"missing {checkpoint.name} {checkpoint.file}"  # the run says so; its items stay to do

"""The key of an array: the hash of what changes its numbers, and of nothing else. A promise to users' disks."""

import dataclasses
import functools
import os
import typing as tp

from orchestrator.job.spec import ModelSpec
from worker import catalog, protocol, schema
from worker.extractor import Checkpoint, Extractor, Output
from worker.protocol import Task


@dataclasses.dataclass(frozen=True)
class ModelPlan:
    """A model of the job with its task and declarations."""

    spec: ModelSpec
    task: Task
    extractor: Extractor

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def environment(self) -> str:
        return self.extractor.environment

    @functools.cached_property
    def declared(self) -> dict[str, Output]:
        """Every output that it can give, by its name, the primary one first; asked for so often that they are kept."""
        return {output.name: output for output in self.extractor.outputs()}

    @property
    def awaits(self) -> str | None:
        """The command that makes the fitted model that this one needs, where nothing is in its place yet."""
        for one in self.extractor.checkpoints():
            folder = one.name if one.kind == "folder" else os.path.dirname(one.name)
            if one.made_by and not os.path.lexists(folder):
                return one.made_by
        return None

    @property
    def teaches(self) -> bool:
        """Whether others of its extractor can be fitted to its arrays: the first output, made of audio alone."""
        return not any(one.made_by for one in self.extractor.checkpoints()) and (
            self.task.outputs[:1] == [self.extractor.outputs()[0].name]
        )


HashOf: tp.TypeAlias = tp.Callable[[Checkpoint], str]


def model_plan(spec: ModelSpec, hash_of: HashOf) -> ModelPlan:
    """Return the task of one model, with the key of everything that decides its numbers but the audio.

    Args:
        spec: checked before.
        hash_of: sha256 of a checkpoint, which for one that the user brought is that of the file.
    """
    extractor = spec.built
    every = extractor.asked(outputs=frozenset())  # the key must not depend on which ones are asked for together
    hashes = {c.file: hash_of(c) for c in every.checkpoints()}
    # where the user keeps weights must not count, only what they are
    own = {c.name: hash_of(c) if c.kind == "file" else "own" for c in every.checkpoints() if c.own}
    params = {k: own.get(v, v) if isinstance(v, str) else v for k, v in schema.dump(extractor).items()}
    pooling = spec.pooling if spec.pooling is not None else extractor.pooling
    material = {
        "extractor": spec.reference,
        "version": extractor.version,
        "audio": protocol.AUDIO_VERSION,
        "params": {k: v for k, v in params.items() if k != "backend"},
        "pooling": pooling,
        "dtype": spec.dtype,
        "precision": spec.precision,
        "checkpoints": sorted(hashes.values()),
    }
    window = extractor.request.window
    if window is not None:
        hop = window.hop_seconds or window.seconds  # the same windows, said or not
        material["window"] = {**schema.dump(window), "hop_seconds": hop}
    task = Task(
        name=spec.name,
        extractor=spec.reference,
        key=protocol.digest(material),
        params=spec.params,
        outputs=[o.name for o in catalog.wanted(extractor)],
        pooling={o.name: pooling for o in catalog.wanted(extractor) if o.poolable},
        dtype=spec.dtype,
        batch_size=spec.batch_size,
        format=spec.format,
        checkpoint={
            os.path.basename(c.file) if c.kind == "file" else c.file: hash_of(c) for c in extractor.checkpoints()
        },
        window=spec.window,
        layout=extractor.request.layout,
    )
    return ModelPlan(spec, task, extractor)

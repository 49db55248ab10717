"""The files that a run needs beside its audio: weights of the models, and ffmpeg. Fetched with progress."""

import dataclasses
import typing as tp

from orchestrator.errors import EnvironmentUnavailable
from orchestrator.job.spec import JobSpec
from orchestrator.planning.keys import ModelPlan
from orchestrator.running.progress import Progress
from orchestrator.weights import ffmpeg, transfer
from orchestrator.weights.store import Weights
from worker.extractor import Checkpoint
from worker.protocol import Task


class FetchStopped(Exception):
    """The user wants to end; what was downloaded stays and is resumed."""


@dataclasses.dataclass(frozen=True)
class Supplies:
    """Brings what is missing, unless the run is offline."""

    weights: Weights  # the cache
    progress: Progress  # shows downloads and licences
    offline: bool  # fetch nothing; what is missing fails
    stopped: tp.Callable[[], bool]  # asked during downloads; they end when it says so

    def fetch_all(
        self,
        models: tp.Iterable[ModelPlan],
        left_out: tp.Callable[[str, str], None],
        refuses: tp.Callable[[Task], str | None] = lambda task: None,
    ) -> list[ModelPlan]:
        """Return the models whose weights are here.

        Args:
            models: those with work.
            left_out: gets the name of each other one, and why.
            refuses: returns why a worker cannot be given what a task names.

        Raises:
            FetchStopped: the user wants to end.
        """
        available = []
        for model in models:
            try:
                fetched = self._fetch(model)
                if why := refuses(fetched.task):
                    raise EnvironmentUnavailable(why)
                available.append(fetched)
            except EnvironmentUnavailable as error:
                left_out(model.name, str(error))
        return available

    def _fetch(self, model: ModelPlan) -> ModelPlan:
        """Return the model with the paths of its weights; licences are said the first time."""
        checkpoints = model.extractor.checkpoints()
        if not self.offline and any(self.weights.problem(c) for c in checkpoints):
            self.weights.pull(_with_siblings(model), self._show)
        found = self.weights.files(checkpoints, model.name, _arguments(model))
        for line in self.weights.licence_news(checkpoints):
            self.progress.say(f"licence: {line}")
        root = self.weights.root  # wherever a worker finds it, its files have the same names there
        files = {
            name: path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            for name, path in found.items()
        }
        return dataclasses.replace(model, task=dataclasses.replace(model.task, files=files))

    def fetch_ffmpeg(self) -> None:
        """Bring ffmpeg; where it cannot be had, say what that means.

        Raises:
            FetchStopped: the user wants to end.
        """
        try:
            checkpoint = ffmpeg.checkpoint()
            if not self.offline:
                self.weights.pull([checkpoint], self._show)
            self.weights.files([checkpoint], "ffmpeg")
        except EnvironmentUnavailable as error:
            self.progress.say(f"no ffmpeg, so m4a, wma and their like will fail: {error}")

    def _show(self, name: str, done: int, total: int | None) -> None:
        if self.stopped():
            raise FetchStopped
        self.progress.stage("weights", transfer.share(name, done, total))


def _arguments(model: ModelPlan) -> str:
    """Return what `consort weights pull` needs to be told to fetch the weights of a model."""
    own = getattr(model.extractor, "checkpoint", None)
    default = getattr(type(model.extractor), "checkpoint", None)
    variant = f" --checkpoint {own}" if isinstance(own, str) and own != default else ""
    return f"{model.spec.reference}{variant}"


def fetch_unpinned(job: JobSpec, progress: Progress, every: bool = False) -> None:
    """Fetch the weights whose content nobody has published a hash of.

    They are part of the keys, so a plan can only be made once they are here. What cannot be had is left
    to `Supplies.fetch_all`, which says why.

    Args:
        job: whose models' weights.
        progress: shows downloads.
        every: also those with a hash.
    """
    weights = Weights()
    for model in job.models:
        wanted = [c for c in model.built.checkpoints() if every or (c.kind in ("hub", "url") and not c.sha256)]
        try:
            if any(weights.problem(c) for c in wanted):
                weights.pull(wanted, lambda *file: progress.stage("weights", transfer.share(*file)))
        except EnvironmentUnavailable:
            continue


def _with_siblings(model: ModelPlan) -> list[Checkpoint]:
    """Return the checkpoints of a model and what its other outputs need from the same archives.

    An archive is fetched once: asking for another output later must not download it again.
    """
    own = model.extractor.checkpoints()
    every = model.extractor.asked(outputs=frozenset())
    archives = {c.archive for c in own if c.archive}
    return [*own, *(c for c in every.checkpoints() if c.archive in archives and c not in own)]

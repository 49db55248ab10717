"""What a run will build and fetch first, and what it will miss: `plan` says it before anything is started."""

import contextlib
import typing as tp

from orchestrator.cli import weights
from orchestrator.environments import definitions, interpreters
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.job import listed
from orchestrator.job.spec import SYNTHETIC
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.survey import Survey
from orchestrator.running.placement import Placement
from orchestrator.running.runtimes.base import READY
from orchestrator.text import printable, size
from orchestrator.weights import ffmpeg, sources
from orchestrator.weights.store import Weights
from worker.extractor import Checkpoint

_SHOWN = 3  # items that are named


def lines(surveyed: Survey, placed: Placement) -> list[str]:
    """Return a line for each environment, model and kind of item that lacks something."""
    work = [model for model in surveyed.plan.models if surveyed.plan.work(model)]
    told = any(one.reason.startswith(listed.MISSING) for one in surveyed.audio.left_out)  # with all that is absent
    made = surveyed.job.audio == SYNTHETIC  # by the run
    chosen = () if told or made else surveyed.plan.chosen
    absent = [printable(choice.source.id) for choice in chosen if choice.source.size < 0]
    found = list(_weights(surveyed.weights, work))
    if absent:
        named = ", ".join(absent[:_SHOWN]) + (" ..." if len(absent) > _SHOWN else "")
        found.append(f"missing: {len(absent)} items without a file: {named}")
    return [*_environments(work, placed), *found]


def _environments(work: tp.Iterable[ModelPlan], placed: Placement) -> tp.Iterator[str]:
    for name in sorted({model.environment for model in work}):
        environment = definitions.find(name)
        if placed.runtime.state(environment, placed.device(name)) == READY:
            continue
        try:
            if placed.runtime.name == "venv":
                interpreters.find(environment.spec.python)
            yield f"to build: {name} ({placed.runtime.name})"
        except EnvironmentUnavailable as error:
            yield f"missing: {name}: {error}"


def _weights(here: Weights, work: tp.Sequence[ModelPlan]) -> tp.Iterator[str]:
    """Yield what has to be fetched, by where from, and what nobody can fetch."""
    names: dict[str, list[str]] = {}
    groups: dict[str, list[Checkpoint]] = {}
    for name, one in _needed(work):
        problem = here.problem(one)
        if problem and one.own:
            maker = f"; `{one.made_by}` makes it" if one.made_by else ""
            yield f"missing: {name}: {problem}{maker}"
        elif problem:
            source = weights.source(one)
            names.setdefault(source, []).append(name)
            groups.setdefault(source, []).append(one)
    sizes = sources.sizes(here, groups)
    for source, members in groups.items():
        licences = dict.fromkeys(f"{c.licence}{'' if c.commercial else ' (not commercial)'}" for c in members)
        told = size(sizes[source]) if source in sizes else "size not known"
        yield f"to fetch: {', '.join(dict.fromkeys(names[source]))}: {source}, {told}, {', '.join(licences)}"


def _needed(work: tp.Sequence[ModelPlan]) -> tp.Iterator[tuple[str, Checkpoint]]:
    for model in work:
        yield from ((model.name, one) for one in model.extractor.checkpoints())
    if work:
        with contextlib.suppress(EnvironmentUnavailable):  # a run says it, and does without
            yield "ffmpeg", ffmpeg.checkpoint()

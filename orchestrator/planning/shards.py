"""The one place that knows what a shard is made of: what those of an environment share, and how work is cut."""

import dataclasses
import itertools
import typing as tp

from orchestrator.environments import definitions
from orchestrator.job.spec import JobSpec
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.plan import Choice, Plan
from worker.protocol import Item, Shard, Task
from worker.request import Fit
from worker.work import memory

_SECONDS = 60.0  # CPU seconds a shard should hold at least, so that loading its models pays
_DECODING = 0.8  # of an item's time limit: the worker ends a decode itself, before it is taken for hung
_TIMEOUT = 600.0  # seconds of it where the job says none


@dataclasses.dataclass(frozen=True)
class ShardFields:
    """What the shards of one environment share."""

    device: str = "cpu"
    variant: str = "cpu"
    lock: str = ""
    worker: str = ""
    flags: list[str] = dataclasses.field(default_factory=list)
    plugins: list[str] = dataclasses.field(default_factory=list)
    gpu_module: str = ""
    memory: int | None = None
    timeout: float = _DECODING * _TIMEOUT


def fields(job: JobSpec, environment: str, device: str, flags: list[str], slots: int) -> ShardFields:
    """Return what the shards of an environment share, or those of one of its models.

    Args:
        job: what the user asked for.
        environment: whose workers are meant.
        device: cpu or cuda.
        flags: what every record must say that would have been made on a GPU.
        slots: workers side by side; without a limit of the job they share what is free, as each of them
            alone would take it all.
    """
    free = memory.available()
    found = definitions.find(environment)
    return ShardFields(
        device=device,
        variant=device,  # an environment has a lock for each kind of device
        lock=found.lock_sha256(device),
        worker=found.worker_sha256(),
        flags=flags,
        gpu_module=found.spec.cuda.module if found.spec.cuda else "",
        plugins=job.plugins,
        memory=job.memory_bytes or (free // slots if free else None),
        timeout=_DECODING * (job.timeout_per_item or _TIMEOUT),
    )


def cut(plan: Plan, run_id: str, slots: int, shared: tp.Mapping[str, ShardFields], gpus: int = 0) -> list[Shard]:
    """Cut the work of a plan into shards, the most expensive first.

    Args:
        plan: what is to do.
        run_id: makes the ids of the shards unique.
        slots: workers that may run side by side.
        shared: by environment; the models of one that is missing here are left out.
        gpus: how many workers may use one at the same time.
    """
    total = sum(plan.cost(choice) for choice in plan.chosen)
    target = max(_SECONDS, total / (3 * slots))
    made: list[tuple[float, Shard]] = []
    for environment in sorted(shared):
        models = [m for m in plan.models if m.environment == environment and plan.work(m)]
        on_gpu = [m for m in models if shared[environment].device == "cuda" and m.extractor.uses_gpu()]
        for group in (on_gpu, [m for m in models if m not in on_gpu]):
            lacking, goal = _lacking(plan, group), target
            given = dataclasses.replace(shared[environment], device="cpu")  # who uses no GPU leaves it to others
            if group is on_gpu:  # where loading takes longer than the work of a minute
                goal, given = sum(map(plan.cost, lacking)) / max(1, gpus), shared[environment]
            for part in _split(lacking, goal, plan):
                made.append((sum(map(plan.cost, part)), _make("", environment, part, group, given)))
    made.sort(key=lambda costly: -costly[0])
    return [
        dataclasses.replace(shard, id=f"{run_id}-{shard.environment}-{index}") for index, (_, shard) in enumerate(made)
    ]


def whole(plan: Plan, name: str, environment: str, shared: ShardFields) -> Shard:
    """Return all the work of a plan in one environment as one shard; it may be empty."""
    models = [m for m in plan.models if m.environment == environment and plan.work(m)]
    return _make(name, environment, _lacking(plan, models), models, shared)


def fit(name: str, environment: str, task: Task, asked: Fit, shared: ShardFields) -> Shard:
    """Return what the model of `task` is to learn as one shard."""
    return Shard(name, 1, environment, [task], [], kind="fit", fit=asked, **vars(shared))


def again(shard: Shard, shared: ShardFields) -> Shard:
    """Return a shard with what those of its environment share by now, as on another device."""
    return dataclasses.replace(shard, **vars(shared))


def _make(name: str, environment: str, part: list[Choice], models: list[ModelPlan], shared: ShardFields) -> Shard:
    return Shard(
        id=name,
        attempt=1,
        environment=environment,
        tasks=[m.task for m in models if any(m.name in c.missing for c in part)],
        items=[_item(c) for c in part],
        **vars(shared),
    )


def _item(choice: Choice) -> Item:
    source = choice.source
    return Item(
        *(source.id, choice.name, source.size, source.mtime_ns, choice.missing, source.target, source.part),
        ctime_ns=source.ctime_ns,
    )


def _lacking(plan: Plan, models: list[ModelPlan]) -> list[Choice]:
    """Return the chosen items that models lack, as if there were no others."""
    names = {m.name for m in models}
    alone = [dataclasses.replace(c, states={k: v for k, v in c.states.items() if k in names}) for c in plan.chosen]
    return [choice for choice in alone if choice.missing]


def _split(choices: list[Choice], target: float, plan: Plan) -> tp.Iterator[list[Choice]]:
    part: list[Choice] = []
    cost = 0.0
    for _, of_file in itertools.groupby(choices, key=lambda choice: choice.source.file):  # which is decoded once
        for choice in of_file:
            part.append(choice)
            cost += plan.cost(choice)
        if cost >= target:
            yield part
            part, cost = [], 0.0
    if part:
        yield part

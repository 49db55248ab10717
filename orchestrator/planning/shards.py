"""The one place that knows what a shard is made of: what those of an environment share, and how work is cut."""

import dataclasses
import typing as tp

from orchestrator.environments.definitions import Environment
from orchestrator.job.spec import JobSpec
from orchestrator.planning.keys import ModelPlan
from orchestrator.planning.plan import Choice, Plan
from worker.protocol import Item, Shard, Task
from worker.request import Fit
from worker.work import memory

_SECONDS = 60.0  # CPU seconds a shard should hold at least, so that loading its models pays
_DECODING = 0.8  # of an item's time limit: the worker ends a decode itself, before it is taken for hung
_TIMEOUT = 600.0  # seconds of it where the job says none


class Placed(tp.Protocol):
    """Where an environment's workers run."""

    def device(self, environment: str, model: str = "") -> str:
        """Return cpu or cuda, for a model that is alone, or for those beside which none is alone."""

    def flags(self, environment: str, model: str = "") -> list[str]:
        """Return what every record must say that would have been made on a GPU."""


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


def fields(job: JobSpec, environment: Environment, placement: Placed, slots: int, model: str = "") -> ShardFields:
    """Return what the shards of an environment share.

    Args:
        job: what the user asked for.
        environment: whose workers are meant.
        placement: where they run.
        slots: workers side by side; without a limit of the job they share what is free, as each of them
            alone would take it all.
        model: that is alone in its shards, as it could not be loaded where others can.
    """
    free = memory.available()
    variant = placement.device(environment.name, model)  # an environment has a lock for each kind of device
    return ShardFields(
        device=variant,
        variant=variant,
        lock=environment.lock_sha256(variant),
        worker=environment.worker_sha256(),
        flags=placement.flags(environment.name, model),
        gpu_module=environment.spec.cuda.module if environment.spec.cuda else "",
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
    groups: list[tuple[float, str, list[Choice], list[ModelPlan]]] = []
    for environment in sorted(shared):
        models = [m for m in plan.models if m.environment == environment and plan.work(m)]
        on_gpu = [m for m in models if shared[environment].device == "cuda" and m.extractor.uses_gpu()]
        for group in (on_gpu, [m for m in models if m not in on_gpu]):
            lacking = [choice for choice in _lacking(plan, group) if choice.missing]
            goal = target
            if group is on_gpu:  # where loading takes longer than the work of a minute
                goal = sum(map(plan.cost, lacking)) / max(1, gpus)
            for part in _split(lacking, goal, plan):
                groups.append((sum(map(plan.cost, part)), environment, part, group))
    groups.sort(key=lambda group: -group[0])
    return [
        _make(f"{run_id}-{environment}-{index}", environment, part, models, _without_gpu(shared[environment], models))
        for index, (_, environment, part, models) in enumerate(groups)
    ]


def whole(plan: Plan, name: str, environment: str, shared: ShardFields) -> Shard:
    """Return all the work of a plan in one environment as one shard; it may be empty."""
    models = [m for m in plan.models if m.environment == environment and plan.work(m)]
    return _make(name, environment, [c for c in _lacking(plan, models) if c.missing], models, shared)


def fit(name: str, environment: str, task: Task, asked: Fit, shared: ShardFields) -> Shard:
    """Return what the model of `task` is to learn as one shard."""
    return Shard(name, 1, environment, [task], [], kind="fit", fit=asked, **vars(shared))


def again(shard: Shard, shared: ShardFields) -> Shard:
    """Return a shard with what those of its environment share by now, as on another device."""
    return dataclasses.replace(shard, **vars(shared))


def item_of(choice: Choice) -> Item:
    """Return what a worker is told about an item."""
    return Item(choice.source.id, choice.name, choice.source.size, choice.source.mtime_ns, choice.missing)


def _make(name: str, environment: str, part: list[Choice], models: list[ModelPlan], shared: ShardFields) -> Shard:
    return Shard(
        id=name,
        attempt=1,
        environment=environment,
        tasks=[m.task for m in models if any(m.name in c.missing for c in part)],
        items=[item_of(c) for c in part],
        **vars(shared),
    )


def _without_gpu(shared: ShardFields, models: list[ModelPlan]) -> ShardFields:
    """Models that use no GPU leave it to others."""
    needs = any(model.extractor.uses_gpu() for model in models)
    return shared if needs else dataclasses.replace(shared, device="cpu")


def _lacking(plan: Plan, models: list[ModelPlan]) -> list[Choice]:
    """Return the chosen items as if there were no other models."""
    names = {m.name for m in models}
    return [dataclasses.replace(c, states={k: v for k, v in c.states.items() if k in names}) for c in plan.chosen]


def _split(choices: list[Choice], target: float, plan: Plan) -> tp.Iterator[list[Choice]]:
    part: list[Choice] = []
    cost = 0.0
    for choice in choices:
        part.append(choice)
        cost += plan.cost(choice)
        if cost >= target:
            yield part
            part, cost = [], 0.0
    if part:
        yield part

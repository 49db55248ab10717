"""`consort plan`: what would run, with audio hours, time and disk, and what `extract` would miss."""

import argparse
import typing as tp

from orchestrator import errors
from orchestrator.cli import flags, words
from orchestrator.planning.plan import WAITING, Plan
from orchestrator.text import duration, size, table

if tp.TYPE_CHECKING:
    from orchestrator.running.placement import Placement


def add(verbs: flags.Verbs) -> None:
    flags.add_job(flags.verb(verbs, "plan", "show what a job would do, and start nothing", run))


def run(arguments: argparse.Namespace) -> int:
    job = flags.job(arguments)
    from orchestrator.cli import lacking, replacing
    from orchestrator.planning import survey
    from orchestrator.planning.replaced import replaced
    from orchestrator.running import cores, placement

    surveyed = survey.take(job)
    placed = placement.choose(job)
    made = surveyed.plan
    slots = job.workers or cores.available()
    for line in flags.differences(arguments):
        print(line)
    print(table(_rows(made, placed, slots)))
    for line in replacing.told(found := replaced(surveyed)):
        print(line)
    if reason := replacing.asked(arguments, surveyed, found):
        print(f"{reason}; `consort extract` asks first, or takes --yes")
    print(f"runtime {placed.runtime.name} ({placed.why}), device {placed.devices}")
    print(f"{words.chosen(made)}; ~{size(made.bytes())} will be written; {_time(made, placed, slots)}; "
          "nothing was started")  # fmt: skip
    for line in [*surveyed.audio.remarks, *made.remarks()]:
        print(line)
    words.print_left_out(surveyed.audio.left_out)
    for line in lacking.lines(surveyed, placed):
        print(line)
    if trouble := surveyed.lacking_room():
        print(f"warning: {trouble}")
    for line in [*words.waiting({m.name: made.count(m.name, WAITING) for m in made.models}), *words.last(made)]:
        print(line)
    return errors.OK


def _rows(made: Plan, placed: "Placement", slots: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("model", "environment", "device", "to do", "done", "failed", "stale", "audio", "CPU time", "wall time")
    ]
    for model in made.models:
        seconds = [made.seconds[c.source.id] for c in made.work(model)]
        device = placed.device(model.environment) if model.extractor.uses_gpu() else "cpu"
        cost, longest = (x / 60 * model.extractor.seconds_per_minute for x in (sum(seconds), max(seconds, default=0)))
        alone = f"~{duration(max(cost / slots, longest))}" if device == "cpu" else "-"  # an item is not divided
        counts = (str(made.count(model.name, state)) for state in ("done", "failed", "stale"))
        hours = (f"~{sum(seconds) / 3600:.2f} h", f"~{duration(cost)}")
        rows.append((model.name, model.environment, device, str(len(seconds)), *counts, *hours, alone))
    return rows


def _time(made: Plan, placed: "Placement", slots: int) -> str:
    """Return how long the workers take that compute on the CPU, in words."""
    on_gpu = [m for m in made.models if m.extractor.uses_gpu() and placed.device(m.environment) == "cuda"]
    on_cpu = [model for model in made.models if model not in on_gpu]
    rest = " and what the GPU takes" if any(made.work(model) for model in on_gpu) else ""
    costs: dict[tuple[str, str], float] = {}
    for model in on_cpu:  # the models of an environment take an item one after the other
        for choice in made.work(model):
            minutes, key = made.seconds[choice.source.id] / 60, (model.environment, choice.source.id)
            costs[key] = costs.get(key, 0.0) + minutes * model.extractor.seconds_per_minute
    wall = max(sum(costs.values()) / slots, max(costs.values(), default=0.0))
    return f"~{duration(wall)} with {slots} worker{'s' if slots > 1 else ''}{rest}"

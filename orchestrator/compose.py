"""The first and the last step of docker-compose.yml, around workers that compose starts by itself.

There is no orchestrator while they run: `plan` writes one shard for each environment where its service looks
for it, and `report` folds what the workers have written. What a worker that died has left over is planned by
the next run.
"""

import dataclasses
import json
import shutil
import typing as tp

from orchestrator import environments, errors, plan, records, rundir, status, tables
from orchestrator.devices import Gpu, Grant
from orchestrator.environments import Environment
from orchestrator.errors import EnvironmentUnavailable, RunFailed
from orchestrator.placement import Placement
from orchestrator.plan import ModelPlan
from orchestrator.preparation import Prepared
from orchestrator.progress import Progress
from orchestrator.runtimes.venv import VenvRuntime
from orchestrator.status import Status
from orchestrator.supplies import Supplies
from worker import protocol, schema

_ANY = Gpu(-1, "any", "GPU", 0)  # the one that compose gives: nothing can be looked up in the container that plans
_FOLDER = "compose"  # below `.consort`: the shards, and what `report` must know


def place(prepared: Prepared) -> Placement:
    """Return where compose runs the workers: it starts them, and gives them their GPU."""
    gpus = () if prepared.job.devices in ("auto", "cpu") else (_ANY,)
    able = {m.environment for m in prepared.plan.models if m.extractor.uses_gpu()}
    able &= {name for name in able if environments.find(name).spec.gpu != "none"}
    return Placement(VenvRuntime(), "docker compose", Grant(gpus, "docker compose", strict=True), frozenset(able))


def write_plan(prepared: Prepared, progress: Progress) -> list[str]:
    """Write a shard for every environment, an empty one where there is nothing to do.

    Args:
        prepared: the output folder's lock is held and its leftovers are swept.
        progress: shows downloads.

    Returns:
        Why models cannot run, a line each.
    """
    run = prepared.output.new_run()
    prepared.keep(run)
    placement = place(prepared)
    missing, ready = [], []
    for model in [m for m in prepared.plan.models if prepared.plan.work(m)]:
        try:
            ready.append(Supplies(prepared.weights, progress, False, lambda: False).fetch(model))
        except EnvironmentUnavailable as error:
            missing.append(str(error))
    folder = prepared.output.inner / _FOLDER
    folder.mkdir(exist_ok=True)
    for name in environments.names():
        _write_shard(prepared, environments.find(name), [m for m in ready if m.environment == name], placement)
    waiting = sum(len(c.missing) for c in prepared.plan.choices) - sum(len(c.missing) for c in prepared.plan.chosen)
    rundir.replace(folder / "plan.json", json.dumps({"missing": missing, "waiting": waiting}) + "\n")
    return missing


def report(prepared: Prepared) -> tuple[Status, list[str], int]:
    """Fold what the workers wrote; return what is done, what could not run, and the exit code."""
    output = prepared.output
    ledger = records.fold(output)
    tables.write(prepared, ledger)
    shutil.rmtree(output.scratch, ignore_errors=True)
    output.create()
    planned = _planned(output)
    found = status.of_job(prepared.job, prepared.audio)
    counts = found.models.values()
    if planned["missing"]:
        code = errors.UNAVAILABLE
    elif sum(count.pending for count in counts) > planned["waiting"]:
        code = errors.LOST
    else:
        code = errors.ITEMS_FAILED if any(count.failed for count in counts) else errors.OK
    return found, planned["missing"], code


def _write_shard(prepared: Prepared, environment: Environment, models: list[ModelPlan], placed: Placement) -> None:
    output = prepared.output
    fields = {
        "device": placed.device(environment.name),
        "lock": environment.lock_sha256(placed.variant(environment)),
        "worker": environment.worker_sha256(),
        "memory": prepared.job.memory_bytes,
    }
    name = f"{_FOLDER}-{environment.name}"
    part = dataclasses.replace(prepared.plan, models=models)
    shard = plan.whole_shard(part, name, environment.name, fields)
    (output.scratch / name).mkdir(exist_ok=True)
    rundir.replace(output.inner / _FOLDER / f"{environment.name}.json", protocol.canonical(schema.dump(shard)))


def _planned(output: rundir.OutputDir) -> dict[str, tp.Any]:
    """Return what `write_plan` has left: models that cannot run, and how much a limit leaves for later."""
    try:
        return dict(json.loads((output.inner / _FOLDER / "plan.json").read_text("ascii")))
    except FileNotFoundError as error:
        raise RunFailed(f"output {output.root}: nothing was planned here; run `consort compose plan` first") from error

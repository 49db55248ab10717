"""The first and the last step of docker-compose.yml, around workers that compose starts by itself.

There is no orchestrator while they run: `plan` writes one shard for each environment where its service looks
for it, and `report` folds what the workers have written. What a worker that died has left over is planned by
the next run.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import typing as tp

from orchestrator import errors, files
from orchestrator.environments import definitions
from orchestrator.environments.devices import Gpu, Grant
from orchestrator.errors import EnvironmentUnavailable, RunFailed
from orchestrator.job.spec import BELOW_ROOT, JobSpec
from orchestrator.output import folder as folders
from orchestrator.output import ledger as ledgers
from orchestrator.planning import shards, status
from orchestrator.planning.status import Status
from orchestrator.planning.survey import Survey
from orchestrator.running import copying, tables
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from orchestrator.running.runtimes.docker import DockerRuntime
from orchestrator.running.runtimes.venv import VenvRuntime
from orchestrator.running.weights import Supplies
from worker import protocol, schema

_ANY = Gpu(-1, "any", "GPU", 0)  # the one that compose gives: nothing can be looked up in the container that plans
_GPU = "CONSORT_COMPOSE_GPU"  # set by docker-compose.gpu.yml, whose services have images for the GPU
_FOLDER = "compose"  # below `.consort`: the shards, and what `report` must know


def place(surveyed: Survey) -> Placement:
    """Return where compose runs the workers: it starts them, and gives them their GPU.

    Raises:
        EnvironmentUnavailable: the job insists on a GPU, and there is none in this composition; or it brings an
            environment of its own.
    """
    for model in surveyed.plan.models:
        if definitions.find(name := model.environment).outside:
            raise EnvironmentUnavailable(f"{name}: docker-compose.yml has no service for it; use `consort extract`")
    given = bool(os.environ.get(_GPU)) and surveyed.job.devices != "cpu"
    if surveyed.job.devices not in ("auto", "cpu") and not given:
        raise EnvironmentUnavailable(
            "devices: the job wants a GPU, which docker-compose.gpu.yml gives: add `-f docker-compose.yml -f "
            "docker-compose.gpu.yml`, or use `devices: auto`"
        )
    able = frozenset(name for name in definitions.names() if definitions.find(name).spec.gpu != "none")
    return Placement(VenvRuntime(), "docker compose", Grant((_ANY,) if given else (), "docker compose"), able)


def project(job: JobSpec) -> str:
    """Return the name of compose's project: one for each output folder."""
    return f"consort-{hashlib.sha256(os.fsencode(job.output)).hexdigest()[:12]}"


def variables(job: JobSpec, runtime: DockerRuntime, gpus: tp.Sequence[Gpu]) -> dict[str, str]:
    """Return what docker-compose.yml is told of a job, beside the file itself, and of this machine."""
    limited = runtime.compose_variables(job.output, len(definitions.names()), job.memory_bytes)
    places = {"AUDIO": job.audio, "OUTPUT": job.output, "CONSORT_CACHE": str(files.cache_root())}
    return {**places, **limited, **({"CONSORT_GPU": gpus[0].uuid} if gpus else {})}


def write_plan(surveyed: Survey, progress: Progress) -> list[str]:
    """Write a shard for every environment, an empty one where there is nothing to do.

    The output folder's lock is held and its leftovers are swept. Returns why models cannot run, a line each.
    """
    placement = place(surveyed)
    for model in surveyed.plan.models:  # the user's own must be mounted: a job without it is not begun
        for path in [surveyed.weights.path(one) for one in model.extractor.checkpoints() if one.own]:
            if not path.exists():
                raise EnvironmentUnavailable(f"{model.name}: {path} is not seen here; {BELOW_ROOT}")
    run = surveyed.output.new_run()
    surveyed.keep(run, "docker")
    surveyed = copying.copy(surveyed, run, progress.say)
    missing: list[str] = []
    work = [m for m in surveyed.plan.models if surveyed.plan.work(m)]
    supplies = Supplies(surveyed.weights, progress, False, lambda: False)
    ready = supplies.fetch_all(work, lambda name, why: missing.append(why))
    folder = surveyed.output.inner / _FOLDER
    surveyed.output.make(folder)
    plan, names = dataclasses.replace(surveyed.plan, models=ready), definitions.names()
    for name in names:
        shared = shards.fields(surveyed.job, name, placement.device(name), placement.flags(name), len(names))
        shard = shards.whole(plan, f"{_FOLDER}-{name}", name, shared)
        surveyed.output.make(surveyed.output.scratch / shard.id)
        files.replace(folder / f"{name}.json", protocol.canonical(schema.dump(shard)))
    waiting = sum(len(c.missing) for c in surveyed.plan.choices) - sum(len(c.missing) for c in surveyed.plan.chosen)
    files.replace(folder / "plan.json", json.dumps({"missing": missing, "waiting": waiting}) + "\n")
    return missing


def report(surveyed: Survey) -> tuple[Status, list[str], int]:
    """Fold what the workers wrote; return what is done, what could not run, and the exit code."""
    output = surveyed.output
    reasons = _reasons(output)
    tables.write(surveyed, ledgers.fold(output))
    shutil.rmtree(output.scratch, ignore_errors=True)
    output.create()
    try:  # what `write_plan` has left: models that cannot run, and how much a limit leaves for later
        planned = dict(json.loads(files.read_text(output.inner / _FOLDER / "plan.json")))
    except (OSError, ValueError, TypeError) as error:
        raise RunFailed(f"output {output.root}: nothing was planned here; run `consort compose plan` first") from error
    found = status.of_job(surveyed.job, surveyed.audio)
    counts = found.models.values()
    missing = [*planned["missing"], *reasons]
    again = sum(n for count in counts for kind, n in count.failed.items() if kind in protocol.TRANSIENT)
    code = errors.exit_code(
        unavailable=bool(missing),
        lost=sum(count.pending for count in counts) - again > planned["waiting"],
        failed=any(count.failed for count in counts),
    )
    return found, missing, code


def _reasons(output: folders.OutputDir) -> list[str]:
    """Return why workers could not do their part: what they said, which a fold forgets."""
    found = []
    for path in ledgers.attempts(output):
        for event in ledgers.events(path):
            match event.kind:
                case "model_refused":
                    found.append(f"{event.model}: cannot load: {event.message}")
                case "device_missing" | "device_lost" | "output_lost":
                    found.append(f"{path.name.partition('.')[0].removeprefix(_FOLDER + '-')}: {event.message}")
                case "hello" | "loading" | "loaded" | "opened" | "decoded" | "batch_reduced" | "wrote" | "failed":
                    pass
                case "heartbeat" | "finished" | "progress" | "note" | "fitted":
                    pass
                case _:
                    protocol.refuse_kind(event.kind)
    return found

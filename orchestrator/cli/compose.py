"""`consort compose`: docker-compose.yml as a whole, its first and last step, and the file itself."""

import argparse
import os
import pathlib

from orchestrator import errors, files
from orchestrator.cli import envs, flags, status, words
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import reading
from orchestrator.job.spec import BELOW_ROOT, JobSpec

_ACTIONS = "up: run it; down: remove what it has left; plan, report: steps inside of it; write: write the file itself"


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "compose", "run a job by docker compose alone: one go at it, without retries", run)
    verb.add_argument("action", choices=("up", "down", "plan", "report", "write"), help=_ACTIONS)
    flags.add_job(verb)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action in ("write", "down"):
        if arguments.job:
            raise JobError(f"compose {arguments.action}: takes no job; it is about what all of them share")
        return _write() if arguments.action == "write" else _down()
    if arguments.action == "up":
        return _up(arguments)
    try:
        job = flags.job(arguments)
    except JobError as error:  # a folder of the user's own that is not mounted
        raise JobError(f"{error}; {BELOW_ROOT}" if str(error).endswith("is no folder") else str(error)) from error
    return _step(job, arguments.action)


def _up(arguments: argparse.Namespace) -> int:
    """Make folders and images ready as `extract` does, and let compose run the rest."""
    from orchestrator.environments import devices, docker_compose
    from orchestrator.output.folder import OutputDir
    from orchestrator.running import compose, progress
    from orchestrator.running import weights as supplies
    from orchestrator.running.runtimes.docker import DockerRuntime

    job, root = _whole_job(arguments)
    docker_compose.check()
    gpus = devices.grant(job.devices).gpus if job.devices not in ("auto", "cpu") else ()
    OutputDir(job.output).create(job.folders)
    files.cache_root().mkdir(parents=True, exist_ok=True)
    runtime = DockerRuntime.open()
    with progress.choose() as shown:
        if not envs.build_all(runtime, ["cuda"] if gpus else ["cpu"], shown):
            return errors.UNAVAILABLE
        if job.devices == "auto" and (found := devices.discover().gpus):
            shown.say(f"computes on the CPU, though {found[0].name} is here; `devices: cuda` in the job takes it")
        supplies.fetch_unpinned(job, shown, every=True)  # here, where indexes and certificates are known
    told = {"CONFIG": os.path.abspath(arguments.job), "ROOT": str(root), **compose.variables(job, runtime, gpus)}
    return docker_compose.up(compose.project(job), told, bool(gpus))


def _whole_job(arguments: argparse.Namespace) -> tuple[JobSpec, pathlib.Path]:
    """Return a job that compose can run, and the folder that its relative paths are of.

    Raises:
        JobError: what compose cannot do; said before anything is made.
    """
    from orchestrator.job import scan

    if arguments.job is None or flags.given(arguments) - {"audio", "output"}:
        raise JobError("compose up: give a job file, and at most --audio and --output; the rest stands in the job")
    job, root = flags.job(arguments), reading.base(arguments.job).resolve()
    _refuse_links(job)
    scan.scan(job)  # refuses what is not there
    if not os.path.isdir(job.audio):
        raise JobError(f"audio: docker compose takes a folder, and {job.audio} is none; use `consort extract`")
    if pathlib.Path.home().resolve().is_relative_to(root):
        raise JobError(f"compose up: workers would see all of {root}; put the job into a folder of its own")
    if ":" in str(files.cache_root()):
        raise JobError(f"compose up: docker compose takes no cache with a colon in its path: {files.cache_root()}")
    return job, root


def _down() -> int:
    from orchestrator.environments import docker_compose

    docker_compose.check()
    for one in (gone := docker_compose.down()):
        print(f"removed {one}")
    if not gone:
        print("docker compose has left nothing here")
    return errors.OK


def _step(job: JobSpec, action: str) -> int:
    from orchestrator.cli import replacing
    from orchestrator.job import scan
    from orchestrator.output import ledger as ledgers
    from orchestrator.output.folder import OutputDir
    from orchestrator.planning import survey
    from orchestrator.planning.replaced import replaced
    from orchestrator.running import compose, progress, weights

    _refuse_links(job)
    output = OutputDir(job.output)
    audio = scan.scan(job)
    try:
        output.create(job.folders)
    except RunFailed as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        raise RunFailed(f"{error}, or name its owner: CONSORT_UID=... CONSORT_GID=...") from error
    with output.lock(), progress.choose() as shown:
        if action == "report":
            found, missing, code = compose.report(survey.take(job, audio))
            status.show(found)
            for text in missing:
                print(f"  missing     {text}")
            return code
        ledgers.sweep(output)
        ledgers.fold_left(output)
        weights.fetch_unpinned(job, shown)
        surveyed = survey.take(job, audio)
        for text in replacing.told(replaced(surveyed)):
            shown.say(text)
        for text in compose.write_plan(surveyed, shown):
            shown.say(text)
        shown.say(f"{len(surveyed.plan.chosen)} of {len(surveyed.plan.choices)} items to do")
    return errors.OK


def _refuse_links(job: JobSpec) -> None:
    if job.links == "follow":
        raise JobError("links: follow: docker compose sees the audio folder alone; use `consort extract`")


def _write() -> int:
    from orchestrator.environments import composition

    for path in (written := composition.write()):
        print(f"wrote {words.near(path)}")
    if not written:
        print(f"{composition.BASE} and {composition.GPU} are what the environments say")
    return errors.OK

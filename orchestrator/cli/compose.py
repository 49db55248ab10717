"""`consort compose`: the first and last step of docker-compose.yml, and that file itself."""

import argparse

from orchestrator import errors
from orchestrator.cli import flags, status, words
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import reading
from orchestrator.job.spec import BELOW_ROOT, JobSpec


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "compose", "the first and last step of docker-compose.yml, around its workers", run)
    text = "root: the folder of a job's own files; write: the file itself"
    verb.add_argument("action", choices=("plan", "report", "root", "write"), help=text)
    flags.add_job(verb)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "write":
        return _write(arguments)
    if arguments.action == "root":
        print(reading.base(arguments.job).resolve())
        return errors.OK
    try:
        job = flags.job(arguments)
    except JobError as error:  # a folder of the user's own that is not mounted
        raise JobError(f"{error}; {BELOW_ROOT}" if str(error).endswith("is no folder") else str(error)) from error
    return _step(job, arguments.action)


def _step(job: JobSpec, action: str) -> int:
    from orchestrator.job import scan
    from orchestrator.output import ledger as ledgers
    from orchestrator.output.folder import OutputDir
    from orchestrator.planning import survey
    from orchestrator.running import compose, progress, weights

    output = OutputDir(job.output)
    audio = scan.scan(job)
    try:
        output.create(job.folders)
    except RunFailed as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        raise RunFailed(f"{error}; or say who you are: CONSORT_UID=$(id -u) CONSORT_GID=$(id -g)") from error
    with output.lock(), progress.choose() as shown:
        if action == "report":
            found, missing, code = compose.report(survey.take(job, audio))
            status.show(found)
            for text in missing:
                print(f"  missing     {text}")
            return code
        ledgers.sweep(output)
        weights.fetch_unpinned(job, shown)
        surveyed = survey.take(job, audio)
        for text in compose.write_plan(surveyed, shown):
            shown.say(text)
        shown.say(f"{len(surveyed.plan.chosen)} of {len(surveyed.plan.choices)} items to do")
    return errors.OK


def _write(arguments: argparse.Namespace) -> int:
    from orchestrator.environments import composition

    if arguments.job:
        raise JobError("compose write: takes no job; it writes what all of them share")
    for path in (written := composition.write()):
        print(f"wrote {words.near(path)}")
    if not written:
        print(f"{composition.BASE} and {composition.GPU} are what the environments say")
    return errors.OK

"""The verbs of the command line. Each takes the parsed arguments, prints, and returns the exit code.

Imports stand inside the verbs where they are heavy: `--help` and a refused job answer at once.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import typing as tp

from orchestrator import errors
from orchestrator.errors import JobError, RunFailed
from orchestrator.job import spec
from orchestrator.text import duration, printable, size, table
from worker import catalog
from worker.errors import UnknownExtractor

if tp.TYPE_CHECKING:
    from orchestrator.planning.preparation import Prepared
    from orchestrator.planning.status import Status
    from orchestrator.running.report import Report

_KEYS = ("audio", "output", "models", "limit", "devices", "runtime", "resume", "workers", "memory",
         "timeout_per_item", "licence_policy")  # fmt: skip
_SHOWN = 10  # failures that are listed without --verbose


def extract(arguments: argparse.Namespace) -> int:
    """Run a job."""
    job = _job(arguments)
    from orchestrator.job import scan, synthetic
    from orchestrator.output import ledger as ledgers
    from orchestrator.output.folder import OutputDir
    from orchestrator.planning import preparation
    from orchestrator.running import placement, progress, run
    from orchestrator.running import weights as supplies

    output = OutputDir(job.output)
    output.refuse_links(job.folders)
    synthetic.write(job)
    audio = scan.scan(job)  # first, as a wrong audio path must not leave an output folder behind
    placed = placement.choose(job)
    output.create(job.folders)
    with output.lock(), progress.choose() as shown:
        placed.sweep(output)
        ledgers.sweep(output)
        if not arguments.offline:
            supplies.fetch_unpinned(job, shown)
        prepared = preparation.prepare(job, audio)
        trouble = prepared.lacking_room()
        if trouble and not arguments.force:
            raise RunFailed(f"{trouble}; free some, choose another folder, or --force")
        chosen = f"{len(prepared.plan.chosen)} of {len(prepared.plan.choices)} items to do"
        shown.say(f"{chosen}, runtime {placed.runtime.name} ({placed.why}), device {placed.devices}")
        report, folder = run.extract(prepared, placed, shown, arguments.offline)
    if arguments.verbose and report.written:
        rows = [(printable(r.path), str(tuple(r.shape)), size(r.bytes)) for r in report.written]
        print(table([("array", "shape", "size"), *rows]))
    print(table(report.rows()))
    _print_failures(report, arguments.verbose)
    for text in [count.unavailable for count in report.models.values() if count.unavailable] + report.lost:
        print(f"  missing     {text}")
    for path in report.tables:
        print(f"table: {_near(path)}")
    _warn(report.random)
    waiting = sum(bool(choice.missing) for choice in prepared.plan.choices) - len(prepared.plan.chosen)
    if waiting:
        again = job.resume == "never" or job.retry_failed  # these begin with the first again
        print(f"limit: {waiting} more to do{'' if again else '; repeat the command to go on'}")
    print(f"device: {placed.devices}; logs: {_near(folder.logs)}")
    return report.exit_code


def plan(arguments: argparse.Namespace) -> int:
    """Show what a job would do."""
    job = _job(arguments)
    from orchestrator.planning import preparation
    from orchestrator.running import placement

    prepared = preparation.prepare(job)
    placed = placement.choose(job)
    made = prepared.plan
    rows: list[tuple[str, ...]] = [
        ("model", "environment", "device", "to do", "done", "failed", "stale", "audio", "CPU time")
    ]
    for model in made.models:
        work = made.work(model)
        seconds = sum(made.seconds[c.source.id] for c in work)
        cost = seconds / 60 * model.extractor.seconds_per_minute
        states = [str(made.count(model.name, state)) for state in ("done", "failed", "stale")]
        hours = (f"~{seconds / 3600:.2f} h", f"~{duration(cost)}")
        device = placed.device(model.environment) if model.extractor.uses_gpu() else "cpu"
        rows.append((model.name, model.environment, device, str(len(work)), *states, *hours))
    print(table(rows))
    print(f"runtime {placed.runtime.name} ({placed.why}), device {placed.devices}")
    free = size(made.bytes())
    print(f"{len(made.chosen)} of {len(made.choices)} items chosen; ~{free} will be written; nothing was started")
    if prepared.lacking_room():
        print(f"warning: {prepared.lacking_room()}")
    return errors.OK


def status(arguments: argparse.Namespace) -> int:
    """Show what is done."""
    from orchestrator.planning import status as statuses

    if os.path.isdir(arguments.job):
        found = statuses.of_output(arguments.job)
    else:
        found = statuses.of_job(spec.read(arguments.job))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
        return errors.OK
    _print_status(found, arguments.verbose)
    return errors.OK


def _print_status(found: "Status", verbose: bool) -> None:

    rows = [("model", "done", "pending", "failed", "stale", "orphaned", "device")]
    for name, count in found.models.items():
        failed = ", ".join(f"{n} {kind}" for kind, n in sorted(count.failed.items())) or "0"
        numbers = (str(count.stale), str(count.orphaned), ", ".join(count.devices) or "-")
        rows.append((name, str(count.done), str(count.pending), failed, *numbers))
    print(f"{found.output}{' (running)' if found.running else ''}")
    print(table(rows))
    _print_reasons([(f.item, f.model, f.kind, f.message) for f in found.failures], verbose)
    _warn(found.random_weights)


def verify(arguments: argparse.Namespace) -> int:
    """Hash the arrays of a run again, and compute some of its items again; or compare two runs."""
    from orchestrator.checking import comparison, recompute
    from orchestrator.checking import verify as verifying
    from orchestrator.checking.target import Target
    from orchestrator.running import progress

    if arguments.other is not None and (arguments.repair or arguments.recompute is not None):
        raise JobError("--repair and --recompute: of one output folder; two are only compared")
    if arguments.recompute is None and (arguments.seed is not None or arguments.runtime is not None):
        raise JobError("--seed and --runtime: of --recompute alone")
    target, tolerance = Target(arguments.run), arguments.tolerance
    found: verifying.Checked | comparison.Comparison
    if arguments.other is not None:
        found = comparison.compare(target, Target(arguments.other), tolerance)
    elif arguments.recompute is not None:
        choice = recompute.Choice(arguments.recompute, arguments.seed, arguments.runtime)
        with progress.choose() as shown:
            found = recompute.recompute(target, choice, tolerance, shown, arguments.repair)
    else:
        found = verifying.check(target, arguments.repair)
    if arguments.json:
        print(json.dumps(found.json(), indent=1))
    else:
        print("\n".join(map(printable, found.lines(arguments.verbose))))
    return found.exit_code


def compose(arguments: argparse.Namespace) -> int:
    """Do the first or the last step of docker-compose.yml; or write it anew."""
    if arguments.action == "write":
        return _write_composition(arguments)
    if arguments.action == "root":
        print(spec.base(arguments.job).resolve())
        return errors.OK
    try:
        job = _job(arguments)
    except JobError as error:  # a folder of the user's own that is not mounted
        raise JobError(f"{error}; {spec.BELOW_ROOT}" if str(error).endswith("is no folder") else str(error)) from error
    from orchestrator.job import scan
    from orchestrator.output import ledger as ledgers
    from orchestrator.output.folder import OutputDir
    from orchestrator.planning import preparation
    from orchestrator.running import compose as composed
    from orchestrator.running import progress
    from orchestrator.running import weights as supplies

    output = OutputDir(job.output)
    audio = scan.scan(job)
    try:
        output.create(job.folders)
    except RunFailed as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        raise RunFailed(f"{error}; or say who you are: CONSORT_UID=$(id -u) CONSORT_GID=$(id -g)") from error
    with output.lock(), progress.choose() as shown:
        if arguments.action == "report":
            found, missing, code = composed.report(preparation.prepare(job, audio))
            _print_status(found, verbose=False)
            for text in missing:
                print(f"  missing     {text}")
            return code
        ledgers.sweep(output)
        supplies.fetch_unpinned(job, shown)
        prepared = preparation.prepare(job, audio)
        for text in composed.write_plan(prepared, shown):
            shown.say(text)
        shown.say(f"{len(prepared.plan.chosen)} of {len(prepared.plan.choices)} items to do")
    return errors.OK


def _write_composition(arguments: argparse.Namespace) -> int:
    from orchestrator.environments import composition

    if arguments.job:
        raise JobError("compose write: takes no job; it writes what all of them share")
    for path in (written := composition.write()):
        print(f"wrote {_near(path)}")
    if not written:
        print(f"{composition.BASE} and {composition.GPU} are what the environments say")
    return errors.OK


def models(arguments: argparse.Namespace) -> int:
    """List the models."""
    from orchestrator.cli import listing

    if arguments.name:
        try:
            print(listing.detail(arguments.name))
        except UnknownExtractor as error:
            raise JobError(str(error)) from error
    else:
        print(listing.markdown() if arguments.markdown else listing.overview())
    return errors.OK


def envs(arguments: argparse.Namespace) -> int:
    """List, build or remove environments, as virtual environments or as images."""
    from orchestrator.cli import provisions
    from orchestrator.environments import definitions
    from orchestrator.running import progress
    from orchestrator.running.runtimes import RUNTIMES

    chosen = [definitions.at(name) for name in arguments.names or definitions.names()]
    runtime = RUNTIMES[arguments.runtime].open()
    if arguments.action == "list":
        print(table(provisions.rows(chosen, runtime)))
        return errors.OK
    if arguments.action == "remove":
        for gone in [place for environment in chosen for place in runtime.remove(environment)]:
            print(f"removed {gone}")
        return errors.OK
    variants = arguments.variants or provisions.variants_of_this_machine(runtime)
    with progress.choose() as shown:
        problems = provisions.build(chosen, runtime, variants, shown)
        problems += [] if arguments.names else provisions.build_beside(runtime, shown)
    return errors.UNAVAILABLE if problems else errors.OK


def weights(arguments: argparse.Namespace) -> int:
    """List, pull or verify checkpoints."""
    from orchestrator.cli import checkpoints
    from orchestrator.running import progress

    if arguments.action != "pull" and arguments.licence_policy != "any":
        raise JobError("--licence_policy: of `consort weights pull` alone")
    if arguments.action == "verify":
        text, code = checkpoints.verify(arguments.names, arguments.checkpoint)
        print(text)
        return code
    names = arguments.names or [*catalog.names(), "ffmpeg"]
    if arguments.action == "list":
        print(checkpoints.listing(names, arguments.checkpoint))
        return errors.OK
    with progress.choose() as shown:
        return checkpoints.pull(names, shown, arguments.licence_policy, arguments.checkpoint)


def fit(arguments: argparse.Namespace) -> int:
    """Fit a token model, or an encoder, to what a job has written."""
    chosen = [("runtime", arguments.runtime)] if arguments.runtime else []
    job = spec.read(arguments.job, chosen + _settings(arguments))
    from orchestrator.fitting import fit as fits
    from orchestrator.running import progress

    names = [field.name for field in dataclasses.fields(fits.Options)]
    options = fits.Options(**{name: getattr(arguments, name) for name in names})
    with progress.choose() as shown:
        folder, facts = fits.fit(job, options, shown)
    print(table(fits.rows(options.stage, facts)))
    print(f"{_near(folder)}: in a job, a model `extractor: prosody` takes it as `{options.stage}`")
    return errors.OK


def python(arguments: argparse.Namespace) -> int:
    """Run the interpreter of an environment, with the worker and the environment's modules importable."""
    from orchestrator.environments import definitions
    from orchestrator.running import placement, progress
    from orchestrator.running.runtimes import RUNTIMES
    from orchestrator.running.runtimes.base import READY

    environment = definitions.at(arguments.environment)
    name = arguments.runtime
    runtime = RUNTIMES[name].open() if name else placement.ready(environment, buildable=True)
    if runtime.state(environment, "cpu") != READY:
        with progress.choose() as shown:
            runtime.build(environment, "cpu", lambda text: shown.stage(environment.name, text))
    command = runtime.script(environment, arguments.arguments, os.getcwd())
    return subprocess.run(command.argv, env=command.env, cwd=command.cwd).returncode


def doctor(arguments: argparse.Namespace) -> int:
    """Look whether everything is there."""
    import io

    from orchestrator.checking import doctor as doctors
    from orchestrator.running import placement, progress, run

    def silently(prepared: "Prepared") -> None:
        prepared.output.create()
        placed = placement.choose(prepared.job)
        run.extract(prepared, placed, progress.Lines(io.StringIO()), offline=True)

    good = True
    for finding in doctors.examine(silently):
        good = good and finding.good
        print(f"{'ok  ' if finding.good else 'MEND'}  {finding.what:<12}  {finding.text}", flush=True)
    return errors.OK if good else errors.UNAVAILABLE


def _job(arguments: argparse.Namespace) -> spec.JobSpec:
    """Return the job of a file and flags; a flag's path is relative to the current folder."""
    changes: list[tuple[str, tp.Any]] = []
    for key in _KEYS:
        value = getattr(arguments, key)
        if value is not None:
            path = key in ("audio", "output") and value != spec.SYNTHETIC
            changes.append((key, spec.absolute(value, os.getcwd()) if path else value))
    if arguments.skip_existing:
        changes.append(("resume", "exists"))
    if arguments.retry_failed:
        changes.append(("retry_failed", True))
    changes += _settings(arguments)
    if not arguments.job and (arguments.models or [""])[-1].endswith((".yaml", ".yml")):
        raise JobError(f"--models took {arguments.models[-1]} for a model; write the job file first")
    if not arguments.job and not changes:
        raise JobError("no job: give a job file, or --audio, --output and --models; see `consort extract --help`")
    missing = [f"--{key}" for key in ("audio", "output", "models") if key not in dict(changes)]
    if not arguments.job and missing:
        raise JobError(f"without a job file the flags are the job: {' and '.join(missing)} missing")
    job = spec.read(arguments.job, changes)
    for name in spec.lacking(arguments.job, arguments.models) if arguments.job and arguments.models else ():
        print(f"--models: {arguments.job} has no {name}; it is taken with its defaults", file=sys.stderr)
    return job


def _settings(arguments: argparse.Namespace) -> list[tuple[str, tp.Any]]:
    """Return what `--set` says."""
    changes = []
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise JobError(f"--set {text}: write KEY=VALUE, such as --set crepe.params.viterbi=false")
        changes.append((key, spec.parse_yaml(value)))
    return changes


def _warn(random: tp.Iterable[str]) -> None:
    from orchestrator.running.report import random_warning

    warning = random_warning(random)
    if warning:
        print(warning)


def _near(path: str | os.PathLike[str]) -> str:
    """Return a path as a person would type it from here."""
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith("..") else relative


def _print_failures(report: "Report", everything: bool) -> None:
    _print_reasons([(f.item, f.model, f.kind, f.message) for f in report.failures], everything)


def _print_reasons(rows: list[tuple[str, str, str, str]], everything: bool) -> None:
    """List failures by item; the models of an item that failed for one reason share a line."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for item, model, kind, message in sorted(rows):
        grouped.setdefault((item, kind, message), []).append(model)
    shown = list(grouped.items())[: None if everything else _SHOWN]
    for (item, kind, message), names in shown:
        where, reason = printable(item), printable(message)
        for known in (where, os.path.basename(where)):  # decoders know no more than the latter
            reason = reason.removeprefix(f"{known}: ")
        print(f"  {kind:<10}  {where}: {reason}  ({', '.join(names)})")
    if len(grouped) > len(shown):
        print(f"  ... and {len(grouped) - len(shown)} more; --verbose lists them all", file=sys.stdout)

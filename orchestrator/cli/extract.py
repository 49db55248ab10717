"""`consort extract`: run a job, repeat it to go on where it stopped."""

import argparse

from orchestrator import errors
from orchestrator.cli import flags, words
from orchestrator.errors import RunFailed
from orchestrator.job.spec import JobSpec
from orchestrator.planning.plan import Plan
from orchestrator.running import progress
from orchestrator.running.report import Report
from orchestrator.text import printable, size, table


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "extract", "run a job: every model over every audio file", run)
    flags.add_job(verb)
    verb.add_argument("--offline", action="store_true", help="fetch no weights")
    verb.add_argument("--yes", action="store_true", help="replace arrays that hold other settings without asking")
    verb.add_argument("--force", action="store_true", help="start although the disk looks too small")
    text = "list every array with its shape, every failure, and every flagged file"
    verb.add_argument("--verbose", "--debug", action="store_true", help=text)


def run(arguments: argparse.Namespace) -> int:
    job = flags.job(arguments)
    from orchestrator.cli import replacing
    from orchestrator.job import scan, synthetic
    from orchestrator.output import flagged
    from orchestrator.output import ledger as ledgers
    from orchestrator.output.folder import OutputDir
    from orchestrator.planning import survey
    from orchestrator.running import placement, weights
    from orchestrator.running import run as running

    output = OutputDir(job.output)
    output.refuse_links(job.folders)
    synthetic.write(job)
    audio = scan.scan(job)  # first, as a wrong audio path must not leave an output folder behind
    placed = placement.choose(job)
    output.create(job.folders)
    with output.lock():
        with progress.choose() as shown:
            for line in flags.differences(arguments):
                shown.say(line)
            placed.sweep(output)
            ledgers.sweep(output)
            ledgers.fold_left(output)
            if not arguments.offline:
                weights.fetch_unpinned(job, shown)
            surveyed = survey.take(job, audio)
            if (trouble := surveyed.lacking_room()) and not arguments.force:
                raise RunFailed(f"{trouble}; free some, choose another folder, or --force")
        replacing.agree(arguments, surveyed)  # where no live line stands in the way of a question
        with progress.choose() as shown:
            shown.say(
                f"{words.chosen(surveyed.plan)}, runtime {placed.runtime.name} ({placed.why}), device {placed.devices}"
            )
            for line in surveyed.plan.remarks():
                shown.say(line)
            report, folder = running.extract(surveyed, placed, shown, arguments.offline)
    with words.unread():
        _print(report, job, surveyed.plan, arguments.verbose)
        wrong = words.sum_up(flagged.count(report.flagged))
        told = f"; flagged: {wrong}" if wrong else ""
        print(f"device: {placed.devices}; logs: {words.near(folder.logs)}{told}", flush=True)
        if report.others:
            remedy = f"`consort clean {words.near(output.root)} --orphaned` removes their arrays"
            print(f"{report.others} items of earlier runs are not in this job; {remedy}", flush=True)
        for line in words.last(surveyed.plan) if report.exit_code == errors.OK else ():
            print(line, flush=True)
    return report.exit_code


def _print(report: Report, job: JobSpec, plan: Plan, verbose: bool) -> None:
    if verbose and report.written:
        rows = [(printable(r.path), str(tuple(r.shape)), size(r.bytes)) for r in report.written]
        print(table([("array", "shape", "size"), *rows]))
    print(table(report.rows()))
    words.print_failures(report.failures, verbose)
    words.print_flagged(report.flagged, verbose)
    words.print_left_out(report.left_out)
    for text in [count.unavailable for count in report.models.values() if count.unavailable] + report.lost:
        print(f"  missing     {text}")
    for line in words.waiting({name: count.waiting for name, count in report.models.items()}):
        print(line)
    for path in report.tables:
        print(f"table: {words.near(path)}")
    words.warn_of_random(report.random)
    waiting = sum(bool(choice.missing) for choice in plan.choices) - len(plan.chosen)
    if waiting:
        again = job.resume == "never" or job.retry_failed  # these begin with the first again
        print(f"limit: {waiting} more to do{'' if again else '; repeat the command to go on'}")

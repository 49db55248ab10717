"""Run a plan: keep what was asked, work through the session, fold the records, write the report."""

import contextlib
import errno
import signal
import typing as tp

from orchestrator import files
from orchestrator.errors import EnvironmentUnavailable, RunFailed
from orchestrator.output import flagged
from orchestrator.output import ledger as ledgers
from orchestrator.output.folder import RunDir
from orchestrator.planning.survey import Survey
from orchestrator.running import copying, tables
from orchestrator.running.engines import ENGINES
from orchestrator.running.engines.base import Site
from orchestrator.running.placement import Placement
from orchestrator.running.progress import Progress
from orchestrator.running.report import Report
from orchestrator.running.session import Session

_UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def extract(surveyed: Survey, placement: Placement, progress: Progress, offline: bool = False) -> tuple[Report, RunDir]:
    """Do what a plan says, and return the report with the folder of the run.

    Args:
        surveyed: the output folder's lock is held and its leftovers are swept.
        placement: where its workers run.
        progress: shows what happens.
        offline: fetch no weights; what is missing fails.

    Raises:
        RunFailed: the output folder became unusable; what was finished is kept.
    """
    try:
        report, run = _extract(surveyed, placement, progress, offline)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        raise RunFailed(f"output {surveyed.output.root}: {error.strerror}; make room and run again") from error
    if report.trouble:
        raise RunFailed(f"{report.trouble}; finished arrays are kept, run again")
    return report, run


def _extract(surveyed: Survey, placement: Placement, progress: Progress, offline: bool) -> tuple[Report, RunDir]:
    for path in surveyed.audio.beyond:
        if why := placement.runtime.refuses(path):
            raise EnvironmentUnavailable(f"links: follow: {why}")
    run = surveyed.output.new_run()
    surveyed.keep(run, placement.runtime.name)
    surveyed = copying.copy(surveyed, run, progress.say)
    report = Report(surveyed.plan)
    report.left_out = surveyed.audio.left_out
    if surveyed.plan.chosen:
        placement.runtime.log, placement.runtime.warn = run.logs, progress.say
        audio = surveyed.audio
        where = surveyed.output, run, audio.root, surveyed.weights, tuple(audio.beyond)
        site = Site(surveyed.job, placement.runtime, *where)
        engine = ENGINES[surveyed.job.engine](site)
        if problems := engine.check():
            raise EnvironmentUnavailable(f"engine {surveyed.job.engine}: {'; '.join(problems)}")
        share = placement.runtime.divide(engine.slots)
        if share and not surveyed.job.memory:
            progress.say(f"up to {engine.slots} workers, each may take {share}")
        session = Session(surveyed, placement, engine, run.id, report, progress)
        with _signals(session.stop), contextlib.closing(session):
            session.start(offline)
            session.loop()
        surveyed.output.refuse_links(surveyed.job.folders)
        if session.unclean:
            ledgers.sweep(surveyed.output)
    ledger = ledgers.fold(surveyed.output)
    report.tables = [str(path) for path in tables.write(surveyed, ledger)]
    report.placement = {"runtime": placement.runtime.name, "why": placement.why, "devices": placement.devices}
    report.random = ledgers.random_models(ledger) & set(report.models)
    items = {choice.source.id for choice in surveyed.plan.choices}
    report.flagged = flagged.find(r for r in ledger.records.values() if r.item in items and r.model in report.models)
    report.others = len({r.item for r in ledger.records.values() if r.model in report.models} - items)
    files.replace(run.report, report.json())
    return report, run


@contextlib.contextmanager
def _signals(stop: tp.Callable[[], None]) -> tp.Iterator[None]:
    """Turn Ctrl-C and a polite kill into an orderly end, for as long as the run lasts."""
    old = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

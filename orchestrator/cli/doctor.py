"""`consort doctor`: is everything there? One second of audio goes through every model, and each GPU is tried."""

import argparse
import typing as tp

from orchestrator import errors
from orchestrator.cli import flags

if tp.TYPE_CHECKING:
    from orchestrator.planning.survey import Survey


def add(verbs: flags.Verbs) -> None:
    flags.verb(verbs, "doctor", "look whether everything is there, and say how to mend what is not", run)


def run(arguments: argparse.Namespace) -> int:
    import io

    from orchestrator.checking import doctor as doctors
    from orchestrator.running import placement, progress, run

    def silently(surveyed: "Survey") -> None:
        surveyed.output.create()
        placed = placement.choose(surveyed.job)
        run.extract(surveyed, placed, progress.Lines(io.StringIO()), offline=True)

    good = True
    for finding in doctors.examine(silently):
        good = good and finding.good
        print(f"{'ok  ' if finding.good else 'MEND'}  {finding.what:<12}  {finding.text}", flush=True)
    return errors.OK if good else errors.UNAVAILABLE

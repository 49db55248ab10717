"""`consort doctor`: is everything there? One second of audio goes through every model, and each GPU is tried."""

import argparse

from orchestrator import errors
from orchestrator.cli import flags


def add(verbs: flags.Verbs) -> None:
    flags.verb(verbs, "doctor", "look whether everything is there, and say how to mend what is not", run)


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.checking import doctor

    good = True
    for finding in doctor.examine():
        good = good and finding.good
        print(f"{'ok  ' if finding.good else 'MEND'}  {finding.what:<12}  {finding.text}", flush=True)
    return errors.OK if good else errors.UNAVAILABLE

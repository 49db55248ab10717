"""`consort status`: done, pending, failed with reasons, stale, orphaned; also while a run is going."""

import argparse
import dataclasses
import json
import os
import typing as tp

from orchestrator import errors
from orchestrator.cli import flags, words
from orchestrator.job import reading
from orchestrator.output import flagged
from orchestrator.text import table

if tp.TYPE_CHECKING:
    from orchestrator.planning.status import Status


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "status", "show what is done, pending, failed, stale and orphaned", run)
    verb.add_argument("job", metavar="JOB|OUTPUT", help="a job file or an output folder")
    verb.add_argument("--verbose", "--debug", action="store_true", help="list every failure and every flagged file")
    verb.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.planning import status

    of_folder = os.path.isdir(arguments.job)
    found = status.of_output(arguments.job) if of_folder else status.of_job(reading.read(arguments.job))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        show(found, arguments.verbose)
    return errors.OK


def show(found: "Status", verbose: bool = False) -> None:
    """Print a status; only `verbose` lists every failure."""
    rows = [("model", "done", "pending", "failed", "stale", "orphaned", "device")]
    for name, count in found.models.items():
        failed = ", ".join(f"{n} {kind}" for kind, n in sorted(count.failed.items())) or "0"
        numbers = (str(count.stale), str(count.orphaned), ", ".join(count.devices) or "-")
        flags = found.flags.get(name, {})
        grave = words.sum_up({flag: n for flag, n in flags.items() if flag in flagged.GRAVE})
        done = f"{count.done} ({grave})" if grave else str(count.done)
        rows.append((name, done, str(count.pending), failed, *numbers))
    print(f"{found.output}{' (running)' if found.running else ''}")
    print(table(rows))
    words.print_failures(found.failures, verbose)
    words.print_flagged(found.flagged, verbose)
    if found.flagged:
        print(f"flagged: {words.sum_up(flagged.count(found.flagged))}")
    words.print_left_out(found.left_out)
    for line in words.waiting({name: count.waiting for name, count in found.models.items()}):
        print(line)
    words.warn_of_random(found.random_weights)

"""`consort clean`: what takes room and can go is said first, and removed where that is agreed to."""

import argparse
import collections
import sys
import time

from orchestrator import errors
from orchestrator.cli import flags
from orchestrator.errors import EnvironmentUnavailable, JobError
from orchestrator.text import printable, size, table

_DAYS = 30


def add(verbs: flags.Verbs) -> None:
    text = "free the disk: what builds and downloads have left, or arrays of a run with their records"
    verb = flags.verb(verbs, "clean", text, run)
    verb.add_argument("run", nargs="?", metavar="RUN", help="an output folder or a job file; without it: the cache")
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME", help="of RUN: all that this model has written")
    which.add_argument("--stale", action="store_true", help="of RUN: arrays of other parameters or of another source")
    text = "of RUN: arrays that no record names, or whose item has left the job"
    which.add_argument("--orphaned", action="store_true", help=text)
    text = f"of the cache: what others may want goes once it has not been used for so long (default: {_DAYS})"
    verb.add_argument("--older_than", "--older-than", type=int, metavar="DAYS", help=text)
    verb.add_argument("--weights", action="store_true", help="of the cache: checkpoints as well, likewise")
    verb.add_argument("--yes", action="store_true", help="remove without asking")
    verb.add_argument("--verbose", "--debug", action="store_true", help="list every file")


def run(arguments: argparse.Namespace) -> int:
    of_run = arguments.model is not None or arguments.stale or arguments.orphaned
    if of_run != (arguments.run is not None):
        raise JobError("clean: write RUN and one of --model NAME, --stale and --orphaned; or neither, for the cache")
    if of_run and (arguments.weights or arguments.older_than is not None):
        raise JobError("--weights and --older-than: of the cache, which is cleaned without RUN")
    return _clean_run(arguments) if of_run else _clean_cache(arguments)


def _clean_run(arguments: argparse.Namespace) -> int:
    from orchestrator.checking import cleaning
    from orchestrator.checking.run_folder import RunFolder

    target = RunFolder(arguments.run)
    with target.in_hand():
        named = arguments.model is not None
        found = cleaning.of_model(target, arguments.model) if named else cleaning.of_job(target, arguments.orphaned)
        if _agreed(found.rows(), arguments):
            found.make()
    return errors.OK


def _clean_cache(arguments: argparse.Namespace) -> int:
    from orchestrator.checking import cleaning

    days, free, now, code = arguments.older_than, [], time.time(), errors.OK
    for one in cleaning.of_cache(arguments.weights):
        unused = None if one.used is None else max(0.0, now - one.used) / 86400
        if unused is None or unused >= (_DAYS if days is None else days):
            free.append(one)
        else:
            print(f"stays: {one.place}: {size(one.size)}, {one.kind}, used {int(unused)} days ago, perhaps by others; "
                  f"--older-than {int(unused)} removes it")  # fmt: skip
    if _agreed([(one.kind, one.place, one.size) for one in free], arguments):
        for one in free:
            try:
                one.remove()
            except EnvironmentUnavailable as error:
                print(f"stays: {one.place}: {error}")
                code = error.exit_code
    return code


def _agreed(rows: list[tuple[str, str, int]], arguments: argparse.Namespace) -> bool:
    """Say what would be removed; return whether it shall be."""
    if not rows:
        print("nothing to remove")
        return False
    counts, sizes = collections.Counter(kind for kind, _, _ in rows), collections.Counter[str]()
    for kind, _, count in rows:
        sizes[kind] += count
    total = ("all", str(len(rows)), size(sum(sizes.values())))
    print(table([("what", "count", "size"), *((kind, str(n), size(sizes[kind])) for kind, n in counts.items()), total]))
    for kind, place, count in rows if arguments.verbose else ():
        print(f"  {kind}: {printable(place)}  {size(count)}")
    if arguments.yes:
        return True
    if sys.stdin.isatty() and sys.stdout.isatty():
        return input("remove this? [y/N] ").strip().lower() in ("y", "yes")
    print("nothing was removed; add --yes")
    return False

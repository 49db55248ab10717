"""`consort verify`: hash the arrays of a run again, compute some anew, or compare two runs."""

import argparse
import json

from orchestrator.cli import flags
from orchestrator.errors import JobError
from orchestrator.text import printable


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "verify", "hash the arrays of a run again, or compare two runs", run)
    verb.add_argument("run", metavar="RUN", help="an output folder or a job file")
    verb.add_argument("other", nargs="?", metavar="OTHER", help="compare with this one, array by array")
    verb.add_argument("--repair", action="store_true", help="remove damaged files, so that `extract` renews them")
    verb.add_argument("--recompute", type=_positive, metavar="N", help="compute N items again, and compare")
    verb.add_argument("--seed", type=int, metavar="S", help="of --recompute: draw the items; default: evenly spread")
    verb.add_argument("--runtime", choices=("auto", "docker", "venv"), help="of --recompute; default: the job's")
    text = "count other bytes as the same within X, and X of the value (default 1e-5)"
    verb.add_argument("--tolerance", nargs="?", type=_tolerance, const=1e-5, metavar="X", help=text)
    verb.add_argument("--verbose", "--debug", action="store_true", help="list every file and array")
    verb.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of items; the least is 1")
    return int(text)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number; --tolerance=1e-4, or the flag alone after the folders")
    return value


def run(arguments: argparse.Namespace) -> int:
    if arguments.other is not None and (arguments.repair or arguments.recompute is not None):
        raise JobError("--repair and --recompute: of one output folder; two are only compared")
    if arguments.recompute is None and (arguments.seed is not None or arguments.runtime is not None):
        raise JobError("--seed and --runtime: of --recompute alone")
    from orchestrator.checking import comparison, recompute, verify
    from orchestrator.checking.run_folder import RunFolder
    from orchestrator.running import progress

    target, tolerance = RunFolder(arguments.run), arguments.tolerance
    found: verify.Checked | comparison.Comparison
    if arguments.other is not None:
        found = comparison.compare(target, RunFolder(arguments.other), tolerance)
    elif arguments.recompute is None:
        found = verify.check(target, arguments.repair)
    else:
        choice = recompute.Sample(arguments.recompute, arguments.seed, arguments.runtime)
        with progress.choose() as shown:
            found = recompute.recompute(target, choice, tolerance, shown, arguments.repair)
    if arguments.json:
        print(json.dumps(found.json(), indent=1))
    else:
        print("\n".join(map(printable, found.lines(arguments.verbose))))
    return found.exit_code

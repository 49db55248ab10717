"""Run suites of tests side by side, one on each core: `python tests/suites.py check docker+e2e`.

A suite is a command, mostly a pytest of its own over one file. What it prints goes to `build/suites/<suite>.log`,
so that nothing is mixed up: a line says how each has ended, after all that it printed where it failed. Groups run one
after the other (joined by + together), and where one fails the next does not start. The last line is as pytest's own.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time
import typing as tp

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
LOGS = ROOT / "build" / "suites"
PYTEST = (sys.executable, "-m", "pytest", "-q", "--durations=10")
CONSORT = (sys.executable, "-m", "orchestrator")
LONGEST = ("parity-torch-cuda", "presets", "kill", "fit", "verify")  # begun first, or one would end alone
CLOSING = re.compile(r"^=*\s*(\d+ [a-z]+(?:, \d+ [a-z]+)*|no tests ran) in [\d.]+ ?s\b.*$", re.MULTILINE)
ORDER = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "errors")


@dataclasses.dataclass(frozen=True)
class Suite:
    """A command whose output is shown where it fails."""

    name: str
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class End:
    """How a suite ended: its exit code, what it printed, and what it took in seconds."""

    code: int
    text: str
    wall: float
    cpu: float

    def counts(self) -> "collections.Counter[str]":
        """Return how many tests passed, failed and so on, by what the last line of pytest says."""
        found: collections.Counter[str] = collections.Counter()
        closing = CLOSING.findall(self.text)
        for words in closing[-1].split(", ") if closing and closing[-1] != "no tests ran" else ():
            number, kind = words.split()
            found[{"error": "errors", "warning": "warnings"}.get(kind, kind)] += int(number)
        if self.code and not found["failed"] + found["errors"]:
            found["errors"] += 1  # it did not get as far as a test
        return found


def main() -> int:
    """Run the groups that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("groups", nargs="+", type=read_group, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--side-by-side", type=int, default=min(4, os.cpu_count() or 1), metavar="N")
    options = parser.parse_args()
    began, total = time.monotonic(), collections.Counter[str]()
    for suites in options.groups:
        counts = run(suites, options.side_by_side)
        total += counts
        if counts["failed"] + counts["errors"]:
            break
    said = ", ".join(f"{total[kind]} {kind}" for kind in ORDER if total[kind])
    print(f"{said or 'no tests ran'} in {time.monotonic() - began:.2f}s")
    return 1 if total["failed"] + total["errors"] else 0


def read_group(names: str) -> list[Suite]:
    """Return the suites of groups that run together."""
    unknown = [name for name in names.split("+") if name not in GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: the groups are {', '.join(GROUPS)}")
    return [suite for name in names.split("+") for suite in GROUPS[name]()]


def run(suites: tp.Sequence[Suite], side_by_side: int) -> "collections.Counter[str]":
    """Run suites, report each when it ends, and return the counts of all."""
    LOGS.mkdir(parents=True, exist_ok=True)
    total = collections.Counter[str]()
    with concurrent.futures.ThreadPoolExecutor(side_by_side) as pool:
        waiting = {pool.submit(finish, suite): suite for suite in suites}
        try:
            for done in concurrent.futures.as_completed(waiting):
                end = done.result()
                report(waiting[done], end)
                total += end.counts()
        except KeyboardInterrupt:  # those that run get it too, and end
            pool.shutdown(cancel_futures=True)
            raise
    return total


def finish(suite: Suite) -> End:
    """Run a suite to its end; its processor time is that of all processes that it waited for."""
    log, began = LOGS / f"{suite.name}.log", time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(suite.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text("utf-8", "replace")
    return End(process.returncode, text, time.monotonic() - began, used.ru_utime + used.ru_stime)


def report(suite: Suite, end: End) -> None:
    """Say how a suite ended; where it failed, all that it printed, and else why tests of it were skipped."""
    if end.code:
        print(end.text.rstrip("\n"))
    for line in end.text.splitlines() if not end.code else ():
        if line.startswith("SKIPPED"):
            print(line)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(end.counts().items()) if number)
    ended = f"suite: {suite.name:28} {'FAILED' if end.code else 'ok':6}"
    print(f"{ended} {end.wall:5.0f} s, {end.cpu:5.0f} s of processor  {counts}", flush=True)


def quick() -> list[Suite]:
    """Return `make check`: all that needs no network, the longest first."""
    named = [Suite(name, ("make", "--no-print-directory", name)) for name in ("types", "lint", "layers")]
    return [*unit(), *named]


def unit() -> list[Suite]:
    """Return unit and contract tests, in parts of which two cores can take turns."""
    host = sorted(str(path.relative_to(ROOT)) for path in (HERE / "orchestrator").glob("test_*.py"))
    return [
        Suite("unit-host-1", (*PYTEST, *host[0::2])),
        Suite("unit-host-2", (*PYTEST, *host[1::2])),
        Suite("unit-worker", (*PYTEST, "tests/worker")),
        Suite("contract", (*PYTEST, "tests/contract")),
    ]


def check() -> list[Suite]:
    """Return `make check`, and beside it what takes the network: every environment, and every checkpoint."""
    return [
        Suite("check", ("make", "--no-print-directory", "check")),
        *[Suite(f"build-{name}", (*CONSORT, "envs", "build", name)) for name in environments()],
        Suite("weights", (*CONSORT, "weights", "pull", "musicnn", "crepe", "madmom", "ffmpeg")),
    ]


def environments() -> list[str]:
    """Return the names of all environments; those in front take longest to build."""
    return sorted((path.parent.name for path in (ROOT / "images").glob("*/env.yaml")), reverse=True)


def e2e() -> list[Suite]:
    """Return a suite of each file of whole jobs, and of parity in each environment."""
    found = {
        path.stem.removeprefix("test_"): (str(path.relative_to(ROOT)),) for path in (HERE / "e2e").glob("test_*.py")
    }
    parity = found.pop("parity")
    found.update({f"parity-{name}": (*parity, "-k", name) for name in environments()})
    names = [*[name for name in LONGEST if name in found], *sorted(set(found) - set(LONGEST))]
    return [Suite(f"e2e-{name}", (*PYTEST, *found[name])) for name in names]


def docker() -> list[Suite]:
    """Return the tests in containers: one suite, since each holds the engine to having no container left."""
    return [Suite("docker", (*PYTEST, "tests/docker"))]


def images() -> list[Suite]:
    """Return the building of every image."""
    return [Suite("build-images", (*CONSORT, "envs", "build", "--runtime", "docker", "--variant", "cpu"))]


GROUPS = {"quick": quick, "unit": unit, "check": check, "e2e": e2e, "images": images, "docker": docker}

if __name__ == "__main__":
    sys.exit(main())

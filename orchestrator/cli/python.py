"""`consort python`: your own script, with an environment's interpreter and modules."""

import argparse
import os
import subprocess

from orchestrator.cli import flags


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "python", "run your own script with an environment's interpreter and modules", run)
    verb.add_argument("--runtime", choices=("venv", "docker"), help="default: venv where it can be had")
    verb.add_argument("environment", metavar="ENVIRONMENT", help="see `consort envs`; or a folder of your own")
    verb.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="as for python: SCRIPT.py ...")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.environments import definitions
    from orchestrator.running import placement, progress
    from orchestrator.running.runtimes import RUNTIMES
    from orchestrator.running.runtimes.base import READY

    environment = definitions.at(arguments.environment)
    name = arguments.runtime
    runtime = RUNTIMES[name].open() if name else placement.ready(environment, buildable=True)
    if runtime.state(environment, "cpu") != READY:
        with progress.choose() as shown:
            runtime.warn = shown.say
            runtime.build(environment, "cpu", lambda text: shown.stage(environment.name, text))
    command = runtime.script(environment, arguments.arguments, os.getcwd())
    code = subprocess.run(command.argv, env=command.env, cwd=command.cwd).returncode
    return code if code >= 0 else 128 - code  # as a shell says it of a signal

"""`consort python`: your own script, with an environment's interpreter and modules."""

import argparse
import subprocess

from orchestrator.cli import flags


def add(verbs: flags.Verbs) -> None:
    verb = flags.verb(verbs, "python", "run your own script with an environment's interpreter and modules", run)
    verb.add_argument("environment", metavar="ENVIRONMENT", help="see `consort envs`; or a folder of your own")
    verb.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="as for python: SCRIPT.py ...")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.environments import definitions, venvs
    from orchestrator.running import progress
    from orchestrator.running.runtimes import venv

    environment = definitions.at(arguments.environment)
    if not venvs.built(environment, "cpu"):
        with progress.choose() as shown:
            venvs.build(environment, "cpu", lambda text: shown.stage(environment.name, text))
    interpreter = str(venvs.python(environment, "cpu"))
    variables = venv.variables_for_users(environment)
    return subprocess.run([interpreter, *arguments.arguments], env=variables).returncode

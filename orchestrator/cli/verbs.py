"""The verbs, in the order in which `consort --help` lists them; each is one file.

There `add(verbs)` makes its parser, `run(arguments)` does it and returns the exit code, and the rest is what it says.
"""

from orchestrator.cli import clean, compose, doctor, envs, extract, fit, models, plan, python, status, verify, weights

VERBS = (extract, plan, status, verify, compose, models, envs, weights, clean, fit, python, doctor)

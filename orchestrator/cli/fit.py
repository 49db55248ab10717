"""`consort fit`: tokens, and an encoder of them, fitted to the `prosody` that a job has written."""

import argparse
import dataclasses

from orchestrator import errors
from orchestrator.cli import flags, words
from orchestrator.job import reading
from orchestrator.text import table


def add(verbs: flags.Verbs) -> None:
    text = "fit a token model, or an encoder of tokens, to the prosody that a job has written"
    verb = flags.verb(verbs, "fit", text, run)
    verb.add_argument("job", metavar="JOB.yaml", help="has been run with the model `prosody`")
    verb.add_argument("--stage", choices=("clusters", "encoder"), default="clusters", help="default: clusters")
    verb.add_argument("--output", metavar="DIR", help="the model's folder (default: the job's, or models/STAGE)")
    verb.add_argument("--model", metavar="NAME", help="the job's model to learn from, where it has several")
    verb.add_argument("--clusters", type=int, metavar="N", help="number of tokens (default: 120)")
    verb.add_argument("--max_iter", "--max-iter", type=int, metavar="N", help="iterations at most (default: 1000)")
    verb.add_argument("--cluster_model", "--cluster-model", metavar="DIR", help="the encoder's token model")
    verb.add_argument("--size", choices=("small", "default", "large"), help="of the encoder (default: small)")
    verb.add_argument("--epochs", type=int, metavar="N", help="of the encoder's training (default: 40)")
    verb.add_argument("--steps", type=int, metavar="N", help="end the training after these instead")
    verb.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    verb.add_argument("--runtime", metavar="R", help="auto | docker | venv (default: the job's)")
    flags.add_set(verb)


def run(arguments: argparse.Namespace) -> int:
    chosen = [("runtime", arguments.runtime)] if arguments.runtime else []
    job = reading.read(arguments.job, chosen + flags.settings(arguments))
    from orchestrator.fitting import fit as fits
    from orchestrator.running import progress

    names = [field.name for field in dataclasses.fields(fits.FitOptions)]
    options = fits.FitOptions(**{name: getattr(arguments, name) for name in names})
    with progress.choose() as shown:
        folder, facts = fits.fit(job, options, shown)
    print(table(fits.rows(options.stage, facts)))
    print(f"{words.near(folder)}: in a job, a model `extractor: prosody` takes it as `{options.stage}`")
    return errors.OK

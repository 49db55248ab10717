"""`python -m prosody_toolkit.fitting REQUEST.json --corpus DIR --model DIR [--clusters DIR]`.

One process fits one model. The request holds no path but those below the corpus, so it is the same in a
container. Standard output gets JSON lines: `{"kind": "progress", "text": ..., "share": 0.4}`, `note`, and at the end
`finished` with `facts`, or `failed` with `message`. Standard input is a dead man's switch: when it closes, a
training writes its state and ends. Exit codes are the worker's: 0 done, 65 the request or its data cannot
be, 74 the folder cannot be written, 75 stopped, to go on later.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import sys
import threading
import time
import typing as tp

from prosody_toolkit import cluster_files, definition, fitting_clusters, fitting_encoder, learning, storage
from prosody_toolkit.cluster_files import ClusterModel
from prosody_toolkit.corpus import ArrayFile, Corpus
from worker import protocol, schema
from worker.extractor import choice

_PATIENCE = 20.0  # seconds that a training gets to write its state once nobody wants it any more

Emit = tp.Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Request:
    """What to fit, and to what."""

    files: tp.List[ArrayFile]
    parameters: tp.Dict[str, tp.Any]  # of the `prosody` that made the files
    stage: str = choice("clusters", "encoder")
    holds: str = choice("features", "tokens")  # what the files are
    device: str = "cpu"
    n_clusters: int = 120
    seed: int = 0
    reduced_dims: tp.Optional[int] = None
    max_iter: int = 1000
    encoder: fitting_encoder.Options = dataclasses.field(default_factory=fitting_encoder.Options)


def main(argv: tp.Optional[tp.Sequence[str]] = None) -> int:
    """Run one request and return the exit code."""
    parser = argparse.ArgumentParser(prog="fitting", allow_abbrev=False)
    parser.add_argument("request")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clusters")
    arguments = parser.parse_args(argv)
    emit = _claim_output()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    protocol.watch_host(stop, _PATIENCE)
    try:
        with open(arguments.request, encoding="ascii") as f:
            request = schema.build(Request, json.load(f), "request")
        os.makedirs(arguments.model, exist_ok=True)
        with _locked(arguments.model):
            storage.sweep(arguments.model)
            emit("finished", facts=run(request, arguments.corpus, arguments.model, arguments.clusters, emit, stop))
    except learning.Stopped:
        return protocol.EXIT_AGAIN
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        emit("failed", message=protocol.one_line(error))
        return protocol.EXIT_PERMANENT if missing else protocol.EXIT_OUTPUT
    except (ValueError, MemoryError) as error:
        emit("failed", message=protocol.one_line(error))
        return protocol.EXIT_PERMANENT
    return protocol.EXIT_OK


def run(
    request: Request, corpus: str, folder: str, clusters: tp.Optional[str], emit: Emit, stop: threading.Event
) -> tp.Dict[str, tp.Any]:
    """Fit what a request asks for, and return the facts."""

    def say(text: str, share: tp.Optional[float]) -> None:
        if stop.is_set() and request.stage == "clusters":
            raise learning.Stopped  # k-means has no state to keep
        if share is None:
            emit("note", text=text)
        else:
            emit("progress", text=text, share=round(share, 4))

    arrays = Corpus(corpus, request.files, request.parameters, _every(lambda done, n: say(f"file {done} of {n}", 0.0)))
    if request.stage == "clusters":
        return fitting_clusters.fit(
            arrays,
            folder,
            request.n_clusters,
            request.seed,
            request.reduced_dims,
            request.max_iter,
            request.device,
            say,
        )
    if clusters is None:
        raise ValueError("an encoder is made of tokens; give the folder of their model by --clusters")
    model = cluster_files.load(clusters)
    definition.refuse_others(model.features, arrays.features, clusters)
    plan = dataclasses.replace(request.encoder.plan, seed=request.seed)
    options = dataclasses.replace(request.encoder, plan=plan)
    sequences = list(_tokens(arrays, model, request.holds))
    return fitting_encoder.fit(sequences, folder, model.n_clusters, options, model.sha256, request.device, say, stop)


def _tokens(corpus: Corpus, model: ClusterModel, holds: str) -> tp.Iterator[tp.Any]:
    return corpus.tokens(model.n_clusters) if holds == "tokens" else corpus.find_tokens(model)


def _every(say: tp.Callable[[int, int], None], seconds: float = 1.0) -> tp.Callable[[int, int], None]:
    """Return `say`, called now and then only."""
    last = [0.0]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= seconds:
            last[0] = time.monotonic()
            say(done, total)

    return tell


def _claim_output() -> Emit:
    """Return what writes an event; prints of libraries go to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    protocol.claim_stdout()

    def emit(kind: str, **said: tp.Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more; standard input says so as well
            channel.write(protocol.canonical({"kind": kind, **said}) + "\n")

    return emit


@contextlib.contextmanager
def _locked(folder: str) -> tp.Iterator[None]:
    with open(os.path.join(folder, ".lock"), "a", encoding="ascii") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(f"{folder}: another fit is writing here; wait for it") from error
        yield


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

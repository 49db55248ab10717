"""Fit a sequence encoder: split, cut, learn, write the network with its learning curve.

::

    encoder.pt      the network of the lowest validation loss, with all that is known of it
    curve.csv       loss and accuracy after every epoch; curve.png and curve.svg show them
    training.pt     while it is going: where a killed training goes on
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import threading
import time
import typing as tp

import numpy as np
import torch

from prosody_toolkit import batches, devices, learning, scoring, storage
from prosody_toolkit.batches import Sequences
from prosody_toolkit.encoder import ProsodicSequenceEncoder
from prosody_toolkit.learning import Learning, TrainingPlan

ENCODER = "encoder.pt"
_COLUMNS = ("step", "epoch", "train_loss", "validation_loss", "validation_accuracy")  # of the learning curve

_Rows = tp.Sequence[learning.Row]
_Facts = tp.Dict[str, tp.Any]
SayShare = tp.Callable[[str, tp.Optional[float]], None]  # gets a line, and the share that is done; None: once for all


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes and split of a training; see `ProsodicSequenceEncoder` and `TrainingPlan` for the others."""

    size: str = "small"
    hidden_dim: tp.Optional[int] = None  # this and the next two, where given, count instead of the size's
    num_layers: tp.Optional[int] = None
    nhead: tp.Optional[int] = None
    window: int = 500  # tokens that are learned from together at most: 8 s
    validation: float = 0.1  # share of the sequences that nothing is learned from
    mask_prob: float = 0.15
    mask_span: int = 8
    dropout: float = 0.1
    plan: TrainingPlan = dataclasses.field(default_factory=TrainingPlan)


def fit(
    sequences: Sequences,
    folder: str,
    n_tokens: int,
    options: Options,
    clusters: str = "",
    device: str = "cpu",
    say: SayShare = lambda text, share: None,
    stop: tp.Optional[threading.Event] = None,
) -> _Facts:
    """Train an encoder, or go on where a killed training of the same data and options stands.

    Args:
        sequences: tokens int64 `[T]` of each item.
        folder: gets the files.
        n_tokens: number of tokens of the token model.
        options: sizes, split, length.
        clusters: sha256 of the centres that the tokens come from; the encoder works with no others.
        device: "cpu" or "cuda".
        say: gets a line now and then.
        stop: set it to end; the state is on the disk then.

    Returns:
        What was reached; see the file's `facts`.

    Raises:
        ValueError: too few sequences, or options that cannot be.
        learning.Stopped: `stop` was set.
    """
    os.makedirs(folder, exist_ok=True)
    fingerprint = _fingerprint(sequences, n_tokens, options, clusters, device)
    done = _finished(os.path.join(folder, ENCODER), fingerprint)
    if done is not None:
        say("this encoder is fitted already; remove its folder to fit it anew", None)
        return done
    kept = [tokens for tokens in sequences if len(tokens) > 1]
    parts = batches.split(len(kept), options.validation, options.plan.seed)
    train, validation = (batches.cut((kept[number] for number in part), options.window) for part in parts)
    with torch.random.fork_rng([]):
        torch.manual_seed(options.plan.seed)
        model = _build(n_tokens, options)
    due = every_second()

    def tell(step: int, share: float, loss: float) -> None:
        if share >= 1 or due():
            say(f"step {step}, loss {loss:.3f}", share)

    work = Learning(model, train, validation, folder, fingerprint, options.plan, devices.choose(device))
    rows = work.run(stop, tell, lambda found: _write_curve(found, folder))
    facts = {
        **_describe(rows, work.score, train, validation, n_tokens),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": options.plan.seed,
        "size": _name(model, options),
        "clusters": clusters,
        "fingerprint": fingerprint,
        "threads": torch.get_num_threads(),
    }
    _write(model, rows, facts, folder, say)
    return facts


def _write(model: ProsodicSequenceEncoder, rows: _Rows, facts: _Facts, folder: str, say: SayShare) -> None:
    """Write the curve and what is known of the encoder, then itself; the state that a kill leaves goes last."""
    _write_curve(rows, folder)
    try:
        plot_curve(rows, facts, folder)
    except ImportError:
        say("matplotlib is not in this environment, so there is no picture of curve.csv", None)
    named = ("size", "seed", "steps", "best_epoch", "validation", "unigram", "clusters")
    storage.write_provenance(folder, "encoder", {key: facts[key] for key in named})
    model.save(os.path.join(folder, ENCODER), **facts)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, learning.STATE))


def _write_curve(rows: _Rows, folder: str) -> None:
    """Write `curve.csv`, one row per epoch: losses in nats per hidden token, accuracy as a share."""
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with storage.replacing(os.path.join(folder, "curve.csv")) as f:
        f.write(text.getvalue().encode("ascii"))


def plot_curve(rows: _Rows, facts: _Facts, folder: str) -> None:
    """Write `curve.png` and `curve.svg`: losses and accuracy by epoch.

    Dashed lines show what frequencies alone would guess, the `unigram` among the `facts`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)  # no window, and no state that others share
    losses, shares = figure.subplots(1, 2)
    losses.plot(epochs, [row["train_loss"] for row in rows], label="training")
    losses.plot(epochs, [row["validation_loss"] for row in rows], label="validation")
    losses.axhline(facts["unigram"]["loss"], color="gray", linestyle="--", label="unigram")
    losses.set(xlabel="epoch", ylabel="loss in nats per hidden token")
    shares.plot(epochs, [row["validation_accuracy"] for row in rows], color="C1", label="validation")
    shares.axhline(facts["unigram"]["accuracy"], color="gray", linestyle="--", label="unigram")
    shares.set(xlabel="epoch", ylabel="hidden tokens guessed", ylim=(0, None))
    for axes in (losses, shares):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    for kind in ("png", "svg"):
        with storage.replacing(os.path.join(folder, f"curve.{kind}")) as f:
            figure.savefig(f, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def _build(n_tokens: int, options: Options) -> ProsodicSequenceEncoder:
    if options.size not in ProsodicSequenceEncoder.sizes:
        raise ValueError(f"size: {options.size!r} is not one of {', '.join(ProsodicSequenceEncoder.sizes)}")
    named = ProsodicSequenceEncoder.sizes[options.size]
    return ProsodicSequenceEncoder(
        n_tokens + 2,
        **{name: getattr(options, name) or value for name, value in named.items()},
        pos_max_len=options.window,  # longer sequences are embedded by windows such as it was trained on
        mask_prob=options.mask_prob,
        mask_span=options.mask_span,
        dropout=options.dropout,
    )


def _name(model: ProsodicSequenceEncoder, options: Options) -> str:
    sizes = "/".join(str(model.config[name]) for name in ("hidden_dim", "num_layers", "nhead"))
    return sizes if options.hidden_dim or options.num_layers or options.nhead else f"{options.size} ({sizes})"


def _describe(rows: _Rows, score: scoring.Score, train: Sequences, validation: Sequences, n_tokens: int) -> _Facts:
    best = min(rows, key=lambda row: row["validation_loss"])
    return {
        "steps": int(rows[-1]["step"]),
        "epochs": int(rows[-1]["epoch"]),
        "best_epoch": int(best["epoch"]),
        "final_train_loss": rows[-1]["train_loss"],
        "final_validation_loss": rows[-1]["validation_loss"],
        "train_tokens": int(sum(map(len, train))),
        "validation_tokens": int(sum(map(len, validation))),
        "validation": score,
        "unigram": scoring.unigram(train, validation, n_tokens),
    }


def _fingerprint(sequences: Sequences, n_tokens: int, options: Options, clusters: str, device: str) -> str:
    """Return a hash of all that decides the result, and of nothing else."""
    plan = dataclasses.replace(options.plan, checkpoint_seconds=0.0)
    total = hashlib.sha256(repr((n_tokens, dataclasses.replace(options, plan=plan), clusters, device)).encode())
    for tokens in sequences:
        total.update(np.int64(len(tokens)).tobytes() + np.ascontiguousarray(tokens, np.int64).tobytes())
    return total.hexdigest()


def _finished(path: str, fingerprint: str) -> tp.Optional[_Facts]:
    """Return the facts of an encoder that was made of just this, or None."""
    if not os.path.isfile(path):
        return None
    try:
        found = storage.read_tensors(path)
    except ValueError:
        return None  # it is replaced
    facts = found.get("facts", {}) if isinstance(found, dict) else {}
    return dict(facts) if facts.get("fingerprint") == fingerprint else None


def every_second() -> tp.Callable[[], bool]:
    """Return a question whose answer is yes once a second at most: whether to say something again."""
    last = 0.0

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < 1.0:
            return False
        last = time.monotonic()
        return True

    return due

"""Fit a sequence encoder: split, cut, learn, write the network with its learning curve.

::

    encoder.pt      the network of the lowest validation loss, with all that is known of it
    curve.csv       loss and accuracy after every epoch; curve.png and curve.svg show them
    training.pt     while it is going: where a killed training goes on
"""

import dataclasses
import hashlib
import os
import threading
import time
import typing as tp

import numpy as np
import torch

from prosody_toolkit import batches, curve, devices, learning, scoring, storage
from prosody_toolkit.encoder import ProsodicSequenceEncoder
from prosody_toolkit.learning import Learning, TrainingPlan

ENCODER = "encoder.pt"
PROVENANCE = "PROVENANCE.json"  # its words are copied into every record that is made with the model
_EVERY = 1.0  # seconds between two words about the progress

_Say = tp.Callable[[str, tp.Optional[float]], None]  # gets a line, and the share that is done; None: once for all


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

    @property
    def size_is_named(self) -> bool:
        """Whether nothing takes the place of the named size."""
        return not (self.hidden_dim or self.num_layers or self.nhead)


def fit(
    sequences: tp.Sequence[np.ndarray],
    folder: str,
    n_tokens: int = 120,
    options: tp.Optional[Options] = None,
    clusters: str = "",
    device: str = "cpu",
    say: _Say = lambda text, share: None,
    stop: tp.Optional[threading.Event] = None,
) -> tp.Dict[str, tp.Any]:
    """Train an encoder, or go on where a killed training of the same data and options stands.

    Args:
        sequences: tokens int64 `[T]` of each item.
        folder: gets the files.
        n_tokens: number of tokens of the token model.
        options: sizes, split, length; None takes the default ones.
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
    options = options or Options()
    os.makedirs(folder, exist_ok=True)
    fingerprint = _fingerprint(sequences, n_tokens, options, clusters, device)
    path = os.path.join(folder, ENCODER)
    done = _finished(path, fingerprint)
    if done is not None:
        say("this encoder is fitted already; remove its folder to fit it anew", None)
        return done
    train, validation = _windows(sequences, options)
    with torch.random.fork_rng([]):
        torch.manual_seed(options.plan.seed)
        model = _build(n_tokens, options)
    work = Learning(model, train, validation, folder, fingerprint, options.plan, devices.choose(device))
    rows = work.run(stop, _Teller(say), lambda found: curve.write(found, folder))
    assert work.score is not None
    facts = {
        **_describe(rows, work.score, train, validation, n_tokens),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": options.plan.seed,
        "size": _name(model, options),
        "clusters": clusters,
        "fingerprint": fingerprint,
        "threads": torch.get_num_threads(),
    }
    curve.write(rows, folder)
    try:
        curve.plot(rows, facts, folder)
    except ImportError:
        say("matplotlib is not in this environment, so there is no picture of curve.csv", None)
    storage.write_json(os.path.join(folder, PROVENANCE), {"encoder": {"made by": "consort fit", **_public(facts)}})
    model.save(path, **facts)
    _remove(os.path.join(folder, learning.STATE))
    return facts


def _windows(
    sequences: tp.Sequence[np.ndarray], options: Options
) -> tp.Tuple[tp.List[np.ndarray], tp.List[np.ndarray]]:
    """Return windows to learn from, and others of other items to validate with."""
    kept = [tokens for tokens in sequences if len(tokens) > 1]
    learned, held = batches.split(len(kept), options.validation, options.plan.seed)
    return tuple(batches.cut((kept[n] for n in part), options.window) for part in (learned, held))  # type: ignore


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
    return f"{options.size} ({sizes})" if options.size_is_named else sizes


def _describe(
    rows: tp.List[learning.Row],
    score: scoring.Score,
    train: tp.List[np.ndarray],
    validation: tp.List[np.ndarray],
    n_tokens: int,
) -> tp.Dict[str, tp.Any]:
    best = min(rows, key=lambda row: row["validation_loss"])
    return {
        "steps": int(rows[-1]["step"]),
        "epochs": int(rows[-1]["epoch"]),
        "best_epoch": int(best["epoch"]),
        "final_train_loss": rows[-1]["train_loss"],
        "final_validation_loss": rows[-1]["validation_loss"],
        "train_tokens": int(sum(map(len, train))),
        "validation_tokens": int(sum(map(len, validation))),
        "validation": dataclasses.asdict(score),
        "unigram": scoring.unigram(train, validation, n_tokens),
    }


def _fingerprint(
    sequences: tp.Sequence[np.ndarray], n_tokens: int, options: Options, clusters: str, device: str
) -> str:
    """Return a hash of all that decides the result, and of nothing else."""
    plan = dataclasses.replace(options.plan, checkpoint_seconds=0.0)
    total = hashlib.sha256(repr((n_tokens, dataclasses.replace(options, plan=plan), clusters, device)).encode())
    for tokens in sequences:
        total.update(np.int64(len(tokens)).tobytes() + np.ascontiguousarray(tokens, np.int64).tobytes())
    return total.hexdigest()


def _finished(path: str, fingerprint: str) -> tp.Optional[tp.Dict[str, tp.Any]]:
    """Return the facts of an encoder that was made of just this, or None."""
    if not os.path.isfile(path):
        return None
    try:
        found = storage.read_tensors(path)
    except ValueError:
        return None  # it is replaced
    facts = found.get("facts", {}) if isinstance(found, dict) else {}
    return dict(facts) if facts.get("fingerprint") == fingerprint else None


def _public(facts: tp.Dict[str, tp.Any]) -> tp.Dict[str, tp.Any]:
    return {key: facts[key] for key in ("size", "seed", "steps", "best_epoch", "validation", "unigram", "clusters")}


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


class _Teller:
    """Says now and then where the training stands."""

    def __init__(self, say: _Say) -> None:
        self._say = say
        self._last = 0.0

    def __call__(self, step: int, share: float, loss: float) -> None:
        if time.monotonic() - self._last >= _EVERY or share >= 1:
            self._last = time.monotonic()
            self._say(f"step {step}, loss {loss:.3f}", share)

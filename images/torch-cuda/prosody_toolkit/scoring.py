"""How well hidden tokens are guessed, beside two ways that need no training."""

import typing as tp

import numpy as np
import torch

from prosody_toolkit import batches
from prosody_toolkit.batches import Sequences
from prosody_toolkit.encoder import ProsodicSequenceEncoder

_ENOUGH = 4000  # hidden tokens that a score should rest on
_ROUNDS = 8  # times that few windows are gone through, with other gaps each time


Score = tp.Dict[str, float]


def evaluate(model: ProsodicSequenceEncoder, windows: Sequences, batch_tokens: int, seed: int) -> Score:
    """Return the score of a model, without learning from it; the gaps are the same at every evaluation.

    Of the `hidden` tokens: the `loss` in nats, the `accuracy`, which is the share that was guessed, and the
    `nearest_accuracy`: that of copying the nearest token that is visible, the earlier one where two are as near.
    """
    lengths = np.array([len(window) for window in windows])
    hits = near = hidden = 0
    loss = 0.0
    model.eval()
    device = model.head.weight.device
    generator = torch.Generator().manual_seed(seed)
    rounds = int(np.clip(_ENOUGH / (model.mask_prob * lengths.sum()), 1, _ROUNDS))
    with torch.no_grad():
        for numbers in rounds * batches.group(np.argsort(lengths, kind="stable").tolist(), lengths, batch_tokens):
            tokens = batches.pad([windows[n] for n in numbers], model.padding_token_id).to(device)
            logits, _, gaps, original = model(tokens, training=True, generator=generator)
            truth = original[gaps]
            loss += float(torch.nn.functional.cross_entropy(logits[gaps], truth, reduction="sum"))
            hits += int((logits[gaps].argmax(-1) == truth).sum())
            near += int((copy_nearest(original, gaps, tokens != model.padding_token_id)[gaps] == truth).sum())
            hidden += len(truth)
    shares = {"accuracy": hits / hidden, "nearest_accuracy": near / hidden}
    return {"hidden": hidden, "loss": loss / hidden, **shares}


def copy_nearest(tokens: torch.Tensor, gaps: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return tokens `[B, T]` with each hidden one replaced by the nearest visible one; -1 where there is none."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    visible = valid & ~gaps
    far = 2 * tokens.shape[1]
    before = torch.where(visible, places, -far).cummax(1).values
    after = torch.where(visible, places, far).flip(1).cummin(1).values.flip(1)
    chosen = torch.where(places - before <= after - places, before, after)
    lost = (chosen < 0) | (chosen >= tokens.shape[1])
    return tokens.gather(1, chosen.clamp(0, tokens.shape[1] - 1)).masked_fill(lost, -1)


def unigram(learned: Sequences, windows: Sequences, n_tokens: int) -> Score:
    """Return how well the frequencies of `n_tokens` alone guess those of `windows`: always the most frequent one.

    They are counted in the sequences `learned`, with one count added to each.
    """
    counts = np.bincount(np.concatenate(learned), minlength=n_tokens)
    guessed = np.concatenate(windows)
    share = (counts + 1) / (counts.sum() + n_tokens)
    return {"accuracy": float((guessed == counts.argmax()).mean()), "loss": float(-np.log(share[guessed]).mean())}

"""Sequences of tokens: cut into windows, put in order, padded into batches."""

import typing as tp

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

Sequences = tp.Sequence[np.ndarray]  # int64 [T] each

_POOL = 8  # batches whose windows are sorted by length together


def cut(sequences: tp.Iterable[np.ndarray], longest: int) -> tp.List[np.ndarray]:
    """Return windows of at most `longest` tokens, nearly equal ones within a sequence; a lone token is left out."""
    windows: tp.List[np.ndarray] = []
    for tokens in sequences:
        windows += [part for part in np.array_split(tokens, max(1, -(-len(tokens) // longest))) if len(part) > 1]
    return windows


def order(windows: Sequences, batch_tokens: int, seed: int, epoch: int) -> tp.List[tp.List[int]]:
    """Return the numbers of the windows of each batch of an epoch.

    A function of its arguments alone, so that a resumed training finds its place again. Windows of about
    equal length come together, and a batch holds at most `batch_tokens`, padding included, or one window.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(windows))
    lengths = np.array([len(window) for window in windows])
    pool = max(1, int(_POOL * batch_tokens / lengths.mean()))
    found: tp.List[tp.List[int]] = []
    for start in range(0, len(shuffled), pool):
        part = shuffled[start : start + pool]
        found += group([int(n) for n in part[np.argsort(lengths[part], kind="stable")]], lengths, batch_tokens)
    return [found[n] for n in random.permutation(len(found))]


def group(numbers: tp.Iterable[int], lengths: np.ndarray, batch_tokens: int) -> tp.List[tp.List[int]]:
    """Return neighbours of `numbers` in batches whose padded size is bounded."""
    found: tp.List[tp.List[int]] = []
    longest = 0
    for number in numbers:
        longest = max(longest, int(lengths[number]))
        if not found or (len(found[-1]) + 1) * longest > batch_tokens:
            found.append([])
            longest = int(lengths[number])
        found[-1].append(number)
    return found


def pad(windows: Sequences, padding: int) -> torch.Tensor:
    """Return int64 `[B, T]` with `padding` behind the end of each window."""
    return pad_sequence([torch.as_tensor(window, dtype=torch.int64) for window in windows], True, padding)


def split(count: int, share: float, seed: int) -> tp.Tuple[tp.List[int], tp.List[int]]:
    """Return which of `count` sequences are for learning, and which for validation: a share, at least one.

    Raises:
        ValueError: there are fewer than two.
    """
    if count < 2:
        raise ValueError(f"{count} sequence(s) of tokens: one to learn from and one to validate with are the least")
    held = min(count - 1, max(1, round(share * count)))
    shuffled = np.random.default_rng([seed, 1]).permutation(count).tolist()
    return sorted(shuffled[held:]), sorted(shuffled[:held])

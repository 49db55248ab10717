"""Which tokens of a sequence are hidden in training, and behind what."""

import typing as tp

import torch
from torch import Tensor

STAY, EXCHANGE = 0.1, 0.1  # shares of the hidden tokens that are not replaced by the mask


def choose(valid: Tensor, prob: float, span: int, generator: tp.Optional[torch.Generator] = None) -> Tensor:
    """Return which tokens are hidden, bool `[B, T]`: gaps of `span` tokens that cover about `prob` of them.

    A gap begins anywhere with the probability that makes the expected share `prob` where gaps overlap:
    a token stays visible when none of the `span` places in front of it begins one. A sequence without a gap
    gets one that begins at one of its tokens, and one of a single token is hidden whole.

    Args:
        valid: which tokens are real, `[B, T]`.
        prob: share of the tokens, between 0 and 1.
        span: tokens in one gap; of a short sequence it takes half at most.
        generator: on the CPU; None takes torch's global one.
    """
    count = valid.sum(1).cpu()
    spans = torch.minimum(torch.full_like(count, span), (count // 2).clamp_min(1))
    rate = 1 - (1 - prob) ** (1 / spans.double())
    draws = torch.rand(valid.shape, generator=generator)
    begins = (draws < rate[:, None]) & valid.cpu()
    forced = draws.masked_fill(~valid.cpu(), 2).argmin(1)
    alone = ~begins.any(1)
    begins[alone, forced[alone]] = True
    position = torch.arange(valid.shape[1])
    last = torch.where(begins, position, -span).cummax(1).values  # the latest beginning up to each place
    return (position - last < spans[:, None]).to(valid.device) & valid


def hide(tokens: Tensor, hidden: Tensor, vocab_size: int, generator: tp.Optional[torch.Generator] = None) -> Tensor:
    """Return tokens `[B, T]` as the network sees them.

    Of the `hidden` ones 80 % become the mask, 10 % any token, and 10 % stay, so that the network cannot
    trust what it sees. The number of the mask is `vocab_size - 1`; `vocab_size - 2` tokens can be drawn.
    """
    draws = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    others = torch.randint(vocab_size - 2, tokens.shape, generator=generator).to(tokens.device)
    seen = torch.where(draws < EXCHANGE, others, torch.full_like(tokens, vocab_size - 1))
    seen = torch.where(draws >= 1 - STAY, tokens, seen)
    return torch.where(hidden, seen, tokens)

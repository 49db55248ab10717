"""A transformer that learns from sequences of prosodic tokens, by filling gaps in them.

J. Devlin et al., "BERT", 2019: masked tokens, of which some stay or are exchanged; M. Joshi et al., "SpanBERT",
2020: gaps of several tokens, as neighbours of 16 ms say too much about each other; A. Vaswani et al.,
"Attention is all you need", 2017: the network and the positions; R. Xiong et al., "On layer normalization in
the transformer architecture", 2020: normalisation in front of each block, which trains without luck.
"""

import itertools
import math
import typing as tp

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from prosody_toolkit import batches, storage

_FORMAT = "consort prosodic encoder 1"
_TOKENS_AT_ONCE = 32768  # in inference: bounds memory, whatever the length of the sequences
_STAY, _EXCHANGE = 0.1, 0.1  # shares of the hidden tokens that are not replaced by the mask


class ProsodicSequenceEncoder(nn.Module):
    """Embeds sequences of tokens; `vocab_size` = tokens + 1 for padding + 1 for the mask."""

    sizes: tp.ClassVar[tp.Dict[str, tp.Dict[str, int]]] = {
        "small": {"hidden_dim": 512, "num_layers": 6, "nhead": 8},
        "default": {"hidden_dim": 768, "num_layers": 8, "nhead": 8},
        "large": {"hidden_dim": 1024, "num_layers": 12, "nhead": 16},
    }

    def __init__(  # noqa: PLR0913 - the names of the published procedure, and what it leaves out
        self,
        vocab_size: int = 122,
        hidden_dim: int = 768,
        num_layers: int = 8,
        nhead: int = 8,
        pos_max_len: int = 2000,
        padding_token_id: int = -100,
        *,
        mask_prob: float = 0.15,
        mask_span: int = 8,
        dropout: float = 0.1,
    ) -> None:
        """Build the network with random weights, drawn by torch's global generator.

        Args:
            vocab_size: V; tokens are 0 to V - 3, padding is V - 2 and the mask V - 1 inside.
            hidden_dim: D, the size of the embedding.
            num_layers: of the transformer.
            nhead: attention heads, a divisor of `hidden_dim`.
            pos_max_len: tokens that see each other at most; longer sequences are cut into windows.
            padding_token_id: what stands in the input where a sequence is over.
            mask_prob: share of the tokens that are hidden in training.
            mask_span: tokens in one gap.
            dropout: in training.
        """
        super().__init__()
        self.config: tp.Dict[str, tp.Any] = {
            "vocab_size": vocab_size, "hidden_dim": hidden_dim, "num_layers": num_layers, "nhead": nhead,
            "pos_max_len": pos_max_len, "padding_token_id": padding_token_id, "mask_prob": mask_prob,
            "mask_span": mask_span, "dropout": dropout,
        }  # fmt: skip
        _check(**self.config)
        self.vocab_size, self.hidden_dim, self.pos_max_len = vocab_size, hidden_dim, pos_max_len
        self.padding_token_id, self.mask_span = padding_token_id, mask_span
        self.update_mask_prob(mask_prob)
        self.embedding = nn.Embedding(vocab_size, hidden_dim, padding_idx=vocab_size - 2)
        nn.init.normal_(self.embedding.weight, std=hidden_dim**-0.5)
        self.positions: Tensor
        self.register_buffer("positions", _sinusoids(pos_max_len, hidden_dim), persistent=False)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            hidden_dim, nhead, 4 * hidden_dim, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(hidden_dim), enable_nested_tensor=False)
        self.head = nn.Linear(hidden_dim, vocab_size)

    def update_mask_prob(self, prob: float) -> None:
        """Set the share of the tokens that training hides, 0 < prob < 1."""
        if not 0 < prob < 1:
            raise ValueError(f"mask_prob: {prob} does not lie between 0 and 1")
        self.mask_prob = prob
        self.config["mask_prob"] = prob

    def forward(
        self,
        x: Tensor,
        lengths: tp.Optional[tp.Union[Tensor, tp.Sequence[int]]] = None,
        training: bool = False,
        generator: tp.Optional[torch.Generator] = None,
    ) -> tp.Union[Tensor, tp.Tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Embed sequences, or hide some of their tokens and guess them.

        Args:
            x: tokens int64 `[B, T]`; `padding_token_id` where a sequence is over.
            lengths: tokens of each sequence, `[B]`; None: up to its padding.
            training: hide tokens and return what is needed to learn from them.
            generator: of the gaps; None takes torch's global one.

        Returns:
            The mean of the hidden states of each sequence, `[B, D]`; padding does not count. In training:
            logits `[B, T, V]`, hidden states `[B, T, D]`, which tokens were hidden, bool `[B, T]`, and the tokens
            before, with `padding_token_id` behind their end.

        Raises:
            ValueError: an empty sequence, a token that the vocabulary lacks, or in training a sequence
                longer than `pos_max_len`.
        """
        tokens, valid = self._check(x, lengths)
        if not training:
            return self._embed(tokens, valid)
        if tokens.shape[1] > self.pos_max_len:
            raise ValueError(
                f"sequences of {tokens.shape[1]} tokens exceed pos_max_len={self.pos_max_len}; cut them into windows"
            )
        hidden_ones = choose_gaps(valid, self.mask_prob, self.mask_span, generator)
        seen = hide(tokens, hidden_ones, self.vocab_size, generator)
        states = self._run(seen, valid)
        return self.head(states), states, hidden_ones, tokens.masked_fill(~valid, self.padding_token_id)

    def save(self, path: str, **facts: tp.Any) -> str:
        """Write sizes, weights and plain `facts` into one `.pt` file; return its sha256."""
        state = {name: tensor.cpu() for name, tensor in self.state_dict().items()}
        return storage.write_tensors(path, {"format": _FORMAT, "config": self.config, "state": state, "facts": facts})

    @classmethod
    def load(cls, path: str) -> tp.Tuple["ProsodicSequenceEncoder", tp.Dict[str, tp.Any]]:
        """Return the network of a file that `save` wrote, set to inference, and the facts.

        Raises:
            ValueError: it is damaged, or something else.
        """
        found = storage.read_tensors(path)
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ValueError(
                f"{path}: holds no encoder as `consort fit --stage encoder` writes it; for bare weights build a "
                "ProsodicSequenceEncoder of their sizes, call its load_state_dict, and save it"
            )
        try:
            model = cls(**found["config"])
            model.load_state_dict(found["state"])
        except (RuntimeError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: sizes and weights do not fit each other; fit it again") from error
        return model.eval(), dict(found.get("facts") or {})

    def _check(self, x: Tensor, lengths: tp.Any) -> tp.Tuple[Tensor, Tensor]:
        """Return the tokens with the inner number of padding, and which are real, both `[B, T]`."""
        if x.ndim != 2 or x.dtype.is_floating_point:
            raise ValueError(f"expected whole numbers [B, T], got {x.dtype} {list(x.shape)}")
        valid = x != self.padding_token_id
        if lengths is not None:
            ends = torch.as_tensor(lengths, device=x.device)
            if ends.shape != (len(x),) or bool((ends > x.shape[1]).any()):
                raise ValueError(f"lengths: expected {len(x)} numbers up to {x.shape[1]}")
            valid = valid & (torch.arange(x.shape[1], device=x.device) < ends[:, None])
        if not len(x) or not bool(valid.any(1).all()):
            raise ValueError("a sequence without tokens has no embedding; leave it out")
        tokens = x.long().masked_fill(~valid, self.vocab_size - 2)
        if bool(((tokens < 0) | (tokens > self.vocab_size - 3))[valid].any()):
            raise ValueError(f"tokens must lie between 0 and {self.vocab_size - 3}, as vocab_size={self.vocab_size}")
        return tokens, valid

    def _run(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return the hidden states `[B, T, D]` of up to `pos_max_len` tokens."""
        embedded = self.embedding(tokens) * math.sqrt(self.hidden_dim) + self.positions[: tokens.shape[1]]
        return tp.cast(Tensor, self.layers(self.dropout(embedded), src_key_padding_mask=~valid))

    def _embed(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return the mean of the states `[B, D]`; a long sequence in windows of nearly equal length."""
        totals = torch.zeros(len(tokens), self.hidden_dim, device=tokens.device, dtype=self.head.weight.dtype)
        cut = _cut(valid, self.pos_max_len)  # by a sequence's own length, so that padding changes nothing
        sizes = np.array([stop - start for _, start, stop in cut])
        for numbers in batches.group(np.argsort(sizes, kind="stable").tolist(), sizes, _TOKENS_AT_ONCE):
            windows = [cut[number] for number in numbers]
            part = pad_sequence([tokens[row, start:stop] for row, start, stop in windows], True, self.vocab_size - 2)
            real = pad_sequence([valid[row, start:stop] for row, start, stop in windows], True)
            sums = self._run(part, real).masked_fill(~real[..., None], 0).sum(1)
            owners = torch.tensor([row for row, _, _ in windows], device=tokens.device)
            totals = totals.index_add(0, owners, sums)
        return totals / valid.sum(1, keepdim=True)


def choose_gaps(valid: Tensor, prob: float, span: int, generator: tp.Optional[torch.Generator] = None) -> Tensor:
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
    seen = torch.where(draws < _EXCHANGE, others, torch.full_like(tokens, vocab_size - 1))
    seen = torch.where(draws >= 1 - _STAY, tokens, seen)
    return torch.where(hidden, seen, tokens)


def _cut(valid: Tensor, longest: int) -> tp.List[tp.Tuple[int, int, int]]:
    """Return windows (row, first token, end) of at most `longest` tokens over each sequence of `[B, T]`."""
    places = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    windows = []
    for row, end in enumerate((valid * places).amax(1).tolist()):
        count = -(-end // longest)
        edges = [end * number // count for number in range(count + 1)]
        windows += [(row, start, stop) for start, stop in itertools.pairwise(edges)]
    return windows


def _sinusoids(length: int, dim: int) -> Tensor:
    """Return sines beside cosines of wavelengths from 2 pi to 20000 pi positions, `[length, dim]`."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(length, dim)


def _check(
    vocab_size: int, hidden_dim: int, num_layers: int, nhead: int, pos_max_len: int, padding_token_id: int,
    mask_span: int, **others: float
) -> None:  # fmt: skip
    """Raise ValueError for sizes that no network has."""
    if vocab_size < 3 or hidden_dim % 2 or hidden_dim % nhead or min(num_layers, pos_max_len, mask_span) < 1:
        raise ValueError(
            f"vocab_size={vocab_size} must be at least 3 (tokens, padding, mask), hidden_dim={hidden_dim} even "
            f"and a multiple of nhead={nhead}, and num_layers, pos_max_len and mask_span at least 1"
        )
    if 0 <= padding_token_id < vocab_size - 2:
        raise ValueError(f"padding_token_id={padding_token_id} is one of the tokens; take a negative one")

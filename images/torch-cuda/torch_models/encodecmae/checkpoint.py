"""The published checkpoint file: `imports` and `config` (text), `state_dict` (tensors)."""

import re
import typing as tp

import torch

from torch_models.encodecmae.log_mel import BANDS

_ENCODER = "visible_encoder."
_LAYERS = _ENCODER + "encoder_layers."
_HEADS = 12  # of all published models, large ones too; the tensors do not tell
_EXPECTED = "give a mel256-ec-*.pt file as published"


class Sizes(tp.NamedTuple):
    """What the tensors say of the network."""

    layers: int
    dim: int
    heads: int
    head_dim: int  # features per head; heads * head_dim may be less than dim
    hidden: int  # of the feed-forward layer


class MelCheckpoint:
    """The tensors of one file, asked for by name and shape."""

    def __init__(self, path: str) -> None:
        """Read the file without running anything that is in it.

        Raises:
            ValueError: it is no checkpoint of EnCodecMAE, or of one that reads something else than mel.
        """
        self.path = path
        content = _load(path)
        tensors = content.get("state_dict") if isinstance(content, dict) else None
        if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
            raise ValueError(f"{path}: holds no state_dict of tensors; {_EXPECTED}")
        self._tensors: dict[str, torch.Tensor] = tensors
        config = content.get("config")
        self.sizes = self._find_sizes(config if isinstance(config, str) else "")

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Return a tensor as float32.

        Raises:
            ValueError: it is missing or has another shape.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ValueError(f"{self.path}: no {name}; {_EXPECTED}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{self.path}: {name} has shape {list(tensor.shape)}, expected {list(shape)}")
        return tensor.detach().float()

    def take_layer(self, index: int, name: str, *shape: int) -> torch.Tensor:
        """Return a tensor of one layer of the encoder."""
        return self.take(f"{_LAYERS}{index}.{name}", *shape)

    def _find_sizes(self, config: str) -> Sizes:
        dim, bands = self._measure("wav_encoder.post_net.weight")
        if bands != BANDS:
            words = f"reads {bands} features per frame, not {BANDS} mel bands; give a mel256 model"
            raise ValueError(f"{self.path}: {words}")
        rows, _ = self._measure(_LAYERS + "0.att_layer.wq.weight")
        hidden, _ = self._measure(_LAYERS + "0.ff_layer.0.weight")
        said = re.findall(r"^\s*NUM_ENCODER_HEADS\s*=\s*([1-9]\d{0,3})\s*$", config, re.MULTILINE)
        heads = int(said[-1]) if said else _HEADS
        if heads * (dim // heads) != rows:
            raise ValueError(f"{self.path}: {rows} rows of attention do not make {heads} heads of {dim // heads}")
        layers = {name[len(_LAYERS) :].split(".")[0] for name in self._tensors if name.startswith(_LAYERS)}
        return Sizes(len(layers), dim, heads, dim // heads, hidden)

    def _measure(self, name: str) -> tuple[int, int]:
        """Return rows and columns of a matrix."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.ndim != 2:
            raise ValueError(f"{self.path}: no matrix {name}; {_EXPECTED}")
        return tensor.shape[0], tensor.shape[1]


def _load(path: str) -> tp.Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes the reader raise
        reason = f"is damaged, or holds more than tensors and text ({type(error).__name__}); nothing in it was run"
        raise ValueError(f"{path}: {reason}; {_EXPECTED}") from error

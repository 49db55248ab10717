"""The folder of an EnCodec checkpoint as the hub has it: `config.json` and `model.safetensors`.

The decoder is never read: 15 of 30 million numbers, and half of the start.
"""

import dataclasses
import json
import math
import typing as tp

import safetensors
import torch

Tensors = dict[str, torch.Tensor]

HOP = 320  # samples per frame
WARM_UP = 960  # samples of the audio before a block that its first frame may depend on
_NORMS = ("weight_norm", "time_group_norm")
_FAMILY = ("audio_channels", "use_causal_conv", "norm_type", "normalize", "chunking")
_FAMILIES = {24000: (1, True, "weight_norm", False, None), 48000: (2, False, "time_group_norm", True, (1.0, 0.01))}


@dataclasses.dataclass(frozen=True)
class EncodecConfig:
    """What `config.json` says about the encoder, by its own names; the defaults are those of the format."""

    sampling_rate: int = 24000
    audio_channels: int = 1
    normalize: bool = False
    chunk_length_s: float | None = None
    overlap: float | None = None
    target_bandwidths: tp.Sequence[float] = (1.5, 3.0, 6.0, 12.0, 24.0)
    hidden_size: int = 128
    num_filters: int = 32
    num_residual_layers: int = 1
    upsampling_ratios: tp.Sequence[int] = (8, 5, 4, 2)
    norm_type: str = "weight_norm"
    kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: str = "reflect"
    num_lstm_layers: int = 2
    codebook_size: int = 1024
    codebook_dim: int | None = None
    use_conv_shortcut: bool = True

    @property
    def strides(self) -> list[int]:
        """Strides of the encoder's convolutions in their order."""
        return list(reversed(self.upsampling_ratios))

    @property
    def dilations(self) -> list[int]:
        """Dilations of the residual blocks in front of each stride."""
        return [self.dilation_growth_rate**i for i in range(self.num_residual_layers)]

    @property
    def width(self) -> int:
        """Channels of the LSTM."""
        return self.num_filters << len(self.upsampling_ratios)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame depends on, before the LSTM."""
        field, step = self.kernel_size, 1
        for stride in self.strides:
            field += step * (self.residual_kernel_size - 1) * sum(self.dilations)
            field += step * (2 * stride - 1)
            step *= stride
        return field

    @property
    def chunking(self) -> tuple[float, float | None] | None:
        """Seconds of a chunk and the share of its overlap; None where audio is taken in one piece."""
        return (self.chunk_length_s, self.overlap) if self.chunk_length_s else None

    def count_codebooks(self, bandwidth: float) -> int:
        """Return how many codebooks a bandwidth in kbit/s pays for, each log2(size) bits per frame."""
        frame_rate = math.ceil(self.sampling_rate / HOP)
        return max(1, math.floor(bandwidth * 1000 / (math.log2(self.codebook_size) * frame_rate)))


def read_settings(path: str) -> EncodecConfig:
    """Return the checked settings of a `config.json`.

    Raises:
        ValueError: it is no configuration of an EnCodec that can be run here.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        known = {field.name for field in dataclasses.fields(EncodecConfig)}
        settings = EncodecConfig(**{name: value for name, value in found.items() if name in known})
        _check(found, settings)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no configuration of EnCodec ({error}); take config.json from the hub") from None
    return settings


def _check(found: dict[str, tp.Any], settings: EncodecConfig) -> None:
    if found.get("model_type") != "encodec":
        raise ValueError(f"its model_type is {found.get('model_type')!r}")
    if math.prod(settings.upsampling_ratios) != HOP:
        raise ValueError(f"upsampling_ratios must make {HOP} samples a frame")
    if settings.norm_type not in _NORMS or settings.pad_mode != "reflect":
        raise ValueError(f"norm_type must be one of {_NORMS}, and pad_mode reflect")
    if settings.receptive_field > WARM_UP:
        raise ValueError(f"a frame depends on {settings.receptive_field} samples; {WARM_UP} are kept")
    if (settings.codebook_dim or settings.hidden_size) != settings.hidden_size or settings.codebook_size > 1 << 15:
        raise ValueError("codebooks must be of hidden_size, and have at most 32768 entries")


def check_family(path: str, settings: EncodecConfig, sample_rate: int, bandwidth: float) -> None:
    """Hold the settings of the file at `path` against the family that the folder's name promises.

    Raises:
        ValueError: they are of another; the message says what to rename or choose.
    """
    if settings.sampling_rate != sample_rate:
        raise ValueError(
            f"{path}: is for {settings.sampling_rate} Hz and its folder's name promises {sample_rate}; "
            f"rename the folder so that {settings.sampling_rate // 1000}khz is in its name"
        )
    if bandwidth not in settings.target_bandwidths:
        known = ", ".join(map(str, settings.target_bandwidths))
        raise ValueError(f"{path}: has no bandwidth of {bandwidth} kbit/s; choose one of {known}")
    found = tuple(getattr(settings, name) for name in _FAMILY)
    if found != _FAMILIES.get(sample_rate):
        raise ValueError(f"{path}: {', '.join(_FAMILY)} are {found}; only {_FAMILIES.get(sample_rate)} can be run")


def read_tensors(path: str, prefix: str) -> Tensors:
    """Return the float32 tensors whose names begin with `prefix`, without it.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.endswith(".safetensors"):
        return {k[len(prefix) :]: v.float() for k, v in _unpickle(path).items() if k.startswith(prefix)}
    try:
        with safetensors.safe_open(path, "pt") as stored:
            names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no mapping
            return {name[len(prefix) :]: stored.get_tensor(name).float() for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error}); fetch it again") from None


def _unpickle(path: str) -> Tensors:
    """Return the tensors of a `pytorch_model.bin`; nothing in it is run."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes the reader raise
        reason = f"is damaged, or holds more than tensors ({type(error).__name__}); nothing in it was run"
        raise ValueError(f"{path}: {reason}") from error


def fold(tensors: Tensors, name: str) -> torch.Tensor:
    """Return the kernel of a convolution, whichever way its norm is stored.

    Weight normalisation (T. Salimans, D. Kingma, 2016): w = g v / |v|, the norm over each output channel. It is
    computed by the operation that upstream's layers run, so that not one bit differs.
    """
    for norm, direction in (("parametrizations.weight.original0", "parametrizations.weight.original1"),
                            ("weight_g", "weight_v")):  # fmt: skip
        if f"{name}.{norm}" in tensors:
            return torch._weight_norm(tensors[f"{name}.{direction}"], tensors[f"{name}.{norm}"], 0)
    return tensors[f"{name}.weight"]

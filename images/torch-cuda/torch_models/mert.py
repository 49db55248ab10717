"""MERT, from samples to the activations of its layers: HuBERT's network, run by a loop of our own.

Three things are other than in the library's own loop. Frames behind the end of a row take part in nothing,
not even in the norm over time, so that a row gives the same alone and in any batch. Layers behind the
highest one that is wanted are neither kept nor run. And of a network that normalises before its blocks
(330M) the last layer is the normalised one, and all others are as they leave their block, as MERT's own
code had them.
"""

import json
import typing as tp
import zipfile

import numpy as np
import safetensors.torch
import torch
from transformers import HubertConfig, HubertModel

from torch_models import devices

HOP = 320  # samples between frames
FIELD = 400  # samples that one frame hears, before the transformer
SAMPLE_RATE = 24000

_SETTINGS = (  # of config.json, by the library's names: all that shapes the network
    *("conv_bias", "conv_dim", "conv_kernel", "conv_stride"),
    *("feat_extract_activation", "feat_extract_norm", "feat_proj_layer_norm"),
    *("hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "do_stable_layer_norm"),
    *("num_attention_heads", "num_hidden_layers", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups"),
)
_NETWORK = ("feature_extractor.", "feature_projection.", "encoder.")  # heads and the like are passed over
_EXPECTED = (
    "expected config.json, preprocessor_config.json and pytorch_model.bin or model.safetensors of a MERT-v1 model"
)


class MertNetwork:
    """A loaded checkpoint. On a CPU rows run one by one: no bit of a result depends on its neighbours."""

    def __init__(self, model: HubertModel, normalize: bool) -> None:
        """Take the network, and whether its audio is brought to equal loudness; `load` makes both."""
        self._model = model
        self._normalize = normalize
        self.layers: int = model.config.num_hidden_layers
        self.dim: int = model.config.hidden_size

    def keep(self, last: int) -> None:
        """Let go of the blocks behind layer `last`; the norm behind them stays for who wants all."""
        del self._model.encoder.layers[last:]

    @torch.inference_mode()
    def run_each(self, wave: np.ndarray, lengths: np.ndarray, layers: tp.Sequence[int]) -> np.ndarray:
        """Return the activations of each row on its own and at its own length.

        Args:
            wave: float32 `[B, N]` at 24 kHz.
            lengths: valid samples of each row, 400 or more; 0 for a row that only fills the batch.
            layers: 0 is the input of the first block, i the output of the i-th.

        Returns:
            float32 `[B, T, L, D]`, zeros behind the frames of a row.
        """
        result = self._allocate(wave, layers)
        for row in np.flatnonzero(lengths):
            samples = self._prepare(wave[row : row + 1, : int(lengths[row])])
            found = self.compute(samples, None, layers)[0]
            result[row, : len(found)] = found.numpy()
        return result

    @torch.inference_mode()
    def run_together(self, wave: np.ndarray, lengths: np.ndarray, layers: tp.Sequence[int]) -> np.ndarray:
        """Return the same in one pass, equal but for rounding; for devices that want large batches."""
        result = self._allocate(wave, layers)
        rows = np.flatnonzero(lengths)
        if not len(rows):
            return result
        valid = lengths[rows]
        samples = np.zeros((len(rows), int(valid.max())), np.float32)
        for filled, row, length in zip(samples, rows, map(int, valid), strict=True):
            filled[:length] = self._prepare(wave[row : row + 1, :length])[0]
        ragged = None if valid.min() == valid.max() else valid.tolist()
        found = self.compute(torch.from_numpy(samples), ragged, layers).cpu().numpy()
        for row, one, length in zip(rows, found, map(int, valid), strict=True):
            count = count_frames(length)
            result[row, :count] = one[:count]
        return result

    def compute(
        self, samples: torch.Tensor, lengths: tp.Sequence[int] | None, layers: tp.Sequence[int]
    ) -> torch.Tensor:
        """Return `[B, T, L, D]` of prepared samples `[B, N]`.

        Args:
            samples: zeros behind the valid ones.
            lengths: how many are valid in each row; None where all are.
            layers: as in `run_each`. What stands behind a row's frames means nothing.
        """
        encoder = self._model.encoder
        x = self._convolve(samples.to(self._model.device), lengths).transpose(1, 2)
        x = self._model.feature_projection(x)
        mask = None
        if lengths is not None:
            seen = _see([count_frames(length) for length in lengths], x.shape[1], x.device)
            x = x.masked_fill(~seen[:, :, None], 0)
            mask = seen[:, None, None]
        x = x + encoder.pos_conv_embed(x)
        if not self._model.config.do_stable_layer_norm:
            x = encoder.layer_norm(x)
        kept = {0: x}
        for index, block in enumerate(encoder.layers[: max(layers)], 1):
            x = block(x, attention_mask=mask)
            if index in layers:
                kept[index] = x
        if self._model.config.do_stable_layer_norm and self.layers in kept:
            kept[self.layers] = encoder.layer_norm(x)
        return torch.stack([kept[index] for index in layers], dim=2)

    def _convolve(self, samples: torch.Tensor, lengths: tp.Sequence[int] | None) -> torch.Tensor:
        """Return the frames `[B, C, T]` before the transformer."""
        convolutions: tp.Any = self._model.feature_extractor.conv_layers
        first, *others = convolutions
        x: torch.Tensor = first.conv(samples[:, None])
        if lengths is None:
            x = first.layer_norm(x)
        else:
            kernel, stride = first.conv.kernel_size[0], first.conv.stride[0]
            x = _normalize_channels(x, [(length - kernel) // stride + 1 for length in lengths], first.layer_norm)
        x = first.activation(x)
        for layer in others:
            x = layer(x)
        return x

    def _prepare(self, wave: np.ndarray) -> torch.Tensor:
        """Return a row `[1, N]` of valid samples with mean 0 and variance 1, where the checkpoint says so.

        The formula is that of the library's `Wav2Vec2FeatureExtractor`, its constant included.
        """
        if self._normalize:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        return torch.tensor(wave)

    def _allocate(self, wave: np.ndarray, layers: tp.Sequence[int]) -> np.ndarray:
        return np.zeros((len(wave), count_frames(wave.shape[1]), len(layers), self.dim), np.float32)


def count_frames(samples: int) -> int:
    """Return how many frames so many samples fill."""
    return max(0, (samples - FIELD) // HOP + 1)


def load(config: str, preprocessor: str, weights: str, device: str) -> MertNetwork:
    """Bring the three files of a checkpoint of the hub into memory; no code that lies beside them is run.

    The weights are mapped: processes on one CPU share their memory.

    Raises:
        ValueError: the checkpoint is damaged, or of a model that cannot be run here.
    """
    normalize = _read_normalize(preprocessor)
    model = _build(config)
    _fill(model, weights)
    devices.switch_off_tf32()
    return MertNetwork(model.to(device), normalize)  # type: ignore[arg-type]  # the library wraps `to` without its self


def _read_normalize(path: str) -> bool:
    """Return whether the checkpoint wants its audio at equal loudness."""
    found = _read_json(path)
    if found.get("sampling_rate") != SAMPLE_RATE:
        raise ValueError(f"{path}: is for {found.get('sampling_rate')} Hz, not {SAMPLE_RATE}; {_EXPECTED}")
    return bool(found.get("do_normalize", True))  # as the library, where the file does not say


def _build(path: str) -> HubertModel:
    """Return the network that `config.json` describes, without weights, for inference."""
    found = _read_json(path)
    problem = _find_problem(found)
    if problem:
        raise ValueError(f"{path}: {problem}; {_EXPECTED}")
    settings = {name: found[name] for name in _SETTINGS if name in found}
    try:
        with torch.device("meta"):  # nothing is drawn at random that would be replaced at once
            # Without masking in training, the network does not ask for the embedding of masked frames.
            settings |= {"mask_time_prob": 0.0, "attn_implementation": "sdpa"}
            network: HubertModel = HubertModel(HubertConfig(**settings)).eval()
            return network
    except Exception as error:  # whatever values of the wrong kind make the library raise
        raise ValueError(f"{path}: {' '.join(str(error).split())}; {_EXPECTED}") from error


def _find_problem(config: dict[str, tp.Any]) -> str:
    """Return why a configuration cannot be run here; empty where it can."""
    missing = [name for name in ("conv_dim", "hidden_size", "num_hidden_layers") if name not in config]
    if missing:
        return f"has no {missing[0]}"
    if config.get("feature_extractor_cqt") or config.get("deepnorm"):
        return "feature_extractor_cqt and deepnorm are of unpublished models, and cannot be run"
    if config.get("feat_extract_norm") != "group":
        return f"feat_extract_norm is {config.get('feat_extract_norm')!r}, not 'group'"
    kernels, strides = config.get("conv_kernel"), config.get("conv_stride")
    if not all(isinstance(found, list) and all(type(one) is int for one in found) for found in (kernels, strides)):
        return "conv_kernel and conv_stride are no lists of numbers"
    field, hop = 1, 1
    for kernel, stride in zip(kernels or (), strides or (), strict=False):
        field, hop = field + (kernel - 1) * hop, hop * stride
    if (field, hop) != (FIELD, HOP):
        return f"its frames hear {field} samples, one every {hop}, not {FIELD} and {HOP}"
    return ""


def _fill(model: HubertModel, path: str) -> None:
    """Give the network the tensors of its file, and fold the norm of its positional kernel."""
    try:
        if path.endswith(".safetensors"):
            found = safetensors.torch.load_file(path)
        else:
            mapped = zipfile.is_zipfile(path)  # files of former versions of torch are none, and are read as a whole
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        tensors = {name: tensor.float() for name, tensor in found.items() if name.startswith(_NETWORK)}
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes the reader raise
        reason = f"is damaged, or holds more than tensors ({type(error).__name__}); nothing in it was run"
        raise ValueError(f"{path}: {reason}; {_EXPECTED}") from error
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: does not fit config.json: {reason[:300]}; {_EXPECTED}") from None
    model.requires_grad_(False)
    torch.nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")


def _read_json(path: str) -> dict[str, tp.Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); {_EXPECTED}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no mapping; {_EXPECTED}")
    return found


def _see(counts: tp.Sequence[int], frames: int, device: torch.device) -> torch.Tensor:
    """Return bool `[B, frames]`, True within each row's count."""
    return (torch.arange(frames) < torch.tensor(counts)[:, None]).to(device)


def _normalize_channels(x: torch.Tensor, counts: tp.Sequence[int], norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Return what a group norm with one channel `[B, C, T]` per group makes of the valid frames alone.

    Wu and He, "Group Normalization" (2018), with mean and variance over a row's own frames. It happens in
    place: these are the largest activations of all.
    """
    hidden = ~_see(counts, x.shape[2], x.device)[:, None]
    count = torch.tensor(counts, dtype=x.dtype, device=x.device)[:, None, None]
    x.masked_fill_(hidden, 0)
    x.sub_(x.sum(dim=2, keepdim=True) / count).masked_fill_(hidden, 0)
    variance = torch.linalg.vector_norm(x, dim=2, keepdim=True).square() / count
    return x.mul_(torch.rsqrt(variance + norm.eps) * norm.weight[:, None]).add_(norm.bias[:, None])

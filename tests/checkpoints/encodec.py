"""EnCodec's hub folder with seeded random weights.

The names of tiny folders must hold `24khz` or `48khz`, as those of the hub do: the extractor reads it there.
"""

import json
import pathlib

from checkpoints import seeded

TINY = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "num_lstm_layers": 1}
STEREO = {
    "sampling_rate": 48000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
}


def make(folder, size="tiny", seed=0, freq=24):
    """Write config.json, model.safetensors, preprocessor_config.json and PROVENANCE.json; return the folder."""
    from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = EncodecConfig(**(TINY if size == "tiny" else {}), **(STEREO if freq == 48 else {}))
    model = EncodecModel(config)
    fill(model, seed)
    model.save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    ).save_pretrained(folder)
    seeded.write_provenance(folder, "encodec", size, seed)
    return folder


def fill(model, seed):
    """Give every tensor of a transformers model its values; activations keep their size."""
    import torch

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            scale, centre = choose(name, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(seeded.values(name, tuple(tensor.shape), seed, scale, centre)))


def choose(name, shape):
    """Return standard deviation and mean of a tensor's values."""
    if name.endswith(("codebook.embed", "codebook.embed_avg")):
        return 0.33 * 0.95 ** int(name.split(".")[2]), 0.0  # what is left falls from codebook to codebook
    if name.endswith(("codebook.inited", "codebook.cluster_size")):
        return 0.0, 1.0
    if name.endswith("weight.original0"):  # the norms of the kernels; audio is quieter than activations are
        return 0.1, 4.0 if name.startswith("encoder.layers.0.") else 0.9 if ".shortcut." in name else 1.2
    if name.endswith("norm.weight"):
        return 0.2, 0.7 if ".shortcut." in name or ".block." in name else 1.0
    if name.endswith("bias") or ".bias_" in name:
        return 0.1, 0.0
    fan_in = shape[1] * (shape[2] if len(shape) == 3 else 1)
    return 1.0 / fan_in**0.5, 0.0


def use_former_names(folder):
    """Rename the tensors to those that earlier versions wrote (`weight_g`, `weight_v`), as the hub's file has them."""
    from safetensors.torch import load_file, save_file

    path = pathlib.Path(folder, "model.safetensors")
    former = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, old in former.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    save_file(tensors, path, {"format": "pt"})


def change_config(folder, **values):
    """Write other values into config.json."""
    path = pathlib.Path(folder, "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

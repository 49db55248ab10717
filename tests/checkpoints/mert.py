"""MERT's hub folders with seeded random weights: the files, the settings and the names of the tensors.

Nothing but numpy decides a bit; torch only writes the file.
"""

import json
import pathlib

from checkpoints import seeded

VARIANTS = {  # what tells the two published models apart
    "95M": {"layers": 12, "dim": 768, "heads": 12, "hidden": 3072, "stable": False, "relax": -1.0, "normalize": True},
    "330M": {"layers": 24, "dim": 1024, "heads": 16, "hidden": 4096, "stable": True, "relax": 32.0, "normalize": False},
}
TINY = {"dim": 32, "heads": 4, "hidden": 64}
KERNELS = [10, 3, 3, 3, 3, 2, 2]
STRIDES = [5, 2, 2, 2, 2, 2, 2]


def make(folder, size="tiny", seed=0, variant="95M"):
    """Write config.json, preprocessor_config.json, pytorch_model.bin and PROVENANCE.json; return the folder.

    A tiny 95M has 2 layers and a tiny 330M 3, of 32 features.
    """
    import torch

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = dict(VARIANTS[variant])
    if size == "tiny":
        sizes.update(TINY, layers=2 if variant == "95M" else 3)
    config = describe(sizes, size)
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", describe_audio(sizes["normalize"]))
    torch.save({name: torch.from_numpy(array) for name, array in draw(config, seed)}, folder / "pytorch_model.bin")
    seeded.write_provenance(folder, "mert", size, seed)
    return folder


def describe(sizes, size):
    """Return the content of config.json."""
    published = size == "full"
    return {
        "architectures": ["MERTModel"],
        "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
        "model_type": "mert_model",
        "apply_spec_augment": True,
        "attention_relax": sizes["relax"],
        "conv_bias": False,
        "conv_dim": [512 if published else 16] * len(KERNELS),
        "conv_kernel": KERNELS,
        "conv_stride": STRIDES,
        "deepnorm": False,
        "do_stable_layer_norm": sizes["stable"],
        "feat_extract_activation": "gelu",
        "feat_extract_norm": "group",
        "feat_proj_layer_norm": True,
        "feature_extractor_cqt": False,
        "feature_extractor_cqt_bins": 336,
        "hidden_act": "gelu",
        "hidden_size": sizes["dim"],
        "intermediate_size": sizes["hidden"],
        "layer_norm_eps": 1e-05,
        "mask_feature_prob": 0.0,
        "mask_time_prob": 0.075 if sizes["stable"] else 0.05,
        "num_attention_heads": sizes["heads"],
        "num_conv_pos_embedding_groups": 16 if published else 4,
        "num_conv_pos_embeddings": 128 if published else 16,
        "num_feat_extract_layers": len(KERNELS),
        "num_hidden_layers": sizes["layers"],
        "sample_rate": 24000,
        "torch_dtype": "float32",
        "vocab_size": 32,
    }


def describe_audio(normalize):
    """Return the content of preprocessor_config.json."""
    return {
        "do_normalize": normalize,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0,
        "return_attention_mask": True,
        "sampling_rate": 24000,
    }


def draw(config, seed):
    """Yield every tensor's name and values.

    Activations keep their size through all layers, and frames stay different: attention is sharp, and weak
    beside what it is added to.
    """
    for name, (shape, scale, centre) in choose(config):
        yield name, seeded.values(name, shape, seed, scale, centre)


def choose(config):
    """Yield every tensor's name with (shape, standard deviation, mean)."""
    dim, channels = config["hidden_size"], config["conv_dim"]
    yield "masked_spec_embed", ((dim,), 0.1, 0.0)
    for index, (rows, kernel) in enumerate(zip(channels, KERNELS, strict=True)):
        columns = channels[index - 1] if index else 1
        gain = 1.53 if index else 1.0  # of the norm, or of a GELU, which leaves 0.425 of the power
        yield (
            f"feature_extractor.conv_layers.{index}.conv.weight",
            ((rows, columns, kernel), gain / (columns * kernel) ** 0.5, 0.0),
        )
    yield from norm("feature_extractor.conv_layers.0.layer_norm", channels[0])
    yield from norm("feature_projection.layer_norm", channels[-1])
    yield from connect("feature_projection.projection", dim, channels[-1])
    width, taps = dim // config["num_conv_pos_embedding_groups"], config["num_conv_pos_embeddings"]
    length = (dim / taps) ** 0.5  # of the kernel at one tap, so that what comes out has a power of one
    yield "encoder.pos_conv_embed.conv.bias", ((dim,), 0.1, 0.0)
    yield "encoder.pos_conv_embed.conv.weight_g", ((1, 1, taps), 0.2 * length, length)
    yield "encoder.pos_conv_embed.conv.weight_v", ((dim, width, taps), 0.1, 0.0)
    yield from norm("encoder.layer_norm", dim)
    for index in range(config["num_hidden_layers"]):
        # Where no norm stands between the blocks, what they add piles up.
        gain = 0.4 if config["do_stable_layer_norm"] else 0.6
        yield from choose_block(f"encoder.layers.{index}", dim, config["intermediate_size"], gain)


def choose_block(block, dim, hidden, gain):
    """Yield the tensors of one block of the transformer; `gain` is of what it adds to its input."""
    for part, own in (("k", 1.6), ("v", 1.0), ("q", 1.6), ("out", gain)):
        yield from connect(f"{block}.attention.{part}_proj", dim, dim, own)
    yield from norm(f"{block}.layer_norm", dim)
    yield from connect(f"{block}.feed_forward.intermediate_dense", hidden, dim)
    yield from connect(f"{block}.feed_forward.output_dense", dim, hidden, gain)
    yield from norm(f"{block}.final_layer_norm", dim)


def connect(name, rows, columns, gain=1.0):
    """Yield the tensors of a linear layer."""
    yield name + ".weight", ((rows, columns), gain / columns**0.5, 0.0)
    yield name + ".bias", ((rows,), 0.1, 0.0)


def norm(name, dim):
    """Yield the tensors of a norm."""
    yield name + ".weight", ((dim,), 0.1, 1.0)
    yield name + ".bias", ((dim,), 0.1, 0.0)


def write_json(path, content):
    """Write `content` as the hub's files are written."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "ascii")


def change(folder, file, **values):
    """Write other values into one of the JSON files."""
    path = pathlib.Path(folder, file)
    write_json(path, {**json.loads(path.read_text("ascii")), **values})

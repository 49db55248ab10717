"""EnCodecMAE's published file with seeded random weights.

The names are those of the published models that were trained on their own codes (`_st`): these hold no
codec. The decoder and the head are there because they are in the hub's files; features do not need them.
"""

import pathlib

from checkpoints import seeded

SIZES = {  # dim, heads, layers, hidden, tokens
    ("full", "base"): (768, 12, 10, 4096, 1024),
    ("full", "large"): (1024, 12, 20, 4096, 1024),
    ("tiny", "base"): (32, 4, 3, 64, 16),
    ("tiny", "large"): (32, 3, 4, 64, 16),  # three heads of 10 features leave two of 32 over, as 12 of 85 do
}


def make(folder, size="tiny", seed=0, variant="base"):
    """Write `<folder>/mel256-ec-<variant>_st.pt` and `PROVENANCE.json`; return the path of the file."""
    import torch

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dim, heads, layers, hidden, tokens = SIZES[size, variant]
    weights = Weights(seed)
    weights.connect("wav_encoder.post_net", dim, 256)
    weights.add("masker.positional_encoder.scale", (), centre=0.8)
    weights.encode("visible_encoder", dim, heads, layers, hidden)
    weights.connect("visible_encoder.post_net", dim, dim)
    weights.connect("head.layer", tokens, dim)
    weights.add("decoder.positional_encoder.scale", (), centre=0.8)
    weights.encode("decoder", dim, heads, 2, hidden)
    content = {
        "imports": "",
        "config": f"MODEL_DIM={dim}\nNUM_ENCODER_LAYERS={layers}\nNUM_ENCODER_HEADS={heads}\n"
        f"NUM_DECODER_HEADS={heads}\nNUM_TARGET_TOKENS={tokens}\n",
        "state_dict": weights.tensors,
    }
    path = folder / f"mel256-ec-{variant}_st.pt"
    torch.save(content, path)
    seeded.write_provenance(folder, "encodecmae", size, seed)
    return path


class Weights:
    """Tensors by their published names.

    Scaled so that activations keep their size, and frames stay different: attention that is sharp and
    weak beside the residual does not average them away.
    """

    def __init__(self, seed):
        self.tensors = {}
        self._seed = seed

    def add(self, name, shape, scale=0.1, centre=0.0):
        import numpy
        import torch

        values = seeded.values(name, shape, self._seed, scale, centre)
        self.tensors[name] = torch.from_numpy(numpy.asarray(values))

    def connect(self, name, rows, columns, bias=True, gain=1.0):
        self.add(name + ".weight", (rows, columns), gain / columns**0.5)
        if bias:
            self.add(name + ".bias", (rows,), 0.02)

    def normalize(self, name, dim):
        self.add(name + ".weight", (dim,), centre=1.0)
        self.add(name + ".bias", (dim,), 0.02)

    def encode(self, name, dim, heads, layers, hidden):
        packed = heads * (dim // heads)
        for index in range(layers):
            layer = f"{name}.encoder_layers.{index}"
            for one, gain in (("q", 2.0), ("k", 2.0), ("v", 1.0)):
                self.connect(f"{layer}.att_layer.w{one}", packed, dim, bias=False, gain=gain)
            self.connect(f"{layer}.att_layer.wo", dim, packed, bias=False, gain=0.6)
            for part in ("ff_layer.0", "ff_layer.2"):
                if index:  # one feed-forward layer for all
                    self.tensors[f"{layer}.{part}.weight"] = self.tensors[f"{name}.encoder_layers.0.{part}.weight"]
                    self.tensors[f"{layer}.{part}.bias"] = self.tensors[f"{name}.encoder_layers.0.{part}.bias"]
                else:
                    sizes = (hidden, dim) if part.endswith("0") else (dim, hidden)
                    self.connect(f"{layer}.{part}", *sizes, gain=0.6)
            self.normalize(f"{layer}.norm1", dim)
            self.normalize(f"{layer}.norm2", dim)
        self.normalize(f"{name}.final_norm", dim)

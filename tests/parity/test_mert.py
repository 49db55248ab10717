"""MERT against its own code with the same seeded weights (see data/mert/README.md).

Activations have a root mean square of 1 to 2.4 and reach 12.6.
"""

import contextlib
import io
import pathlib
import shutil
import threading

import numpy as np
import pytest
from checkpoints import mert as maker
from closeness import assert_close

from worker import catalog
from worker.audio.decode import decode
from worker.errors import SchemaError
from worker.extractors.mert import Mert
from worker.work import contexts, extraction

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
transformers = pytest.importorskip("transformers", reason="transformers is missing: run in the torch environment")

TESTS = pathlib.Path(__file__).parents[1]
FILES = ("config.json", "preprocessor_config.json", "pytorch_model.bin")
RECORDED = {  # clips, and every how many features of each
    ("tiny", "95M"): (("window", "short", "quiet"), 1),
    ("tiny", "330M"): (("window", "short", "quiet"), 1),
    ("full", "95M"): (("second",), 37),
    ("full", "330M"): (("second",), 61),
}
CASES = [(*key, clip) for key, (clips, _) in RECORDED.items() for clip in clips]
CLOSE = {"rtol": 0, "atol": 2e-5}
ALIKE = {"rtol": 1e-5, "atol": 1e-5}  # the same network over other shapes


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return real audio `[1, T]` at 24 kHz."""
    scratch = str(tmp_path_factory.mktemp("scratch"))
    music, speech = read_audio("music/hungarian_dance.flac", scratch), read_audio("speech/austen.wav", scratch)
    short = speech[:, 9000:16281]
    return {
        "long": music[:, :270000],
        "window": music[:, 100000:220080],
        "second": music[:, 100000:124080],
        "short": short,
        "quiet": short * np.float32(0.01),
    }


def read_audio(name, scratch):
    with decode(str(TESTS / "audio" / "quickstart" / name), [(24000, 1)], scratch) as decoded:
        return np.array(decoded.wave(24000, 1))


@pytest.fixture(scope="module")
def reference():
    with np.load(TESTS / "parity" / "data" / "mert" / "reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that makes a checkpoint once; the full ones are too large to be left behind."""
    made = {}

    def find(size, variant):
        if (size, variant) not in made:
            made[size, variant] = maker.make(tmp_path_factory.mktemp("mert") / variant, size, variant=variant)
        return made[size, variant]

    yield find
    for folder in made.values():
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def networks(folders):
    """Return a function that loads the network of a checkpoint once, with all its layers."""
    loaded = {}

    def find(size, variant):
        if (size, variant) not in loaded:
            loaded[size, variant] = load(folders(size, variant), "all")._run.__self__
        return loaded[size, variant]

    return find


@pytest.fixture
def tiny(folders):
    return folders("tiny", "330M")


@pytest.fixture
def broken(tiny, tmp_path):
    """Return a copy of a small checkpoint, to be damaged."""
    return shutil.copytree(tiny, tmp_path / "broken")


def load(folder, layers=(-1,)):
    extractor = Mert(checkpoint=str(folder), layers=layers if layers == "all" else list(layers))
    extractor.load("cpu", {file: str(folder / file) for file in FILES})
    return extractor


def extract(extractor, wave, batch_size=None):
    arrays, _ = extraction.extract(extractor, wave, batch_size, "", threading.Event())
    return arrays["embedding"]


def run(network, wave):
    """Return all layers `[L, T, D]` of one window `[1, N]`."""
    found = network.run_each(wave, np.array([wave.shape[1]]), range(network.layers + 1))
    return np.moveaxis(found[0], 1, 0)


@pytest.mark.parametrize(("size", "variant", "clip"), CASES)
def test_every_layer_is_upstreams(size, variant, clip, networks, clips, reference):
    found, key = run(networks(size, variant), clips[clip]), f"{size}.{variant}.{clip}"
    step = RECORDED[size, variant][1]
    np.testing.assert_allclose(found[:, :: 5 if clip == "window" else 1, ::step], reference[key], **CLOSE)
    if size == "full":
        np.testing.assert_allclose(found.mean(axis=1), reference[key + ".mean"], **CLOSE)
    assert found.std(axis=1).mean(axis=1).min() > 0.1  # frames differ, so that a mistake in time would show


@pytest.mark.parametrize(("size", "variant"), RECORDED)
def test_every_layer_is_the_librarys(size, variant, networks, folders, clips):
    model = transformers.HubertModel.from_pretrained(folders(size, variant), attn_implementation="sdpa").eval()
    prepare = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folders(size, variant))
    inputs = prepare(clips["short"][0], sampling_rate=24000, return_tensors="pt").input_values
    with torch.inference_mode():
        said = model(inputs, output_hidden_states=True)
    # The library's last entry of `hidden_states` is not normalised; that of MERT's own code was.
    expected = torch.stack([*said.hidden_states[:-1], said.last_hidden_state])[:, 0].numpy()
    np.testing.assert_allclose(run(networks(size, variant), clips["short"]), expected, **CLOSE)


@pytest.mark.parametrize(("size", "variant"), RECORDED)
def test_a_batch_of_unequal_lengths_equals_each_alone(size, variant, networks, clips):
    network, layers = networks(size, variant), range(networks(size, variant).layers + 1)
    rows, lengths = np.zeros((4, 24080), np.float32), np.array([7281, 24080, 0, 400])
    rows[0, :7281], rows[1], rows[3, :400] = clips["short"], clips["second"], clips["second"][0, 9000:9400]
    together, each = network.run_together(rows, lengths, layers), network.run_each(rows, lengths, layers)
    assert together.shape == each.shape == (4, 75, len(layers), network.dim)
    assert_close(together, each)
    for row, frames in zip(each, (22, 75, 0, 1), strict=True):
        assert not row[frames:].any() and row[:frames].any(axis=(1, 2)).all()
    louder = np.concatenate([rows, 50 * clips["window"][:, :24080]])
    crowded = network.run_together(louder, np.array([*lengths, 24080]), [0, 1])
    np.testing.assert_allclose(crowded[:4], each[:, :, :2], **ALIKE)


def test_a_batch_of_equal_lengths_equals_each_alone(networks, clips):
    network = networks("tiny", "95M")
    rows = clips["window"][0, :120000].reshape(5, 24000)
    lengths = np.array([24000, 24000, 0, 24000, 24000])
    found = network.run_together(rows, lengths, [0, 2])
    np.testing.assert_allclose(found, network.run_each(rows, lengths, [0, 2]), **ALIKE)
    assert not network.run_together(rows, np.zeros(5, int), [0]).any()


@pytest.mark.parametrize("layers", [[-1], [0], [1], [3], [3, 0], [-1, 1], "all"])
def test_layers_come_as_asked_for_and_none_behind_them_is_run(layers, tiny, clips):
    extractor, whole, ran = load(tiny, layers), load(tiny, "all"), []
    found, every = extract(extractor, clips["short"]), extract(whole, clips["short"])
    assert every.shape == (4, 22, 32)
    expected = every if layers == "all" else every[layers] if len(layers) > 1 else every[layers[0]]
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
    blocks = 3 if layers == "all" else max(one % 4 for one in layers)
    assert len(extractor._run.__self__._model.encoder.layers) == blocks
    for block in whole._run.__self__._model.encoder.layers:
        block.register_forward_hook(lambda *_: ran.append(1))
    whole._indices = extractor._indices
    extract(whole, clips["short"])
    assert len(ran) == blocks


def test_two_layers_of_the_full_model(folders, networks, clips):
    found = extract(load(folders("full", "95M"), [3, 7]), clips["short"][:, :7200])
    padded = np.pad(clips["short"][:, :7200], ((0, 0), (0, 80)))
    assert found.shape == (2, 22, 768)
    np.testing.assert_array_equal(found, run(networks("full", "95M"), padded)[[3, 7]])


@pytest.mark.parametrize(
    ("samples", "frames", "padded"),
    [
        (720000, 2250, False),  # 30 s
        (240017, 750, False),
        (120000, 375, False),
        (120319, 375, False),
        (120320, 376, False),
        (119999, 374, False),
        (640, 2, False),
        (320, 1, False),
        (319, 1, True),
        (1, 1, True),
    ],
)
def test_number_of_frames(tiny, clips, samples, frames, padded):
    wave = np.resize(clips["long"], (1, samples))
    arrays, said = extraction.extract(load(tiny), wave, None, "", threading.Event())
    assert arrays["embedding"].shape == (frames, 32)
    assert said == padded
    assert np.isfinite(arrays["embedding"]).all()


@pytest.mark.parametrize("variant", ["95M", "330M"])
def test_windows_are_what_they_say(variant, folders, networks, clips):
    """Frame k hears the samples 320 k to 320 k + 400, whichever window it is in, and windows nothing else."""
    found, network = extract(load(folders("tiny", variant), "all"), clips["long"]), networks("tiny", variant)
    assert found.shape == (network.layers + 1, 843, 32)
    for begin in (0, 120000):
        window = clips["long"][:, begin : begin + 120080]
        frames = found[:, begin // 320 : begin // 320 + 375]
        np.testing.assert_array_equal(frames, run(network, window))
    rest = np.pad(clips["long"][:, 240000:], ((0, 0), (0, 80)))
    np.testing.assert_array_equal(found[:, 750:], run(network, rest))


@pytest.mark.parametrize("variant", ["95M", "330M"])
def test_bytes_do_not_depend_on_the_batch(variant, folders, clips):
    extractor = load(folders("tiny", variant), "all")
    once = extract(extractor, clips["long"], 1)
    for batch_size in (2, 4):
        assert extract(extractor, clips["long"], batch_size).tobytes() == once.tobytes()


def test_short_audio_is_followed_by_silence(tiny, clips):
    wave = clips["short"][:, 4000:4300]
    assert extract(load(tiny), wave).tobytes() == extract(load(tiny), np.pad(wave, ((0, 0), (0, 20)))).tobytes()


@pytest.mark.parametrize("variant", ["95M", "330M"])
def test_silence_is_finite(variant, folders):
    assert np.isfinite(extract(load(folders("tiny", variant)), np.zeros((1, 96000), np.float32))).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_loudness_matters_unless_the_checkpoint_evens_it(normalize, broken, clips):
    """The norm over time evens it too, but its constant does not vanish beside very quiet audio."""
    maker.change(broken, "preprocessor_config.json", do_normalize=normalize)
    loud, quiet = (extract(load(broken), clips["short"] * np.float32(gain)) for gain in (1, 0.1))
    difference = np.abs(loud - quiet).max()
    assert difference < 0.01 if normalize else difference > 0.02


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"checkpoint": "m-a-p/MERT-v1-95"},
            "checkpoint: .* is not one of m-a-p/MERT-v1-95M, .* such as ./MERT-v1-95$",
        ),
        ({"layers": [13]}, r"layers: 13 is out of range; m-a-p/MERT-v1-95M has 0 to 12, or -13 to -1"),
        ({"layers": [0, -14]}, "layers: -14 is out of range"),
        ({"checkpoint": "m-a-p/MERT-v1-330M", "layers": [25]}, "layers: 25 is out of range"),
        ({"layers": [12, -1]}, r"layers: \[12, -1\] names layer 12 of m-a-p/MERT-v1-95M twice"),
        ({"checkpoint": "./own", "layers": [3, 3]}, r"layers: \[3, 3\] names a layer twice"),
        ({"layers": []}, "layers: the list is empty"),
        ({"layers": ""}, "layers: '' is neither"),
        ({"layers": "last"}, "layers: 'last' is neither a list of whole numbers nor all"),
        ({"layers": 7}, "layers: expected a list, got 7"),
        ({"layers": [1.5]}, r"layers\[0\]: expected a whole number"),
    ],
)
def test_parameters_are_refused_with_the_reason(params, message):
    with pytest.raises(SchemaError, match=message) as caught:
        catalog.build("mert", params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "axes", "shape"),
    [
        ({}, ("time", "feature"), (None, 768)),
        ({"checkpoint": "m-a-p/MERT-v1-330M", "layers": [-25]}, ("time", "feature"), (None, 1024)),
        ({"layers": [3, 7]}, ("layer", "time", "feature"), (2, None, 768)),
        ({"layers": "all"}, ("layer", "time", "feature"), (13, None, 768)),
        ({"checkpoint": "m-a-p/MERT-v1-330M", "layers": "all"}, ("layer", "time", "feature"), (25, None, 1024)),
        ({"checkpoint": "./own", "layers": "all"}, ("layer", "time", "feature"), (None, None, None)),
        ({"checkpoint": "./own"}, ("time", "feature"), (None, None)),
    ],
)
def test_declared_shapes(params, axes, shape):
    (output,) = catalog.build("mert", params).outputs()
    assert (output.axes, output.shape) == (axes, shape)
    assert (output.frame_rate, output.start) == (75.0, 200 / 24000)


def test_layers_that_an_own_folder_has_not_are_refused(tiny):
    with pytest.raises(ValueError, match=r"layers: 4 is out of range; .* has 0 to 3, or -4 to -1"):
        load(tiny, [4])
    with pytest.raises(ValueError, match=r"layers: \[3, -1\] names layer 3 of .* twice"):
        load(tiny, [3, -1])


def test_a_published_name_with_other_sizes_is_refused(tiny):
    with pytest.raises(
        ValueError, match="has 3 layers of 32 features, not those of m-a-p/MERT-v1-95M; give its folder"
    ):
        Mert().load("cpu", {file: str(tiny / file) for file in FILES})


def test_random_weights_say_so(tiny):
    assert contexts.flags(contexts.read([str(tiny / "config.json")])) == ("random_weights",)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("preprocessor_config.json", {"sampling_rate": 16000}, "is for 16000 Hz, not 24000"),
        ("config.json", {"feature_extractor_cqt": True}, "feature_extractor_cqt and deepnorm"),
        ("config.json", {"deepnorm": True}, "feature_extractor_cqt and deepnorm"),
        ("config.json", {"feat_extract_norm": "layer"}, "feat_extract_norm is 'layer', not 'group'"),
        ("config.json", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "hear 400 samples, one every 160, not 400 and 320"),
        ("config.json", {"conv_stride": 7}, "conv_kernel and conv_stride are no lists of numbers"),
        ("config.json", {"hidden_size": None}, "config.json: .*hidden_size"),
        ("config.json", {"num_attention_heads": 5}, "embed_dim must be divisible by num_heads"),
        ("config.json", {"hidden_act": "loud"}, "config.json: .*loud"),
        ("config.json", {"num_hidden_layers": 4}, "does not fit config.json: .*Missing key.*encoder.layers.3"),
        ("config.json", {"num_hidden_layers": 2}, "does not fit config.json: .*Unexpected key.*encoder.layers.2"),
        ("config.json", {"intermediate_size": 48}, "does not fit config.json: .*size mismatch"),
    ],
)
def test_settings_of_another_model_are_refused_in_one_line(broken, file, values, message):
    maker.change(broken, file, **values)
    check_refused(broken, message)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_damaged_files_are_refused_in_one_line(broken, file, content):
    (broken / file).write_bytes(content)
    check_refused(broken, file)


def check_refused(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    words = str(caught.value)
    assert "\n" not in words and len(words) < 700
    assert words.endswith(
        "; expected config.json, preprocessor_config.json and pytorch_model.bin or model.safetensors of a MERT-v1 model"
    )


class Bomb:
    """What a file must not be able to do."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return pathlib.Path.touch, (self.trace,)


def test_code_in_a_folder_is_not_run(broken, tmp_path, clips):
    trace = tmp_path / "trace"
    for name in ("modeling_MERT.py", "configuration_MERT.py"):
        (broken / name).write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        assert extract(load(broken), clips["short"]).shape == (22, 32)
    assert not said.getvalue()
    tensors = torch.load(broken / "pytorch_model.bin", weights_only=True)
    torch.save({**tensors, "bomb": Bomb(trace)}, broken / "pytorch_model.bin")
    check_refused(broken, "nothing in it was run")
    assert not trace.exists()


def test_other_ways_of_storing_the_same_weights(broken, tiny, clips):
    """A file of a former version of torch, with a head that the features do not need, in another type."""
    tensors = {name: tensor.double() for name, tensor in torch.load(tiny / FILES[2], weights_only=True).items()}
    del tensors["masked_spec_embed"]
    tensors["final_proj.weight"] = torch.zeros(2, 2)
    torch.save(tensors, broken / FILES[2], _use_new_zipfile_serialization=False)
    assert extract(load(broken), clips["short"]).tobytes() == extract(load(tiny), clips["short"]).tobytes()

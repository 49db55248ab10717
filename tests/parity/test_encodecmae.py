"""EnCodecMAE against upstream's own code with the same seeded weights (see data/encodecmae/README.md).

Activations have a root mean square of 1 to 2 and reach 9.5; "equal" is 1e-5 of that scale.
"""

import pathlib
import pickle
import threading

import numpy as np
import pytest
from checkpoints import encodecmae as maker
from closeness import assert_close

from worker import catalog
from worker.errors import SchemaError
from worker.extractors.encodecmae import Encodecmae
from worker.work import contexts, extraction

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: run in the torch environment")
soxr = pytest.importorskip("soxr", reason="soxr is not installed: run in the torch environment")

from torch_models.encodecmae import log_mel  # noqa: E402 - needs torch

TESTS = pathlib.Path(__file__).parents[1]
CLIPS = ("0.6", "2.5", "3.99", "4", "10")  # seconds; 3.99 is one sample less than a chunk, where a key is hidden
STEPS = {("tiny", "base"): (7, 1), ("tiny", "large"): (7, 1), ("full", "base"): (17, 31), ("full", "large"): (29, 31)}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def clips():
    """Return real audio `[1, T]` at 24 kHz."""
    music, speech = read_audio("music/hungarian_dance.flac"), read_audio("speech/austen.wav")
    return {
        "0.6": speech[:, 7200:21600],
        "2.5": speech[:, :60000],
        "3.99": music[:, 100000:195999],
        "4": music[:, 48000:144000],
        "10": music[:, :240000],
    }


def read_audio(name):
    wave, rate = soundfile.read(TESTS / "audio" / "quickstart" / name, dtype="float32")
    return soxr.resample(wave, rate, 24000)[None]


@pytest.fixture(scope="module")
def reference():
    with np.load(TESTS / "parity" / "data" / "encodecmae" / "reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=sorted(STEPS), ids="-".join)
def model(request, tmp_path_factory):
    """Return (size, variant) and the extractor of all layers, loaded."""
    size, variant = request.param
    path = maker.make(tmp_path_factory.mktemp("encodecmae"), size, variant=variant)
    extractor = load(path, "all")
    path.unlink()  # half a gigabyte
    return request.param, extractor


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the path of a small checkpoint."""
    return maker.make(tmp_path_factory.mktemp("tiny"), variant="large")


def load(path, layer=-1):
    extractor = Encodecmae(checkpoint=str(path), layer=layer)
    extractor.load("cpu", {str(path): str(path)})
    return extractor


def extract(extractor, wave, batch_size=None):
    arrays, _ = extraction.extract(extractor, wave, batch_size, "", threading.Event())
    return arrays["embedding"]


@pytest.mark.parametrize("clip", CLIPS)
def test_every_layer_is_upstreams(model, clip, clips, reference):
    key, extractor = model
    frames, features = STEPS[key]
    expected = reference[".".join((*key, clip))]
    found = extract(extractor, clips[clip])
    chosen = np.unique(np.r_[0 : found.shape[1] : frames, found.shape[1] - 1])
    assert found.dtype == np.float32
    assert_close(found[:, chosen][:, :, ::features], expected)
    np.testing.assert_allclose(found[-1].mean(axis=0), reference[".".join((*key, clip, "mean"))], **CLOSE)
    assert found.std(axis=1).mean(axis=1).min() > 0.03  # frames differ, so that a mistake in time would show


def test_log_mel_is_kaldis(clips, reference):
    mel = log_mel.LogMel()(torch.tensor(clips["0.6"]))[0].numpy()
    assert mel.shape == (44, 256)
    np.testing.assert_allclose(mel[::4], reference["mel.0.6"], **CLOSE)


def test_a_batch_of_unequal_lengths_equals_each_alone(model, clips):
    _, extractor = model
    network = extractor._run.__self__
    rows, lengths = np.zeros((3, 96000), np.float32), np.array([95999, 14400, 0])
    rows[0, :95999], rows[1, :14400] = clips["3.99"], clips["0.6"]
    layers = range(network.sizes.layers)
    together, each = network.run_together(rows, lengths, layers), network.run_each(rows, lengths, layers)
    assert together.shape == each.shape == (3, 300, len(layers), network.sizes.dim)
    assert np.isfinite(together).all()
    for row, length in enumerate(lengths):
        count = log_mel.count_frames(int(length))
        assert_close(together[row, :count], each[row, :count])
        assert not each[row, count:].any()


def test_bytes_do_not_depend_on_the_batch(model, clips):
    (size, _), extractor = model
    wave = clips["10"][:, : 240000 if size == "tiny" else 110000]
    once = extract(extractor, wave, 1)
    for batch_size in (2, 4):
        assert extract(extractor, wave, batch_size).tobytes() == once.tobytes()
    rest = extract(extractor, wave[:, 96000:])
    np.testing.assert_array_equal(once[:, 300:], rest)


@pytest.mark.parametrize(
    ("samples", "frames", "padded"),
    [
        (240000, 749, False),
        (96000, 300, False),
        (95999, 300, False),
        (98048, 300, False),  # a rest of 2048 samples is dropped
        (98049, 305, False),
        (192000, 600, False),
        (2049, 5, False),
        (2048, 5, True),
        (1, 5, True),
    ],
)
def test_number_of_frames(tiny, clips, samples, frames, padded):
    arrays, said = extraction.extract(load(tiny), clips["10"][:, :samples], None, "", threading.Event())
    assert arrays["embedding"].shape == (frames, 32)
    assert said == padded
    assert np.isfinite(arrays["embedding"]).all()


def test_short_audio_is_followed_by_silence(tiny, clips):
    extractor, wave = load(tiny), clips["0.6"][:, 4000:5000]
    longer = np.pad(wave, ((0, 0), (0, 1049)))
    assert extract(extractor, wave).tobytes() == extract(extractor, longer).tobytes()


def test_silence_is_finite(tiny):
    assert np.isfinite(extract(load(tiny), np.zeros((1, 96000), np.float32))).all()


@pytest.mark.parametrize("layer", [0, 1, 3, -1, -2, -4])
def test_one_layer_equals_the_same_among_all(tiny, clips, layer):
    found, every = extract(load(tiny, layer), clips["0.6"]), extract(load(tiny, "all"), clips["0.6"])
    assert found.shape == (44, 32) and every.shape == (4, 44, 32)
    assert found.tobytes() == np.ascontiguousarray(every[layer]).tobytes()


def test_layers_come_in_the_order_asked_for(tiny, clips):
    found, every = extract(load(tiny, [2, -1, 0]), clips["0.6"]), extract(load(tiny, "all"), clips["0.6"])
    np.testing.assert_array_equal(found, every[[2, 3, 0]])


def test_blocks_behind_the_wanted_layer_are_not_run(tiny, clips):
    extractor = load(tiny, 1)
    extractor._run.__self__.blocks[2] = None
    assert extract(extractor, clips["0.6"]).shape == (44, 32)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"checkpoint": "mel256-ec-base_ts"}, r"checkpoint: .* is not one of mel256-ec-base_st, "),
        ({"checkpoint": "own.pt"}, r"such as \./own\.pt"),
        ({"layer": 10}, "layer: 10 is out of range; mel256-ec-base_st has 10 layers"),
        ({"layer": [0, -11]}, "layer: -11 is out of range"),
        ({"layer": []}, "layer: the list is empty"),
        ({"layer": "last"}, "layer: 'last' is neither"),
        ({"layer": 1.5}, "layer: expected a whole number"),
    ],
)
def test_parameters_are_refused_with_the_reason(params, message):
    with pytest.raises(SchemaError, match=message) as caught:
        catalog.build("encodecmae", params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "axes", "shape"),
    [
        ({}, ("time", "feature"), (None, 768)),
        ({"checkpoint": "mel256-ec-large_st", "layer": 19}, ("time", "feature"), (None, 1024)),
        ({"checkpoint": "mel256-ec-large_st", "layer": "all"}, ("layer", "time", "feature"), (20, None, 1024)),
        ({"layer": [-1]}, ("layer", "time", "feature"), (1, None, 768)),
        ({"checkpoint": "./own.pt", "layer": "all"}, ("layer", "time", "feature"), (None, None, None)),
    ],
)
def test_declared_shapes(params, axes, shape):
    (output,) = catalog.build("encodecmae", params).outputs()
    assert (output.axes, output.shape) == (axes, shape)


def test_a_layer_that_an_own_file_has_not_is_refused(tiny):
    with pytest.raises(ValueError, match=r"layer: 4 is out of range; .* has 4 layers, 0 to 3 or -4 to -1"):
        load(tiny, 4)


def test_a_published_name_with_other_sizes_is_refused(tiny):
    with pytest.raises(ValueError, match="has 4 layers of 32 features, not those of mel256-ec-large_st"):
        Encodecmae(checkpoint="mel256-ec-large_st").load("cpu", {"mel256-ec-large_st.pt": str(tiny)})


def test_random_weights_say_so(tiny):
    assert contexts.flags(contexts.read([str(tiny)])) == ("random_weights",)


class Bomb:
    """What a file must not be able to do."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return pathlib.Path.touch, (self.trace,)


def break_checkpoint(content, how):
    """Return the content of a file with one thing wrong."""
    tensors = dict(content["state_dict"])
    if how == "no tensors":
        return {"config": ""}
    if how == "other tensors":
        return {"state_dict": {"weight": torch.zeros(3, 3)}}
    if how == "a list":
        return [1, 2]
    if how == "codec features":
        tensors["wav_encoder.post_net.weight"] = torch.zeros(32, 128)
    if how == "other heads":
        return {**content, "config": "NUM_ENCODER_HEADS = 7\n"}
    if how == "wrong shape":
        tensors["visible_encoder.encoder_layers.1.norm2.bias"] = torch.zeros(31)
    if how == "one missing":
        del tensors["visible_encoder.encoder_layers.1.att_layer.wk.weight"]
    return {**content, "state_dict": tensors}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no tensors", "holds no state_dict of tensors"),
        ("a list", "holds no state_dict of tensors"),
        ("other tensors", "no matrix wav_encoder.post_net.weight"),
        ("codec features", "reads 128 features per frame, not 256 mel bands"),
        ("other heads", "30 rows of attention do not make 7 heads of 4"),
        ("wrong shape", r"layers.1.norm2.bias has shape \[31\], expected \[32\]"),
        ("one missing", "no visible_encoder.encoder_layers.1.att_layer.wk.weight"),
    ],
)
def test_a_wrong_checkpoint_is_refused_in_one_line(tiny, tmp_path, how, message):
    path = tmp_path / "wrong.pt"
    torch.save(break_checkpoint(torch.load(tiny, weights_only=True), how), path)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="give a mel256-ec-") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_file_is_not_run(tiny, tmp_path, save):
    path, trace = tmp_path / "bomb.pt", tmp_path / "trace"
    save({**torch.load(tiny, weights_only=True), "config": Bomb(trace)}, path)
    with pytest.raises(ValueError, match=r"holds more than tensors and text .* nothing in it was run") as caught:
        load(path)
    assert "\n" not in str(caught.value) and not trace.exists()


def test_what_the_features_do_not_need_is_ignored(tiny, tmp_path, clips):
    """Files of models that were trained on EnCodec's codes hold its quantiser too; any float type will do."""
    content = torch.load(tiny, weights_only=True)
    used = ("wav_encoder.", "masker.", "visible_encoder.")
    tensors = {name: tensor.double() for name, tensor in content["state_dict"].items() if name.startswith(used)}
    tensors["target_encoder.model.vq.layers.0._codebook.embed"] = torch.zeros(4, 4)
    torch.save({**content, "state_dict": tensors, "optimizer": {"step": 1}}, tmp_path / "other.pt")
    found = extract(load(tmp_path / "other.pt"), clips["0.6"])
    assert found.tobytes() == extract(load(tiny), clips["0.6"]).tobytes()

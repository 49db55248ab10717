"""MusiCNN against musicnn-keras 0.1.0's own outputs; runs in the environment legacy-py37."""

import os
import pathlib
import threading

import numpy as np
import pytest

from worker.extractors.musicnn import Musicnn
from worker.work import extraction, windows

tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is in the environment legacy-py37 only")
soundfile = pytest.importorskip("soundfile", reason="the reference audio is FLAC")
h5py = pytest.importorskip("h5py", reason="h5py comes with TensorFlow")
if not tensorflow.__version__.startswith("2.7."):
    pytest.skip("needs TensorFlow 2.7 of the environment legacy-py37", allow_module_level=True)

from legacy_models import musicnn as networks  # noqa: E402 - needs TensorFlow

DATA = pathlib.Path(__file__).resolve().parent / "data" / "musicnn"
CHECKPOINTS = ("MTT_musicnn", "MSD_musicnn", "MTT_vgg", "MSD_vgg")
ITEMS = ("hungarian", "speech", "trumpet", "exact", "one_sample_less", "silence")
TOLERANCES = {"embedding": 2e-4, "taggram": 5e-5, "max_pool": 1e-2, "penultimate": 2e-4}
VGG_TOLERANCES = {"embedding": 5e-4, "taggram": 5e-5}

KERAS_NAMES = {
    "batch_normalization_6": "bn_midend_conv1",
    "batch_normalization_7": "bn_midend_conv2",
    "batch_normalization_8": "bn_midend_conv3",
    "batch_normalization_9": "bn_flatpool",
    "batch_normalization_10": "bn_dense",
    "conv2d_5": "midend_conv1",
    "conv2d_6": "midend_conv2",
    "conv2d_7": "midend_conv3",
}
KERAS_VGG_NAMES = {
    "batch_normalization": "bn_input",
    "batch_normalization_1": "bn_conv1",
    "batch_normalization_2": "bn_conv2",
    "batch_normalization_3": "bn_conv3",
    "batch_normalization_4": "bn_conv4",
    "batch_normalization_5": "bn_conv5",
    "dense": "output",
}


def find_weights(extractor):
    root = os.environ.get("CONSORT_WEIGHTS")
    if not root:
        pytest.skip("CONSORT_WEIGHTS does not name a folder of weights")
    folder = pathlib.Path(root) / "pypi" / "musicnn" / "0.1.0"
    files = {checkpoint.file: str(folder / checkpoint.file) for checkpoint in extractor.checkpoints()}
    missing = [path for path in files.values() if not os.path.exists(path)]
    if missing:
        pytest.skip(f"no {missing[0]}")
    return files


@pytest.fixture(scope="module")
def load():
    """Return each checkpoint's extractor, loaded once."""
    cache = {}

    def find(name):
        if name not in cache:
            extractor = Musicnn(checkpoint=name)
            extractor.load("cpu", find_weights(extractor))
            cache[name] = extractor
        return cache[name]

    return find


def read_audio(item):
    """Return `[1, T]` at 16 kHz."""
    if item == "silence":
        return np.zeros((1, 112000), np.float32)
    name = "exact" if item == "one_sample_less" else item
    wave, _ = soundfile.read(str(DATA / (name + ".flac")), dtype="float32")
    return wave[None, :-1] if item == "one_sample_less" else wave[None]


def read_reference(item, checkpoint):
    """Return upstream's features `[P, D]` by our names; a VGG's logits as probabilities."""
    with np.load(str(DATA / (item + ".npz"))) as data:
        names = [name for name in data.files if name.startswith(checkpoint + ".")]
        features = {name[len(checkpoint) + 1 :]: data[name] for name in names}
    if "logits" in features:
        features["taggram"] = 1 / (1 + np.exp(-features.pop("logits").astype(np.float64)))
    return features


def extract(extractor, wave):
    return extraction.extract(extractor, wave, None, "", threading.Event())[0]


def write_h5(path, weights, names, suffix="_1"):
    """Write weights in the layout of musicnn_keras."""
    with h5py.File(str(path), "w") as file:
        root = file.create_group("model_weights")
        layers = {}
        for name, array in weights.items():
            layer, _, variable = name.partition("/")
            if variable:
                layer = names.get(layer, layer)
                stored = f"{layer}/{variable}{suffix}:0"
                root.require_group(layer).create_dataset(stored, data=array)
                layers.setdefault(layer, []).append(stored.encode())
        for layer, stored in layers.items():
            root[layer].attrs["weight_names"] = stored
        root.attrs["layer_names"] = [layer.encode() for layer in layers]


def make_weights(middle, units, tags):
    """Random weights of a MusiCNN with other sizes than the published ones."""
    random = np.random.RandomState(0)
    width = 2 * (561 + 3 * middle)
    weights = {}

    def add(layer, *shape):
        kernel = random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        weights[layer + "/kernel"] = kernel.astype(np.float32)
        weights[layer + "/bias"] = random.standard_normal(shape[-1]).astype(np.float32)

    for index, shape in enumerate(((7, 38), (7, 67), (128, 1), (64, 1), (32, 1))):
        add(f"conv2d_{index}" if index else "conv2d", *shape, 1, 204 if index < 2 else 51)
    for index, channels in ((5, 561), (6, middle), (7, middle)):
        add(f"conv2d_{index}", 7, channels, 1, middle)
    add("dense", width, units)
    add("dense_1", units, tags)
    for index, size in enumerate((1, 204, 204, 51, 51, 51, middle, middle, middle, width, units)):
        layer = f"batch_normalization_{index}" if index else "batch_normalization"
        for variable in ("gamma", "beta", "moving_mean"):
            weights[f"{layer}/{variable}"] = random.standard_normal(size).astype(np.float32)
        weights[layer + "/moving_variance"] = random.uniform(0.5, 2.0, size).astype(np.float32)
    return weights


@pytest.mark.weights
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("item", ITEMS)
def test_features_match_upstream(load, checkpoint, item):
    features = extract(load(checkpoint), read_audio(item))
    reference = read_reference(item, checkpoint)
    tolerances = VGG_TOLERANCES if "vgg" in checkpoint else TOLERANCES
    assert set(features) == set(reference) == set(tolerances)
    for name, expected in reference.items():
        assert features[name].shape == expected.shape
        assert features[name].dtype == np.float32
        np.testing.assert_allclose(features[name], expected, rtol=0, atol=tolerances[name], err_msg=name)


@pytest.mark.weights
@pytest.mark.parametrize("checkpoint", ["MTT_musicnn", "MSD_vgg"])
def test_bytes_do_not_depend_on_order(load, checkpoint):
    wave = read_audio("speech")
    extractor = load(checkpoint)
    batches = list(windows.batches(windows.cut(wave, extractor.framing()), extractor.batch_size))
    backwards = [extractor.extract(batch) for batch, _ in reversed(batches)][::-1]
    for name, expected in extract(extractor, wave).items():
        rows = [
            arrays[name][n, :count] for arrays, (_, counts) in zip(backwards, batches) for n, count in enumerate(counts)
        ]
        np.testing.assert_array_equal(np.concatenate(rows), expected, err_msg=name)


@pytest.mark.weights
def test_equal_patches_of_two_hops_are_equal(load):
    extractor = Musicnn(hop_seconds=(11 * 256 + 256) / 16000)  # 11 frames, of which a patch is 17 hops
    extractor.load("cpu", find_weights(extractor))
    wave = read_audio("exact")
    whole = extract(load("MTT_musicnn"), wave)["embedding"]
    np.testing.assert_array_equal(extract(extractor, wave)["embedding"][[0, 17]], whole)


@pytest.mark.weights
def test_too_loud_audio_is_not_finite(load):
    features = extract(load("MTT_musicnn"), read_audio("trumpet") * 1e4)
    assert not any(np.isfinite(array).any() for array in features.values())


@pytest.mark.weights
@pytest.mark.parametrize(("checkpoint", "names"), [("MSD_musicnn", KERAS_NAMES), ("MTT_vgg", KERAS_VGG_NAMES)])
def test_h5_equals_the_checkpoint(load, tmp_path, checkpoint, names):
    files = find_weights(Musicnn(checkpoint=checkpoint))
    prefix = files["musicnn/" + checkpoint + "/.index"][: -len(".index")]
    path = str(tmp_path / (checkpoint + ".h5"))
    write_h5(path, networks.read_checkpoint(prefix), names)
    extractor = Musicnn(checkpoint=path)
    extractor.load("cpu", {path: path})
    wave = read_audio("trumpet")
    expected = extract(load(checkpoint), wave)
    for name, array in extract(extractor, wave).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_sizes_follow_the_h5_file(tmp_path):
    path = str(tmp_path / "big.h5")
    write_h5(path, make_weights(middle=512, units=500, tags=7), KERAS_NAMES, suffix="")
    extractor = Musicnn(checkpoint=path)
    extractor.load("cpu", {path: path})
    features = extract(extractor, read_audio("trumpet"))
    sizes = {name: array.shape[1] for name, array in features.items()}
    assert sizes == {"embedding": 2097, "taggram": 7, "max_pool": 2097, "penultimate": 500}
    assert all(np.isfinite(array).all() for array in features.values())


def test_pooling_before_normalisation_changes_nothing():
    weights = make_weights(middle=8, units=10, tags=7)
    patch = np.random.RandomState(1).uniform(0, 5, (1, 187, 96)).astype(np.float32)
    features = networks.build(weights, 1)(patch)
    np.testing.assert_allclose(features["max_pool"][0, :561], maximise_front_end(weights, patch), rtol=1e-4, atol=1e-4)


def maximise_front_end(weights, patch):
    """Maximum over the patch of the 561 front-end channels, in the order of the paper: `[561]`."""
    x = normalise(weights, "batch_normalization", patch[..., None])
    padded = np.pad(x, ((0, 0), (3, 3), (0, 0), (0, 0)), mode="constant")
    maxima = []
    for index in range(5):
        layer = f"conv2d_{index}" if index else "conv2d"
        source, padding = (padded, "VALID") if index < 2 else (x, "SAME")
        convolved = tensorflow.nn.conv2d(source, weights[layer + "/kernel"], 1, padding).numpy()
        rectified = np.maximum(convolved + weights[layer + "/bias"], 0)
        normalised = normalise(weights, f"batch_normalization_{index + 1}", rectified)
        maxima.append(normalised.max(axis=(0, 1, 2)))
    return np.concatenate(maxima)


def normalise(weights, layer, x):
    gamma, beta, mean, variance = (
        weights[f"{layer}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) / np.sqrt(variance + np.float32(1e-3)) * gamma + beta


@pytest.mark.parametrize("content", [b"", b"not an h5 file"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "mine.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine.h5: not an .h5 model of musicnn_keras"):
        networks.read_h5(str(path))


@pytest.mark.parametrize("layer", ["conv2d_3", "batch_normalization_9"])
def test_a_missing_layer_is_named(layer):
    weights = {name: a for name, a in make_weights(8, 10, 7).items() if not name.startswith(layer + "/")}
    with pytest.raises(ValueError, match=f"no {layer}/.* in the checkpoint"):
        networks.build(weights, 1)

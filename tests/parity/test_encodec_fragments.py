"""EnCodec over fragments against transformers, live: each window alone, joined, averaged, and as text."""

import pathlib
import shutil
import threading

import numpy as np
import pytest
from checkpoints import encodec as maker

from worker import catalog, request
from worker.errors import SchemaError
from worker.work import extraction, pooling, store

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: run in the torch environment")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: run in the torch environment")
soxr = pytest.importorskip("soxr", reason="soxr is not installed: run in the torch environment")

from torch_models.encodec import extract_encodec  # noqa: E402 - needs torch

AUDIO = pathlib.Path(__file__).parents[1] / "audio" / "quickstart"
MUSIC = AUDIO / "music" / "hungarian_dance.flac"
CLOSE = {"rtol": 0, "atol": 1e-5}
EVERYTHING = ["latents", "codes", "starts"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of a full checkpoint and of tiny ones, by size and kHz."""
    root = tmp_path_factory.mktemp("fragments")
    kinds = [("full", 24), ("tiny", 24), ("tiny", 48)]
    return {(size, freq): maker.make(root / f"{size}_{freq}khz", size, freq=freq) for size, freq in kinds}


@pytest.fixture(scope="module")
def upstream(folders):
    return {kind: transformers.EncodecModel.from_pretrained(folder).eval() for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def music():
    """Return 12 s of real audio `[C, T]` for each model; the second channel is another part of the first."""
    wave, rate = soundfile.read(MUSIC, dtype="float32")
    mono, fine = soxr.resample(wave, rate, 24000), soxr.resample(wave, rate, 48000)
    return {24: mono[None], 48: np.stack([fine, 0.6 * np.roll(fine, 9000)])}


def load(folder, outputs=(), window=None, layout="per-item", **params):
    asked = request.read(outputs, window, layout)
    extractor = catalog.build("encodec", {"checkpoint": str(folder), **params}, asked)
    files = {name: str(folder / name) for name in ("config.json", "model.safetensors")}
    extractor.load("cpu", files)
    return extractor


def extract(extractor, wave, batch_size=None):
    """Return the outputs, held against their declarations."""
    arrays, _ = extraction.extract(extractor, wave, batch_size, "", threading.Event())
    for output in catalog.wanted(extractor):
        store.check(output, arrays[output.name], False, True)
        assert arrays[output.name].dtype == output.dtype
    return arrays


def cut(wave, window, hop, mode):
    """Return windows `[C, window]` that cover the audio, the last one filled by numpy's own padding."""
    count = 1 + max(0, -(-(wave.shape[1] - window) // hop))
    longer = np.pad(wave, ((0, 0), (0, (count - 1) * hop + window - wave.shape[1])), mode=mode)
    return [longer[:, i * hop : i * hop + window] for i in range(count)]


def run_upstream(model, wave):
    """Return latents `[D, T]` and codes `[K, T]` at 6 kbit/s of one window in one piece, without its loudness."""
    x = torch.tensor(np.ascontiguousarray(wave))[None]
    with torch.inference_mode():
        if model.config.normalize:
            x = x / (x.mean(1, keepdim=True).pow(2).mean(2, keepdim=True).sqrt() + 1e-8)
        latents = model.encoder(x)
        return latents[0].numpy(), model.quantizer.encode(latents, 6.0)[:, 0].numpy()


@pytest.mark.parametrize(
    ("size", "freq", "pad"), [("full", 24, "reflect"), ("tiny", 24, "zero"), ("tiny", 48, "reflect")]
)
def test_every_window_is_encoded_alone(size, freq, pad, folders, upstream, music):
    rate = 1000 * freq
    extractor = load(folders[size, freq], EVERYTHING, {"seconds": 5, "pad": pad}, "per-window")
    found = extract(extractor, music[freq])
    windows = cut(music[freq], 5 * rate, 5 * rate, {"zero": "constant"}.get(pad, pad))
    expected = [run_upstream(upstream[size, freq], window) for window in windows]
    assert found["latents"].shape == (3, 128 if size == "full" else 16, 5 * rate // 320)
    np.testing.assert_allclose(found["latents"], [latents for latents, _ in expected], **CLOSE)
    np.testing.assert_array_equal(found["codes"], [codes for _, codes in expected])
    np.testing.assert_array_equal(found["starts"], [0, 5, 10])


def test_loudness_of_48_khz_windows_is_kept(folders, music):
    wave = music[48][:, :200000]
    found = extract(load(folders["tiny", 48], ["scale"], {"seconds": 2}), wave)
    expected = [np.sqrt(np.mean(window.astype(float).mean(0) ** 2)) for window in cut(wave, 96000, 96000, "reflect")]
    np.testing.assert_allclose(found["scale"], expected, rtol=1e-5)


@pytest.mark.parametrize("hop", [2.0, 1.6, 133 / 75, 0.4])
@pytest.mark.parametrize("kind", [("tiny", 24), ("tiny", 48)])
def test_joined_windows_give_every_frame_once(kind, hop, folders, upstream, music):
    rate = 1000 * kind[1]
    wave = music[kind[1]][:, : 6 * rate + 777]
    found = extract(load(folders[kind], EVERYTHING, {"seconds": 2, "hop_seconds": hop}), wave)
    step = round(hop * rate) // 320
    frames, overlap, total = 2 * rate // 320, 2 * rate // 320 - step, -(-wave.shape[1] // 320)
    expected = [np.full((rows, total), -9.0) for rows in (16, len(found["codes"]))]
    windows = cut(wave, 2 * rate, step * 320, "reflect")
    for i, window in enumerate(windows):
        first = overlap // 2 if i else 0
        last = frames - (overlap - overlap // 2) if i < len(windows) - 1 else total - i * step
        for joined, values in zip(expected, run_upstream(upstream[kind], window), strict=True):
            assert (joined[:, i * step + first : i * step + last] == -9).all()
            joined[:, i * step + first : i * step + last] = values[:, first:last]
    np.testing.assert_allclose(found["latents"], expected[0], **CLOSE)
    np.testing.assert_array_equal(found["codes"], expected[1])
    np.testing.assert_allclose(found["starts"], np.arange(len(windows)) * step * 320 / rate, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 320, 321, 5000, 48000, 48001, 91200, 91201])
def test_any_length_gives_its_frames(length, folders, music):
    wave = music[24][:, 5000 : 5000 + length]
    for hop in (2.0, 1.8):
        extractor = load(folders["tiny", 24], EVERYTHING, {"seconds": 2, "hop_seconds": hop})
        found = extract(extractor, wave)
        assert found["latents"].shape[1] == found["codes"].shape[1] == -(-length // 320)


def test_fragments_are_5_seconds_unless_told_otherwise(folders, music):
    plain = extract(load(folders["tiny", 24], context="fragment"), music[24])
    told = extract(load(folders["tiny", 24], window={"seconds": 5, "hop_seconds": 5, "pad": "reflect"}), music[24])
    np.testing.assert_array_equal(plain["latents"], told["latents"])


@pytest.mark.parametrize("kind", [("full", 24), ("tiny", 48)])
def test_bytes_do_not_depend_on_the_batch(kind, folders, music):
    """Each window alone, and among others; a batch of five also holds windows that only fill it."""
    extractor = load(folders[kind], EVERYTHING, {"seconds": 2}, "per-window")
    wave = music[kind[1]][:, : 5000 * kind[1]]
    alone = extract(extractor, wave, 1)
    for batch_size in (2, 5):
        for name, values in extract(extractor, wave, batch_size).items():
            assert values.tobytes() == alone[name].tobytes(), name


@pytest.mark.parametrize("seconds", [0.7, 2, 5.5])
@pytest.mark.parametrize("kind", [("full", 24), ("tiny", 48)])
def test_averaged_codes_are_the_old_recipe(kind, seconds, folders, upstream, music):
    """Windows of 2 s with 10 % overlap, the last one filled with zeros; the 48 kHz model cuts each into seconds."""
    rate = 1000 * kind[1]
    wave = music[kind[1]][:, : int(seconds * rate)]
    window = {"seconds": 2, "hop_seconds": 1.8, "pad": "zero"}
    extractor = load(folders[kind], ["codes", "starts"], window, average_codes=True)
    assert extractor.flags() == ("lossy",)
    found = extract(extractor, wave)
    each = []
    for part in cut(wave, 2 * rate, 9 * rate // 5, "constant"):
        with torch.inference_mode():
            encoded = upstream[kind].encode(torch.tensor(np.ascontiguousarray(part))[None], bandwidth=6.0)
        codes = np.concatenate(list(encoded.audio_codes[:, 0].numpy()), 1)
        each.append(codes[:, : codes.shape[1] - (encoded.last_frame_pad_length or 0)])
    np.testing.assert_array_equal(found["codes"], np.round(np.mean(each, 0)))  # numpy rounds halves to even
    assert found["codes"].shape[1] == {24: 150, 48: 303}[kind[1]]
    assert len(found["starts"]) == len(each)


def test_averages_take_any_window_and_have_no_latents(folders, music):
    window = {"seconds": 1.01, "hop_seconds": 0.9, "pad": "zero"}
    extractor = load(folders["tiny", 24], ["codes"], window, average_codes=True)
    assert extract(extractor, music[24])["codes"].shape == (13, 76)
    with pytest.raises(SchemaError, match="latents"):
        load(folders["tiny", 24], ["latents"], window, average_codes=True)
    with pytest.raises(SchemaError, match="add `context: fragment`, or a window"):
        load(folders["tiny", 24], average_codes=True)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ({"seconds": 2, "hop_seconds": 1.75}, "hop_seconds: 1.75 s is no whole number of frames of 1/75 s"),
        ({"seconds": 0.1}, "seconds: 0.1 s is no whole number of frames of 1/75 s; take 0.093333 or 0.106667"),
        ({"seconds": 0.001}, "take 0.013333"),
    ],
)
def test_windows_hold_whole_frames(window, words, folders):
    with pytest.raises(SchemaError, match=words):
        load(folders["tiny", 24], window=window)
    near = words.rpartition(" ")[2]
    if near[0] == "0":  # what is advised is taken
        load(folders["tiny", 24], window={"seconds": float(near)})


def test_windows_are_pooled_one_by_one(folders, music):
    extractor = load(folders["tiny", 24], ["latents"], {"seconds": 5}, "per-window")
    (output,) = catalog.wanted(extractor)
    assert output.axes == ("window", "channel", "time") and output.poolable
    latents = extract(extractor, music[24])["latents"]
    pooled = [pooling.pool(one, output.axes[1:].index("time"), "mean") for one in latents]
    np.testing.assert_allclose(pooled, latents.mean(2), rtol=0, atol=1e-6)


def test_a_script_gets_text_files(folders, upstream, music, tmp_path, capsys):
    found = extract_encodec(MUSIC, 24, tmp_path / "out", verbose=True, checkpoint=folders["full", 24])
    paths = [tmp_path / "out" / f"hungarian_dance_frag{i}.txt" for i in range(3)]
    assert found == [(str(path), (128, 375)) for path in paths]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in paths]
    latents, _ = run_upstream(upstream["full", 24], cut(music[24], 120000, 120000, "reflect")[-1])
    np.testing.assert_allclose(np.loadtxt(paths[-1], delimiter=","), latents, **CLOSE)
    lines = capsys.readouterr().out.splitlines()
    size = paths[0].stat().st_size / 1024
    assert lines[0] == f"hungarian_dance_frag0.txt | latent=(128, 375) | {size:.1f} KB"
    assert lines[1].endswith("the file differs by at most 0")
    assert len(lines) == 6


def test_a_script_may_use_48_khz_in_mono(folders, tmp_path, capsys):
    found = extract_encodec(str(AUDIO / "speech" / "austen.wav"), 48, tmp_path, 2.0, checkpoint=folders["tiny", 48])
    assert [shape for _, shape in found] == [(16, 300), (16, 300)]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_script_finds_the_weights_of_the_cache(folders, tmp_path, monkeypatch, capsys):
    for variable in ("CONSORT_WEIGHTS", "CONSORT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    pinned = catalog.build("encodec", {}).checkpoints()[0]
    folder = tmp_path / ".cache" / "consort" / "weights" / "hub" / pinned.name / pinned.revision
    with pytest.raises(FileNotFoundError, match="run `consort weights pull encodec --checkpoint facebook") as error:
        extract_encodec(MUSIC, output_dir=tmp_path)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    shutil.copytree(folders["tiny", 24], folder)
    assert len(extract_encodec(MUSIC, 24, tmp_path / "out", 4.0)) == 3
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    for variable, value in {
        "XDG_CACHE_HOME": "",
        "CONSORT_CACHE": "consort",
        "CONSORT_WEIGHTS": "consort/weights",
    }.items():
        monkeypatch.setenv(variable, str(tmp_path / ".cache" / value))
        assert len(extract_encodec(MUSIC, 24, tmp_path / "out", 4.0)) == 3
        monkeypatch.delenv(variable)
    capsys.readouterr()


@pytest.mark.parametrize(("freq", "words"), [(44, "freq must be 24 or 48"), (48, "the folder's name must hold 48khz")])
def test_a_script_is_told_what_it_has_wrong(freq, words, folders, tmp_path):
    with pytest.raises(ValueError, match=words):
        extract_encodec(MUSIC, freq, tmp_path, checkpoint=folders["tiny", 24])

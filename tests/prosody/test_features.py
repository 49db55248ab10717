"""The class for notebooks, with the names and calls of the published procedure."""

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="torch is not installed: run in the torch environment")
prosody = pytest.importorskip("prosody_toolkit")
features = pytest.importorskip("prosody_toolkit.features")
ProsodicFeatureExtractor = prosody.ProsodicFeatureExtractor

NAMES = ["f0", "f0_width", "f1", "f2", "power", "snr"]


def voice(seconds=6.0, rate=16000, f0=140.0):
    """Return a buzz with a vowel's colour, a pause in its middle, and voice to its end."""
    t = np.arange(int(seconds * rate)) / rate
    wave = sum(np.cos(2 * np.pi * k * f0 * t) / k for k in range(1, int(0.45 * rate / f0))) * 0.1
    wave[int(0.4 * len(t)) : int(0.5 * len(t))] = 0
    return wave.astype(np.float32)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "speech.flac"
    soundfile.write(path, np.stack([voice(rate=22050)] * 2, axis=1), 22050)
    return path


def test_the_documented_calls_give_six_arrays_of_equal_length(recording):
    extractor = ProsodicFeatureExtractor(sample_rate=16000, frame_ms=50, hop_ms=16, output_normalize=True)
    audio = extractor.load_audio(recording, loader="librosa")
    assert isinstance(audio, torch.Tensor) and audio.shape == (96000,) and audio.dtype == torch.float32
    found = extractor.extract()
    assert list(found) == NAMES
    count = extractor.get_frames_count(len(audio))
    assert {values.shape for values in found.values()} == {(count,)} and count == 375
    assert all(values.min() >= 0 and values.max() <= 1 for values in found.values())
    assert extractor.frame_rate == 62.5
    part = extractor.extract(start_ms=1000, end_ms=5000)
    assert len(part["f0"]) == extractor.get_frames_count(64000) == 250


def test_voiced_tells_low_values_from_none_and_the_end_is_kept(recording):
    extractor = ProsodicFeatureExtractor(output_normalize=False)
    extractor.load_audio(recording)
    f0 = extractor.extract()["f0"]
    assert extractor.voiced.dtype == np.uint8 and ((f0 > 0) == (extractor.voiced > 0)).all()
    assert 0.05 < (extractor.voiced == 0).mean() < 0.15
    assert extractor.voiced[-20:].all() and np.median(f0[-20:]) == pytest.approx(140, abs=0.5)


@pytest.mark.parametrize("shape", ["[N]", "[1, N]", "array"])
def test_audio_may_be_given_as_a_tensor(shape):
    wave = voice(2.0)
    given = {"[N]": torch.from_numpy(wave), "[1, N]": torch.from_numpy(wave)[None], "array": wave}[shape]
    found = ProsodicFeatureExtractor().extract(audio_tensor=given)
    expected = features.analyse(wave, features.Settings())[0]
    np.testing.assert_array_equal(np.stack(list(found.values()), axis=1), expected)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_other_rates_are_resampled_and_counted(rate):
    extractor = ProsodicFeatureExtractor(sample_rate=rate, output_normalize=False)
    wave = voice(2.0, rate)
    found = extractor.extract(audio_tensor=torch.from_numpy(wave))
    assert len(found["f0"]) == extractor.get_frames_count(len(wave)) == 125
    assert np.median(found["f0"][found["f0"] > 0]) == pytest.approx(140, abs=0.5)


@pytest.mark.parametrize(("frame_ms", "hop_ms", "level"), [(50, 10, "heavy"), (40, 20, "light")])
def test_the_documented_settings_work(frame_ms, hop_ms, level):
    extractor = ProsodicFeatureExtractor(frame_ms=frame_ms, hop_ms=hop_ms, smoothing_level=level)
    assert len(extractor.extract(audio_tensor=voice(2.0))["f0"]) == 2000 // hop_ms


@pytest.mark.parametrize("length", [1, 2, 100, 255, 256, 257])
def test_any_length_will_do(length):
    extractor = ProsodicFeatureExtractor()
    assert len(extractor.extract(audio_tensor=voice(1.0)[:length])["f0"]) == extractor.get_frames_count(length)


def test_a_part_is_drawn_under_its_own_audio_and_times(recording, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: run in the torch environment")
    from prosody_toolkit import plots

    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure.axes))
    extractor = ProsodicFeatureExtractor()
    extractor.load_audio(recording)
    whole = extractor.extract()
    part = extractor.extract(start_ms=1000, end_ms=3000)
    other = extractor.extract(audio_tensor=voice(1.0))
    for values in (other, whole, part):
        extractor.plot_features(values, tmp_path / "x.png")
    extractor.extract(start_ms=1000, end_ms=3000)
    extractor.plot_features(part, tmp_path / "x.png")
    assert [len(axes) for axes in drawn] == [8, 8, 6, 8]  # of the part nothing is left once another was analysed
    assert drawn[0][-1].get_xlim() == pytest.approx((0, 1), abs=0.02)
    assert drawn[3][-1].get_xlim() == pytest.approx((1, 3))
    assert drawn[3][1].images[0].get_extent()[:2] == pytest.approx((1, 3), abs=0.01)
    assert drawn[3][2].lines[0].get_xdata()[[0, -1]] == pytest.approx((1, 1 + 124 / 62.5))


def test_what_is_wrong_is_said():
    extractor = ProsodicFeatureExtractor()
    assert extractor.get_frames_count(0) == 0
    with pytest.raises(ValueError, match="no audio: call load_audio"):
        extractor.extract()
    with pytest.raises(ValueError, match="nothing between 3000 and 4000 ms: the audio lasts 1000 ms"):
        extractor.extract(3000, 4000, voice(1.0))
    with pytest.raises(ValueError, match="not finite"):
        extractor.extract(audio_tensor=np.full(100, np.nan, np.float32))
    with pytest.raises(ValueError, match=r"expected \[N\] or \[1, N\], got \[2, 5\]"):
        extractor.extract(audio_tensor=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="smoothing_level: 'strong' is not one of none, light, medium, heavy"):
        ProsodicFeatureExtractor(smoothing_level="strong")
    with pytest.raises(ValueError, match="loader: 'sox' is not one of librosa"):
        extractor.load_audio("x.wav", loader="sox")


def test_a_token_model_is_told_what_its_features_are(tmp_path, caplog):
    from prosody_toolkit import ClusteringPipeline, ProsodicClusterSequences

    extractor = ProsodicFeatureExtractor(frame_ms=40, hop_ms=20, smoothing_level="heavy")
    found = extractor.extract(audio_tensor=voice(4.0))
    vectors = np.stack(list(found.values()), axis=1)
    ClusteringPipeline(8, device="cpu", features=extractor.definition).train(vectors, str(tmp_path / "told"))
    assert not caplog.records
    tokens = ProsodicClusterSequences(str(tmp_path / "told")).extract_cluster_sequences(voice(4.0))
    assert len(tokens[0]) == len(found["f0"]) == 200
    ClusteringPipeline(8, device="cpu").train(vectors, str(tmp_path / "untold"))
    assert "taken for features of the default settings" in caplog.text

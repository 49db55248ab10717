"""Pictures: that there is one, of the format asked for, and what it shows."""

import re

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed: run in the torch environment")

from prosody_toolkit import features, plots

RATE = 62.5


@pytest.fixture
def wave():
    t = np.arange(32000) / 16000
    return (0.1 * sum(np.cos(2 * np.pi * 140 * k * t) / k for k in range(1, 40)) * (t > 0.5)).astype(np.float32)


@pytest.fixture
def values(wave):
    found = features.analyse(wave, features.Settings(output_normalize=False))[0]
    return {name: found[:, i] for i, name in enumerate(features.NAMES)}


def test_a_png_is_large_enough_to_read(values, wave, tmp_path):
    from matplotlib import image

    path = plots.draw_features(values, tmp_path / "new" / "speech.png", RATE, normalized=False, wave=wave)
    height, width = image.imread(path).shape[:2]
    assert width >= 1200 and height >= 1000


def test_an_svg_names_every_feature_and_is_the_same_twice(values, wave, tmp_path):
    tokens = np.arange(len(values["f0"])) % 120
    texts = []
    for name in ("a.svg", "b.svg"):
        path = plots.draw_features(values, tmp_path / name, RATE, False, wave, tokens=tokens)
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    comments = set(re.findall(r"<!-- (.+?) -->", texts[0]))
    assert {"wave", "kHz", "tokens", "seconds (shaded: voiced)"} <= comments
    assert {name for name in features.NAMES if any(text.startswith(name) for text in comments)} == set(features.NAMES)


def test_unvoiced_frames_are_gaps_in_all_but_power(values, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.update(axes=figure.axes))
    plots.draw_features(values, tmp_path / "x.png", RATE, normalized=False)
    gaps = [np.isnan(axes.lines[0].get_ydata()) for axes in drawn["axes"]]
    unvoiced = values["f0"] == 0
    assert 0 < unvoiced.sum() < len(unvoiced)
    for name, found in zip(features.NAMES, gaps, strict=True):
        np.testing.assert_array_equal(found, False if name == "power" else unvoiced)


def test_a_strip_gives_each_token_its_colour(tmp_path):
    from matplotlib import image

    path = plots.draw_tokens(np.repeat([3, 3, 7, 11], 50), tmp_path / "tokens.png", RATE, count=120)
    line = image.imread(path)[40]
    colours = {tuple(np.round(pixel[:3], 2)) for pixel in line}
    bright = {c for c in colours if max(c) - min(c) > 0.5}
    assert len(bright) >= 3


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokens\.gif: a picture ends in \.png or \.svg"):
        plots.draw_tokens(np.zeros(5, int), tmp_path / "tokens.gif", RATE)

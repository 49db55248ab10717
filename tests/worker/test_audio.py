import os
import socket
import stat
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import soxr
from sounds import RATE, SINE, decode, fail, needs_ffmpeg, noise, open_bytes, pcm16, write

from worker.audio import decode as audio
from worker.audio import durations, waves
from worker.errors import AudioError

QUICKSTART = os.path.join(os.path.dirname(__file__), os.pardir, "audio", "quickstart")


def fake_ffmpeg(tmp_path, monkeypatch, body):
    """Put a small Python program in ffmpeg's place; `tell(rate, samples)` writes what ffmpeg would."""
    head = """\
        #!{} -S
        import struct, sys, time
        def tell(rate, frames, value=0.25):
            form = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
            head = b"RIFF\\xff\\xff\\xff\\xffWAVEfmt " + struct.pack("<I", 16) + form
            head += b"data\\xff\\xff\\xff\\xff"
            sys.stdout.buffer.write(head + struct.pack("<f", value) * frames)
            sys.stdout.flush()
        if sys.argv[1] == "-version":
            print("ffmpeg version 9.8.7-fake Copyright")
            sys.exit()
        """
    program = tmp_path / "ffmpeg"
    program.write_text(textwrap.dedent(head).format(sys.executable) + textwrap.dedent(body))
    program.chmod(0o755)
    monkeypatch.setenv("CONSORT_FFMPEG", str(program))


@pytest.fixture
def truncated(tmp_path):
    """A WAV that declares 2 s and holds 1 s."""
    whole = open_bytes(write(tmp_path / "truncated.wav", pcm16(2 * RATE)))
    (tmp_path / "truncated.wav").write_bytes(whole[: 44 + 2 * RATE])
    return tmp_path / "truncated.wav"


@pytest.mark.parametrize(
    "subtype,step", [("PCM_U8", 1 / 64), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("DOUBLE", 0), ("FLOAT", 0)]
)
def test_encodings_give_the_same_samples(tmp_path, subtype, step):
    samples = noise(1000)
    with decode(write(tmp_path / "a.wav", samples, subtype=subtype)) as found:
        assert np.abs(found.wave(RATE, 1) - samples.T).max() <= step
        assert (found.sample_rate, found.channels, found.duration) == (RATE, 1, 1000 / RATE)
        assert found.decoder == "soundfile " + soundfile.__libsndfile_version__
        assert found.flags == []


def test_mean_of_16_bit_stereo_is_exact(tmp_path):
    samples = pcm16(audio.BLOCK + 100, 2)
    with decode(write(tmp_path / "a.wav", samples), [(RATE, 1), (RATE, 2)]) as found:
        exact = samples.astype(np.int64).sum(axis=1) / 65536.0
        assert np.array_equal(found.wave(RATE, 1)[0], exact)
        assert np.array_equal(found.wave(RATE, 2), samples.T / np.float32(32768))
        assert found.wave(RATE, 1).dtype == np.float32


def test_mono_is_doubled_and_many_channels_give_the_front_pair(tmp_path):
    mono, many = noise(500), noise(500, 8)
    with decode(write(tmp_path / "mono.wav", mono, subtype="FLOAT"), [(RATE, 2)]) as found:
        assert np.array_equal(found.wave(RATE, 2), np.repeat(mono.T, 2, axis=0))
    with decode(write(tmp_path / "many.wav", many, subtype="FLOAT"), [(RATE, 1), (RATE, 2)]) as found:
        assert np.array_equal(found.wave(RATE, 2), many[:, :2].T)
        assert np.abs(found.wave(RATE, 1)[0] - many.mean(axis=1)).max() < 1e-7
        assert found.channels == 8


@pytest.mark.parametrize(
    "rate,target", [(44100, 16000), (44100, 48000), (8000, 24000), (12345, 16000), (192000, 44100)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_resample_like_the_whole(tmp_path, monkeypatch, rate, target, channels):
    monkeypatch.setattr(audio, "BLOCK", 4096)
    samples = noise(30011, channels)
    with decode(write(tmp_path / "a.wav", samples, rate, "FLOAT"), [(target, channels)]) as found:
        whole = soxr.resample(samples, rate, target, quality="HQ")
        assert np.array_equal(found.wave(target, channels), whole.T)
        assert len(whole) == int(30011 * target / rate + 0.5)


def test_one_pass_feeds_all_formats(tmp_path, monkeypatch):
    opened = []
    real = audio._use_soundfile
    monkeypatch.setattr(audio, "_use_soundfile", lambda *given: opened.append(1) or real(*given))
    path = write(tmp_path / "a.wav", noise(44100, 2), 44100)
    with decode(path, [(16000, 1), (48000, 2), (16000, 1)]) as found:
        assert found.wave(16000, 1).shape == (1, 16000)
        assert found.wave(48000, 2).shape == (2, 48000)
    assert opened == [1]


def test_mp3_blocks_are_decoded_like_the_whole(tmp_path, monkeypatch):
    """Seeking between blocks, which soundfile does by itself, spoils an mp3's bit reservoir."""
    burst = noise(96000) * (np.arange(96000) % 9000 < 1500)[:, None]
    path = write(tmp_path / "a.mp3", burst, 48000, "MPEG_LAYER_III", "MP3")
    monkeypatch.setattr(audio, "BLOCK", 5000)
    with decode(path, [(48000, 1)]) as found:
        assert np.abs(found.wave(48000, 1)[0] - soundfile.read(path)[0]).max() < 1e-6


@pytest.mark.parametrize(
    "samples,flags",
    [
        (np.zeros((2000, 1)), ["silent"]),
        (np.repeat(noise(2000), 2, axis=1) * [1, -1], ["silent"]),
        (np.sign(noise(2000)), ["clipped"]),
        (noise(2000) / np.abs(noise(2000)).max(), []),
        (2 * SINE, []),
        (np.clip(2 * SINE, -1.5, 1.5), ["clipped"]),
        (4.1 * SINE, ["over_range"]),
        (32767 * SINE, ["over_range"]),
    ],
    ids=["zeros", "antiphase", "square", "normalised peak", "headroom", "flat above", "too loud", "integers"],
)
def test_flags_of_level(tmp_path, samples, flags):
    with decode(write(tmp_path / "a.wav", samples, subtype="FLOAT")) as found:
        assert found.flags == flags
        assert found.peak == pytest.approx(np.abs(samples).max(), rel=1e-5)


HEADER = b"RIFF\x24\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
SLOW = HEADER.replace(struct.pack("<I", RATE), struct.pack("<I", 50))


@pytest.mark.parametrize(
    "data,kind,words",
    [
        (b"", "empty", "bad.wav: file is empty (0 bytes)"),
        (HEADER + b"data" + bytes(4), "empty", "no audio samples"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "decode", "git lfs pull"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "decode", "HTML page"),
        (SLOW + b"data\2\0\0\0ab", "decode", "50 Hz"),
    ],
    ids=["nothing", "header only", "lfs", "html", "rate"],
)
def test_what_a_file_is_instead_of_audio(tmp_path, data, kind, words):
    (tmp_path / "bad.wav").write_bytes(data)
    error = fail(tmp_path / "bad.wav")
    assert error.kind == kind and words in str(error) and str(error).startswith("bad.wav: ")
    assert len(error.sha256) == 64


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_samples(tmp_path, value):
    samples = noise(2 * RATE, 2)
    samples[RATE, 1] = value
    error = fail(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert error.kind == "nonfinite" and "1.000 s" in str(error)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(str(tmp_path / "fifo.wav"))
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "dangling.wav").symlink_to("nowhere")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.wav"))
        for name in ("fifo", "folder", "dangling", "loop", "zero", "socket", "absent"):
            error = fail(tmp_path / (name + ".wav"))
            assert error.kind == "unreadable" and error.sha256 == "", name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "a.wav"
    write(path, noise(10))
    path.chmod(0)
    assert fail(path).kind == "unreadable"
    path.chmod(stat.S_IRUSR)


def test_planned_size_and_time_must_hold(tmp_path):
    path = write(tmp_path / "a.wav", noise(100))
    status = os.stat(path)
    decode(path, size=status.st_size, mtime_ns=status.st_mtime_ns).close()
    assert fail(path, size=status.st_size + 1, mtime_ns=status.st_mtime_ns).kind == "changed"
    assert fail(path, size=status.st_size, mtime_ns=status.st_mtime_ns + 150_000_000).kind == "changed"
    assert fail(path, size=0).kind == "changed"


def test_change_while_reading(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", noise(100))

    def grow(source):
        with open(path, "ab") as target:
            target.write(b"more")
        return 0.0

    monkeypatch.setattr(durations, "declared_duration", grow)
    assert fail(path).kind == "changed"


@pytest.mark.parametrize(
    "name", ["new\nline.wav", "tab\t.wav", os.fsdecode(b"caf\xe9.wav"), "-dash.wav", "a:b*?.wav"], ids=ascii
)
def test_names_are_data(tmp_path, name):
    path = str(tmp_path / name)
    with open(path, "wb"):
        pass
    fail(path).args[0].encode("utf-8")
    with open(path, "wb") as target:
        soundfile.write(target, noise(100), RATE, "PCM_16", format="WAV")
    with decode(path) as found:
        assert found.duration == 100 / RATE


def test_too_short_for_one_format_only(tmp_path):
    with decode(write(tmp_path / "a.wav", noise(1), 48000), [(16000, 1), (48000, 1)]) as found:
        assert found.wave(48000, 1).shape == (1, 1)
        with pytest.raises(AudioError, match="too short") as caught:
            found.wave(16000, 1)
        assert caught.value.kind == "empty"


def test_large_waves_go_to_the_disk(tmp_path):
    path, formats = write(tmp_path / "a.wav", noise(50000, 2), subtype="FLOAT"), [(RATE, 2), (44100, 1)]
    with decode(path, formats) as small, decode(path, formats, spool_bytes=1000) as large:
        for wanted in formats:
            assert isinstance(large.wave(*wanted), np.memmap)
            assert not large.wave(*wanted).flags.writeable and not small.wave(*wanted).flags.writeable
            assert np.array_equal(small.wave(*wanted), large.wave(*wanted))
    assert os.listdir(str(tmp_path)) == ["a.wav"]


def test_full_disk_is_a_memory_error(tmp_path, monkeypatch):
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the code under test closes it
    monkeypatch.setattr(waves.tempfile, "TemporaryFile", lambda **settings: full)
    error = fail(write(tmp_path / "a.wav", noise(50000)), spool_bytes=1000)
    assert error.kind == "memory" and full.closed


def test_hours_of_audio_need_bounded_memory(tmp_path):
    path = str(tmp_path / "long.flac")
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16", format="FLAC") as target:
        for _ in range(60):
            target.write(np.zeros(60 * 8000, np.int16))
    program = """
        import sys
        from worker.audio import decode
        def peak():
            with open("/proc/self/status") as status:
                return int([line for line in status if line.startswith("VmHWM")][0].split()[1]) // 1024
        before = peak()
        with decode.decode(sys.argv[1], [(48000, 1)], sys.argv[2]) as found:
            print(found.wave(48000, 1).shape[1], peak() - before)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), path, str(tmp_path)]
    environment = dict(os.environ, PYTHONPATH=os.path.join(os.path.dirname(audio.__file__), "../.."))
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    samples, megabytes = answer.stdout.split()
    assert int(samples) == 3600 * 48000
    assert int(megabytes) < 300  # the wave alone is 691 MB


def test_short_read_without_ffmpeg_is_an_error(truncated, monkeypatch):
    monkeypatch.delenv("CONSORT_FFMPEG", raising=False)
    error = fail(truncated)
    assert error.kind == "decode"
    assert "1.000 s" in str(error) and "consort weights pull ffmpeg" in str(error)


@pytest.mark.parametrize(
    "body,seconds,decoder,flags",
    [
        ("tell(8000, 12000)", 1.5, "ffmpeg 9.8.7", ["truncated"]),
        ("tell(8000, 16000)", 2.0, "ffmpeg 9.8.7", []),
        ("tell(8000, 4000)", 1.0, "soundfile", ["truncated"]),
        ("tell(8000, 16000); sys.exit(1)", 1.0, "soundfile", ["truncated"]),
        ("sys.stderr.write('[wav @ 0x1] no\\n' * 100000); sys.exit(1)", 1.0, "soundfile", ["truncated"]),
    ],
    ids=["longer", "whole", "shorter", "crashed", "refused"],
)
def test_longer_decode_wins(truncated, tmp_path, monkeypatch, body, seconds, decoder, flags):
    fake_ffmpeg(tmp_path, monkeypatch, body)
    with decode(truncated) as found:
        assert found.duration == seconds and found.decoder.startswith(decoder) and found.flags == flags


def test_ffmpeg_that_does_not_run_never_leaves_a_shorter_result(truncated, tmp_path, monkeypatch):
    (tmp_path / "ffmpeg").write_text("no program")
    monkeypatch.setenv("CONSORT_FFMPEG", str(tmp_path / "ffmpeg"))
    error = fail(truncated)
    assert error.kind == "decode" and not error.lasting and "ffmpeg does not start" in str(error)
    fake_ffmpeg(tmp_path, monkeypatch, "import os; tell(8000, 12000); os.kill(os.getpid(), 9)")
    assert fail(truncated).kind == "memory"


def test_ffmpeg_is_killed_at_the_deadline(truncated, tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "tell(8000, 100); time.sleep(600)")
    assert fail(truncated, deadline=2.0).kind == "timeout"


def test_reasons_of_both_decoders_are_told(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "sys.stderr.write('[a @ 0x55d] [b @ 0x1] Bad header\\n'); sys.exit(1)")
    (tmp_path / "text.wav").write_bytes(b"This is text, not sound. " * 10)
    error = fail(tmp_path / "text.wav")
    assert error.kind == "decode"
    assert str(error).endswith("(soundfile: Format not recognised; ffmpeg: Bad header)")


@needs_ffmpeg
@pytest.mark.parametrize(
    "name,rate,channels,decoder",
    [
        ("music/flute_in_rain.m4a", 44100, 2, "ffmpeg"),
        ("music/hungarian_dance.flac", 22050, 1, "soundfile"),
        ("music/solo trumpet.ogg", 22050, 1, "soundfile"),
        ("environment/rooster.ogg", 44100, 1, "soundfile"),
        ("speech/austen.wav", 16000, 1, "soundfile"),
        ("speech/common_voice.mp3", 48000, 1, "soundfile"),
    ],
)
def test_real_files(tmp_path, name, rate, channels, decoder):
    with audio.decode(os.path.join(QUICKSTART, name), [(24000, 1)], str(tmp_path)) as found:
        assert (found.sample_rate, found.channels, found.flags) == (rate, channels, [])
        assert found.decoder.startswith(decoder)
        assert found.wave(24000, 1).shape == (1, int(found.duration * 24000 + 0.5))
        assert 0.01 < np.abs(found.wave(24000, 1)).max() < 1.2


@needs_ffmpeg
def test_ffmpeg_gives_soundfiles_samples(tmp_path, monkeypatch):
    path = write(tmp_path / "a.flac", pcm16(100000, 3), 44100, "PCM_16", "FLAC")
    with decode(path, [(44100, 1), (44100, 2)]) as first:
        monkeypatch.setattr(durations, "declared_duration", lambda source: None)
        monkeypatch.setattr(audio, "_use_soundfile", refuse)
        with decode(path, [(44100, 1), (44100, 2)]) as second:
            assert second.decoder == "ffmpeg 7.0.2" and second.flags == ["length_unverified"]
            assert np.array_equal(first.wave(44100, 1), second.wave(44100, 1))
            assert np.array_equal(first.wave(44100, 2), second.wave(44100, 2))


def refuse(source, plan):
    raise audio._UnusableError("not today")


@needs_ffmpeg
def test_flac_of_unknown_length(tmp_path):
    path = tmp_path / "a.flac"
    data = bytearray(open_bytes(write(path, pcm16(2 * RATE), RATE, "PCM_16", "FLAC")))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(bytes(data))
    with decode(path) as found:
        assert found.duration == 2.0 and found.flags == ["length_unverified"]


@needs_ffmpeg
def test_playlists_open_nothing(tmp_path):
    write(tmp_path / "other.wav", noise(RATE))
    for name, text in [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.wav\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile other.wav\n"),
    ]:
        (tmp_path / name).write_text(text)
        assert fail(tmp_path / name).kind == "decode"

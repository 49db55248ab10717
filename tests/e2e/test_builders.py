"""Building an environment: two builders at once, and one that was killed. A mini environment makes it quick."""

import base64
import hashlib
import pathlib
import shutil
import signal
import sys
import time
import zipfile

import harness
import pytest
from harness import until

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def write_wheel(folder: pathlib.Path) -> str:
    """Write a wheel of one empty module, and return its line of a lock."""
    info = "miniature-1.0.dist-info"
    files = {
        "miniature.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: miniature\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    path = folder / "miniature-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"miniature==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def mini(tmp_path):
    """Return a copy of the program with an environment `mini`, and the variables to run it alone."""
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(harness.REPOSITORY / "orchestrator", checkout / "orchestrator", ignore=ignored)
    shutil.copytree(harness.REPOSITORY / "images" / "worker", checkout / "images" / "worker", ignore=ignored)
    environment = checkout / "images" / "mini"
    environment.mkdir()
    (environment / "env.yaml").write_text(
        f'python: "{VERSION}"\ngpu: none\nbase_image: none\nlocks: {{cpu: requirements.lock}}\nprobes: [miniature]\n'
    )
    (environment / "requirements.lock").write_text(write_wheel(tmp_path))
    options = {
        "cwd": checkout,
        "PYTHONPATH": f"{checkout}:{checkout / 'images'}",
        "CONSORT_CACHE": str(tmp_path / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
    }
    return tmp_path / "cache" / "envs", options


def is_built(options):
    done = harness.consort("envs", "list", "mini", **options)
    assert done.returncode == 0, done.stderr
    return "not built" not in done.stdout


def test_two_builders_at_once_build_once(mini, start):
    _, options = mini
    assert not is_built(options)
    builders = [start("envs", "build", "mini", **options) for _ in range(2)]
    assert [builder.wait() for builder in builders] == [0, 0], [b.text for b in builders]
    texts = [builder.text for builder in builders]
    assert sum("builds once from its lock" in text for text in texts) == 1
    assert sum("waits for another builder" in text for text in texts) == 1
    assert is_built(options)
    again = harness.consort("envs", "build", "mini", **options)
    assert again.returncode == 0 and "builds once" not in again.stderr


@pytest.mark.parametrize("moment", [0.0, 1.0])
def test_what_a_killed_builder_left_is_built_anew(moment, mini, start):
    folder, options = mini
    builder = start("envs", "build", "mini", **options)
    until(lambda: folder.is_dir() and [path for path in folder.iterdir() if path.is_dir()])
    time.sleep(moment)
    builder.kill_tree()
    assert not is_built(options)
    done = harness.consort("envs", "build", "mini", **options)
    assert done.returncode == 0, done.stderr
    assert is_built(options)


def test_a_package_that_is_not_the_locked_one_is_refused(mini):
    _, options = mini
    wheel = pathlib.Path(options["PIP_FIND_LINKS"], "miniature-1.0-py3-none-any.whl")
    wheel.write_bytes(wheel.read_bytes() + b"changed")
    done = harness.consort("envs", "build", "mini", **options)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert "mini could not be built" in line and ".log" in line
    assert not is_built(options)


def test_a_polite_end_does_not_wait_for_a_build(mini, start, tmp_path):
    folder, options = mini
    plugin = (harness.PLUGINS / "tone.py").read_text("utf-8").replace('"legacy-py37"', '"mini"')
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "tone.py").write_text(plugin, "utf-8")
    harness.write_wavs(tmp_path / "audio", 1)
    job = harness.write_job(tmp_path / "out", tmp_path / "audio", harness.TONE, plugins=[str(tmp_path / "plugins")])
    run = start("extract", job, "--offline", **options)
    until(lambda: folder.is_dir() and [path for path in folder.iterdir() if path.is_dir()])
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 130, run.text
    assert not is_built(options), "it would have been, by then"

"""images/wheels_for.py: which pins of the real locks have no wheel for a machine, by a page of links."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
LOCK = (ROOT / "images/legacy-py37/requirements.lock").read_text("utf-8")
PINS = re.findall(r"^([\w.-]+)==(\S+) \\\n +--hash=sha256:(\w+)", LOCK, re.MULTILINE)
SERVE = [
    "py3-none-any",
    "py2.py3-none-any",
    "cp37-cp37m-manylinux_2_17_aarch64.manylinux2014_aarch64",
    "cp37-cp37m-manylinux_2_36_aarch64",
    "cp36-abi3-linux_aarch64",
]
NOT = [
    "cp37-cp37m-manylinux2014_x86_64",
    "cp311-cp311-manylinux2014_aarch64",
    "cp38-abi3-manylinux2014_aarch64",
    "cp37-cp37m-manylinux_2_38_aarch64",
    "cp37-cp37m-musllinux_1_2_aarch64",
    "cp37-cp37m-macosx_11_0_arm64",
    "py2-none-any",
]


def test_what_has_no_wheel_for_a_machine_is_named(tmp_path):
    assert len(PINS) > len(NOT) + len(SERVE) + 1
    page, lacks, links = tmp_path / "page.html", [], []
    for number, (name, version, sha256) in enumerate(PINS):
        tags = [*NOT, *SERVE][number] if number < len(NOT) + len(SERVE) else "py3-none-any"
        if number == len(PINS) - 1:
            sha256 = "0" * 64  # which the lock does not know
        if tags in NOT or sha256 == "0" * 64:
            lacks.append(f"`{name}=={version}`")
        links.append(f'<a href="{name.replace("-", "_")}-{version}-{tags}.whl#sha256={sha256}">x</a>')
    page.write_text("\n".join(links))
    own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": page.as_uri(), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "images/wheels_for.py", "aarch64"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"| legacy-py37, cpu | {', '.join(lacks)} |" in done.stdout.splitlines()

"""The one ffmpeg that decodes what libsndfile cannot: a static build, pinned like a checkpoint."""

import platform

from orchestrator.errors import EnvironmentUnavailable
from worker.extractor import Checkpoint

NAME = "imageio-ffmpeg"
# One build in every environment: the same bytes decode the same samples. Release 0.6.0 on the index, per
# machine: (tag of the wheel, its sha256), (the binary inside, its sha256).
_BUILDS = {
    ("Linux", "x86_64"): (
        ("manylinux2014_x86_64", "c7e46fcec401dd990405049d2e2f475e2b397779df2519b544b8aab515195282"),
        ("ffmpeg-linux-x86_64-v7.0.2", "e7e7fb30477f717e6f55f9180a70386c62677ef8a4d4d1a5d948f4098aa3eb99"),
    ),
    ("Linux", "aarch64"): (
        ("manylinux2014_aarch64", "1d47bebd83d2c5fc770720d211855f208af8a596c82d17730aa51e815cdee6dc"),
        ("ffmpeg-linux-aarch64-v7.0.2", "6bb182d0d75d23028db82e9e4f723ca69b853d055698486e6984ddb2c06fb8ce"),
    ),
    ("Darwin", "x86_64"): (
        ("macosx_10_9_intel.macosx_10_9_x86_64", "9d2baaf867088508d4a3458e61eeb30e945c4ad8016025545f66c4b5aaef0a61"),
        ("ffmpeg-macos-x86_64-v7.1", "4a4a968b98859588e98500ae25973d80a5ca5eed0724222b9f76360dcb72a001"),
    ),
    ("Darwin", "arm64"): (
        ("macosx_11_0_arm64", "b1ae3173414b5fc5f538a726c4e48ea97edc0d2cdc11f103afee655c463fa742"),
        ("ffmpeg-macos-aarch64-v7.1", "6d175a4743ca50256e89a8cdd731100f9cee33bd79aeea46894d209410dc6617"),
    ),
}


def checkpoint(system: str = "", machine: str = "") -> Checkpoint:
    """Return the pinned ffmpeg for a machine as `platform` names it (default: this one).

    Raises:
        EnvironmentUnavailable: there is no build for it.
    """
    key = (system or platform.system(), machine or platform.machine())
    if key not in _BUILDS:
        known = ", ".join(" ".join(build) for build in sorted(_BUILDS))
        raise EnvironmentUnavailable(f"no ffmpeg is pinned for {' '.join(key)}; there is one for {known}")
    (tag, archive_sha256), (binary, sha256) = _BUILDS[key]
    return Checkpoint(
        kind="pypi",
        name=NAME,
        revision="0.6.0",
        file="imageio_ffmpeg/binaries/" + binary,
        sha256=sha256,
        licence="GPL-3.0 (run as a program of its own)",
        archive=f"imageio_ffmpeg-0.6.0-py3-none-{tag}.whl",
        archive_sha256=archive_sha256,
    )

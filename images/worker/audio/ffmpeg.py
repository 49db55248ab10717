"""The second decoder: one pinned static ffmpeg (6.1 or later) that talks through pipes.

It gets the already opened file as its standard input, with `fd` as the only protocol besides `pipe`: what it
decodes is what was hashed, no name can be read as an option or an address, and a playlist can open
nothing. All channels come at their own rate as float32, since its own downmix has a gain of sqrt(2).
"""

import functools
import os
import re
import selectors
import signal
import struct
import subprocess
import time
import typing as tp

import numpy as np

VARIABLE = "CONSORT_FFMPEG"
_KEPT = 4096  # bytes of complaints; a broken file can produce megabytes of them
_INPUT = ["-nostdin", "-v", "error", "-threads", "1", "-protocol_whitelist", "fd,pipe", "-i", "fd:"]
_OUTPUT = ["-map", "0:a:0", "-vn", "-sn", "-dn", "-acodec", "pcm_f32le", "-bitexact", "-f", "wav", "pipe:1"]


class FfmpegError(Exception):
    """ffmpeg could not decode the file; one line that says why."""


class FfmpegMissingError(FfmpegError):
    """There is no ffmpeg in this environment, or none that runs: the file is not at fault."""


class FfmpegTimeoutError(FfmpegError):
    """The deadline passed; the process has been killed."""


def find() -> str:
    """Return the path of the executable.

    Raises:
        FfmpegMissingError: the environment names none, or one that is not there.
    """
    program = os.environ.get(VARIABLE, "")
    if not program or not os.path.isfile(program):
        raise FfmpegMissingError("ffmpeg is missing here; `consort weights pull ffmpeg` gets it")
    return program


@functools.lru_cache(maxsize=None)
def version(program: str) -> str:
    """Return the version that `program` prints about itself, without the name of its builder."""
    command, nothing = [program, "-version"], subprocess.DEVNULL
    answer = subprocess.run(command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, timeout=60)
    found = re.match(r"ffmpeg version n?([0-9.]+|\S+)", answer.stdout.decode("utf-8", "replace"))
    return found.group(1) if found else "unknown"


class PcmStream:
    """The first audio stream of an open file, decoded by a child process while it is read."""

    def __init__(self, program: str, source: int, deadline: float) -> None:
        """Start decoding.

        Args:
            program: from `find`.
            source: file descriptor of a regular file; its position is moved.
            deadline: value of `time.monotonic()` at which the child is killed.

        Raises:
            FfmpegError: no audio stream, or nothing that ffmpeg understands.
            FfmpegMissingError: the program does not run.
        """
        self._deadline = deadline
        self._data = bytearray()
        self._complaints = bytearray()
        self._selector = selectors.DefaultSelector()
        os.lseek(source, 0, os.SEEK_SET)
        try:
            self._process = subprocess.Popen(
                [program] + _INPUT + _OUTPUT,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # the static program crashes on converters of the system's C library, which an MPEG-TS's names call for
                env={"LC_ALL": "C", "GCONV_PATH": "/nonexistent"},
            )
        except OSError as error:
            raise FfmpegMissingError("ffmpeg does not start: {}".format(error.strerror)) from None
        for pipe in self._pipes():
            self._selector.register(pipe, selectors.EVENT_READ)
        try:
            self.sample_rate, self.channels = self._read_header()
        except BaseException:
            self.close()
            raise

    @property
    def complaint(self) -> str:
        """The first thing ffmpeg said, without the addresses in it; empty if it said nothing."""
        text = self._complaints.decode("utf-8", "replace")
        if "matches no streams" in text:
            return "no audio stream"
        lines = [re.sub(r"^(\[[^\]]*\] *)+", "", line) for line in text.splitlines()]
        return next((line for line in lines if line), "")

    def read(self, frames: int) -> np.ndarray:
        """Return float32 `[n, C]`; `n < frames` only at the end of the stream.

        Raises:
            FfmpegError: ffmpeg gave up or crashed.
            FfmpegTimeoutError: the deadline passed.
            MemoryError: the system killed it.
        """
        width = 4 * self.channels
        ended = not self._fill(frames * width)
        if ended:
            self._check_exit()
        count = min(frames, len(self._data) // width)
        samples = np.frombuffer(bytes(self._data[: count * width]), "<f4").reshape(count, self.channels)
        del self._data[: count * width]
        return samples

    def close(self) -> None:
        """End the child and release the pipes. May be called twice."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in self._pipes():
            pipe.close()

    def _pipes(self) -> tp.List[tp.IO[bytes]]:
        return [pipe for pipe in (self._process.stdout, self._process.stderr) if pipe is not None]

    def _fill(self, size: int) -> bool:
        """Read until `size` bytes of audio wait; return False where the stream has fewer left."""
        while len(self._data) < size and self._selector.get_map():
            ready = self._selector.select(max(0.0, self._deadline - time.monotonic()))
            if not ready:
                raise FfmpegTimeoutError("ffmpeg did not finish in time")
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    self._selector.unregister(key.fileobj)
                elif key.fileobj is self._process.stdout:
                    self._data += chunk
                else:
                    self._complaints += chunk[: _KEPT - len(self._complaints)]
        return len(self._data) >= size

    def _check_exit(self) -> None:
        try:
            code = self._process.wait(max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise FfmpegTimeoutError("ffmpeg did not finish in time") from None
        if code == -signal.SIGKILL:  # nobody here did it, so the system did, for want of memory
            raise MemoryError("ffmpeg was killed")
        if code:
            raise FfmpegError(self.complaint or "ffmpeg ended with code {}".format(code))

    def _take(self, size: int) -> bytes:
        if not self._fill(size):
            self._check_exit()
            raise FfmpegError(self.complaint or "no audio stream")
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def _read_header(self) -> tp.Tuple[int, int]:
        """Return sample rate and channels from the WAV header, up to where its samples begin."""
        rate = channels = 0
        self._take(12)
        while True:
            name, size = struct.unpack("<4sI", self._take(8))
            if name == b"data":
                return rate, channels
            body = self._take(size + size % 2)
            if name == b"fmt ":
                channels, rate = struct.unpack("<2xHI", body[:8])

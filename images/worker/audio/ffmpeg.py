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
_KEPT = 4096  # characters of one line, and lines of complaints; a broken file can produce megabytes of them
# "verbose" counts packets, and what could not be decoded of them, at the end; each line tells its level. However many
# these are, they are no end of it: they are judged here
_INPUT = ["-nostdin", "-nostats", "-hide_banner", "-v", "level+verbose", "-threads", "1", "-max_error_rate", "1"]
_INPUT += ["-protocol_whitelist", "fd,pipe"]
# its own C library would load modules of the system's for the text in a transport stream, and crash
_ENVIRONMENT = {"LC_ALL": "C", "GCONV_PATH": os.devnull}
_OUTPUT = ["-map", "0:a:0", "-vn", "-sn", "-dn", "-acodec", "pcm_f32le", "-bitexact", "-f", "wav"]
_FRAMES = ["-stats_enc_pre_fmt", "{tb} {pts} {sn}", "-stats_enc_pre"]  # when each frame is due, and samples before it


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


_LEVEL = re.compile(r"\[(panic|fatal|error|warning|info|verbose)\] ")
_PREFIX = re.compile(r"^(\[[^\]]*\] *)+")
_COUNTS = re.compile(r"\(audio\): (\d+) packets read .*?(\d+) frames decoded; (\d+) decode errors")
_TRACK = re.compile(r"^\[info\] +Stream #0:\d+\S*: Audio: ")
_CODEC = re.compile(r"Stream #0:\d+ -> #0:0 \((\w+)")


class Talk:
    """What ffmpeg says while it decodes: complaints, and in the end how much it has decoded."""

    def __init__(self) -> None:
        self.packets = 0  # of the stream
        self.damaged = 0  # of these, could not be decoded
        self.codec = ""  # such as "aac"
        self.tracks = 0  # of audio
        self.errors = 0  # lines
        self._first = ["", ""]  # complaint, and line of unknown level
        self._rest = b""

    @property
    def complaint(self) -> str:
        """The first thing that was wrong, without the addresses in it; empty if nothing was."""
        return next((line for line in self._first if line), "")

    def hear(self, chunk: bytes) -> None:
        """Take bytes as they come; an empty chunk is the end."""
        *lines, self._rest = (self._rest[:_KEPT] + (chunk or b"\n")).split(b"\n")
        for line in lines:
            self._hear_line(line.decode("utf-8", "replace").strip())

    def _hear_line(self, line: str) -> None:
        level, text = _LEVEL.search(line), _PREFIX.sub("", line)
        codec, counts = _CODEC.search(line), _COUNTS.search(line)
        if level is None:
            self._first[1] = self._first[1] or text
        elif level.group(1) in ("panic", "fatal", "error"):
            self.errors += 1
            self._first[0] = self._first[0] or ("no audio stream" if "matches no streams" in text else text)
        elif _TRACK.match(line) and not self.codec:  # those of its own output come behind
            self.tracks += 1
        elif codec is not None:
            self.codec = self.codec or codec.group(1)
        elif counts is not None:
            self.packets, self.damaged = int(counts.group(1)), int(counts.group(3))


_GAP = 0.005  # seconds; less is the rounding of a container's clock


class Gaps:
    """Where frames are missing: the samples before a frame are fewer than its time says."""

    def __init__(self) -> None:
        self._places: tp.List[float] = []  # seconds
        self._end = 0.0
        self._behind: tp.Optional[float] = None  # seconds that are missing so far
        self._rest = b""

    @property
    def everywhere(self) -> bool:
        """Whether there are gaps in all tenths of the stream but one."""
        return self._end > 0 and len({int(10 * place / self._end) for place in self._places}) >= 9

    def hear(self, chunk: bytes) -> None:
        """Take what `_FRAMES` prints, as it comes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            base, due, before = line.split()
            one, rate = map(int, base.split(b"/"))
            self._end = int(due) * one / rate
            behind = self._end - int(before) * one / rate
            if self._behind is not None and behind - self._behind > _GAP:
                self._places.append(self._end)
            self._behind = behind


class PcmStream:
    """The first audio stream of an open file, decoded by a child process while it is read."""

    def __init__(self, program: str, source: int, deadline: float, codec: str = "", start: int = 0) -> None:
        """Start decoding.

        Args:
            program: from `find`.
            source: file descriptor of a regular file; its position is moved.
            deadline: value of `time.monotonic()` at which the child is killed.
            codec: the decoder to take where ffmpeg's own choice is known to be wrong.
            start: byte of the file at which the stream begins.

        Raises:
            FfmpegError: no audio stream, or nothing that ffmpeg understands.
            FfmpegMissingError: the program does not run.
        """
        self._deadline = deadline
        self._data = bytearray()
        self.talk = Talk()
        self.gaps = Gaps()
        self._selector = selectors.DefaultSelector()
        os.lseek(source, 0, os.SEEK_SET)
        chosen = ["-c:a", codec] if codec else []
        chosen += ["-skip_initial_bytes", str(start)] if start else []
        frames, theirs = os.pipe()
        self._frames: tp.IO[bytes] = os.fdopen(frames, "rb", 0)
        try:
            self._process = subprocess.Popen(
                [program, *_INPUT, *chosen, "-i", "fd:", *_OUTPUT, *_FRAMES, "pipe:{}".format(theirs), "pipe:1"],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                pass_fds=[theirs],
            )
        except OSError as error:
            self._frames.close()
            raise FfmpegMissingError("ffmpeg does not start: {}".format(error.strerror)) from None
        finally:
            os.close(theirs)
        for pipe in self._pipes():
            self._selector.register(pipe, selectors.EVENT_READ)
        try:
            self.sample_rate, self.channels = self._read_header()
        except BaseException:
            self.close()
            raise

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
        return [pipe for pipe in (self._process.stdout, self._process.stderr, self._frames) if pipe is not None]

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
                if key.fileobj is self._process.stdout:
                    self._data += chunk
                elif key.fileobj is self._frames:
                    self.gaps.hear(chunk)
                else:
                    self.talk.hear(chunk)
        return len(self._data) >= size

    def _check_exit(self) -> None:
        try:
            code = self._process.wait(max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise FfmpegTimeoutError("ffmpeg did not finish in time") from None
        if code == -signal.SIGKILL:  # nobody here did it, so the system did, for want of memory
            raise MemoryError("ffmpeg was killed")
        if code:
            raise FfmpegError(self.talk.complaint or "ffmpeg ended with code {}".format(code))

    def _take(self, size: int) -> bytes:
        if not self._fill(size):
            self._check_exit()
            raise FfmpegError(self.talk.complaint or "no audio stream")
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

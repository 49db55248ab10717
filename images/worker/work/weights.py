"""Weights as their shard named them: hashed by the process that reads them, through the descriptors that it reads.

A file may be replaced between the plan and the load. Its path is looked up once; what it led to is hashed, and the
model is given a name that leads to that open file and to nothing else. Where files are mapped into memory, bytes
that change later would change the numbers: each file is looked at again before an array counts.
"""

import hashlib
import os
import shutil
import tempfile
import time
import typing as tp

from worker.errors import WeightsChanged

_CHUNK = 1 << 20
_TICK = 10**9  # ns
_DESCRIPTORS = "/proc/self/fd"  # opens anew what a descriptor leads to; where there is none, the path must not change


class _File:
    """One open file, and the hash that it must have."""

    def __init__(self, path: str, expected: str) -> None:
        self.path = path
        self._expected = expected
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        own = "{}/{}".format(_DESCRIPTORS, self.descriptor)
        self.target = own if os.path.exists(own) else os.path.abspath(path)
        self._stamp: tp.Optional[tp.Tuple[int, ...]] = None

    def refuse_changed(self) -> None:
        """Hash the file, unless nothing has touched it since.

        Raises:
            WeightsChanged: it is not what the shard named.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return
        found = _sha256_of(self.descriptor)
        if found != self._expected or not stamp[0] or stamp != self._look():
            words = "{} was replaced or written to since the run was planned (sha256 {}..., planned {}...); run again"
            raise WeightsChanged(words.format(self.path, found[:12], self._expected[:12]))
        # A write within the same tick of the file system's clock as the last one would leave no trace.
        self._stamp = stamp if abs(time.time_ns() - stamp[-1]) > _TICK else None

    def _look(self) -> tp.Tuple[int, ...]:
        there, read = os.fstat(self.descriptor), os.stat(self.target)
        same = os.path.samestat(there, read)
        return int(same), there.st_size, there.st_mtime_ns, there.st_ctime_ns


class OpenWeights:
    """The files of weights that this process has open."""

    def __init__(self) -> None:
        self._folder = ""
        self._files: tp.Dict[tp.Tuple[str, str], _File] = {}  # by path and hash: models may share them
        self._models: tp.Dict[str, tp.List[_File]] = {}
        self._links: tp.Dict[str, str] = {}  # what the user calls each path that a model is given

    def open(self, model: str, paths: tp.Mapping[str, str], named: tp.Mapping[str, str]) -> tp.Dict[str, str]:
        """Return a path that leads to each open file of a model, laid out as `paths` are.

        Args:
            model: its name in the job.
            paths: where its files are, by their names; the name of a user's own may be its whole path.
            named: the sha256 of each, by its name, or by the last part of it.

        Raises:
            WeightsChanged: one is not what the shard named.
            OSError: one cannot be read.
        """
        found = {}
        self._models[model] = []
        for number, (name, path) in enumerate(paths.items()):
            expected = named.get(name) or named.get(os.path.basename(name), "")
            file = self._files.get((path, expected)) or _File(path, expected)
            self._files[path, expected] = file
            self._models[model].append(file)
            file.refuse_changed()
            place = name if not os.path.isabs(name) else "{}/{}".format(number, os.path.basename(name))
            found[name] = self._link("{}/{}".format(model, place), file)
        return found

    def refuse_changed(self, model: str) -> None:
        """Look whether the files of a model are still what they were.

        Raises:
            WeightsChanged: one is not.
        """
        for file in self._models.get(model, ()):
            file.refuse_changed()

    def say(self, message: str) -> str:
        """Return a message with the paths that the user knows."""
        for link, path in self._links.items():
            message = message.replace(link, path)
        return message

    def close(self) -> None:
        """Let go of everything; what is mapped into memory stays."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        for file in self._files.values():
            os.close(file.descriptor)
        self._files, self._models = {}, {}

    def _link(self, name: str, file: _File) -> str:
        self._folder = self._folder or tempfile.mkdtemp(prefix="consort-weights-")
        place = os.path.join(self._folder, *name.split("/"))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(file.target, place)
        self._links[place] = file.path
        return place


def _sha256_of(descriptor: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while True:
        chunk = os.pread(descriptor, _CHUNK, offset)
        if not chunk:
            return digest.hexdigest()
        digest.update(chunk)
        offset += len(chunk)

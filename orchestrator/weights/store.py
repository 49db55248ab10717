"""Checkpoints: where they are, whether they are right, and how they come here.

::

    <cache>/weights/pypi/<name>/<revision>/<file>               out of a distribution of the package index
    <cache>/weights/hub/<organisation>/<name>/<revision>/<file>  of a model hub, in the hub's own layout
    <cache>/weights/url/<name>/<revision>/<file>                of one address
    <cache>/weights/weights.lock                                what every fetched file is
    <cache>/weights/hashes.json                                 what has been hashed, by size, times and inode
    <cache>/weights/licences.json                               the licences that have been shown

The cache is `$CONSORT_CACHE`, `$XDG_CACHE_HOME/consort` or `~/.cache/consort`. A file is downloaded once,
however many processes ask for it. It must have the hash that its declaration states, else the one that
its hub states; where nobody states one, what came first is written down in the lock and holds from then on.
"""

import contextlib
import re
import typing as tp
from pathlib import Path, PurePosixPath

from orchestrator import files
from orchestrator.errors import CheckpointUnavailable, EnvironmentUnavailable
from orchestrator.weights import archives, ffmpeg, sources, transfer
from orchestrator.weights.hub import Hub
from orchestrator.weights.lock import Locked, WeightsLock
from orchestrator.weights.package_index import PackageIndex
from worker.extractor import Checkpoint

_DEPTH = {"pypi": 1, "hub": 2, "url": 1}  # parts of a name, by kind
_COMMIT = re.compile("[0-9a-f]{40}")


class Weights:
    """The checkpoints in one cache folder."""

    def __init__(
        self, root: Path | None = None, index: PackageIndex | None = None, hub: Hub | None = None, fresh: bool = False
    ) -> None:
        """Open a cache.

        Args:
            root: its folder.
            index: where distributions come from.
            hub: where files of hubs and addresses come from.
            fresh: read every file again instead of trusting what was hashed before.
        """
        self.root = (root or files.cache_root()) / "weights"
        self.lock = WeightsLock(self.root / "weights.lock")
        self._index = index
        self._hub = hub
        self._known: dict[str, list[tp.Any]] = {} if fresh else files.read_json(self.root / "hashes.json", {})

    def path(self, checkpoint: Checkpoint) -> Path:
        """Return where a checkpoint is, or would be.

        Raises:
            CheckpointUnavailable: its declaration leads out of the cache or is of an unknown kind.
        """
        if checkpoint.kind == "file":
            return Path(checkpoint.name).expanduser()
        file = checkpoint.file.split("/")
        if checkpoint.kind == "folder" and all(map(_is_name, file)):
            return Path(checkpoint.name).expanduser().joinpath(*file)
        name = checkpoint.name.split("/")
        parts = [*name, checkpoint.revision, *file]
        if _DEPTH.get(checkpoint.kind) != len(name) or not all(map(_is_name, parts)):
            what = f"{checkpoint.kind} checkpoint {checkpoint.name}/{checkpoint.file}"
            raise CheckpointUnavailable(f"{what}: expected kind {', '.join(_DEPTH)}, folder or file, and plain names")
        return self.root.joinpath(checkpoint.kind, *parts)

    def folder(self, checkpoint: Checkpoint) -> Path:
        """Return the folder of a checkpoint's distribution or repository."""
        return self.root.joinpath(checkpoint.kind, *checkpoint.name.split("/"), checkpoint.revision)

    def sha256(self, checkpoint: Checkpoint) -> str:
        """Return the hash of a checkpoint that is there; computed where anything has touched it.

        Raises:
            OSError: it cannot be read.
        """
        path = self.path(checkpoint).absolute()
        status = path.stat()
        # the time of change, too: another file of that size may be moved here with the time it had elsewhere
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(str(path), [])
        if known[:-1] != stamp:
            known = [*stamp, files.sha256_of(path)]
            self._known[str(path)] = known
            # what other processes have hashed meanwhile is kept
            _remember(self.root / "hashes.json", {**files.read_json(self.root / "hashes.json", {}), str(path): known})
        return str(known[-1])

    def problem(self, checkpoint: Checkpoint) -> str | None:
        """Return why a checkpoint cannot be used, or None when it is there and right."""
        path = self.path(checkpoint)
        try:
            if not path.is_file():
                return f"{path} is not a regular file" if path.exists() else f"{path} is missing"
            found = self.sha256(checkpoint)
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        locked = None if checkpoint.sha256 else self.lock.find(checkpoint)
        expected = checkpoint.sha256 or (locked.sha256 if locked else "")
        if expected and found != expected:
            source = "expected" if checkpoint.sha256 else "weights.lock says"
            return f"{path} has sha256 {found[:12]}..., {source} {expected[:12]}..."
        if not expected and checkpoint.git_blob and files.git_blob_of(path) != checkpoint.git_blob:
            return f"{path} is not git blob {checkpoint.git_blob[:12]}..."
        return None

    def files(self, checkpoints: tp.Iterable[Checkpoint], model: str, pull: str = "") -> dict[str, Path]:
        """Return the local path of every checkpoint of `model`, by its `file`.

        Args:
            checkpoints: of one model.
            model: its name, for the error.
            pull: arguments of `consort weights pull` that get them; default: the name.

        Raises:
            CheckpointUnavailable: one is missing or wrong; the message says how to get it.
        """
        found, by_hand, needed = {}, [], list(checkpoints)
        for checkpoint in needed:
            problem = self.problem(checkpoint)
            if problem:
                if checkpoint.archive and self.path(checkpoint).name.startswith("."):
                    problem = f"{checkpoint.archive} is missing"  # nobody looks for a hidden file
                lacking = [one for one in needed if not one.own and self.problem(one)]
                raise CheckpointUnavailable(f"{model}: {problem}; {self._remedy(checkpoint, pull or model, lacking)}")
            found[checkpoint.file] = self.path(checkpoint)
            if checkpoint.kind in ("hub", "url") and self.lock.find(checkpoint) is None:
                by_hand.append(checkpoint)
        if by_hand:
            # a cache may be read-only
            with contextlib.suppress(CheckpointUnavailable), _locked(self.root):
                # once more: another process that was fetching them may have written them down meanwhile
                self._write_down([c for c in by_hand if self.lock.find(c) is None], by_hand=True)
        return found

    def pull(self, checkpoints: tp.Iterable[Checkpoint], progress: transfer.Tell = transfer.silent) -> list[Path]:
        """Fetch what is missing or wrong, and return the path of every checkpoint.

        Raises:
            EnvironmentUnavailable: one cannot be had, or is not what its hash promises.
        """
        wanted = list(checkpoints)
        groups: dict[tuple[str, ...], list[Checkpoint]] = {}
        for checkpoint in wanted:
            problem = self.problem(checkpoint)
            if problem and checkpoint.own:
                raise CheckpointUnavailable(f"{problem}; {self._remedy(checkpoint, checkpoint.name)}")
            if problem:
                # those of one archive, or of one repository, are fetched under one lock
                shared = (*checkpoint[:3], checkpoint.archive, checkpoint.archive_sha256)
                groups.setdefault(shared, []).append(checkpoint)
        for members in groups.values():
            pull = self._pull_archive if members[0].kind == "pypi" else self._pull_files
            pull(members, progress)
        return [self.path(checkpoint) for checkpoint in wanted]

    def _remedy(self, checkpoint: Checkpoint, pull: str, lacking: tp.Sequence[Checkpoint] = ()) -> str:
        if checkpoint.own:
            maker = f", or run `{checkpoint.made_by}`, which makes it" if checkpoint.made_by else ""
            return f"it is named by the job: correct the path{maker}"
        return f"run `consort weights pull {pull}`, {sources.by_hand(self, lacking)}"

    def program(self) -> str:
        """Return the path of ffmpeg; empty where it is not here, or not right."""
        try:
            checkpoint = ffmpeg.checkpoint()
        except EnvironmentUnavailable:
            return ""
        return "" if self.problem(checkpoint) else str(self.path(checkpoint))

    def licence_news(self, checkpoints: tp.Iterable[Checkpoint]) -> list[str]:
        """Return one line per licence that has not been shown before, and remember it as shown."""
        path = self.root / "licences.json"
        shown: list[str] = files.read_json(path, [])
        lines = dict.fromkeys(_licence(c) for c in checkpoints if not c.own)
        news = [line for line in lines if line not in shown]
        if news:
            _remember(path, shown + news)
        return news

    def _pull_archive(self, members: tp.Sequence[Checkpoint], progress: transfer.Tell) -> None:
        """Take files out of their distribution, which is deleted afterwards."""
        first = members[0]
        if not _is_name(first.archive) or not first.archive_sha256:
            raise CheckpointUnavailable(f"{first.name} is in no archive; put it at {self.path(first)}")
        folder = self.folder(first)
        with _locked(folder, lambda: progress(f"{first.archive}, which another process fetches", 0, None)):
            members = [checkpoint for checkpoint in members if self.problem(checkpoint)]
            if not members:
                return  # another process has fetched them while this one waited
            archive = folder / first.archive
            if not (archive.is_file() and files.sha256_of(archive) == first.archive_sha256):
                self._index = self._index or PackageIndex()
                try:
                    link = self._index.find(first.name, first.archive, first.archive_sha256)
                    self._index.download(link, archive, progress)
                except EnvironmentUnavailable as error:
                    raise CheckpointUnavailable(f"{error}; {sources.by_hand(self, members)}") from error
            targets = {c.file: archives.Member(self.path(c), c.sha256, c.name == ffmpeg.NAME) for c in members}
            archives.take(archive, targets)
            archive.unlink()
        with _locked(self.root):
            self._write_down(members)

    def _pull_files(self, members: tp.Sequence[Checkpoint], progress: transfer.Tell) -> None:
        """Fetch files one by one, each from an address of its own."""
        hub = self._hub = self._hub or Hub()
        first = members[0]
        with _locked(self.folder(first), lambda: progress(f"{first.name}, which another process fetches", 0, None)):
            for checkpoint in [checkpoint for checkpoint in members if self.problem(checkpoint)]:
                try:
                    commit = self._pull_file(checkpoint, hub, progress)
                except EnvironmentUnavailable as error:
                    lacking = [one for one in members if self.problem(one)]
                    raise CheckpointUnavailable(f"{error}; {sources.by_hand(self, lacking)}") from error
                with _locked(self.root):
                    self._write_down([checkpoint], commit)

    def _pull_file(self, checkpoint: Checkpoint, hub: Hub, progress: transfer.Tell) -> str:
        """Fetch one file, and return the commit that it is of."""
        locked = self.lock.find(checkpoint)
        # what a person has put there once does not keep the hub's own file out
        sha256 = checkpoint.sha256 or (locked.sha256 if locked and not locked.by_hand else "")
        if checkpoint.kind != "hub":
            source, place = hub.source(checkpoint.url), self.path(checkpoint)
            transfer.fetch(source, place, sha256, progress, checkpoint.git_blob, checkpoint.size)
            return ""
        revision = checkpoint.revision
        if not _COMMIT.fullmatch(revision):  # a branch: all its files are of the commit that the first one was of
            revision = self.lock.commit_of(checkpoint.name, revision) or revision
        return self._pull_of_hub(checkpoint, hub, revision, sha256, progress)

    def _pull_of_hub(
        self, checkpoint: Checkpoint, hub: Hub, revision: str, sha256: str, progress: transfer.Tell
    ) -> str:
        """Take a file from the cache of the hub's client where that has the right one, else from the hub."""
        name, _, file = checkpoint[1:4]
        git_blob, place = checkpoint.git_blob, self.path(checkpoint)
        here = hub.here(name, revision, file, sha256, git_blob)
        if here is None or not _COMMIT.fullmatch(revision):  # what a branch means today is the hub's to say
            try:
                remote = hub.look(name, revision, file)
            except EnvironmentUnavailable:
                if here is None:
                    raise
            else:
                sha256, git_blob, size = sha256 or remote.sha256, git_blob or remote.git_blob, remote.size
                here = hub.here(name, remote.commit or revision, file, sha256, git_blob)
                if here is None:
                    source = hub.source(remote.address)
                    transfer.fetch(source, place, sha256, progress, git_blob, size or checkpoint.size)
                    return remote.commit
        transfer.fetch(here.source(), place, here.sha256, progress, here.git_blob)
        return here.commit

    def _write_down(self, checkpoints: tp.Iterable[Checkpoint], commit: str = "", by_hand: bool = False) -> None:
        """Put files that are there into the lock; their hashes are remembered, so that the next start is quick."""
        entries = []
        for c in checkpoints:
            sha256, size = self.sha256(c), self.path(c).stat().st_size
            entries.append(Locked(*c[:4], sha256, size, c.licence, commit, by_hand))
        try:
            self.lock.add(entries)
        except OSError as error:
            raise CheckpointUnavailable(f"{self.lock.path} cannot be written: {error.strerror}") from error


def _remember(path: Path, content: tp.Any) -> None:
    """Replace a file that only saves time; a cache that cannot be written does without."""
    with contextlib.suppress(OSError):
        files.replace_json(path, content)


@contextlib.contextmanager
def _locked(folder: Path, waiting: tp.Callable[[], None] = lambda: None) -> tp.Iterator[None]:
    """Hold the lock of a folder; by default one that others hold for the blink of a write.

    Raises:
        CheckpointUnavailable: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder / ".lock", waiting))
        except OSError as error:
            raise CheckpointUnavailable(f"{folder} cannot be written: {error.strerror}; set CONSORT_CACHE") from error
        yield


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and PurePosixPath(part).name == part and "\0" not in part


def _licence(checkpoint: Checkpoint) -> str:
    note = "" if checkpoint.commercial else " (not for commercial use)"
    revision = "" if checkpoint.kind == "hub" else f" {checkpoint.revision}"
    return f"{checkpoint.name}{revision}: {checkpoint.licence}{note}"

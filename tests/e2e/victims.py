"""Something outside the output folder that must stay as it is, and ways to lead a run there."""

import hashlib
import os
import pathlib
import stat
import subprocess
import typing as tp

KINDS = ["absolute", "relative", "fifo", *(["device"] if os.geteuid() == 0 else [])]


class Victim:
    """A folder with things of somebody else's: arrays, events, a temporary file, a secret."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.file = folder / "secret"
        for name in ("deep/a.npy", "x.jsonl", "x.json", ".x.1-2.part", "mine.part", "secret"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
        self.file.chmod(0o600)
        self._before = self.listing()

    def listing(self) -> tp.Dict[str, tp.Tuple[tp.Any, ...]]:
        """Return mode, owner, group, links, size, time and hash of everything, by name."""
        found = {}
        for path in [self.folder, *sorted(self.folder.rglob("*"))]:
            facts = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(facts.st_mode) else ""
            links = facts.st_nlink if stat.S_ISREG(facts.st_mode) else 0
            found[str(path)] = (
                facts.st_mode, facts.st_uid, facts.st_gid, links, facts.st_size, facts.st_mtime_ns, content,
            )  # fmt: skip
        return found

    def unharmed(self, links: int = 1) -> bool:
        """Return whether nothing changed; `links` are the hard links that the secret has by now."""
        now = self.listing()
        if links > 1:
            secret = list(now[str(self.file)])
            assert secret[3] == links
            now[str(self.file)] = (*secret[:3], 1, *secret[4:])
        assert now == self._before
        return True

    def target(self, where: pathlib.Path, kind: str, file: bool = False) -> str:
        """Return where a link in the folder `where` leads."""
        place = self.file if file else self.folder
        return os.path.relpath(place, where) if kind == "relative" else str(place)

    def plant(self, place: pathlib.Path, kind: str, file: bool = False) -> None:
        """Put a link to the folder, or to the secret, a FIFO or a device at `place`."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "device":
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # /dev/null
        else:
            place.symlink_to(self.target(place.parent, kind, file or bool(place.suffix)))


def refused(done: "subprocess.CompletedProcess[str]", place: str) -> None:
    """Hold the command to exit 4 with one line that names what is in the way."""
    assert done.returncode == 4, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("consort: output ") and place in last and "run again" in last, done.stderr
    assert "Traceback" not in done.stderr

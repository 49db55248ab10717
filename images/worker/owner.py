"""Work as the owner of a file, where nobody said who that is: the steps of docker-compose.yml.

    python -m worker.owner run FILE COMMAND ...              become FILE's owner, and run a command
    python -m worker.owner give FOLDER PATH MOUNTED ...      give FOLDER's owner what Docker has made as root: a path
                                                             within it, and folders elsewhere

Compose cannot ask whose a checkout is. Its containers begin as root, with next to no capabilities, and become the
owner before any code of a job runs. CONSORT_UID and CONSORT_GID name somebody else.
"""

import errno
import os
import sys
import typing as tp


def main(arguments: tp.Sequence[str]) -> None:
    """Do what the command line says; `run` does not return."""
    action, place = arguments[:2]
    owner = _owner(place)
    if action == "run":
        become(owner)
        os.chdir(os.environ.get("CONSORT_SCRATCH") or ".")
        os.execvp(arguments[2], list(arguments[2:]))  # noqa: S606 - the command of docker-compose.yml
    for folder in arguments[3:]:
        give(owner, folder)
    names = [name for name in arguments[2].split("/") if name not in ("", ".")]
    if not (arguments[2].startswith("/") or ".." in names):
        give(owner, place, names)


def become(owner: tp.Tuple[int, int]) -> None:
    """Drop from root to (uid, gid), for good; whoever is not root stays who they are."""
    if os.getuid() == 0 and owner[0] != 0:
        os.setgroups([])
        os.setgid(owner[1])
        os.setuid(owner[0])


def give(owner: tp.Tuple[int, int], folder: str, names: tp.Sequence[str] = ()) -> None:
    """Give a folder to (uid, gid) if root has it and nothing is in it.

    Docker makes what it is to mount as root. What somebody else has, or what holds files, is left alone.

    Args:
        owner: who gets it.
        folder: which; with names, one that is the owner's already.
        names: of folders, each within the one before: they are given in its place, each if it holds the next alone.
    """
    fds = []  # type: tp.List[int]
    try:
        fds.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        for name in names:
            fds.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fds[-1]))
        within = []  # type: tp.List[str]
        for fd, name in zip(reversed(fds), [*reversed(names), ""]):
            if (names and fd == fds[0]) or os.fstat(fd).st_uid not in (0, owner[0]) or os.listdir(fd) != within:
                break
            if os.fstat(fd).st_uid == 0:
                os.fchown(fd, *owner)
            within = [name]
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
            raise  # a link leads out of the folder: not ours to follow; `plan` says what is no folder
    finally:
        for fd in fds:
            os.close(fd)


def _owner(file: str) -> tp.Tuple[int, int]:
    named = os.environ.get("CONSORT_UID")
    if named:
        return int(named), int(os.environ.get("CONSORT_GID") or named)
    found = os.stat(file)
    return found.st_uid, found.st_gid


if __name__ == "__main__":
    main(sys.argv[1:])

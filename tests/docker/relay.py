"""A way to the Docker engine of this machine that can be closed, as if the engine were not there."""

import pathlib
import socket
import threading
import typing as tp

ENGINE = "/var/run/docker.sock"


class Relay:
    """Hands every connection to its socket on to the engine."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.address = f"unix://{path}"
        self._listener: tp.Optional[socket.socket] = None
        self._open: tp.List[socket.socket] = []

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Take the socket away, and break off what is under way."""
        if self._listener is not None:
            self.path.unlink()
            for one in (self._listener, *self._open):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # has ended already
                one.close()
            self._listener, self._open = None, []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(ENGINE)
            self._open += [client, engine]
            for source, target in ((client, engine), (engine, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy what comes; the other direction may go on after one has ended, as that of a container's output does."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

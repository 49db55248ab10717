"""A Docker engine's answers to questions, on a socket of this machine; it runs no containers."""

import base64
import http.server
import io
import json
import pathlib
import re
import socketserver
import tarfile
import tempfile
import threading
import time
import urllib.parse

import pytest


class EngineServer(socketserver.ThreadingUnixStreamServer):
    """What it has is set, what it was asked is kept in `requests`: (method, path, query)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder=None):
        self._folder = tempfile.TemporaryDirectory(prefix="engine-", dir=folder)  # short, as a socket's path must be
        self.path = pathlib.Path(self._folder.name) / "s"
        super().__init__(str(self.path), _Handler)
        self.address = f"unix://{self.path}"
        self.requests = []
        self.is_("DockerEngine", "28.2.2")
        self.images = {}  # name or id: what `inspect` says
        self.containers = {}
        self.files = {}  # of an image, by its id: what each file holds
        self.refusals = {}  # (method, path): (status, message)
        self.seconds = 0  # before each answer
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def is_(self, name, version, options=("name=seccomp,profile=default",), memory=8 << 30, cpus=2):
        component = {"Name": name, "Version": version}
        self.version = {"ApiVersion": "1.41", "Version": version, "Components": [component]}
        self.info = {"SecurityOptions": list(options), "MemTotal": memory, "NCPU": cpus, "CpuCfsQuota": True}

    def has(self, name, labels, size=7, created="2020-01-02T03:04:05.678Z", tags=None):
        facts = {"Id": "sha256:" + name, "RepoTags": [name] if tags is None else tags, "Size": size}
        self.images[name] = {**facts, "Created": created, "Config": {"Labels": labels}}

    def keeps(self, name, path, text):
        """Let the image of a name hold a file."""
        self.files[self.images[name]["Id"], path] = text.encode()

    def asked(self, method):
        return [(path, query) for verb, path, query in self.requests if verb == method]

    def close(self):
        self.shutdown()
        self.server_close()
        self._folder.cleanup()

    def archive(self, image, path):
        held = self.files.get((image, path))
        if held is None:
            return 404, {"message": f"Could not find the file {path}"}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo(pathlib.PurePosixPath(path).name)
            member.size = len(held)
            archive.addfile(member, io.BytesIO(held))
        return 200, packed.getvalue()

    def answer(self, method, path, query, body=b""):
        """Return (status, value)."""
        if (method, path) in self.refusals:
            status, message = self.refusals[method, path]
            return status, {"message": message}
        if path in ("/version", "/info"):
            return 200, getattr(self, path[1:])
        if path == "/images/json":
            listed = {facts["Id"]: facts for facts in self.images.values()}.values()
            return 200, [{**f, "Created": 1577934245, "Labels": f["Config"]["Labels"]} for f in listed]
        if path == "/containers/json":
            return 200, [{"Id": name} for name in self.containers]
        if path == "/containers/create":
            made = f"look-{len(self.requests)}"
            self.containers[made] = {"Image": json.loads(body)["Image"]}
            return 201, {"Id": made}
        if path.endswith("/archive"):
            return self.archive(self.containers[path.split("/")[2]]["Image"], query["path"])
        kind, name = re.fullmatch(r"/(images|containers)/(.+?)(?:/json)?", path).groups()
        known = getattr(self, kind)
        if name not in known:
            return 404, {"message": f"No such {kind[:-1]}: {name}"}
        if method == "DELETE":
            del known[name]
            return 200, []
        return 200, known[name]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(re.sub(r"^/v[\d.]+", "", url.path))
        query = dict(urllib.parse.parse_qsl(url.query))
        self.server.requests.append((self.command, path, query))
        time.sleep(self.server.seconds)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, value = self.server.answer(self.command, path, query, sent)
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        try:
            self.send_response(status)
            if isinstance(value, bytes):
                self.send_header("X-Docker-Container-Path-Stat", base64.b64encode(b"{}").decode())
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # nobody waits for it any more

    do_POST = do_GET  # noqa: N815 - its name is the method's
    do_DELETE = do_GET  # noqa: N815 - its name is the method's

    def log_message(self, *args):
        pass

    def address_string(self):
        return "engine"


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Return an engine for DOCKER_HOST, with a `docker` on PATH, that nobody calls here."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    found = EngineServer()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", found.address)
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    yield found
    found.close()

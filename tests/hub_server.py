"""A model hub on this machine: its addresses, its headers, and what may go wrong with it."""

import hashlib
import http.server
import threading

COMMIT = "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5"
CONFIG, MODEL = b'{"model_type": "mert_model"}', bytes(range(251)) * 9000
FILES = {"config.json": CONFIG, "pytorch_model.bin": MODEL, "sub/more.json": b"{}"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Server:
    """Two servers: the hub, which answers for small files itself, and where it keeps large ones."""

    def __init__(self):
        self.files = dict(FILES)
        self.requests = []  # (server, method, path, headers)
        self.cut = 0  # how many answers break off in the middle
        self.status = None  # what the hub answers to everything
        self.lie = False  # large files are not what the hub says of them
        self.renamed = False
        self.ranges = True
        self.store = self._start("store")
        self.hub = self._start("hub")
        self.endpoint = f"http://127.0.0.1:{self.hub.server_port}"

    def _start(self, name):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                outer.requests.append((name, self.command, self.path, dict(self.headers)))
                (outer.answer_hub if name == "hub" else outer.answer_store)(self)

            do_GET = do_HEAD  # noqa: N815 - the name that http.server calls

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def answer_hub(self, request):
        organisation, name, _, revision, file = request.path[1:].split("/", 4)
        if self.status or file not in self.files:
            return self._send(request, self.status or 404, b"")
        headers = {"X-Repo-Commit": COMMIT}
        if self.renamed and name == "MERT-v1-95M":
            return self._send(request, 307, b"", {"Location": f"/{organisation}/new-name/resolve/{revision}/{file}"})
        content = self.files[file]
        if not file.endswith(".bin"):
            return self._send(request, 200, content, {**headers, "ETag": f'"{git_blob(content)}"'})
        stated = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        place = f"http://localhost:{self.store.server_port}/{file}"
        return self._send(request, 302, b"", {**headers, **stated, "Location": place})

    def answer_store(self, request):
        content = self.files[request.path[1:]]
        self._send(request, 200, content[::-1] if self.lie else content)

    def _send(self, request, status, content, headers=None):
        begin = request.headers.get("Range")
        total = len(content)
        if status == 200 and begin and self.ranges:
            start = int(begin.partition("=")[2].rstrip("-"))
            content, status = content[start:], 206
            headers = {**(headers or {}), "Content-Range": f"bytes {start}-{total - 1}/{total}"}
        request.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET" and content:
            if self.cut > 0 and len(content) > 100:
                self.cut -= 1
                request.wfile.write(content[: len(content) // 2])
                request.connection.close()
            else:
                request.wfile.write(content)

    def count(self, method, server="store"):
        return sum((name, one) == (server, method) for name, one, _, _ in self.requests)

    def close(self):
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()

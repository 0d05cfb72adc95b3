"""Download files over HTTP: resumed, bounded in size, checked, and never from private addresses unless allowed."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import httpx
from hy_core.errors import HyError

from hy_data.recipe import SourceOptions
from hy_data.sources.files import content_hash

_MOST_REDIRECTS = 5
_ATTEMPTS = 3
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def download(url: str, folder: Path, options: SourceOptions, sha256: str | None = None) -> Path:
    """Download a file into a folder, unless it is there, and return its path, whose name is a hash of the address.

    A download that was stopped resumes if the server can. `HyError` for what can't be had, is over the limit, has
    another SHA-256, or comes from a private address.
    """
    target = downloaded(url, folder)
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{target.stem}.part"
        for attempt in range(_ATTEMPTS):
            try:
                _fetch(url, part, options)
                break
            except (httpx.TransportError, OSError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise HyError(f"{url}: {str(error) or type(error).__name__}") from error
            except (httpx.InvalidURL, ValueError) as error:
                raise HyError(f"{url[:200]} is not an address ({error})") from error
        os.replace(part, target)
    if sha256 is not None and (found := content_hash(target)) != sha256:
        target.unlink()
        raise HyError(f"{url}: its SHA-256 is {found[:16]}..., not {sha256[:16]}...")
    return target


def downloaded(url: str, folder: Path) -> Path:
    """Return where the file of an address is downloaded to."""
    name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    try:
        suffix = _SUFFIX.fullmatch(Path(unquote(urlsplit(url).path)).suffix)
    except ValueError:
        suffix = None
    return folder / (name + (suffix[0].lower() if suffix else ""))


def _fetch(url: str, part: Path, options: SourceOptions) -> None:
    most = int(options.max_download_gb * 1e9)
    with httpx.Client(timeout=options.timeout, follow_redirects=False) as client:
        for _ in range(_MOST_REDIRECTS + 1):
            if not options.allow_private_addresses:
                _check_address(url)
            have = part.stat().st_size if part.exists() else 0
            headers = {"Range": f"bytes={have}-"} if have else {}
            # Bytes as they are: a range of a compressed body can't be resumed.
            with client.stream("GET", url, headers={**headers, "Accept-Encoding": "identity"}) as answer:
                if not options.allow_private_addresses:
                    _check_peer(url, answer)
                if answer.is_redirect:
                    url = urljoin(url, answer.headers["location"])
                    continue
                if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                    if answer.headers.get("content-range") == f"bytes */{have}":
                        return
                    part.unlink()
                    raise OSError("the file has changed; begin again")
                if answer.status_code not in (200, 206):
                    raise HyError(f"{url}: the server says {answer.status_code} {answer.reason_phrase}")
                resumed = answer.status_code == 206 and answer.headers.get("content-range", "").startswith(
                    f"bytes {have}-"
                )
                _write(url, answer, part, have if resumed else 0, most)
                return
    raise HyError(f"{url}: more than {_MOST_REDIRECTS} redirects")


def _write(url: str, answer: Any, part: Path, have: int, most: int) -> None:
    stated = answer.headers.get("content-length", "")
    wanted = have + int(stated) if stated.isdigit() else None
    limit = f"{url} is over {most / 1e9:g} GB"
    if wanted is not None and wanted > most:
        raise HyError(limit, "raise source.max_download_gb")
    with part.open("ab" if have else "wb") as file:
        for block in answer.iter_raw():
            have += len(block)
            if have > most:
                raise HyError(limit, "raise source.max_download_gb")
            file.write(block)
    if wanted is not None and have != wanted:
        raise OSError(f"{have} of {wanted} bytes came")


def _check_address(url: str) -> None:
    """Refuse names that lead to private addresses, before anything is asked of them."""
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise HyError(f"{url[:200]}: only http and https addresses are read")
    if _has_proxy(url):
        return
    for *_, place in socket.getaddrinfo(split.hostname, split.port or 443, type=socket.SOCK_STREAM):
        _check_public(url, str(place[0]))


def _check_peer(url: str, answer: Any) -> None:
    """Refuse an answer from a private address: a name may lead elsewhere than a moment ago."""
    stream = answer.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer and not _has_proxy(url):
        _check_public(url, str(peer[0]))


def _check_public(url: str, address: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise HyError(
            f"{url}: {address} is a private address", "set source.allow_private_addresses=true to read it"
        )


def _has_proxy(url: str) -> bool:
    split = urlsplit(url)
    proxied = split.scheme in urllib.request.getproxies()
    return proxied and not urllib.request.proxy_bypass(split.hostname or "")

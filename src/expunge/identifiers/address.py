"""Which addresses may be asked, and whose key is whose."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from expunge.errors import MethodError
from expunge.identifiers.finding import IdentifierError

OPENAI = "api.openai.com"


@dataclass(frozen=True)
class Address:
    """A base URL that may be asked. `site` is all of it that is ever shown; `local` if it is this machine."""

    url: str
    site: str
    host: str
    local: bool


def address(base_url: str, insecure: bool) -> Address:
    """The address, if texts may be sent there: https, or this machine; plain http elsewhere only if `insecure`.

    Addresses that name no real host (link-local, such as a cloud's metadata service) are never asked.
    """
    parts, site = well_formed(base_url)
    host = parts.hostname or ""
    found = _resolved(host, parts.port or (443 if parts.scheme == "https" else 80))
    if any(ip.is_link_local or ip.is_multicast or ip.is_unspecified for ip in found):
        raise IdentifierError(f"base_url {site} leads to a link-local or unspecified address, which is never asked.")
    local = bool(found) and all(ip.is_loopback for ip in found)
    if parts.scheme == "http" and not local and not insecure:
        raise IdentifierError(
            f"base_url {site} would send the texts and the key unencrypted to another machine. "
            "Use https, or set insecure=true if you trust every network on the way."
        )
    return Address(base_url.rstrip("/"), site, host, local)


def well_formed(base_url: str) -> tuple[SplitResult, str]:
    """The parts of a URL and the part of it that may be shown; IdentifierError unless it is a bare web address."""
    try:
        parts = urlsplit(base_url)
        site = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        raise IdentifierError("base_url is no web address. Write one such as http://127.0.0.1:8000/v1.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise IdentifierError(f"base_url '{site}' is no web address. Write one such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise IdentifierError(
            f"base_url of {site} holds a user name, a password, a query or a fragment. Give the address alone; "
            "the key comes from the environment variable that key_env names."
        )
    return parts, site


def require_name(key_env: str) -> None:
    """MethodError unless this may be the name of an environment variable; what was given is not repeated."""
    if key_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key_env):
        raise MethodError(
            "key_env must be the NAME of an environment variable, in capitals, such as MY_KEY; what was given is not "
            "one (and is not repeated here, in case it is the key)."
        )


def key_from_environment(name: str, at: Address) -> SecretStr | None:
    """The key that the environment variable `name` holds; without a name, OPENAI_API_KEY, for OpenAI's host alone."""
    wanted = name or ("OPENAI_API_KEY" if at.host == OPENAI else "")
    if not wanted:
        return None
    value = os.environ.get(wanted, "").strip()
    if not value:
        raise IdentifierError(
            f"{at.site} needs a key, and the environment variable '{wanted}' is not set. Set it, or name another "
            "by key_env=NAME (the name, never the key itself)."
        )
    return SecretStr(value)


def _resolved(host: str, port: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of a host; none if it cannot be resolved here (a proxy may)."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    found = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
    return [getattr(ip, "ipv4_mapped", None) or ip for ip in found]

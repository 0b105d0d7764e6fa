"""Finds the HTTP proxy through which an address is reached, as HTTPS_PROXY and NO_PROXY say."""

from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from wal_pipeline.errors import SettingsError


def proxy_for(url: str, https_proxy: str, no_proxy: str) -> str | None:
    """Return the proxy through which ``url`` is reached; an empty text for none, None where no proxy is set.

    Raises: SettingsError where ``https_proxy`` is no proxy's address; its text shows no part of it.
    """
    given = https_proxy.strip()
    if not given:
        return None
    # As urllib and libcurl read NO_PROXY: names with what ends in them, with a port or without, and '*'.
    listed = {"no": ",".join(no_proxy.replace(",", " ").split())}
    if proxy_bypass_environment(urlsplit(url).netloc.rpartition("@")[2], listed):
        return ""
    proxy = given if "://" in given else f"http://{given}"
    if not _is_http(proxy):
        raise SettingsError(
            "HTTPS_PROXY cannot be used: it is no address such as http://proxy.example:3128",
            hint="Name an HTTP proxy that knows CONNECT, or name the stores' hosts in NO_PROXY.",
        )
    return proxy


def _is_http(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half of an IPv6 address
        return False

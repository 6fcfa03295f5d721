"""Who may read and act: the address that is listened on, the host that is asked for, forged forms.

Flower checks no form where no login is set. A page that anybody's browser can open on loopback is
still open to every site that this browser visits, so ours are checked always.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from batchq.errors import UsageError

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

TOKEN_HEADER = "X-Batchq-Action"  # noqa: S105 (no secret: a site elsewhere cannot send a header)
_LOCAL_NAMES = ("localhost", "localhost.localdomain")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address; the empty one is every address."""
    if address in _LOCAL_NAMES or address.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def require_safe_address(address: str, *, has_login: bool, how: str) -> None:
    """Raises UsageError for an address that others reach where nobody has to log in."""
    if not has_login and not is_loopback(address):
        raise UsageError(
            f"--address {address or '(all)'}: others would reach it, and everybody who does could "
            f"cancel runs. Set a login ({how}), or stay on 127.0.0.1"
        )


def is_known_host(host: str) -> bool:
    """Whether a request without a login names this machine.

    Another name that leads here is how a site on the internet reads what is on loopback.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)


def is_same_site(host: str, fetch_site: str | None, origin: str | None) -> bool:
    """Whether a form comes from a page of ours, as far as the browser says."""
    if fetch_site is not None:
        return fetch_site == "same-origin"
    if origin is None:  # no browser, or an old one: the token decides
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False

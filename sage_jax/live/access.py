"""Who may talk to the server: the page that it served, under its own name, with its token."""

import hmac
import ipaddress
import re
import secrets
from urllib.parse import urlsplit

from sage_jax.errors import UserError

NAMED_HOST = re.compile(r"[A-Za-z0-9._\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address that a server binds is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """The rules for requests to a server on the address `host`.

    A server on a loopback address needs no token, and answers to loopback names only: a site whose name suddenly leads to
    127.0.0.1 (DNS rebinding) sends its own name. Any other server has a random token as the first part of its path. Where
    a browser names the site that a request comes from, that site must be the server itself.
    """

    def __init__(self, host: str, token: str | None = None):
        self.is_local = is_loopback(host)
        self.host = host.strip("[]")
        self.token = token if token is not None else ("" if self.is_local else secrets.token_urlsafe(16))
        if not self.is_local and len(self.token) < 16:
            raise UserError(f"the token for --host={host} has {len(self.token)} characters; give at least 16")

    @property
    def prefix(self) -> str:
        """What every path begins with: "/", or "/TOKEN/"."""
        return f"/{self.token}/" if self.token else "/"

    def inner_path(self, path: str) -> str | None:
        """`path` after the prefix; None if the token is missing or wrong, which takes the same time for any wrong token."""
        if not self.token:
            return path.removeprefix("/")
        given, _, rest = path.removeprefix("/").partition("/")
        return rest if hmac.compare_digest(given.encode(), self.token.encode()) else None

    def refusal(self, host: str | None, origin: str | None) -> str | None:
        """Why a request with these headers is refused, in one line; None if it is not. origin: None without the header."""
        if host is None or not NAMED_HOST.fullmatch(host):
            return "the request names no host"
        try:
            name, site = urlsplit(f"//{host}").hostname, None if origin is None else urlsplit(origin).netloc
        except ValueError:  # brackets that hold no address
            return "the request names no host"
        if self.is_local and name not in (*LOOPBACK_NAMES, self.host.lower()):
            return "this server answers to local names only; open it as http://127.0.0.1"
        if site is not None and site.lower() != host.lower():
            return "requests of other sites are refused"
        return None

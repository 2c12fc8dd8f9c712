"""Who may talk to the server: the browser that was given the address with its token, from the page itself."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Checks the name that was called, where a request comes from, and that it carries the secret.

    The token stands in the address that is printed; whoever opens it gets another secret as a cookie that scripts
    cannot read and other sites cannot send. Checking the name keeps out pages whose own name was pointed at this
    machine (DNS rebinding); checking the origin, those of other servers on it, which share its cookies.
    """

    def __init__(self, port: int) -> None:
        """Args: the port that is listened to."""
        self.token = secrets.token_urlsafe(32)
        self._secret = secrets.token_urlsafe(32)
        self._hosts = {f"{name}:{port}" for name in LOOPBACK_NAMES} | (set(LOOPBACK_NAMES) if port == 80 else set())
        # Cookies do not know ports: another review on this machine has one of its own.
        self._cookie = f"tai-review-{port}"

    @property
    def cookie(self) -> str:
        """The value of the header that sets the cookie."""
        return f"{self._cookie}={self._secret}; Path=/; HttpOnly; SameSite=Strict"

    def is_token(self, token: str) -> bool:
        """Whether the address was opened that was printed."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def refusal(self, method: str, headers: Mapping[str, str], *, with_token: bool) -> tuple[int, str] | None:
        """The status and the sentence with which a request is refused; None if it may pass.

        Args:
            method: of the request.
            headers: by lower-case name.
            with_token: whether it carries the right token, in place of the cookie.
        """
        host = headers.get("host", "")
        if host not in self._hosts:
            return 403, (
                "This page answers on this machine alone, under the port that it was started with. Through a tunnel, "
                "use the same port number at both ends."
            )
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "This request comes from another page."
        if method not in ("GET", "HEAD") and origin is None:
            return 403, "This request does not say which page it comes from."
        if with_token:
            return None
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "This request comes from another page."
        if not self._has_cookie(headers.get("cookie", "")):
            return 403, "Open the address that `tai review` printed when it was started; each start has a new one."
        return None

    def _has_cookie(self, text: str) -> bool:
        try:
            morsel = SimpleCookie(text).get(self._cookie)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self._secret.encode())

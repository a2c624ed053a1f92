"""Who may ask, and how much: API keys, pages of other sites, and the size of a request's body. Plain ASGI."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What orchestrators and load balancers ask without a key; it tells nothing of any content.
OPEN_PATHS = frozenset({"/health", "/ready"})


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Refuses who brings no key, and browsers that another site sends.

    keys: any of them opens, as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Without keys the server is for this
    machine alone: a `Host` that is not loopback's is then refused too, because a web page whose name was made to point
    here (DNS rebinding) would bear one.
    """

    def __init__(self, app: ASGIApp, keys: Collection[str]) -> None:
        self.app = app
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await _answer(send, *refusal)

    def _refusal(self, headers: Mapping[str, bytes]) -> tuple[int, str] | None:
        host = headers.get("host", b"").decode("latin-1")
        origin = headers.get("origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return 403, "requests from pages of other sites are refused"
        if not self.keys:
            name = urlsplit(f"//{host}").hostname or ""
            return None if is_loopback(name) else (403, "this server answers its own machine alone: use 127.0.0.1")
        scheme, _, bearer = headers.get("authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get("x-api-key", b"")
        # All are compared, each in constant time: how long it takes tells nothing about a key.
        equal = [hmac.compare_digest(given, key) for key in self.keys]
        if any(equal):
            return None
        return 401, "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"


class BodyLimit:
    """Refuses bodies of more than `most` bytes, by what they say and by what they are."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self.most:
            await self._refuse(send)
            return
        taken, answered, refused = 0, False, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal answered, refused
            if taken > self.most and not answered:
                # Whoever read the body may have made an answer of its own of the error.
                if not refused:
                    refused = True
                    await self._refuse(send)
                return
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _TooLarge:
            if answered:
                raise
            if not refused:
                await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        await _answer(send, 413, f"the body is larger than {self.most} bytes (FINGERPRINT_MAX_UPLOAD_BYTES)")


class _TooLarge(Exception):
    pass


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": {"stage": "request", "reason": reason, "retryable": False}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))  # The rest of the body is not read.
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

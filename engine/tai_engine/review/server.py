"""The server of the page; all that it reads lies under ``/data/``, as in the folder that `tai report` writes."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.review import page_data
from tai_engine.review.collection import NotShownError
from tai_engine.review.guard import HEADERS, Guard
from tai_engine.review.journal import ConflictError
from tai_engine.review.page import page_html
from tai_engine.review.session import ReviewSession
from tai_engine.review.thumbnails import Thumbnails

if TYPE_CHECKING:
    from tai_engine.review.heatmaps import Heatmaps  # loads a deep learning library, which few pages need

MAX_REQUEST_BYTES = 64 * 2**20
"""A larger decision is refused; one for 100,000 pictures has a few megabytes."""

_log = logging.getLogger(__name__)


def review_app(
    session: ReviewSession, thumbnails: Thumbnails, guard: Guard, *, title: str, heatmaps: Heatmaps | None = None
) -> ASGIApp:
    """The application that serves one review.

    Args:
        session: the decisions.
        thumbnails: the pictures.
        guard: who may talk to it.
        title: of the page.
        heatmaps: of tags, where there are features.
    """
    collection = session.collection
    facts = {
        **page_data.facts(collection, title),
        "mode": "live",
        "freeWords": session.free_words,
        "heatmaps": [] if heatmaps is None else heatmaps.tags,
    }

    async def page(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:  # the guard has looked at it
            return RedirectResponse("/", 303, {"Set-Cookie": guard.cookie, "Cache-Control": "no-store"})
        return Response(page_html("live"), media_type="text/html", headers={"Cache-Control": "no-store"})

    async def asset(request: Request) -> Response:
        # A name, never a path; what is not among the package's own files is not there.
        name = request.path_params["name"]
        files = await run_in_threadpool(lambda: {file.name: file for file in page_data.STATIC.iterdir()})
        if name not in files or name == page_data.PAGE:
            raise HTTPException(404)
        kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
        data = await run_in_threadpool(files[name].read_bytes)
        return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def read_facts(_: Request) -> Response:
        return _json(facts)

    async def read_columns(_: Request) -> Response:
        data = await run_in_threadpool(page_data.columns, collection)
        return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    async def read_rows(request: Request) -> Response:
        try:
            return _json(await run_in_threadpool(page_data.rows, collection, request.path_params["chunk"]))
        except IndexError as error:
            raise HTTPException(404) from error

    async def read_decisions(_: Request) -> Response:
        return _json(await run_in_threadpool(session.snapshot))

    async def read_changes(request: Request) -> Response:
        try:
            revision = int(request.query_params.get("since", ""))
        except ValueError as error:
            raise HTTPException(400, "since must be a revision") from error
        return _json(await run_in_threadpool(session.since, revision))

    async def read_thumbnail(request: Request) -> Response:
        return await _picture(request, thumbnails.thumbnail)

    async def read_picture(request: Request) -> Response:
        return await _picture(request, thumbnails.large_view)

    async def _picture(request: Request, make: Callable[[int], Awaitable[bytes]]) -> Response:
        number = _number(request)
        try:
            data = await make(number)
        except NotShownError as error:
            return _error(404, str(error))
        except asyncio.CancelledError:
            return _error(503, "the server is being ended")
        # The version in the address is that of the tags; a picture that changes meanwhile is seen after an hour.
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def read_heatmap(request: Request) -> Response:
        number = _number(request)
        query = request.query_params
        if heatmaps is None:
            raise HTTPException(404, "there are no features: give --store")
        try:
            size = int(query.get("width", "")), int(query.get("height", ""))
        except ValueError as error:
            raise HTTPException(400, "width and height must be numbers") from error
        if min(size) < 1:
            raise HTTPException(400, "width and height must be above 0")
        try:
            return _json(
                await run_in_threadpool(heatmaps.of, collection.ids[number].as_py(), query.get("tag", ""), size)
            )
        except UserError as error:
            return _error(404, str(error))

    def _number(request: Request) -> int:
        number: int = request.path_params["number"]
        if number >= len(collection):
            raise HTTPException(404)
        return number

    def change(act: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await _body(request)
            try:
                return _json(await run_in_threadpool(act, body))
            except ConflictError:
                return _error(409, "this has been changed in another tab meanwhile; look, and do it again")
            except UserError as error:
                return _error(507, str(error))
            except ValueError as error:
                return _error(400, str(error))

        return endpoint

    routes = [
        Route("/", page),
        Route("/assets/{name}", asset),
        Route("/data/facts.json", read_facts),
        Route("/data/columns.bin", read_columns),
        Route("/data/rows/{chunk:int}.json", read_rows),
        Route("/data/decisions.json", read_decisions),
        Route("/data/changes.json", read_changes),
        Route("/data/thumbnails/{number:int}.jpg", read_thumbnail),
        Route("/data/pictures/{number:int}.jpg", read_picture),
        Route("/data/heatmaps/{number:int}.json", read_heatmap),
        Route("/data/decide", change(session.decide), methods=["POST"]),
        Route("/data/undo", change(session.undo), methods=["POST"]),
        Route("/data/redo", change(session.redo), methods=["POST"]),
        Route("/data/favourites", change(session.choose_favourites), methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _unexpected})
    return _Guarded(app, guard)


class _Guarded:
    """Refuses before anything else sees a request, and gives every answer the headers that keep the page shut."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        request = Request(scope)
        headers = Headers(scope=scope)
        token = request.query_params.get("token") if scope["path"] == "/" else None
        refusal = self._guard.refusal(
            scope["method"], headers, with_token=token is not None and self._guard.is_token(token)
        )
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the content must be application/json")
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MAX_REQUEST_BYTES:
                raise HTTPException(413, "the request is too large")
            parts.append(part)
    except ClientDisconnect as error:
        raise HTTPException(400, "the request was cut off") from error
    try:
        body = parse_json(b"".join(parts))
    except ValueError as error:
        raise HTTPException(400, "the content is no JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the content must be an object")
    return body


def _json(value: Any) -> Response:
    return Response(page_data.to_json(value), media_type="application/json", headers={"Cache-Control": "no-store"})


def _error(status: int, sentence: str) -> Response:
    return Response(page_data.to_json({"error": sentence}), status, {"Cache-Control": "no-store"}, "application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _error(500, "something unexpected went wrong; the terminal of `tai review` says what")

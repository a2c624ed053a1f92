"""The routes of the HTTP API. Everything they answer comes from one `FingerprintService`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from fingerprint_dagster.api import bodies
from fingerprint_dagster.api.access import Access, BodyLimit
from fingerprint_dagster.api.metrics import Metrics
from fingerprint_dagster.errors import ContentError, FingerprintError, UsageError
from fingerprint_dagster.service import FingerprintResult, FingerprintService
from fingerprint_dagster.settings import Settings

log = logging.getLogger("fingerprint_dagster.api")

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": bodies.Refusal, "description": "The request cannot be understood."},
    401: {"model": bodies.Refusal, "description": "A key is needed."},
    403: {"model": bodies.Refusal, "description": "From a page of another site, or not for this server."},
    413: {"model": bodies.Refusal, "description": "More bytes or items than this server takes."},
    422: {"model": bodies.Refusal, "description": "The content cannot be fingerprinted, or a field is wrong."},
    503: {"model": bodies.Refusal, "description": "Too much is waiting; try again."},
}
_CLOSED: dict[int | str, dict[str, Any]] = {code: _REFUSALS[code] for code in (401, 403)}
_RETRY_AFTER_SECONDS = "2"
_UPLOAD_NAME = "upload"

Call = Callable[[Request], Awaitable[Response]]
ContentFile = Annotated[UploadFile, File(description="the content's bytes")]
ContentTypeField = Annotated[bodies.Short | None, Form(description="by default the bytes decide")]


def create_app(settings: Settings, service: FingerprintService | None = None) -> FastAPI:
    """The application, for any ASGI server.

    service: by default one of its own; it is closed when the server stops. A server that others than this machine can
    reach must have `api_keys`: whoever binds it checks that, as `server.run` does.
    """
    service = service or FingerprintService(for_others(settings))
    metrics = Metrics(service)
    gate = _Gate(settings.max_waiting)
    uploads = asyncio.Semaphore(max(1, settings.max_uploads_in_memory))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(_load(app, service))
        try:
            yield
        finally:
            loading.cancel()
            await service.close()

    app = FastAPI(
        title="fingerprint_dagster",
        version=version("fingerprint-dagster"),
        description="What is a copy of what, where, and how sure: images, audio, video and text.",
        lifespan=life,
    )
    app.state.device = None
    app.state.problem = None

    # ------------------------------------------------------------------ fingerprints

    @app.post("/v1/fingerprints", tags=["fingerprints"], responses=_REFUSALS)
    async def fingerprint(body: bodies.FingerprintRequest) -> bodies.FingerprintAnswer:
        """Fingerprint one content that the server fetches."""
        async with gate:
            result = await service.generate_fingerprint(
                body.url,
                body.content_type,
                body.use_cache,
                store=body.store,
                content_id=body.content_id,
                metadata=body.metadata,
            )
        return _answer(result, record=body.record)

    @app.post("/v1/fingerprints/upload", tags=["fingerprints"], responses=_REFUSALS)
    async def fingerprint_upload(
        file: ContentFile,
        content_type: ContentTypeField = None,
        store: Annotated[bool, Form()] = True,
        content_id: Annotated[bodies.Short | None, Form()] = None,
        record: Annotated[bool, Form()] = False,
    ) -> bodies.FingerprintAnswer:
        """Fingerprint the bytes of an uploaded file."""
        async with gate, uploads:
            result = await service.generate_fingerprint(
                file.filename or _UPLOAD_NAME,
                content_type,
                data=await file.read(),
                store=store,
                content_id=content_id,
            )
        return _answer(result, record=record)

    @app.post(
        "/v1/fingerprints/batch",
        tags=["fingerprints"],
        responses=_REFUSALS | {200: {"content": {"application/x-ndjson": {}}}},
        response_model=bodies.BatchAnswer,
    )
    async def batch(body: bodies.BatchRequest, request: Request) -> Response:
        """Fingerprint many contents; what fails says why, and never fails the others.

        With `Accept: application/x-ndjson` each result is a line, sent when it is ready, in the order of the items.
        """
        if len(body.items) > settings.max_batch_items:
            raise HTTPException(413, f"at most {settings.max_batch_items} items at once (FINGERPRINT_MAX_BATCH_ITEMS)")
        items = [(item.url, item.content_type) for item in body.items]
        results = service.stream_fingerprints(items, body.use_cache, store=body.store, records=False)
        if "application/x-ndjson" in request.headers.get("accept", ""):
            return StreamingResponse(_lines(results, gate), media_type="application/x-ndjson")
        async with gate:
            answers = [_answer(result) async for result in results]
        failed = sum(answer.error is not None for answer in answers)
        return JSONResponse(bodies.BatchAnswer(results=answers, failed=failed).model_dump())

    # ------------------------------------------------------------------ copies

    @app.post("/v1/search", tags=["search"], responses=_REFUSALS)
    async def search(body: bodies.SearchRequest) -> bodies.SearchAnswer:
        """What a content that the server fetches is a copy of."""
        async with gate:
            found = await service.search(body.url, body.content_type, body.top)
        return bodies.SearchAnswer.model_validate(found.to_dict())

    @app.post("/v1/search/upload", tags=["search"], responses=_REFUSALS)
    async def search_upload(
        file: ContentFile,
        content_type: ContentTypeField = None,
        top: Annotated[int, Form(ge=1, le=1000)] = 10,
    ) -> bodies.SearchAnswer:
        """What an uploaded file is a copy of."""
        async with gate, uploads:
            found = await service.search(file.filename or _UPLOAD_NAME, content_type, top, data=await file.read())
        return bodies.SearchAnswer.model_validate(found.to_dict())

    # ------------------------------------------------------------------ cache and state

    @app.get("/v1/cache", tags=["state"], responses=_CLOSED)
    async def cache() -> dict[str, Any]:
        """What the caches hold and how often they helped, where models run, and how the store is doing."""
        return service.get_cache_stats()

    @app.delete("/v1/cache", tags=["state"], responses=_CLOSED)
    async def clear_cache() -> bodies.Cleared:
        """Forget the answers in memory. Fingerprints in the store stay."""
        return bodies.Cleared(removed=service.clear_cache())

    @app.get("/health", tags=["state"])
    async def health() -> bodies.State:
        """Whether the server lives."""
        return bodies.State(status="alive", device=app.state.device)

    @app.get("/ready", tags=["state"], responses={503: {"model": bodies.State, "description": "Not yet, or broken."}})
    async def ready(response: Response) -> bodies.State:
        """Whether the models are loaded, so that answers come at once."""
        if app.state.device is None:
            response.status_code = 503
            return bodies.State(status=app.state.problem or "loading the models")
        return bodies.State(status="ready", device=app.state.device)

    @app.get(
        "/metrics",
        tags=["state"],
        response_class=Response,
        responses=_CLOSED | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics_text() -> Response:
        """Counts and times, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # ------------------------------------------------------------------ around every request

    @app.middleware("http")
    async def measured(request: Request, call: Call) -> Response:
        started = time.perf_counter()
        status = 500
        try:
            response = await call(request)
            status = response.status_code
            return response
        finally:
            route = request.scope.get("route")
            path = getattr(route, "path", "other")
            metrics.requests.labels(path, str(status)).inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - started)

    app.add_middleware(BodyLimit, most=settings.max_upload_bytes)
    app.add_middleware(Access, keys=settings.api_keys)
    _answer_errors(app)
    return app


def for_others(settings: Settings) -> Settings:
    """The settings of a service that other people ask: of the server's files only those in the allowed folders, and
    where none are named, in the folder `public` of the home."""
    if settings.allowed_folders:
        return settings
    return settings.model_copy(update={"allowed_folders": (settings.home / "public",)})


async def _load(app: FastAPI, service: FingerprintService) -> None:
    try:
        app.state.device = str((await service.load_models())["device"])
    except Exception as error:
        app.state.problem = f"the models cannot be loaded: {error}"
        log.exception("the models cannot be loaded")


class _Gate:
    """Lets so many requests wait or be worked on at once; more are told to come back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0

    async def __aenter__(self) -> None:
        if self.inside >= self.most:
            raise HTTPException(
                503, f"{self.inside} requests are waiting; try again", {"retry-after": _RETRY_AFTER_SECONDS}
            )
        self.inside += 1

    async def __aexit__(self, *_: object) -> None:
        self.inside -= 1


def _answer(result: FingerprintResult, *, record: bool = False) -> bodies.FingerprintAnswer:
    return bodies.FingerprintAnswer(**result.to_dict(record=record), codes=result.codes)


async def _lines(results: AsyncIterator[FingerprintResult], gate: _Gate) -> AsyncIterator[str]:
    async with gate:
        async for result in results:
            yield _answer(result).model_dump_json() + "\n"


def _answer_errors(app: FastAPI) -> None:
    """Every error is the same JSON: stage, reason, and whether a retry can help."""

    def refused(status: int, reason: str, stage: str | None = "request", retryable: bool = False) -> JSONResponse:
        headers = {"retry-after": _RETRY_AFTER_SECONDS} if status == 503 else None
        error = {"stage": stage, "reason": reason, "retryable": retryable}
        return JSONResponse({"error": error}, status, headers)

    @app.exception_handler(ContentError)
    async def content(request: Request, error: ContentError) -> Response:
        return refused(422, error.reason, error.stage, error.retryable)

    @app.exception_handler(UsageError)
    async def usage(request: Request, error: UsageError) -> Response:
        return refused(400, str(error))

    @app.exception_handler(FingerprintError)
    async def ours(request: Request, error: FingerprintError) -> Response:
        log.error("a request failed: %s", error)
        return refused(503, str(error), "service", retryable=True)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        reasons = [f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in error.errors()]
        return refused(422, "; ".join(reasons[:10]))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        answer = refused(error.status_code, error.detail, retryable=error.status_code == 503)
        answer.headers.update(error.headers or {})
        return answer

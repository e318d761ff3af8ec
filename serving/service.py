"""The HTTP service: scores and lists under `/v1`; health, metrics and the API's description from BentoML."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import bentoml
import numpy as np
import pandas as pd
from fastapi import FastAPI, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from features import online, retrieval
from features.online import FeatureMismatch, Publication
from perennial import privacy, registry, settings, storage
from perennial.settings import SettingsError, Workspace
from perennial.storage import CheckFailed
from serving import lists
from serving import privacy as privacy_routes
from serving.access import AsAsked, ByRoute, Gate, Guard, Refusal, Refused, allowed
from serving.consent import Consents, apply_profiling
from serving.keys import Keys
from serving.predictor import NoChampion, Predictor
from serving.reasons import reasons

if TYPE_CHECKING:
    from feast import FeatureStore
    from numpy.typing import NDArray
    from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger("bentoml.perennial")

HOME_VARIABLE = "PERENNIAL_HOME"
# How often a service that cannot answer yet looks for what it lacks, and what it tells callers to wait.
RETRY_SECONDS = 3
_SHUTDOWN_SECONDS = 5


class NotPublished(RuntimeError):
    """There are champions, but no as_of has been published for them to answer about."""


@dataclass(frozen=True)
class Published:
    """What the service answers with: the champions, ranking customers as the batch of the published as_of did."""

    predictor: Predictor
    publication: Publication
    store: FeatureStore

    @property
    def as_of(self) -> date:
        return self.publication.as_of

    @classmethod
    def of(cls, workspace: Workspace) -> Published:
        """What was published last.

        Raises:
            NoChampion, NotPublished: there is none yet.
            FeatureMismatch: the online store holds other features than the champions', or does not hold it any more.
            CheckFailed: the online store does not answer.
        """
        predictor = Predictor.load(workspace, registry.client())
        publication = online.published(workspace.home_path)
        if publication is None:
            raise NotPublished(f"{workspace.name} has published nothing yet; run `perennial publish`")
        store = retrieval.open_store(workspace)
        online.check(store, workspace, publication, online.expected_hash(workspace))
        edges = storage.read_json(storage.percentiles_path(workspace.home_path, publication.as_of))
        return cls(replace(predictor, percentile_edges=np.array(edges) if edges else None), publication, store)


class Answers:
    """Answers about the customers of one workspace, from what was published last.

    A newly promoted champion answers from the next publication on: until then the online features, the percentiles and
    the scores file are still its predecessor's, and its answers would equal none of them.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.workspace = home, _workspace(home)
        self.gate, self.consents = Gate(home, self.workspace.service.rate_limit), Consents(home)
        self._looking = threading.Lock()
        self._look()

    def current(self) -> Published:
        """The last publication; looked for again once there is a newer one, or every few seconds while there is none.

        Raises:
            Refused: there is nothing to answer with, or its features are not the model's.
        """
        if self._outdated() and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looking.release()
        if isinstance(self._found, Refusal):
            raise Refused(self._found)
        return self._found

    def _outdated(self) -> bool:
        if _changed_at(self.home) != self._seen:
            return True
        return isinstance(self._found, Refusal) and time.monotonic() >= self._look_again

    def _look(self) -> None:
        self._seen = _changed_at(self.home)
        self._found = self._find()
        self._look_again = time.monotonic() + RETRY_SECONDS

    def _find(self) -> Published | Refusal:
        try:
            self.workspace = _workspace(self.home)
            return Published.of(self.workspace)
        except (FeatureMismatch, CheckFailed) as problem:
            return _not_online(problem)
        except NoChampion as problem:
            return _unavailable("no_champion", str(problem))
        except NotPublished as problem:
            return _unavailable("not_published", str(problem))
        except Exception:  # MLflow or Feast may be back in a moment; a service that ended would not be
            _log.exception("what %s published cannot be loaded", self.home)
            return _unavailable("not_loaded", "the published models cannot be loaded; the service's log says why")

    def scores(self, customer_ids: Sequence[str], explain: bool = False) -> dict[str, dict[str, Any]]:
        """The columns of `scores` of each customer who is known, by id; beside them `reasons`, if asked.

        Raises:
            Refused: there is nothing to answer with, or the online store does not hold it or does not answer.
        """
        published = self.current()
        try:
            vectors = online.online_vectors(published.store, published.publication, customer_ids)
        except (FeatureMismatch, CheckFailed) as problem:
            raise Refused(_not_online(problem)) from problem
        if not vectors:
            return {}
        said, packed = self.consents.of("profiling", list(vectors)), published.publication.features
        agreed = apply_profiling(said, vectors, packed, np.stack(list(vectors.values())))
        return _rows(published, dict(zip(vectors, agreed, strict=True)), explain)

    def churn_risk(self, asked: ChurnRiskQuery, contacts: bool) -> tuple[pd.DataFrame, date]:
        """The list and its as_of.

        Raises:
            Refused: the published as_of has no scores.
        """
        published = self.current()
        try:
            rows = lists.churn_risk(
                published.predictor, published.as_of, top=asked.top, min_value=asked.min_value, band=asked.band,
                contacts=contacts,
            )  # fmt: skip
        except CheckFailed as problem:
            raise Refused(_unavailable("not_scored", str(problem))) from problem
        return rows, published.as_of


def _workspace(home: Path) -> Workspace:
    """The settings that the workspace was last run with, wherever its home has been moved to."""
    path = home / "workspace.json"
    if not path.exists():
        raise SettingsError(f"{path} does not exist: run `perennial run -c FILE --as-of DATE` before serving")
    return settings.parse({**storage.read_json(path), "home": str(home)}, str(path))


def _changed_at(home: Path) -> int | None:
    try:
        return online.published_path(home).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _not_online(problem: FeatureMismatch | CheckFailed) -> Refusal:
    if isinstance(problem, FeatureMismatch):
        return Refusal(409, problem.code, str(problem))
    return _unavailable("no_online_store", str(problem))


def _unavailable(code: str, message: str) -> Refusal:
    return Refusal(503, code, message, headers={"Retry-After": str(RETRY_SECONDS)})


def _rows(published: Published, vectors: dict[str, NDArray[np.float32]], explain: bool) -> dict[str, dict[str, Any]]:
    """Who has no churn probability gets no reasons: there is nothing to explain, or no consent to look."""
    packed = np.stack(list(vectors.values()))
    columns = published.predictor.score(list(vectors), published.as_of, packed)
    values = zip(*(_json_values(column, len(packed)) for column in columns.values()), strict=True)
    rows = [dict(zip(columns, row, strict=True)) for row in values]
    if explain:
        scored = ~np.isnan(columns["churn_probability"])
        told = iter(reasons(published.predictor, packed[scored]))
        rows = [row | {"reasons": next(told) if is_scored else []} for row, is_scored in zip(rows, scored, strict=True)]
    return {row["customer_id"]: row for row in rows}


def _json_values(column: Any, count: int) -> list[Any]:
    """A column of `Predictor.score`, an array or a constant, as values that JSON knows; nan is null."""
    if isinstance(column, np.ndarray):
        return [None if value != value else value for value in column.tolist()]
    return [column.isoformat() if isinstance(column, date) else column] * count


def _text(value: str) -> str:
    """JSON can escape half a character, which no customer_id and no online store holds."""
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise ValueError("half of a UTF-16 pair is not a text") from problem
    return value


class ScoresRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    customer_ids: list[Annotated[str, AfterValidator(_text)]] = Field(
        min_length=1, description="at most `service.max_ids` of them", examples=[["10002"]]
    )
    explain: bool = Field(False, description="add the reasons for each churn probability")


class ChurnRiskQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    top: int = Field(100, ge=1, le=10_000, description="rows, at most")
    min_value: float = Field(0.0, ge=0, allow_inf_nan=False, description="lifetime value from which a customer counts")
    band: Literal["low", "medium", "high"] | None = Field(None, description="only this churn band")
    format: Literal["json", "csv", "xlsx"] = "json"


class Failure(BaseModel):
    """Every refusal: a code for programs, a sentence for people, details where there are any."""

    class Error(BaseModel):
        code: str
        message: str
        details: dict[str, Any]

    error: Error


class Score(BaseModel):
    """The columns of `scores`; numbers are null where `not_scored_reason` says why."""

    customer_id: str
    as_of: date
    churn_probability: float | None
    churn_percentile: float | None
    churn_band: Literal["low", "medium", "high"] | None
    p_alive: float | None
    expected_purchases: float | None
    lifetime_value: float | None
    lifetime_value_low: float | None
    lifetime_value_high: float | None
    value_at_risk: float | None
    not_scored_reason: str | None
    churn_model: str
    lifetime_value_model: str
    cross_sell_model: str | None


class ExplainedScore(Score):
    reasons: list[str] = Field([], description="only where `explain` was asked")


class UnknownCustomer(Failure):
    customer_id: str


class ScoresAnswer(BaseModel):
    scores: list[ExplainedScore | UnknownCustomer]


class ModelAnswer(BaseModel):
    workspace: str
    as_of: date
    currency: str
    features_hash: str
    models: dict[str, str]
    settings: dict[str, dict[str, Any]]


_BENTOML_PATHS = ("/", "/docs.json", "/livez", "/readyz", "/healthz", "/metrics", "/schema.json")
_MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "malformed: the body or the query is not as described here"},
    401: {"model": Failure, "description": "no bearer key, or a wrong or revoked one"},
    403: {"model": Failure, "description": "a key of another role"},
    409: {"model": Failure, "description": "the published features are not those of the champions, or are stale"},
    429: {"model": Failure, "description": "more requests with this key than the service answers; see `Retry-After`"},
    503: {"model": Failure, "description": "no champion, or nothing published yet; try again after `Retry-After`"},
    "default": {"model": Failure, "description": "any other error"},
}
_LIST: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the list in the format asked for; CSV and XLSX as a download",
        "content": {media_type: {} for media_type in _MEDIA_TYPES.values()},
    },
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Failure, "description": "unknown customer"}}

# Only describes the key in the API's description: Guard has checked it before.
_key = Security(HTTPBearer(auto_error=False, description="the key that the service was started with"))
api = FastAPI(title="Perennial", dependencies=[_key], docs_url=None, redoc_url=None, openapi_url=None)


# Before the card, whose path would take `.../data` for an id.
api.include_router(privacy_routes.router, responses=_REFUSALS | _NOT_FOUND)


def _answers() -> Answers:
    return bentoml.get_current_service().answers


@api.post(
    "/scores",
    response_model=ScoresAnswer,
    responses=_REFUSALS | _NOT_FOUND | {413: {"model": Failure, "description": "too many ids"}},
    dependencies=[allowed("crm")],
)
def scores(asked: ScoresRequest, request: Request) -> Response:
    """The scores of some customers, in the order asked; an unknown one is marked, or a 404 where it is the only one."""
    answers = _answers()
    if len(asked.customer_ids) > (most := answers.workspace.service.max_ids):
        raise Refused(Refusal(
            413, "too_many_ids", f"{len(asked.customer_ids):,} customer_ids in one request; at most {most:,} can be",
            {"asked": len(asked.customer_ids), "most": most},
        ))  # fmt: skip
    names = [privacy.known_as(answers.workspace, one) for one in asked.customer_ids]
    found = answers.scores(names, asked.explain)
    request.state.read.customers, request.state.read.rows = names, len(found)
    if not found and len(names) == 1:
        raise Refused(_unknown(names[0]))
    return JSONResponse({"scores": [found.get(one) or _marked(one) for one in names]})


@api.get(
    "/customers/{customer_id:path}", response_model=Score, responses=_REFUSALS | _NOT_FOUND,
    dependencies=[allowed("crm")],
)  # fmt: skip
def customer(customer_id: str, request: Request) -> Response:
    """The scores of one customer."""
    answers = _answers()
    name = privacy.known_as(answers.workspace, customer_id)
    found = answers.scores([name])
    request.state.read.rows = len(found)
    if not found:
        raise Refused(_unknown(name))
    return JSONResponse(found[name])


@api.get("/lists/churn-risk", responses=_REFUSALS | _LIST, dependencies=[allowed("marketing")])
def churn_risk(asked: Annotated[ChurnRiskQuery, Query()], request: Request) -> Response:
    """Who is about to leave, highest value at risk first: whom to contact, why, and what to offer."""
    contacts = request.state.caller.sees_contacts
    rows, as_of = _answers().churn_risk(asked, contacts)
    content = lists.encode(rows, asked.format)
    request.state.read.filter = asked.model_dump() | {"contacts": contacts}
    request.state.read.rows = len(rows)
    headers = {} if asked.format == "json" else {
        "Content-Disposition": f'attachment; filename="churn-risk-{as_of}.{asked.format}"'
    }  # fmt: skip
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[asked.format])


@api.get("/model", response_model=ModelAnswer, responses=_REFUSALS, dependencies=[allowed("crm", "marketing")])
def model() -> Response:
    """Which versions answer, as of when, and what their numbers mean."""
    published = _answers().current()
    workspace = published.predictor.workspace
    return JSONResponse(
        {
            "workspace": workspace.name,
            "as_of": published.as_of.isoformat(),
            "currency": workspace.currency,
            "features_hash": published.publication.features_hash,
            "models": dict(published.predictor.versions),
            "settings": workspace.model_dump(mode="json", include={"churn", "lifetime_value", "cross_sell", "bands"}),
        }
    )


def _unknown(customer_id: str) -> Refusal:
    message = "no customer with this id was known at the published as_of"
    return Refusal(404, "unknown_customer", message, {"customer_id": customer_id})


def _marked(customer_id: str) -> dict[str, Any]:
    return {"customer_id": customer_id, **_unknown(customer_id).body()}


@api.exception_handler(Refused)
async def _on_refused(_: Request, problem: Refused) -> Response:
    return problem.refusal.response()


@api.exception_handler(RequestValidationError)
async def _on_malformed(_: Request, problem: RequestValidationError) -> Response:
    wrong = [{"where": ".".join(map(str, e["loc"])), "problem": _in_words(e)} for e in problem.errors()[:5]]
    message = "; ".join(f"{w['where']}: {w['problem']}" for w in wrong)
    return Refusal(400, "malformed", message, {"problems": wrong}).response()


def _in_words(error: dict[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "no such key"
        case "json_invalid":
            return f"not JSON: {error['ctx']['error']}"
        case "model_attributes_type":  # FastAPI parses only a body that says it is JSON
            return "a JSON object is expected, with the header `Content-Type: application/json`"
        case _:
            return str(error["msg"]).removeprefix("Value error, ")


@api.exception_handler(HTTPException)
async def _on_http(_: Request, problem: HTTPException) -> Response:
    code = problem.detail.lower().replace(" ", "_")
    return Refusal(problem.status_code, code, problem.detail, headers=problem.headers or {}).response()


@api.exception_handler(Exception)
async def _on_defect(_: Request, __: Exception) -> Response:
    return Refusal(500, "internal", "the service failed to answer; its log says why").response()


async def _rest(scope: Scope, receive: Receive, send: Send) -> None:
    """`api` as a plain ASGI app: BentoML hands it what no route above matches, so that its error is of our shape."""
    await api(scope, receive, send)


def _description(_: Request) -> Response:
    """The OpenAPI description. BentoML 1.4 calls it 3.0.2, but the types that FastAPI writes into it are of 3.1."""
    info = {"title": "Perennial", "version": version("perennial"), "description": __doc__}
    return JSONResponse(_bento_service.openapi_spec.asdict() | {"openapi": "3.1.0", "info": info})


def _index(_: Request) -> Response:
    """Instead of BentoML's page, which loads Google's tag manager."""
    return RedirectResponse("docs.json")


_pages = Starlette(routes=[Route("/docs.json", _description), Route("/", _index)])


@bentoml.asgi_app(_rest, path="/")
@bentoml.asgi_app(_pages, path="/")
@bentoml.asgi_app(_rest, path="/v1")
@bentoml.asgi_app(api, path="/v1")
@bentoml.service(workers=1)
class Perennial:
    """Scores and lists of one workspace, whose home is PERENNIAL_HOME; callers send one of its keys."""

    def __init__(self) -> None:
        if HOME_VARIABLE not in os.environ:
            raise SettingsError(f"{HOME_VARIABLE} is not set; start the service with `perennial serve -c FILE`")
        home = Path(os.environ[HOME_VARIABLE]).resolve()
        Keys(home).refuse_if_none()
        self.answers = Answers(home)
        privacy.refuse_without_key(self.answers.workspace)

    def __is_ready__(self) -> bool:
        try:
            self.answers.current()
        except Refused:
            return False
        return True


_bento_service: Any = Perennial  # the decorator has made it BentoML's `Service`, which type checkers cannot see
_bento_service.add_asgi_middleware(AsAsked)
_bento_service.add_asgi_middleware(Guard, gate=lambda: _answers().gate)


def application() -> ASGIApp:
    """The ASGI app of the service; its lifespan opens the workspace in PERENNIAL_HOME."""
    paths = (f"/v1{route.path}" for route in api.routes if isinstance(route, APIRoute))
    return ByRoute(_bento_service.to_asgi(), (*paths, *_BENTOML_PATHS))


def serve(home: Path, host: str, port: int, certificate: str | None = None, key: str | None = None) -> None:
    """Runs the service in this process until SIGINT or SIGTERM, then finishes the requests under way and returns.

    With the files of a `certificate` and its `key` it speaks HTTPS, and nothing else.

    Without BentoML's supervisor: that imports everything twice before it is ready, starts a worker that cannot start
    again and again, and listens on control ports where every local user may start commands.

    Raises:
        SettingsError: no key, no workspace in `home`, an address that cannot be listened on, an unusable certificate.
        CheckFailed: the workspace cannot be opened.
    """
    import uvicorn

    home = home.resolve()
    Keys(home).refuse_if_none()
    privacy.refuse_without_key(_workspace(home))
    if certificate:
        _refuse_unusable(certificate, key)
    listener = _bound(host, port)
    _set_environment(home, port)
    context = bentoml.server_context  # what BentoML's own worker sets, for the labels of its metrics
    context.service_name = context.bento_name = _bento_service.name
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("bentoml").setLevel(logging.INFO)
    _log.info("starting on http%s://%s:%d", "s" if certificate else "", host, port)
    config = uvicorn.Config(
        application(), lifespan="on", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS, ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    # uvicorn raises the signal that stopped it once more when it is done; that would end the command as if killed.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except SystemExit as problem:
        raise CheckFailed("the service could not start; the log above says why") from problem


def _refuse_unusable(certificate: str, key: str | None) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as problem:
        raise SettingsError(
            f"service.tls_certificate {certificate} and service.tls_key {key} cannot be used: {problem}"
        ) from problem


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not listen yet: callers are turned away until the service is ready."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as problem:
        bound.close()
        raise SettingsError(f"cannot listen on {host}, port {port}: {problem}; choose another with --port") from problem
    return bound


def _set_environment(home: Path, port: int) -> None:
    """Where the service finds the workspace, and where BentoML and its metrics may write."""
    metrics = home / "bentoml" / f"metrics-{port}"
    shutil.rmtree(metrics, ignore_errors=True)  # counts of a process that is gone
    metrics.mkdir(parents=True)
    os.environ |= {
        HOME_VARIABLE: str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),  # prometheus_client reads it when Feast first imports it
    }

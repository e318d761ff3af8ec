"""The HTTP service: scores, cards, offers, lists and events under `/v1`; beside them health, metrics, a description."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from serving import erasure, erasure_queue
from serving.desk.app import desk
from serving.http.access import AsAsked, ByRoute, Guard, Refusal
from serving.http.answers import Answers
from serving.http.event_inbox import Inbox
from serving.http.keys import Keys
from serving.http.limits import Limits
from serving.http.probe import Readiness
from serving.http.routes import api, described
from serving.lists.churn_risk import refuse_other_key
from serving.own_page.addresses import own_pages
from serving.prediction_buffer import FLUSH_SECONDS
from workspace import privacy
from workspace.settings import Service, SettingsError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger("bentoml.perennial")
HOME_VARIABLE = "PERENNIAL_HOME"
_BENTOML_PATHS = ("/", "/docs.json", "/livez", "/readyz", "/healthz", "/metrics", "/schema.json")


async def _rest(scope: Scope, receive: Receive, send: Send) -> None:
    """`api` as a plain ASGI app: BentoML hands it what no route above matches, so that its error is of our shape."""
    await api(scope, receive, send)


async def _desk(scope: Scope, receive: Receive, send: Send) -> None:
    """`desk` as a plain ASGI app."""
    await desk(scope, receive, send)


async def _own(scope: Scope, receive: Receive, send: Send) -> None:
    """`own_pages` as a plain ASGI app."""
    await own_pages(scope, receive, send)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """What is not below `/v1`, where no key is asked for: nothing, however it is spelt."""
    await Refusal(404, "not_found", "Not Found").response()(scope, receive, send)


def _description(_: Request) -> Response:
    return JSONResponse(described(version("perennial-crm"), str(__doc__)))


def _index(_: Request) -> Response:
    """Instead of BentoML's page, which loads Google's tag manager."""
    return RedirectResponse("/desk/")


_pages = Starlette(routes=[Route("/docs.json", _description), Route("/", _index), Route("/desk", _index)])


@bentoml.asgi_app(_nowhere, path="/")
@bentoml.asgi_app(_pages, path="/")
@bentoml.asgi_app(_desk, path="/desk")
@bentoml.asgi_app(_own, path="/own")
@bentoml.asgi_app(_rest, path="/v1")
@bentoml.asgi_app(api, path="/v1")
# `limits` writes a line for each request, with its id and without whom it is about; a trace would go nowhere.
@bentoml.service(workers=1, logging={"access": {"enabled": False}}, tracing={"excluded_urls": ".*"})
class Perennial:
    """Answers for one workspace, whose home is PERENNIAL_HOME; callers send one of its keys."""

    clock: Callable[[], datetime]
    settings: Service

    def __init__(self) -> None:
        if HOME_VARIABLE not in os.environ:
            raise SettingsError(f"{HOME_VARIABLE} is not set; start the service with `perennial serve -c FILE`")
        home = Path(os.environ[HOME_VARIABLE]).resolve()
        Keys(home).refuse_if_none()
        self.answers = Answers(home, type(self).clock, self.settings)
        privacy.refuse_without_key(self.answers.workspace)
        refuse_other_key(self.answers.workspace)
        self.inbox = Inbox(self.answers.workspace, self.answers.known)

    @bentoml.on_startup
    async def watch(self) -> None:
        gc.collect()
        gc.freeze()  # what is loaded by now stays: looking through it again and again would hold answers up
        self.tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._log())]
        self.tasks.append(asyncio.create_task(self._erase()))

    @bentoml.on_shutdown
    async def stop_watching(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.to_thread(self.answers.served.flush)

    async def _watch(self) -> None:
        """Keeps whatever answers now up with what is published."""
        while True:
            await self.answers.watch()

    async def _log(self) -> None:
        """Writes what was answered into the prediction log, beside the event loop."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await asyncio.to_thread(self.answers.served.flush)

    async def _erase(self) -> None:
        """Carries out the erasures that waited for a command to end."""
        while True:
            await asyncio.sleep(erasure_queue.SECONDS)
            try:
                await asyncio.to_thread(erasure.carry_out, self.answers.workspace, self.answers.clock)
            except Exception:  # a store that does not answer, a full disk: they wait on
                _log.exception("customers wait to be erased")


_bento_service: Any = Perennial  # the decorator has made it BentoML's `Service`, which type checkers cannot see
_bento_service.add_asgi_middleware(AsAsked)
_bento_service.add_asgi_middleware(Readiness, answers=lambda: bentoml.get_current_service().answers)
_bento_service.add_asgi_middleware(Guard, gate=lambda: bentoml.get_current_service().answers.gate)
NAME: str = _bento_service.name


def application(clock: Callable[[], datetime], settings: Service) -> ASGIApp:
    """The ASGI app of the service; its lifespan opens the workspace in PERENNIAL_HOME. `clock` says what time it is."""
    _bento_service.inner.clock, _bento_service.inner.settings = staticmethod(clock), settings
    paths = (f"/v1{route.path}" for route in api.routes if isinstance(route, APIRoute))
    by_route = ByRoute(_without_bentomls_timeout(_bento_service.to_asgi()), (*paths, *_BENTOML_PATHS))
    return Limits(by_route, settings, by_route.route)


def _without_bentomls_timeout(app: Starlette) -> Starlette:
    """BentoML 1.4 would end what takes 60 seconds by a 504 of its own shape, erasures too, and takes no setting for
    never; when a request has to end is for `limits`."""
    layers: list[Any] = app.user_middleware
    app.user_middleware = [each for each in layers if each.cls is not TimeoutMiddleware]
    return app

"""The addresses below `/own`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route

from serving.desk import assets
from serving.own_page import own_view, wishes
from serving.own_page.link_visit import broken, lost, route

own_pages = Starlette(
    routes=[
        Route("/files/{content}/{name}", assets.asset),
        route("", own_view.own_page),
        route("/data", own_view.data),
        route("/consent", wishes.consent, "POST"),
        route("/correction", wishes.correction, "POST"),
        route("/erasure", wishes.question),
        route("/erasure", wishes.erasure, "POST"),
    ],
    exception_handlers={404: lost, 405: lost, 500: broken},
)
own_pages.router.redirect_slashes = False  # it would tell the link to whatever host was asked for

"""The desk's addresses below `/desk`."""

from __future__ import annotations

from functools import partial
from itertools import chain

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from serving.desk import (
    assets,
    corrections_page,
    customer_link,
    customer_page,
    data_page,
    drift_page,
    erasure_page,
    home_page,
    jobs_page,
    lineage_page,
    list_page,
    lists,
    model_page,
    sign_in,
    trust_page,
)
from serving.desk.lists import DeskList
from serving.desk.visit import ADMIN, LINKS, LISTS, broken, lost, route

_MODEL = "/trust/models/{kind}"
_CUSTOMER = "/customers/{customer_id:escaped}"


def _of_list(one: DeskList) -> list[Route]:
    path = f"/lists/{one.name}"
    return [
        route(path, partial(list_page.shown, one), LISTS),
        route(f"{path}.xlsx", partial(list_page.spreadsheet, one), LISTS),
        route(f"{path}/save", partial(list_page.save, one), LISTS, "POST", of_whole_shop=True),
        route(f"{path}/remove", partial(list_page.remove, one), LISTS, "POST", of_whole_shop=True),
    ]


desk = Starlette(
    routes=[
        Route("/sign-in", sign_in.form),
        Route("/sign-in", sign_in.signed_in, methods=["POST"]),
        Route("/sign-in/company", sign_in.to_company),
        Route("/sign-in/company/back", sign_in.from_company),
        route("/sign-out", sign_in.signed_out, method="POST"),
        Route("/files/{content}/{name}", assets.asset),
        route("/", home_page.home),
        *chain.from_iterable(map(_of_list, lists.LISTS.values())),
        route("/corrections", corrections_page.waiting, LINKS, of_whole_shop=True),
        route("/corrections", corrections_page.settle, LINKS, "POST", of_whole_shop=True),
        route("/customers", customer_page.search),
        route("/customers", customer_page.search, method="POST"),
        route(f"{_CUSTOMER}/own-page", customer_link.make, LINKS, "POST"),
        route(f"{_CUSTOMER}/consent", customer_page.consent, method="POST"),
        route(f"{_CUSTOMER}/lineage", lineage_page.lineage),
        route(f"{_CUSTOMER}/erase", erasure_page.question, ADMIN),
        route(f"{_CUSTOMER}/erase", erasure_page.erase, ADMIN, "POST"),
        route(_CUSTOMER, customer_page.customer),
        route("/trust", trust_page.trust),
        route("/trust/data", data_page.data, of_whole_shop=True),
        route("/trust/drift", drift_page.drift, of_whole_shop=True),
        route(_MODEL, model_page.model, of_whole_shop=True),
        route(f"{_MODEL}/promote", model_page.promote, ADMIN, "POST", of_whole_shop=True),
        route(f"{_MODEL}/leave", model_page.leave, ADMIN, "POST", of_whole_shop=True),
        route(f"{_MODEL}/rollback", model_page.roll_back, ADMIN, "POST", of_whole_shop=True),
        route("/jobs", jobs_page.jobs, ADMIN, of_whole_shop=True),
        route("/jobs", jobs_page.start, ADMIN, "POST", of_whole_shop=True),
        route("/jobs/{number:int}", jobs_page.job, ADMIN, of_whole_shop=True),
        route("/reports/{name:path}", trust_page.report, of_whole_shop=True),
    ],
    exception_handlers={404: lost, 405: lost, 500: broken},
    middleware=[Middleware(GZipMiddleware, minimum_size=1000)],
)

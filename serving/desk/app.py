"""The desk's addresses below `/desk`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from serving.desk import (
    assets,
    customer_page,
    data_page,
    drift_page,
    home_page,
    jobs_page,
    lineage_page,
    list_page,
    model_page,
    sign_in,
    trust_page,
)
from serving.desk.visit import ADMINS, LISTS, broken, lost, route

_MODEL = "/trust/models/{kind}"
_CUSTOMER = "/customers/{customer_id:escaped}"

desk = Starlette(
    routes=[
        Route("/sign-in", sign_in.form),
        Route("/sign-in", sign_in.signed_in, methods=["POST"]),
        Route("/sign-in/company", sign_in.to_company),
        Route("/sign-in/company/back", sign_in.from_company),
        route("/sign-out", sign_in.signed_out, method="POST"),
        Route("/files/{content}/{name}", assets.asset),
        route("/", home_page.home),
        route("/lists/churn-risk", list_page.churn_risk, LISTS),
        route("/lists/save", list_page.save, LISTS, "POST"),
        route("/lists/remove", list_page.remove, LISTS, "POST"),
        route("/lists/churn-risk.xlsx", list_page.spreadsheet, LISTS),
        route("/customers", customer_page.search),
        route(f"{_CUSTOMER}/consent", customer_page.consent, method="POST"),
        route(f"{_CUSTOMER}/lineage", lineage_page.lineage),
        route(_CUSTOMER, customer_page.customer),
        route("/trust", trust_page.trust),
        route("/trust/data", data_page.data),
        route("/trust/drift", drift_page.drift),
        route(_MODEL, model_page.model),
        route(f"{_MODEL}/promote", model_page.promote, ADMINS, "POST"),
        route(f"{_MODEL}/leave", model_page.leave, ADMINS, "POST"),
        route(f"{_MODEL}/rollback", model_page.roll_back, ADMINS, "POST"),
        route("/jobs", jobs_page.jobs, ADMINS),
        route("/jobs", jobs_page.start, ADMINS, "POST"),
        route("/jobs/{number:int}", jobs_page.job, ADMINS),
        route("/reports/{name:path}", trust_page.report),
    ],
    exception_handlers={404: lost, 405: lost, 500: broken},
    middleware=[Middleware(GZipMiddleware, minimum_size=1000)],
)

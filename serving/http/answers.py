"""The answers of the service, from what was published last: scores, cards, offers, lists, which models they are of."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from pydantic_core import from_json, to_json

from features import online, packing, publications, retrieval
from features.online import Row
from features.publications import FeatureMismatch, LostFeatures, Publication
from serving import card, score_rows, telemetry
from serving.batch_files import Filed
from serving.champions import NoChampion, versions_answering
from serving.consent import Consents, Purpose, apply_profiling, withheld
from serving.erasure_queue import ErasureQueue
from serving.http.access import Gate, Refusal, Refused
from serving.http.batching import Together
from serving.http.health import Health
from serving.http.keys import Caller
from serving.lists import churn_risk, cross_selling, win_back
from serving.lists.churn_risk import Page
from serving.prediction_buffer import Served
from serving.predictor import Predictor
from serving.reasons import Explainer
from serving.scope import Scope
from serving.terms import Terms
from workspace import ids, privacy, registry, settings
from workspace.digests import ChangedModel
from workspace.settings import Service, SettingsError, Workspace
from workspace.storage import CheckFailed
from workspace.windows import midnight

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore
    from numpy.typing import NDArray

    from serving.http.bodies import ScoresRequest
    from serving.lists.list_query import CrossSellQuery, ListQuery, WinBackQuery

_log = logging.getLogger("bentoml.perennial")
_Row = TypeVar("_Row")

# How often a service looks for what it lacks or whether an online store is back, and what it tells callers to wait.
RETRY_SECONDS = 3
_LOOK_SECONDS = 0.5
_MISSED = 1_000  # customers whom the online store had not, looked up until it has them
_STORE_PATIENCE = 1.0  # seconds that Redis may take; the event loop waits with the caller


class NotPublished(RuntimeError):
    """There are champions, but no as_of has been published for them to answer about."""


@dataclass(frozen=True, eq=False)
class Published:
    """What the service answers with: the versions that scored the published as_of, ranking customers as they did."""

    explainer: Explainer
    publication: Publication
    store: FeatureStore

    @property
    def predictor(self) -> Predictor:
        return self.explainer.predictor

    @property
    def as_of(self) -> date:
        return self.publication.as_of

    @property
    def workspace(self) -> Workspace:
        return self.predictor.workspace

    @cached_property
    def has_answers(self) -> bool:
        """Whether what lies beside the vectors is what would be computed; else everything is."""
        return self.publication.answers == score_rows.stamp(self.explainer, self.as_of)

    @cached_property
    def filed_terms(self) -> Terms:
        """What the numbers of the last batch mean, whichever models answer by now."""
        return Terms.at(self.predictor, self.as_of)

    def terms(self, horizon: int | None = None, stale: bool = False) -> Terms:
        """What scores mean that are answered over `horizon` days, or read from the last batch's files; of offers, which
        always are, as those say."""
        if stale:
            return self.filed_terms
        own, offers = Terms.of(self.predictor, horizon), self.filed_terms.standings.get("cross_sell")
        return replace(own, standings={**own.standings, "cross_sell": offers}) if offers else own

    def terms_as_json(self, horizon: int | None, stale: bool) -> bytes:
        return self._own_terms if horizon is None and not stale else to_json(self.terms(horizon, stale).to_json())

    @cached_property
    def _own_terms(self) -> bytes:
        return to_json(self.terms().to_json())

    @cached_property
    def filed(self) -> Filed:
        return Filed(self.workspace, self.as_of)

    @classmethod
    def of(cls, workspace: Workspace, when_down: str) -> Published:
        """What was published last; where stale answers will do, the online store may be out of reach.

        Raises:
            NoChampion, NotPublished: there is none yet.
            Unfit: no version may answer about the published as_of.
            FeatureMismatch: the online store holds other features than the champions', or older ones than the scores.
            LostFeatures, CheckFailed: the online store does not hold it any more, or does not answer.
        """
        publication = publications.published(workspace.home_path)
        if publication is None:
            versions_answering(workspace, registry.client(), None)
            raise NotPublished(f"{workspace.name} has published nothing yet; run `perennial publish`")
        explainer = score_rows.explainer_at(workspace, registry.client, publication.as_of)
        store = retrieval.open_store(workspace, _STORE_PATIENCE)
        try:
            online.check(store, workspace, publication, publications.expected_hash(workspace))
        except (CheckFailed, LostFeatures):
            if when_down == "refuse":
                raise
        return cls(explainer, publication, store)


class _Question(NamedTuple):
    """What requests must have in common to be answered together."""

    published: Published
    explain: bool
    offers: bool
    horizon: int | None


class Answers:
    """Answers about the customers of one workspace, from what was published last.

    A newly promoted champion answers from the next publication on: until then the online features, the percentiles and
    the scores file are still its predecessor's, and its answers would equal none of them.
    """

    def __init__(self, home: Path, clock: Callable[[], datetime], service: Service) -> None:
        self.home, self.clock, self.service = home, clock, service
        self.workspace = settings.of_home(home)
        self.served = Served(clock)
        self.gate, self.consents = Gate(home, service.rate_limit, clock), Consents(home)
        self.erasures = ErasureQueue(home)
        self._together = Together(self._scores_online)
        self.searching = asyncio.Lock()  # one search for a customer at a time: it reads every file of the home
        self._looking = threading.Lock()
        self._store_down_until = 0.0
        self._why_stale: str | None = None
        self._missed: frozenset[str] = frozenset()
        self.stale_since: datetime | None = None
        self.health = Health(home, clock)
        self._state: Published | Refusal | None = None
        self._look()

    def current(self) -> Published:
        """The last publication that was looked at.

        Raises:
            Refused: there is nothing to answer with, or its features are not the model's.
        """
        if isinstance(self._state, Published):
            return self._state
        assert self._state is not None
        raise Refused(self._state)

    async def watch(self) -> None:
        """Waits a moment and looks for a newer publication, or for one at all; requests do not wait for it."""
        await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.to_thread(self.keep_up)

    def keep_up(self) -> None:
        """Loads what was published since, if anything."""
        with self._looking:
            if self._outdated():
                self._look()
        if isinstance(self._state, Published):
            start = midnight(self._state.as_of, self.workspace.timezone)
            telemetry.FEATURE_AGE.set((self.clock() - start).total_seconds())

    def _outdated(self) -> bool:
        if publications.changed_at(self.home) != self._seen:
            return True
        return isinstance(self._state, Refusal) and time.monotonic() >= self._look_again

    def _look(self) -> None:
        self._seen = publications.changed_at(self.home)
        before, self._state = self._state, self._find()
        self._look_again = time.monotonic() + RETRY_SECONDS
        versions = (of.predictor.versions if isinstance(of, Published) else {} for of in (before, self._state))
        telemetry.tell_models(*versions)

    def _find(self) -> Published | Refusal:
        try:
            self.workspace = settings.of_home(self.home)
            published = Published.of(self.workspace, self.service.when_down)
            if not published.has_answers:
                _log.info("answers are computed: none by these models, settings and code were published")
            return published
        except ChangedModel as problem:
            _log.error("%s", problem)
            return _unavailable("not_loaded", "a champion is not what was registered; the service's log says more")
        except (NoChampion, registry.Unfit) as problem:
            return _unavailable("no_champion", str(problem))
        except (FeatureMismatch, CheckFailed) as problem:
            return _not_online(problem)
        except NotPublished as problem:
            return _unavailable("not_published", str(problem))
        except Exception:  # MLflow or Feast may be back in a moment; a service that ended would not be
            _log.exception("what %s published cannot be loaded", self.home)
            return _unavailable("not_loaded", "the published models cannot be loaded; the service's log says why")

    def names(self, customer_ids: Iterable[str]) -> list[str]:
        """What the workspace calls these customers."""
        return list(map(privacy.naming(self.workspace), customer_ids))

    async def within(self, scope: Scope, customer_ids: Sequence[str]) -> Sequence[str]:
        """Those of these customers who are in a scope, in order; of the whole shop that is everybody, known or not.

        Raises:
            Refused: nothing is published, or no customer was taken in.
        """
        if not scope or not customer_ids:
            return customer_ids
        return list(await self._filed(partial(self.current().filed.within, scope), customer_ids))

    async def sees(self, caller: Caller, customer_id: str) -> bool:
        """Whether an id, as it was sent, is of somebody in the caller's scope; what is no id is nobody's.

        Raises:
            Refused: as for `within`.
        """
        try:
            meant = ids.canonical(customer_id)
        except ValueError:
            return False
        return bool(await self.within(caller.scope, self.names([meant])))

    async def scores(self, customer_ids: Sequence[str], asked: ScoresRequest) -> tuple[dict[str, bytes], bytes]:
        """The columns of `scores` of each customer who is known, by id, beside them what was asked for; and what all of
        these numbers mean, as `bodies.Terms` says. Each is a JSON object.

        Raises:
            Refused: there is nothing to answer with, or the online store does not hold it or does not answer; or the
                horizon is longer than what the model knows of.
        """
        published = self.current()
        horizon = None if published.predictor.is_own(asked.horizon) else asked.horizon
        _refuse_too_long(published, horizon)
        question = _Question(published, asked.explain, asked.offers, horizon)
        fresh = (await self._together.rows(question, customer_ids) if customer_ids else None) or {}
        stale = await self._from_files(question, [one for one in customer_ids if one not in fresh])
        rows = fresh | stale
        if asked.offers:
            rows |= await self._with_offers(published, {one: row for one, row in rows.items() if isinstance(row, dict)})
        texts = {one: row if isinstance(row, bytes) else to_json(row) for one, row in rows.items()}
        log = partial(self.served.add, published.workspace, via="scores", horizon=horizon)
        log([texts[one] for one in fresh], trained=published.predictor.trained)
        log([texts[one] for one in stale])  # by models of before, maybe
        return texts, published.terms_as_json(asked.horizon, bool(stale))

    async def card(self, customer_id: str) -> dict[str, Any] | None:
        """All that is known of a customer, as `bodies.Card` says; none of who is unknown.

        Raises:
            Refused: as for `scores`.
        """
        published = self.current()
        question = _Question(published, explain=True, offers=True, horizon=None)
        rows = self._scores_online(question, [customer_id]) or await self._from_files(question, [customer_id])
        if customer_id not in rows:
            return None
        row = rows[customer_id]
        row = from_json(row) if isinstance(row, bytes) else (await self._with_offers(published, rows))[customer_id]
        trained = {} if row["stale"] else published.predictor.trained
        self.served.add(published.workspace, [row], "card", trained=trained)
        marketing = await self._filed(published.filed.marketing_consent, customer_id)
        online_rows = None if row["stale"] else self._online(published, [customer_id])
        vector = online_rows[customer_id].vector if online_rows else None
        said: dict[Purpose, bool | None] = {"marketing": marketing, **self.consents.by(customer_id)}
        shown = card.card(published.explainer, row, vector, row["offers"], said)
        return shown | published.terms(stale=row["stale"]).to_json()

    async def _with_offers(self, published: Published, rows: Mapping[str, Any]) -> dict[str, Any]:
        offers = await self._offers(published, list(rows)) if rows else {}
        return {one: row | {"offers": offers.get(one, [])} for one, row in rows.items()}

    async def offers(self, customer_id: str) -> dict[str, Any] | None:
        """The offers that the last batch ranked for a customer; none of who is unknown to it.

        Raises:
            Refused: the published as_of has no offers.
        """
        published = self.current()
        if customer_id in self.erasures.waiting():
            return None
        ranked = await self._offers(published, [customer_id])
        if not ranked and customer_id not in await self._filed(published.filed.scores, [customer_id]):
            return None
        return {
            "customer_id": customer_id, "as_of": published.as_of.isoformat(), "offers": ranked.get(customer_id, []),
            **published.filed_terms.to_json(),
        }  # fmt: skip

    async def bought_with(self, item: str, top: int) -> dict[str, Any]:
        """The first `top` companions of an item, as the last batch found them.

        Raises:
            NoSuchFilter: it knows no rule of such an item.
            Refused: the published as_of has no rules.
        """
        published = self.current()
        rules = (await self._filed(published.filed.bought_with, item))[:top]
        return {"item": item, "as_of": published.as_of.isoformat(), "bought_with": rules}

    def churn_risk(self, asked: ListQuery, contacts: bool, scope: Scope) -> Page:
        """A page of the list of the published as_of, of a scope, with contact data for who may see them.

        Raises:
            Refused: the published as_of has no scores, the cursor is of another list, no customer can pass a filter.
        """
        published = self.current()
        with _refusing_lists():
            page = churn_risk.page(
                published.explainer, published.as_of, asked, self._vectors, contacts, self._published_reasons, scope
            )
        return replace(page, blocks=self._noted(published, page.blocks))

    def win_back(self, asked: WinBackQuery, contacts: bool, scope: Scope) -> Page:
        """A page of those who left, as `churn_risk`."""
        of = self.current()
        with _refusing_lists():
            return win_back.page(of.workspace, of.as_of, asked, of.filed_terms, contacts, scope)

    def cross_sell(self, asked: CrossSellQuery, contacts: bool, scope: Scope) -> Page:
        """A page of those to whom something can be offered, as `churn_risk`."""
        of = self.current()
        with _refusing_lists():
            return cross_selling.page(of.workspace, of.as_of, asked, of.filed_terms, contacts, scope)

    def _noted(self, published: Published, blocks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The blocks as they are sent, noted as listed."""
        for block in blocks:
            listed: list[dict[str, Any]] = churn_risk.with_models(block, published.predictor).to_dict("records")  # type: ignore[assignment]
            self.served.add(published.workspace, listed, "list")
            yield block

    def _vectors(self, as_of: date, customer_ids: Sequence[str]) -> NDArray[np.float32]:
        """The packed vectors that a listed as_of was scored on: online, or else out of its snapshot."""
        published = self.current()
        rows = self._online(published, customer_ids) or {}
        if all(customer_id in rows and rows[customer_id].as_of == as_of for customer_id in customer_ids):
            return np.stack([rows[customer_id].vector for customer_id in customer_ids])
        return churn_risk.vectors(published.workspace, as_of, customer_ids)

    def _published_reasons(self, customer_ids: Sequence[str]) -> dict[str, list[str]]:
        """Of the risk; a withheld one has none in an answer, but in the list it has."""
        published = self.current()
        if published.predictor.withheld("churn"):
            return {}
        texts = self._published_texts(published, customer_ids) or {}
        return {one: score_rows.reasons(text) for one, text in texts.items()}

    def model(self) -> dict[str, Any]:
        """Which versions answer, as of when, and what their numbers mean."""
        published = self.current()
        workspace = published.workspace
        models = {
            kind: version._asdict() | {"trained_at": datetime.fromtimestamp(version.trained_at, UTC).isoformat()}
            for kind, version in published.predictor.registered.items()
        }
        return {
            "workspace": workspace.name,
            "as_of": published.as_of.isoformat(),
            "currency": workspace.currency,
            "features_hash": published.publication.features_hash,
            "models": models,
            "settings": workspace.model_dump(mode="json", include={"churn", "lifetime_value", "cross_sell", "bands"}),
        }

    def known(self, customer_ids: Sequence[str]) -> set[str]:
        """Who of these is online; everybody while that cannot be asked."""
        known = self._online(self.current(), list(customer_ids))
        return set(customer_ids) if known is None else set(known)

    def _scores_online(self, asked: _Question, customer_ids: Sequence[str]) -> dict[str, Any] | None:
        """What the online store says of these customers: a published answer as JSON, a computed one as a row.

        None while it is out of reach and the files shall answer.
        """
        texts = self._published(asked, customer_ids)
        if texts is None:
            return None
        rows = self._online(asked.published, [one for one in customer_ids if one not in texts])
        return None if rows is None else texts | _computed(asked, rows)

    def _published(self, asked: _Question, customer_ids: Sequence[str]) -> dict[str, bytes] | None:
        """The published answers about these customers; over another horizon there are none. None as `_online`."""
        texts = {} if asked.horizon is not None else self._published_texts(asked.published, customer_ids)
        if not texts:
            return texts
        telemetry.count_not_scored(map(score_rows.why_not, texts.values()))
        return {one: score_rows.answered(text, asked.explain, asked.offers) for one, text in texts.items()}

    def _published_texts(self, published: Published, customer_ids: Sequence[str]) -> dict[str, bytes] | None:
        """What lies beside the vectors, but of whoever said something of profiling since; None as `_online`."""
        if not published.has_answers:
            return {}
        texts = self._asked(lambda: online.answers(published.store, published.publication, customer_ids))
        if not texts:
            return texts
        said = self.consents.of("profiling", list(texts))
        return {one: text for one, text in self._staying(texts).items() if one not in said}

    def _online(self, published: Published, customer_ids: Sequence[str]) -> dict[str, Row] | None:
        """What the online store says; None while it is out of reach, or has lost it, and the files shall answer."""
        if not customer_ids:
            return {}
        of, workspace = published.publication, published.workspace
        rows = self._asked(lambda: online.online_rows(published.store, workspace, of, customer_ids))
        if not rows:
            return rows
        rows = self._staying(rows)
        said = self.consents.of("profiling", list(rows))
        return _agreed(rows, said, of.features) if said else rows

    def _asked(self, read: Callable[[], dict[str, _Row]]) -> dict[str, _Row] | None:
        """What a read of the online store brings.

        A store that could not answer is not asked again for a while: every request would wait for it in vain.
        """
        stale_instead = self.service.when_down == "stale"
        if stale_instead and time.monotonic() < self._store_down_until:
            return None
        try:
            rows = read()
        except (LostFeatures, CheckFailed) as problem:
            self._store_down_until = time.monotonic() + RETRY_SECONDS
            if stale_instead:
                self._note_stale(str(problem))
                return None
            raise Refused(_not_online(problem)) from problem
        except FeatureMismatch as problem:
            raise Refused(_not_online(problem)) from problem
        self._note_stale(None)
        return rows

    def _staying(self, rows: dict[str, _Row]) -> dict[str, _Row]:
        """Without those whose erasure waits."""
        leaving = self.erasures.waiting()
        return {one: row for one, row in rows.items() if one not in leaving} if leaving else rows

    def _note_stale(self, why: str | None) -> None:
        if why is None:
            self._why_stale = self.stale_since = None
        elif self._why_stale != why:
            self._why_stale, self.stale_since = why, self.stale_since or self.clock()
            _log.warning("answering from the last batch's files: %s", why)

    def why_stale(self) -> str | None:
        """Why answers, or some, come from the files; none while the online store has them. The store is asked."""
        published = self.current()
        publication = published.publication
        with suppress(Refused):
            self._online(published, [publication.last_customer, ""])
        if self._why_stale:
            return self._why_stale
        asked = {*packing.sample(published.workspace, publication), *self._missed}
        with suppress(FeatureMismatch, CheckFailed, SettingsError):  # gone since: the next look tells
            held = online.online_rows(published.store, published.workspace, publication, list(asked))
            missing = self._staying(dict.fromkeys(asked - held.keys()))
            self._missed = frozenset(missing) - privacy.erased_among(self.home, missing)
            if self._missed:
                return _some_lost(publication, f" of {len(self._missed)} of {len(asked)} customers looked up")
        return None

    async def _from_files(self, asked: _Question, customer_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of whom the online store, or a part of it, does not have.

        Raises:
            Refused: the files know one of them, but say nothing of the asked horizon.
        """
        rows = await self._stale(asked.published, customer_ids) if customer_ids else {}
        if rows and asked.horizon is not None:
            why = self._why_stale or _some_lost(asked.published.publication)
            message = f"the last batch wrote nothing about {asked.horizon} days, and the online store cannot say: {why}"
            raise Refused(_unavailable("no_online_store", message))
        return {one: row | {"reasons": []} for one, row in rows.items()} if asked.explain else rows

    async def _stale(self, published: Published, customer_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the last batch said of these customers, marked so; nothing of who withdrew the consent or was erased."""
        rows = self._staying(await self._filed(published.filed.scores, customer_ids))
        gone = privacy.erased_among(self.home, rows)
        rows = {one: row for one, row in rows.items() if one not in gone}
        telemetry.STALE.inc(len(rows))
        if self._why_stale is None and len(self._missed) < _MISSED:
            self._missed |= rows.keys()
        said = self.consents.of("profiling", list(rows))
        beside = {"stale": True, **score_rows.horizons(published.predictor)}
        return {one: (row if said.get(one, True) else withheld(row)) | beside for one, row in rows.items()}

    async def _offers(self, published: Published, customer_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        said = self.consents.of("profiling", customer_ids)
        agreed = [customer_id for customer_id in customer_ids if said.get(customer_id, True)]
        return await self._filed(published.filed.offers, agreed) if agreed else {}

    async def _filed(self, read: Callable[[Any], Any], of: Any) -> Any:
        """What the files say, read beside the event loop."""
        try:
            return await asyncio.to_thread(read, of)
        except CheckFailed as problem:
            raise Refused(_unavailable("not_scored", str(problem))) from problem


def _some_lost(publication: Publication, whose: str = " of some customers") -> str:
    return f"the online store has lost the features{whose}: {publications.again(publication)}"


def _not_online(problem: FeatureMismatch | CheckFailed) -> Refusal:
    if isinstance(problem, FeatureMismatch):
        return Refusal(409, problem.code, str(problem))
    return _unavailable("no_online_store", str(problem))


@contextmanager
def _refusing_lists() -> Iterator[None]:
    try:
        yield
    except churn_risk.NoSuchFilter as problem:
        details = {"problems": [], "nearest": problem.nearest}
        raise Refused(Refusal(400, "malformed", str(problem), details)) from problem
    except CheckFailed as problem:
        raise Refused(_unavailable("not_scored", str(problem))) from problem


def _unavailable(code: str, message: str) -> Refusal:
    return Refusal(503, code, message, headers={"Retry-After": str(RETRY_SECONDS)})


def _agreed(rows: dict[str, Row], said: Mapping[str, bool], packed: Sequence[str]) -> dict[str, Row]:
    """The rows with the consents to profiling that were said over HTTP."""
    vectors = apply_profiling(said, rows, packed, np.stack([row.vector for row in rows.values()]))
    return {one: row._replace(vector=vector) for (one, row), vector in zip(rows.items(), vectors, strict=True)}


def _computed(asked: _Question, online_rows: dict[str, Row]) -> dict[str, dict[str, Any]]:
    if not online_rows:
        return {}
    vectors, as_of = np.stack([row.vector for row in online_rows.values()]), [row.as_of for row in online_rows.values()]
    explainer, days = asked.published.explainer, np.array(as_of, dtype=object)
    rows = score_rows.computed(explainer, list(online_rows), days, vectors, asked.explain, asked.horizon)
    telemetry.count_not_scored(row["not_scored_reason"] for row in rows)
    return {row["customer_id"]: row for row in rows}


def _refuse_too_long(published: Published, horizon: int | None) -> None:
    longest = published.predictor.churn.longest
    if horizon is not None and horizon > longest:
        problem = f"the model knows {longest} days of history; ask for 1 to {longest} days, not {horizon}"
        details = {"problems": [{"where": "body.horizon", "problem": problem}]}
        raise Refused(Refusal(400, "malformed", f"body.horizon: {problem}", details))

"""What must be there before the service starts, looked at one by one: `perennial serve --check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from features import online, publications, retrieval
from features.publications import FeatureMismatch
from ingest import events
from serving.champions import NoChampion
from serving.http import processes
from serving.http.keys import Keys
from serving.predictor import Predictor
from workspace import privacy, registry, settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

_Check = Callable[[Workspace], str]
_TROUBLE = (SettingsError, CheckFailed, NoChampion, FeatureMismatch, OSError)


def check(workspace: Workspace) -> Iterator[tuple[str, bool, str]]:
    """What was looked at, whether it is as it must be, and a sentence about it; one after the other."""
    for name, look in _CHECKS.items():
        try:
            yield name, True, look(workspace)
        except _TROUBLE as problem:
            yield name, False, str(problem).splitlines()[0]


def _keys(workspace: Workspace) -> str:
    keys = Keys(workspace.home_path)
    keys.refuse_if_none()
    privacy.refuse_without_key(workspace)
    return f"{keys.in_use()} that let callers in"


def _run(workspace: Workspace) -> str:
    settings.of_home(workspace.home_path)
    return f"{workspace.home_path}"


def _address(workspace: Workspace) -> str:
    processes.bound(workspace.service.host, workspace.service.port).close()
    return f"{workspace.service.host}:{workspace.service.port} is free"


def _certificate(workspace: Workspace) -> str:
    service = workspace.service
    processes.refuse_unusable_certificate(service)
    return service.tls_certificate or "none: plain HTTP"


def _champions(workspace: Workspace) -> str:
    publication = publications.published(workspace.home_path)
    predictor = Predictor.load(workspace, registry.client(), publication.as_of if publication else None)
    return ", ".join(predictor.versions.values())


def _publication(workspace: Workspace) -> str:
    publication = publications.published(workspace.home_path)
    if publication is None:
        raise CheckFailed("nothing is published yet; run `perennial publish`")
    store = retrieval.open_store(workspace)
    online.check(store, workspace, publication, publications.expected_hash(workspace))
    return f"{publication.customers:,} customers of {publication.as_of} in {publication.store}"


def _scores(workspace: Workspace) -> str:
    publication = publications.published(workspace.home_path)
    as_of = publication.as_of if publication else storage.latest_scored(workspace.home_path)
    for path in (storage.scores_path, storage.offers_path, storage.risk_path):
        if not path(workspace.home_path, as_of).exists():
            raise CheckFailed(f"{path(workspace.home_path, as_of)} is not there; run `perennial score --as-of {as_of}`")
    return f"of {as_of}"


def _events(workspace: Workspace) -> str:
    store = events.open_store(workspace)
    try:
        accepted = f"{store.last_number():,} accepted so far"
    finally:
        store.close()
    trouble = events.trouble(workspace.home_path)
    not_shown = f"; not shown since {trouble.since}: {trouble.problem}" if trouble.problem else ""
    aside = f"; {len(trouble.set_aside):,} set aside: {min(trouble.set_aside.items())[1]}" if trouble.set_aside else ""
    return f"{accepted}{not_shown}{aside}"


_CHECKS: dict[str, _Check] = {
    "keys": _keys,
    "workspace": _run,
    "address": _address,
    "certificate": _certificate,
    "champions": _champions,
    "online store and registry": _publication,
    "scores and lists": _scores,
    "store of events": _events,
}

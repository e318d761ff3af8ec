"""Commands about the service, its keys, and what it holds of a customer."""

from __future__ import annotations

from typing import Annotated

import typer

from perennial.commands.app import Config, For, Home, Out, Set, alone, note, opened, shop_of, timed, words_of
from perennial.shop import now
from workspace import storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed


def serve(
    config: Config, port: Annotated[int | None, typer.Option(help="Over the file's.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing, and start nothing.")] = False,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Answer over HTTP until stopped; the bearer key is in PERENNIAL_API_KEY, others come from `perennial keys`.

    Example: PERENNIAL_API_KEY=secret perennial serve -c configs/demo.yaml --port 3000
    """
    workspace = opened(config, overrides, home)
    if port is not None:
        changed = workspace.service.model_copy(update={"port": port})
        workspace = workspace.model_copy(update={"service": changed})
    if check:
        _check_readiness(workspace)
        return
    from serving.http import processes

    processes.serve(workspace.home_path, workspace.service, now, words_of(config, overrides, workspace.home_path))


def mcp(
    config: Config,
    http: Annotated[
        int | None, typer.Option(metavar="PORT", help="Over HTTP on 127.0.0.1, not standard input and output.")
    ] = None,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Answer an assistant: whom to call and why, one customer, how far to trust it. Over MCP, reading alone.

    An assistant's program starts it, with a key from `perennial keys add` in PERENNIAL_KEY: it sees what the key may.
    Example: PERENNIAL_KEY=perennial_... perennial mcp -c configs/demo.yaml
    """
    try:
        from serving.assistant import mcp_server
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] != "mcp":
            raise
        raise SettingsError('`perennial mcp` needs the extra `mcp`: pip install "perennial-crm[mcp]"') from problem
    workspace = opened(config, overrides, home)
    mcp_server.serve(workspace.home_path, workspace.service, now, http)


def _check_readiness(workspace: Workspace) -> None:
    from serving.http import readiness

    missing = 0
    for name, is_there, told in readiness.check(workspace):
        typer.echo(f"{'ok     ' if is_there else 'MISSING'}  {name:<26} {told}")
        missing += not is_there
    if missing:
        raise CheckFailed(f"{missing} of what the service needs is not there")


def add_key(
    config: Config, role: Annotated[For, typer.Option(help="crm, marketing or admin.")],
    contacts: Annotated[bool, typer.Option("--contacts", help="Lists show it the contact data under `pii`.")] = False,
    name: Annotated[str, typer.Option(help="Whose it is, for `keys list`.")] = "",
    scope: Annotated[
        list[str], typer.Option(help="Only customers with this attribute, as name:value; may be repeated.")
    ] = [],
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Make a key and show it, once: only a hash of it is kept.

    crm: scores, cards and consents. marketing: lists. admin: everything. With `--scope` all of it is of a part of the
    shop: who has one of the values of each attribute that is named.
    Example: perennial keys add --role crm --scope region:north --scope region:east -c configs/demo.yaml
    """
    from serving import scope as scopes
    from serving.http.keys import Keys

    workspace = opened(config, overrides, home)
    limits = scopes.checked(workspace, scope)
    typer.echo(Keys(workspace.home_path).add(role.value, now(), contacts, name, limits))


def list_keys(config: Config, overrides: Set = [], home: Home = None) -> None:
    """Show each key's id, role and part of the shop, and which were revoked.

    Example: perennial keys list -c configs/demo.yaml
    """
    from serving.http.keys import Keys

    for key in Keys(opened(config, overrides, home).home_path).listed():
        allowed = ", ".join(filter(None, [key.role, "contacts" if key.contacts else "", str(key.scope)]))
        state = f"revoked {key.revoked_at}" if key.revoked_at else f"added {key.added_at}"
        typer.echo(f"{key.id}  {allowed:<20}  {state}  {key.name}")


def revoke_key(
    config: Config, key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")],
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Let a key in no more, from now on, in services that are running too.

    Example: perennial keys revoke 1f0c93ab -c configs/demo.yaml
    """
    from serving.http.keys import Keys

    Keys(opened(config, overrides, home).home_path).revoke(key_id, now())
    typer.echo(f"{key_id} is revoked")


def customer(
    config: Config, customer_id: Annotated[str, typer.Argument(callback=_customers, help="As the shop calls them.")],
    out: Out = None, overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Show everything that is held of one customer, as JSON: rows by the file they lie in, and who has read them.

    Example: perennial customer C00012645 -c configs/demo.yaml --out held.json
    """
    import json

    held = shop_of(opened(config, overrides, home)).customer(customer_id)
    text = json.dumps(held, indent=2, default=str, ensure_ascii=False)
    if out is None:
        typer.echo(text)
    else:
        with storage.replacing(out) as draft:
            draft.write_text(text, encoding="utf-8")


def erase(
    config: Config,
    customer_ids: Annotated[list[str], typer.Argument(callback=_customers, help="As the shop calls them.")],
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Erase customers from everything that is held, for good, and say where each was found. Killed, it goes on.

    Marks of who was erased stay, made with the key in PERENNIAL_PRIVACY_KEY: no ingest takes them in again.
    Example: perennial erase C00012645 -c configs/demo.yaml
    """
    from features import retrieval
    from serving import erasure
    from workspace import privacy

    workspace = opened(config, overrides, home)
    names = list(map(privacy.naming(workspace), customer_ids))
    with alone(workspace, "perennial erase"):  # whom it erases stands in no file
        try:
            places_of = erasure.erase(workspace, retrieval.open_store(workspace), names, timed())
        except erasure.UnknownCustomer as problem:
            raise CheckFailed(f"nothing is held of {problem} in {workspace.home_path}; nobody was erased") from None
    for name, places in places_of.items():
        typer.echo(f"{name}: {sum(places.values()):,} rows in {len(places)} places are erased")
        for place, rows in places.items():
            typer.echo(f"  {rows:>8,}  {place}")
    note(workspace, "erase", {}, sum(sum(places.values()) for places in places_of.values()), names)


def _customers(given: str | list[str]) -> str | list[str]:
    """The ids that are meant, without the blanks that came with them."""
    from workspace import ids

    try:
        return ids.canonical(given) if isinstance(given, str) else list(map(ids.canonical, given))
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem

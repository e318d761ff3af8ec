"""A workspace file: what it may say, how it is overridden, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workspace.settings import SettingsError, parse, read

ROOT = Path(__file__).resolve().parents[2]
SHOP = "name: shop\ntables: {transactions: {path: lines.csv}}\n"


def shop(tmp_path: Path, text: str = "") -> Path:
    """The smallest workspace file, with `text` behind it."""
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP + text, encoding="utf-8")
    return path


def plain(**keys: Any) -> dict[str, Any]:
    return {"name": "shop", "tables": {"transactions": {"path": "lines.csv"}}, **keys}


def test_name_and_transactions_suffice(tmp_path: Path) -> None:
    """Everything else has a default."""
    workspace = read(shop(tmp_path))
    assert workspace.tables.transactions.path == ("lines.csv",)
    assert (workspace.timezone, workspace.currency, workspace.churn.kind) == ("UTC", "EUR", "inactivity")
    assert workspace.home_path == Path("var/shop").resolve()


def test_the_example_of_the_design_is_read() -> None:
    """A list of paths, whole numbers where fractions may stand, and expressions come through."""
    raw = plain(
        timezone="Europe/London", currency="GBP", lifetime_value={"horizon": 92, "discount_rate": 0},
        churn={"kind": "inactivity", "active_window": 365, "gap": 0, "horizon": 92},
    )  # fmt: skip
    raw["tables"]["transactions"] = {"path": ["a.csv", "b.csv"], "columns": {"amount": "quantity * price"}}
    workspace = parse(raw, "test")
    assert workspace.tables.transactions.path == ("a.csv", "b.csv")
    assert workspace.tables.transactions.columns == {"amount": "quantity * price"}
    assert workspace.lifetime_value.discount_rate == 0


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_configuration_is_valid(file: Path) -> None:
    """The files under `configs/` are read without a complaint and are called what they say."""
    assert read(file).name == file.stem


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("churn.horizon=60", 60),
        ("churn.kind=event", "event"),
        ("tables.transactions.path=[a.csv, b.csv]", ("a.csv", "b.csv")),
        ("tables.transactions.where=a = 'b' AND c > 0", "a = 'b' AND c > 0"),
        ("attributes=[city]", ("city",)),
        ("lifetime_value.discount_rate=0.1", 0.1),
    ],
)
def test_an_override_wins_over_the_file(tmp_path: Path, override: str, value: object) -> None:
    """`key.path=value` reaches any depth; the value is YAML, and what follows the first `=` is its own."""
    setting: Any = read(shop(tmp_path, "churn: {horizon: 30}\n"), [override, "tables.customers.path=customers.csv"])
    for key in override.split("=")[0].split("."):
        setting = getattr(setting, key)
    assert setting == value


@pytest.mark.parametrize("group", ["lifetime_value", "lifetime-value"])
@pytest.mark.parametrize("override", ["lifetime_value.discount_rate=0.1", "lifetime-value.discount_rate=0.1"])
def test_a_group_may_be_written_with_a_dash(tmp_path: Path, group: str, override: str) -> None:
    """As the command line writes the models' names: in the file, over it, and in plain data, it is the same group."""
    own = read(shop(tmp_path, f"{group}: {{horizon: 30, discount_rate: 0.2}}\n"), [override]).lifetime_value
    assert (own.horizon, own.discount_rate) == (30, 0.1)
    assert (
        parse({"name": "shop", "tables": {"transactions": {"path": "x"}}, "cross-sell": {"top": 3}}, "x").cross_sell.top
        == 3
    )


def test_a_group_in_both_spellings_is_refused(tmp_path: Path) -> None:
    """Neither is taken for the one that was meant."""
    with pytest.raises(SettingsError, match="`cross-sell` and `cross_sell` are the same group; write it once"):
        read(shop(tmp_path, "cross_sell: {top: 3}\ncross-sell: {horizon: 30}\n"))


def test_overrides_leave_the_rest_of_their_group(tmp_path: Path) -> None:
    """One key of a group is overridden, its neighbours stay."""
    workspace = read(shop(tmp_path, "churn: {horizon: 30, gap: 3}\n"), ["churn.horizon=60"])
    assert (workspace.churn.horizon, workspace.churn.gap) == (60, 3)


def test_home_comes_from_the_command_line_before_the_file(tmp_path: Path) -> None:
    """`--home` wins over `home:`."""
    assert read(shop(tmp_path, "home: elsewhere\n"), home=tmp_path / "mine").home_path == tmp_path / "mine"
    assert read(shop(tmp_path, "home: elsewhere\n")).home_path == Path("elsewhere").resolve()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("churn.horizon", r"--set churn\.horizon: expected key\.path=value, for example --set churn\.horizon=60"),
        ("=60", "expected key.path=value"),
        ("churn..horizon=60", "expected key.path=value"),
        ("name.first=shop", "name is a value, not a group of settings"),
        ("churn.horizon=[1", "the value is not YAML; quote it"),
        ("churn.horizon=soon", r"churn\.horizon: .*valid integer.*\(it is 'soon'\)"),
        ("churn.horizont=60", r"churn\.horizont: no such setting.*\(did you mean horizon\?\)"),
    ],
)
def test_a_wrong_override_is_explained(tmp_path: Path, override: str, message: str) -> None:
    """Syntax, unknown keys and wrong types in `--set` say what was expected."""
    with pytest.raises(SettingsError, match=message):
        read(shop(tmp_path), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour: red\n", r"shop\.yaml has 1 wrong setting.*\n  colour: no such setting; docs/settings\.md lists"),
        ("timezon: UTC\n", r"timezon: no such setting.*\(did you mean timezone\?\)"),
        ("churn: {horizont: 30}\n", r"churn\.horizont: no such setting.*\(did you mean horizon\?\)"),
        ("timezone: Europe/Londn\n", r"timezone: not a time zone; use a name such as Europe/London.*'Europe/Londn'"),
        ("timezone: localtime\n", "timezone: not a time zone"),
        ("currency: Euro\n", r"currency: .*\(it is 'Euro'\)"),
        ("churn: {horizon: 0}\n", r"churn\.horizon: .*greater than or equal to 1 \(it is 0\)"),
        ("churn: {horizon: 30.5}\n", r"churn\.horizon: .*valid integer"),
        ("churn: {horizon: '30'}\n", r"churn\.horizon: .*valid integer.*\(it is '30'\)"),
        ("churn: {kind: churned}\n", r"churn\.kind: .*'inactivity' or 'event' \(it is 'churned'\)"),
        ("bands: {medium: 0.8, high: 0.7}\n", r"bands: medium \(0\.8\) must be below high \(0\.7\)"),
        ("attributes: [city]\n", r"\(top\): attributes are columns of `tables\.customers`, which is not given"),
        ("attributes: [City of birth]\n", r"attributes\.0: must be lower-case letters, digits and underscores"),
        ("max_quarantined: 2\n", r"max_quarantined: .*less than or equal to 1 \(it is 2\)"),
        ("churn: {gap: 1, gap: 2}\n", r"shop\.yaml cannot be read as YAML: `gap` is written twice"),
        ("name: other\n", "`name` is written twice"),
        ("churn: [\n", r"shop\.yaml cannot be read as YAML"),
        ("home: ${NO_SUCH_VARIABLE}/x\n", r"uses \$\{NO_SUCH_VARIABLE\}, which is not set in the environment: export"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file, the key, the value and what is expected."""
    with pytest.raises(SettingsError, match=message):
        read(shop(tmp_path, text))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "shop"}, "tables: required, and absent"),
        ({"tables": {"transactions": {"path": "a.csv"}}}, "name: required, and absent"),
        (plain(tables={"customers": {"path": "a.csv"}}), r"tables\.transactions: required, and absent"),
        (plain(name="My shop"), r"name: must be lower-case letters, digits and underscores.*\(it is 'My shop'\)"),
        (plain(tables={"transactions": {}}), "name either `path` or `database`"),
        (plain(tables={"transactions": {"path": []}}), "`path` names no file"),
        (plain(tables={"transactions": {"path": ""}}), "`path` names no file"),
        (plain(tables={"transactions": {"database": "sqlite:///a.db"}}), "`database` and `table` go together"),
        (plain(tables={"transactions": {"path": "a.csv", "table": "lines"}}), "`database` and `table` go together"),
        (plain(tables={"transactions": {"path": "a.csv", "encoding": "ebcdic"}}), r"encoding: .*'utf-8'.*'ebcdic'"),
        (plain(tables={"transactions": {"path": "a.csv", "columns": {"amount": 5}}}), r"columns\.amount: .*string"),
    ],
)
def test_wrong_tables_are_explained(raw: dict[str, Any], message: str) -> None:
    """What a table needs and cannot have together is said by name."""
    with pytest.raises(SettingsError, match=message):
        parse(raw, "shop.yaml")


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        ("a: [region:north]", "service.oidc.scopes names region, which is none of the attributes; there are: none"),
        ("a: [north]", r"oidc\.scopes\.a\.0: must be `name:value` of an attribute, such as region:north.*'north'"),
        ("a: 'region: '", r"oidc\.scopes\.a\.0: must be `name:value`"),
        ("a: []", r"oidc\.scopes\.a: .*at least 1 item"),
    ],
)
def test_a_branch_that_nobody_can_be_in_is_refused(tmp_path: Path, scopes: str, message: str) -> None:
    """Before somebody signs in who would see nothing, or everything."""
    oidc = f"issuer: https://login.example.com, client_id: desk, roles: {{a: crm}}, scopes: {{{scopes}}}"
    with pytest.raises(SettingsError, match=message):
        read(shop(tmp_path, f"service: {{oidc: {{{oidc}}}}}\n"))


def test_at_most_five_faults_are_listed_and_all_counted(tmp_path: Path) -> None:
    """A file full of mistakes gives a short message."""
    text = "".join(f"wrong_{number}: 1\n" for number in range(7))
    with pytest.raises(SettingsError, match="has 7 wrong") as problem:
        read(shop(tmp_path, text))
    assert str(problem.value).count("no such setting") == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such workspace file; `configs/` has examples"),
        (b"", "must hold `name:` and `tables:`; it holds NoneType"),
        (b"- a\n", "it holds list"),
        (b"name: caf\xe9\n", "cannot be read as YAML"),
    ],
)
def test_what_is_no_workspace_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Absent, empty, another shape, another encoding: each has its sentence."""
    path = tmp_path / "shop.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        read(path)


def test_the_environment_fills_in_texts_at_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${NAME}` works in paths, lists and maps, also twice in one text, and a lone dollar is left alone."""
    monkeypatch.setenv("SHOP_DATA", "/data")
    raw = plain()
    raw["tables"]["transactions"] = {"path": ["${SHOP_DATA}/a/${SHOP_DATA}.csv"], "columns": {"amount": "$x"}}
    table = parse(raw, "test").tables.transactions
    assert table.path == ("/data/a//data.csv",)
    assert table.columns == {"amount": "$x"}


BOMB = "&a [x, x, x, x, x, x, x, x, x]\n"
for inner, outer in zip("abcdefgh", "bcdefghi", strict=True):
    BOMB = BOMB.replace("\n", f", &{outer} [{', '.join([f'*{inner}'] * 9)}]\n")
LARGE = [
    ("[" + BOMB.strip() + "]", "more than 100,000 values"),
    ("&a [*a]", "more than 100,000 values"),
    ("[" * 5_000 + "]" * 5_000, "nested too deeply"),
    ("9" * 5_000, "digits"),
    ("2024-13-45", "month must be in"),
]


@pytest.mark.parametrize(("value", "message"), LARGE, ids=["bomb", "circle", "depth", "digits", "date"])
def test_a_few_lines_that_stand_for_more_than_a_machine_holds_are_refused(
    tmp_path: Path, value: str, message: str
) -> None:
    """Aliases of aliases, one of itself, endless depth or digits: a sentence at once, in a file and in `--set`."""
    with pytest.raises(SettingsError, match=message):
        read(shop(tmp_path, f"attributes: {value}\n"))
    with pytest.raises(SettingsError, match=message):
        read(shop(tmp_path), [f"attributes={value}"])


def test_an_alias_may_be_used_as_it_is_meant(tmp_path: Path) -> None:
    """What is said once may be named again."""
    horizons = "churn: &days {horizon: 60}\nlifetime_value: *days\ncross_sell: {<<: *days, top: 3}\n"
    workspace = read(shop(tmp_path, horizons))
    assert (workspace.lifetime_value.horizon, workspace.cross_sell.horizon, workspace.cross_sell.top) == (60, 60, 3)


def test_no_setting_comes_from_beside_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the real data sets are the environment says, or the error does."""
    monkeypatch.delenv("PERENNIAL_DATASETS")
    with pytest.raises(SettingsError, match=r"cdnow\.yaml uses \$\{PERENNIAL_DATASETS\}, which is not set"):
        read(ROOT / "configs" / "cdnow.yaml")


def test_an_empty_variable_counts_as_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path would be the current folder, which nobody meant."""
    monkeypatch.setenv("SHOP_DATA", "")
    with pytest.raises(SettingsError, match=r"SHOP_DATA.*not set in the environment: export SHOP_DATA="):
        read(shop(tmp_path, "home: ${SHOP_DATA}\n"))


def test_a_databases_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the model's text, nor its JSON, nor an error about its group holds it; the JSON can be read again."""
    monkeypatch.setenv("SHOP_DATABASE", "postgresql://shop:hush@db/shop")
    raw = plain(tables={"transactions": {"database": "${SHOP_DATABASE}", "table": "lines"}})
    workspace = parse(raw, "test")
    assert "hush" not in repr(workspace)
    assert "hush" not in workspace.model_dump_json()
    assert parse(workspace.model_dump(mode="json", exclude_none=True), "again").name == "shop"
    del raw["tables"]["transactions"]["table"]
    with pytest.raises(SettingsError, match="go together") as problem:
        parse(raw, "test")
    assert "hush" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("online: memory\n", r"`online` is `sqlite`, an address redis://\.\.\., or a \$\{VARIABLE\}"),
        ("online: http://cache/0\n", "`online` is `sqlite`"),
        ("registry: mysql://db/feast\n", "`registry` is `sqlite`, an address postgresql://"),
        ("online: redis://:hush@cache/0\n", r"`online` holds a password in the clear; put .* online: \$\{VARIABLE\}"),
        ("registry: postgresql://feast:hush@db/feast\n", "`registry` holds a password in the clear"),
    ],
)
def test_an_address_is_known_and_holds_no_password(tmp_path: Path, text: str, message: str) -> None:
    """Stores that do not exist and passwords in a file are refused, and the message shows no password."""
    with pytest.raises(SettingsError, match=message) as problem:
        read(shop(tmp_path, text))
    assert "hush" not in str(problem.value)


@pytest.mark.parametrize("address", ["sqlite", "redis://cache:6379/3", "rediss://crm:${PASSWORD}@cache/0", "${REDIS}"])
def test_an_address_is_kept_as_it_is_written(tmp_path: Path, address: str) -> None:
    """Its variables need not be set to read the file, and what is stored of the settings has no secret."""
    workspace = read(shop(tmp_path, f"online: {address}\n"))
    assert workspace.online == address
    assert parse(workspace.model_dump(mode="json", exclude_none=True), "again").online == address


def test_a_workspace_cannot_be_changed() -> None:
    """Settings are read once; assigning to one is an error."""
    workspace = parse(plain(), "test")
    with pytest.raises(ValidationError, match="frozen"):
        workspace.churn.horizon = 5  # type: ignore[misc]


def test_describing_tables_come_before_the_events_that_name_them() -> None:
    """Ids are checked against customers, so customers are taken in first."""
    tables = {
        name: {"path": "a.csv"} for name in ("interactions", "transactions", "products", "campaigns", "customers")
    }
    given = list(parse(plain(tables=tables), "test").tables.given())
    assert given == ["customers", "products", "campaigns", "transactions", "interactions"]


@pytest.mark.parametrize(
    ("keys", "days"),
    [
        ({"churn": {"horizon": 30, "gap": 70}}, 100),
        ({"lifetime_value": {"horizon": 120}}, 120),
        ({"cross_sell": {"horizon": 95}}, 95),
    ],
)
def test_the_longest_horizon_waits_for_every_model(keys: dict[str, Any], days: int) -> None:
    """Gap and horizon of churn count together; the longest of the three models' decides."""
    assert parse(plain(**keys), "test").longest_horizon == days

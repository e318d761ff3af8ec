"""Alerts: told to a file, to a real HTTP server and through a real SMTP server, each thing once."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from monitoring import alerts
from monitoring.alerts import Alert
from monitoring.drift import Drift
from monitoring.outcomes import Early, Group, Outcomes
from workspace import settings
from workspace.settings import SettingsError, Workspace

DRIFT = Alert("drift since 2024-10-01", "12 of 40 features moved", "perennial monitor -c shop.yaml")
REFUSED = Alert("churn version 3 was refused", "auc is lower", "perennial promote churn --version 3 -c shop.yaml")
AT = dt.datetime(2025, 1, 2, 4, 0, tzinfo=dt.UTC)


def workspace(folder: Path, **alerts: Any) -> Workspace:
    raw = {"name": "shop", "home": str(folder), "tables": {"transactions": {"path": "none.csv"}}, "alerts": alerts}
    return settings.parse(raw, "the tests")


def tell(shop: Workspace, *told: Alert, day: str = "2025-01-01", complete: bool = True) -> list[str]:
    page = shop.home_path / "reports" / "run.html"
    return alerts.tell(shop, told, dt.date.fromisoformat(day), AT, page, complete=complete)


def lines(folder: Path) -> list[dict[str, str]]:
    path = folder / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class Hook:
    """A webhook: the bodies that it was posted, and what it answers."""

    url: str = ""
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        hook.url = f"http://127.0.0.1:{server.server_port}/secret-path"
        monkeypatch.setenv("HOOK", hook.url)
        yield hook
        server.shutdown()
        thread.join()


class Mailbox:
    """An SMTP server's handler: the messages that it took, and whom it refuses."""

    def __init__(self, refused: str = "") -> None:
        self.messages: list[EmailMessage] = []
        self.refused = refused

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, _: Any) -> str:
        if address == self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@contextmanager
def mail_server(mailbox: Mailbox, **options: Any) -> Iterator[dict[str, Any]]:
    """A running SMTP server, as `alerts.email` names it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    yield {"to": ["ann@example.org", "bob@example.org"], "sender": "perennial@example.org", "host": "localhost",
           "port": port, "security": "none"}  # fmt: skip
    controller.stop()


def test_a_file_gets_a_line_for_each_alert(tmp_path: Path) -> None:
    """With what was seen, the next command, the page and when; what was there stays."""
    (tmp_path / "alerts.jsonl").write_text('{"about": "earlier"}\n')
    assert tell(workspace(tmp_path), DRIFT, REFUSED) == [f"2 alert(s) told: {tmp_path}/alerts.jsonl"]
    earlier, first, second = lines(tmp_path)
    assert earlier == {"about": "earlier"}
    assert first == {
        "about": DRIFT.about, "says": DRIFT.says, "command": DRIFT.command, "workspace": "shop", "as_of": "2025-01-01",
        "at": "2025-01-02T04:00:00+00:00", "page": f"file://{tmp_path}/reports/run.html",
    }  # fmt: skip
    assert second["about"] == REFUSED.about


def test_the_file_and_the_pages_address_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both may hold a variable of the environment; a link is the address with the page's name behind it."""
    monkeypatch.setenv("WHERE", str(tmp_path / "elsewhere"))
    shop = workspace(tmp_path / "home", file="${WHERE}/told.jsonl", reports="https://bi.example.org/shop/")
    tell(shop, DRIFT)
    told = json.loads((tmp_path / "elsewhere" / "told.jsonl").read_text())
    assert told["page"] == "https://bi.example.org/shop/run.html"


def test_what_a_target_knows_is_not_told_again_before_its_time(tmp_path: Path) -> None:
    """The same alert is told once, beside new ones, until `repeat_after` days have passed."""
    shop = workspace(tmp_path, repeat_after=14)
    for day, raised, told in [
        ("2025-01-01", [DRIFT], [DRIFT]), ("2025-01-01", [DRIFT], []), ("2025-01-08", [DRIFT, REFUSED], [REFUSED]),
        ("2025-01-14", [DRIFT], []), ("2025-01-15", [DRIFT], [DRIFT]),
    ]:  # fmt: skip
        before = len(lines(tmp_path))
        tell(shop, *raised, day=day)
        assert [line["about"] for line in lines(tmp_path)[before:]] == [alert.about for alert in told], day


@pytest.mark.parametrize(("complete", "times"), [(True, 2), (False, 1)])
def test_what_ended_and_came_back_is_told_again(complete: bool, times: int, tmp_path: Path) -> None:
    """But a run that broke off did not look whether it had ended."""
    shop = workspace(tmp_path)
    tell(shop, DRIFT)
    tell(shop, complete=complete)
    tell(shop, DRIFT)
    assert len(lines(tmp_path)) == times


def test_a_webhook_is_posted_all_that_is_new_at_once(tmp_path: Path, hook: Hook) -> None:
    """As data, and in words under `text`; the sentence about it names the host, not the secret path."""
    said = tell(workspace(tmp_path, webhook="${HOOK}"), DRIFT, REFUSED)
    assert said[1] == "2 alert(s) told: the webhook at 127.0.0.1"
    (body,) = hook.bodies
    assert [alert["about"] for alert in body["alerts"]] == [DRIFT.about, REFUSED.about]
    assert body["text"].startswith("shop at 2025-01-01: 2 things need a look\n\ndrift since 2024-10-01: 12 of 40")
    assert f"Next: {REFUSED.command}" in body["text"]
    assert body["text"].endswith(f"Page: file://{tmp_path}/reports/run.html")


def test_a_webhook_that_fails_is_said_and_told_by_the_next_run(tmp_path: Path, hook: Hook) -> None:
    """The other targets are told meanwhile, and not told twice; the secret in its address is in no sentence."""
    shop = workspace(tmp_path, webhook="${HOOK}")
    hook.status = 503
    (_, failed) = tell(shop, DRIFT)
    assert failed == "alerts.webhook could not be told: HTTP Error 503: Service Unavailable; the next run tries again"
    hook.status = 200
    assert tell(shop, DRIFT) == ["1 alert(s) told: the webhook at 127.0.0.1"]
    assert tell(shop, DRIFT) == []
    assert (len(lines(tmp_path)), len(hook.bodies)) == (1, 2)


@pytest.mark.parametrize(
    ("address", "says"),
    [("http://127.0.0.1:9/secret", "Connection refused"), ("http://[secret", r"its address cannot be used"),
     ("http://127.0.0.1:secret/", r"its address cannot be used"), ("secret", "does not begin with http"),
     (None, r"\$\{HOOK\}, which is not set in the environment")],
)  # fmt: skip
def test_a_webhook_that_cannot_be_reached_breaks_nothing(
    address: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down, misspelt or not set: a sentence without the address, and the file is told."""
    if address is not None:
        monkeypatch.setenv("HOOK", address)
    _, failed = tell(workspace(tmp_path, webhook="${HOOK}"), DRIFT)
    assert failed.startswith("alerts.webhook could not be told: ")
    assert "secret" not in failed
    assert re.search(says, failed), failed
    assert len(lines(tmp_path)) == 1


def test_an_e_mail_reaches_everybody_named(tmp_path: Path) -> None:
    """One message with all that is new, the next commands and the page; its subject says how much it is."""
    mailbox = Mailbox()
    with mail_server(mailbox) as email:
        said = tell(workspace(tmp_path, email=email), DRIFT, REFUSED)
    (message,) = mailbox.messages
    assert said[1] == "2 alert(s) told: ann@example.org, bob@example.org"
    assert message["Subject"] == "shop at 2025-01-01: 2 things need a look"
    assert (message["To"], message["From"]) == ("ann@example.org, bob@example.org", "perennial@example.org")
    assert message["Date"] == "Thu, 02 Jan 2025 04:00:00 +0000"
    for text in (DRIFT.says, DRIFT.command, REFUSED.command, "/reports/run.html"):
        assert text in message.get_content()


def test_who_is_refused_is_named(tmp_path: Path) -> None:
    """The others have their message, so it counts as told."""
    mailbox = Mailbox(refused="bob@example.org")
    with mail_server(mailbox) as email:
        shop = workspace(tmp_path, email=email)
        assert tell(shop, DRIFT)[1] == "1 alert(s) told: ann@example.org; refused: bob@example.org"
        assert tell(shop, DRIFT) == []
    assert len(mailbox.messages) == 1


def test_e_mail_that_is_refused_is_said_and_told_by_the_next_run(tmp_path: Path) -> None:
    """No mailbox, then no server: a sentence each; once there is one it is told."""
    mailbox = Mailbox(refused="ann@example.org")
    with mail_server(mailbox) as email:
        shop = workspace(tmp_path, email=email | {"to": "ann@example.org"})
        assert "alerts.email could not be told: the server refuses ann@example.org" in tell(shop, DRIFT)[1]
        mailbox.refused = ""
        assert tell(shop, DRIFT) == ["1 alert(s) told: ann@example.org"]
    assert "alerts.email could not be told: [Errno 111] Connection refused" in tell(shop, REFUSED)[1]


@pytest.mark.parametrize(("drifted", "told"), [(True, 1), (False, 0)])
def test_drift_is_told_with_what_moved(drifted: bool, told: int) -> None:
    """Under the date that the champion learnt from: another champion's drift is another thing."""
    day, page = dt.date(2025, 1, 1), Path("drift.html")
    drift = Drift(
        as_of=day, reference=dt.date(2024, 10, 1), last_year=None, drifted=drifted, matters=drifted, share=0.5,
        limit=0.3, weight=0.6, weight_limit=0.3, judged=40, past=0, sources=(), features=(), predictions=(),
        growing=(), constant=(), gone=(), reference_rows=400, current_rows=400, page=page, record=page,
    )  # fmt: skip
    raised = list(alerts.of_drift(drift, "perennial monitor"))
    assert len(raised) == told
    for alert in raised:
        assert alert.about == "what the champion learnt from at 2024-10-01 has moved"
        assert alert.says.startswith("drift at 2025-01-01 against 2024-10-01, and it matters to the model")
        assert "0 of 40 features moved (50%; 30% is drift)" in alert.says


def outcomes(*weeks: tuple[str, float, float], early: Early | None = None) -> Outcomes:
    """Of weeks with an expected and an actual share of leavers among 1,000 customers, known to within 3 points."""
    groups = [
        Group(
            "champion", "week", week, 1000, 0, expected=expected, actual=actual, low=actual - 0.03, high=actual + 0.03
        )
        for week, expected, actual in weeks
    ]
    day, page = dt.date(2025, 1, 1), Path("outcomes.html")
    return Outcomes(day, day, tuple(groups), (), (early,) if early else (), (), False, page, page)


@pytest.mark.parametrize(
    ("weeks", "told"),
    [
        ([("2024-09-02", 0.40, 0.60)], ["40.0% of 1,000 customers were expected to leave, 60.0% did"]),
        ([("2024-09-02", 0.60, 0.40)], ["60.0% of 1,000 customers were expected to leave, 40.0% did"]),
        ([("2024-09-02", 0.40, 0.50)], []),
        ([("2024-09-02", 0.40, 0.60), ("2024-09-30", 0.40, 0.42)], []),
        ([], []),
    ],
)
def test_predictions_that_were_far_off_are_told(weeks: list[tuple[str, float, float]], told: list[str]) -> None:
    """Those whose window closed last; 12 points are borne, and so is what chance explains."""
    assert [alert.says for alert in alerts.of_outcomes(outcomes(*weeks), "perennial monitor")] == told


@pytest.mark.parametrize(("actual", "told"), [(50.0, 1), (98.0, 0), (160.0, 1)])
def test_unusual_purchases_are_told_before_the_window_closes(actual: float, told: int) -> None:
    """Far fewer, or far more, than earlier windows had by then."""
    early = Early(dt.date(2024, 12, 1), 31, 400, expected=100.0, actual=actual, usual=(0.9, 1.1))
    raised = list(alerts.of_outcomes(outcomes(early=early), "perennial monitor"))
    assert len(raised) == told
    assert all(alert.about == "purchases since 2024-12-01 are unusual" for alert in raised)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Of `localhost`, signed by itself, and its key."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_the_password_goes_over_tls_and_only_to_a_server_that_is_trusted(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With STARTTLS: first a certificate that nobody vouches for, then one that is trusted."""
    seen: list[bytes] = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
        seen.append(login.password)
        return AuthResult(success=login.password == b"right", handled=False)

    trusted, key = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(trusted, key)
    monkeypatch.setenv("SMTP_PASSWORD", password)
    mailbox = Mailbox()
    with mail_server(mailbox, tls_context=tls, authenticator=authenticate) as email:
        email |= {"security": "starttls", "user": "perennial", "password": "${SMTP_PASSWORD}"}
        shop = workspace(tmp_path, email=email)
        assert "certificate verify failed" in tell(shop, DRIFT)[1]
        assert seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        said = tell(shop, DRIFT)[0]
    assert set(seen) == {password.encode()}  # smtplib tries one way to log in after the other
    assert len(mailbox.messages) == (password == "right")
    assert ("told: ann@" in said) == (password == "right")
    assert password == "right" or "the server says 535" in said


@pytest.mark.parametrize(
    "alerts", [{"webhook": "https://hooks.example.org/T0/secret"}, {"email": {"password": "secret"}}]
)
def test_a_secret_in_the_file_is_refused_and_not_shown(alerts: dict[str, Any], tmp_path: Path) -> None:
    """It belongs into the environment, under a name that the file gives."""
    with pytest.raises(SettingsError, match="holds a secret, so it must name a variable") as problem:
        workspace(tmp_path, **alerts)
    assert "T0" not in str(problem.value)
    assert "'secret'" not in str(problem.value)


def test_what_is_stored_of_the_settings_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable's name is kept, not its value."""
    monkeypatch.setenv("HOOK", "https://hooks.example.org/secret")
    assert workspace(tmp_path, webhook="${HOOK}").model_dump(mode="json")["alerts"]["webhook"] == "${HOOK}"

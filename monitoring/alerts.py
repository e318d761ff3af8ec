"""Telling a person what needs a look: in a file, to a webhook and by e-mail, each thing once."""

from __future__ import annotations

import json
import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ingest import events
from workspace import settings, storage
from workspace.settings import Alerts, SettingsError, Workspace

if TYPE_CHECKING:
    from monitoring.drift import Drift
    from monitoring.outcomes import Outcomes

FAR_OFF = 0.12
"""From expected to actual share of leavers, beyond which a person has to look: what grade C allows on average."""
_PATIENCE = 10.0  # seconds that a server may take
_SHOWN = 6  # lines


@dataclass(frozen=True)
class Alert:
    """One thing that needs a look.

    `about` names it, in the same words for as long as it lasts; `says` what was seen, `command` what to type next.
    """

    about: str
    says: str
    command: str


def of_drift(drift: Drift, command: str) -> Iterator[Alert]:
    """One alert where the world has moved: its first lines say what, and whether it matters to the model."""
    if drift.drifted:
        about = f"what the champion learnt from at {drift.reference} has moved"
        yield Alert(about, "\n".join(str(drift).splitlines()[:_SHOWN]), command)


def of_outcomes(outcomes: Outcomes, command: str) -> Iterator[Alert]:
    """Of predictions whose window closed last, and that were far off; of open windows in which too few or many buy."""
    for group in outcomes.of("week")[-1:]:
        if group.is_off and abs((group.expected or 0.0) - (group.actual or 0.0)) > FAR_OFF:
            says = f"{group.expected:.1%} of {group.asked:,} customers were expected to leave, {group.actual:.1%} did"
            yield Alert(f"predictions of the week of {group.name} did not come true", says, command)
    for early in outcomes.early:
        if early.is_unusual:
            says = f"{early.actual:,.0f} purchases in {early.days} days, where {early.expected:,.0f} were expected"
            yield Alert(f"purchases since {early.as_of} are unusual", says, command)


def of_events(workspace: Workspace, at: datetime, command: str) -> Iterator[Alert]:
    """Of events that the service accepted and that no score shows: all of them for too long, or some for good."""
    trouble = events.trouble(workspace.home_path)
    if trouble.problem and trouble.since and (at - trouble.since).total_seconds() > events.TOLD_AFTER:
        says = f"since {trouble.since:%Y-%m-%d %H:%M} UTC: {trouble.problem}"
        yield Alert("accepted events do not reach the scores", says, command)
    if trouble.set_aside:
        first = min(trouble.set_aside)
        says = f"{len(trouble.set_aside):,}, of which number {first}: {trouble.set_aside[first]}"
        yield Alert("accepted events were set aside: their customers' scores lack them", says, command)


@dataclass(frozen=True)
class _Letter:
    """What one target is told at once: the alerts that are new to it, and the page where all of it can be read."""

    workspace: str
    as_of: date
    at: datetime
    page: str
    alerts: Sequence[Alert]

    @property
    def subject(self) -> str:
        things = "1 thing needs" if len(self.alerts) == 1 else f"{len(self.alerts)} things need"
        return f"{self.workspace} at {self.as_of}: {things} a look"

    @property
    def text(self) -> str:
        told = [f"{alert.about}: {alert.says}\nNext: {alert.command}" for alert in self.alerts]
        return "\n\n".join([self.subject, *told, f"Page: {self.page}"])

    @property
    def heading(self) -> dict[str, str]:
        return {"workspace": self.workspace, "as_of": str(self.as_of), "at": self.at.isoformat(), "page": self.page}


def tell(
    workspace: Workspace, alerts: Sequence[Alert], as_of: date, at: datetime, page: Path, *, complete: bool
) -> list[str]:
    """Tells each target of `alerts.*` what it was not told yet; returns a sentence about each that had to be told.

    What a target knows is told to it again `alerts.repeat_after` days of `as_of` later, or when it had ended in
    between; only a `complete` run, which looked at everything, can say that something ended. A target that fails is
    named in the sentences, changes nothing for the others, and is told by the next run.
    """
    told_path = workspace.home_path / "alerts_told.json"
    told = storage.read_json(told_path) if told_path.exists() else {}
    sentences = []
    for name, send in _targets(workspace.alerts).items():
        known: dict[str, str] = told.setdefault(name, {})
        if complete:
            current = {alert.about for alert in alerts}
            known = told[name] = {about: day for about, day in known.items() if about in current}
        fresh = [alert for alert in alerts if _is_new(known.get(alert.about), as_of, workspace.alerts.repeat_after)]
        if not fresh:
            continue
        try:
            where = send(workspace, _Letter(workspace.name, as_of, at, _address(workspace.alerts, page), fresh))
        except (OSError, HTTPException, ValueError) as problem:
            sentences.append(f"alerts.{name} could not be told: {_reason(problem)}; the next run tries again")
            continue
        known.update({alert.about: str(as_of) for alert in fresh})
        sentences.append(f"{len(fresh)} alert(s) told: {where}")
    storage.write_json(told_path, told)
    return sentences


def _is_new(told: str | None, as_of: date, repeat_after: int) -> bool:
    return told is None or (as_of - date.fromisoformat(told)).days >= repeat_after


def _address(alerts: Alerts, page: Path) -> str:
    reports = alerts.reports
    return f"{reports.rstrip('/')}/{page.name}" if reports else page.as_uri()


def _reason(problem: Exception) -> str:
    """Without the address, which may hold a secret."""
    match problem:
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            return f"the server refuses {', '.join(refused)}"
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=said):
            return f"the server says {code} {said.decode(errors='replace') if isinstance(said, bytes) else said}"
        case SettingsError() | OSError():
            return str(problem)
        case _:
            return f"its address cannot be used ({type(problem).__name__})"


_Send = Callable[[Workspace, _Letter], str]


def _targets(alerts: Alerts) -> dict[str, _Send]:
    given: dict[str, _Send] = {"file": _to_file}
    if alerts.webhook is not None:
        given["webhook"] = _to_webhook
    if alerts.email is not None:
        given["email"] = _by_email
    return given


def _to_file(workspace: Workspace, letter: _Letter) -> str:
    """Appends a line of JSON for each alert."""
    path = workspace.home_path / "alerts.jsonl"
    if workspace.alerts.file is not None:
        path = Path(settings.filled(workspace.alerts.file, "alerts.file"))
    lines = [json.dumps(letter.heading | asdict(alert)) for alert in letter.alerts]
    storage.make_folder(path.parent)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
    return str(path)


def _to_webhook(workspace: Workspace, letter: _Letter) -> str:
    """Posts the alerts as JSON, all in words under `text`, where Slack, Mattermost and Teams look."""
    url = settings.filled(workspace.alerts.webhook, "alerts.webhook")
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError("its address does not begin with http:// or https://")
    alerts = [asdict(alert) for alert in letter.alerts]
    body = json.dumps({"text": letter.text} | letter.heading | {"alerts": alerts}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "User-Agent": "perennial"})
    with urllib.request.urlopen(request, timeout=_PATIENCE):
        return f"the webhook at {urlsplit(url).hostname}"


def _by_email(workspace: Workspace, letter: _Letter) -> str:
    email = workspace.alerts.email
    assert email is not None
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = letter.subject, email.sender, ", ".join(email.to)
    message["Date"], message["Message-ID"] = format_datetime(letter.at), make_msgid(domain="perennial")
    message.set_content(letter.text + "\n")
    secure = ssl.create_default_context()
    if email.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(email.host, email.port, timeout=_PATIENCE, context=secure)
    else:
        server = smtplib.SMTP(email.host, email.port, timeout=_PATIENCE)
    with server:
        if email.security == "starttls":
            server.starttls(context=secure)
        if email.user is not None:
            server.login(email.user, settings.filled(email.password or "", "alerts.email.password"))
        refused = server.send_message(message)
    told = ", ".join(to for to in email.to if to not in refused)
    return f"{told}; refused: {', '.join(refused)}" if refused else told

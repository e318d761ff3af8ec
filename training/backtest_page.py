"""The backtest as one page of HTML that needs nothing else, for who decides whether to rely on the models."""

from __future__ import annotations

import base64
import io

from matplotlib.figure import Figure

from training import plots
from training.backtest_report import Report


def as_html(report: Report) -> str:
    return "\n".join(_picture(f) for m in report.models for f in plots.of(m.kind, m.judged, report.currency).values())


def _picture(figure: Figure) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="svg")
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(held.getvalue()).decode()}">'

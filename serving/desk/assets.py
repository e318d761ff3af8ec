"""What the desk's pages need beside themselves: style, scripts and the libraries that lie in `pages/files`."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import pages

_FOLDER = Path(pages.__file__).parent
# By the name in an address: the files that it is put together from.
_SOURCES = {
    "desk.css": ("templates/style.css", "files/desk.css"),
    "desk.js": ("files/desk.js",),
    "htmx.js": ("files/htmx-2.0.11.min.js",),
    "echarts.js": ("files/echarts-6.1.0.common.min.js",),
}
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_FOREVER = "public, max-age=31536000, immutable"


@cache
def _content(name: str) -> bytes:
    return b"\n".join((_FOLDER / source).read_bytes() for source in _SOURCES[name])


ASSETS = {name: f"/desk/files/{hashlib.sha256(_content(name)).hexdigest()[:12]}/{name}" for name in _SOURCES}
"""By name, the address: another one whenever the content is, so that browsers keep what they have."""


async def asset(request: Request) -> Response:
    """
    Raises:
        HTTPException: there is no such file, or none of this content.
    """
    name = request.path_params["name"]
    if ASSETS.get(name) != f"/desk/files/{request.path_params['content']}/{name}":
        raise HTTPException(404)
    headers = {"Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
    return Response(_content(name), media_type=_TYPES[Path(name).suffix], headers=headers)

"""Bodies as RFC 8259 has them: what Python's reader would let through, or fail at, is malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

_HALF = re.compile("[\ud800-\udfff]")  # pydantic looks for them in values


class StrictRoute(APIRoute):
    """A route whose body is read so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return strictly


class _Request(Request):
    async def json(self) -> Any:
        return _parsed(await self.body())


def _parsed(body: bytes) -> Any:
    """
    Raises:
        JSONDecodeError: it is not UTF-8 or not JSON, has a key twice, NaN or half a character in it, or no end.
    """
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_each_once, parse_constant=_no_number)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise _malformed("nested too deeply") from None
    except UnicodeDecodeError:
        raise _malformed("not UTF-8") from None
    except ValueError:  # Python reads whole numbers of up to 4,300 digits
        raise _malformed("a number has thousands of digits") from None


def _malformed(why: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(why, "", 0)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _malformed("a key stands twice in one object")
    if any(map(_HALF.search, values)):
        raise _malformed("half a Unicode character in a key")
    return values


def _no_number(constant: str) -> NoReturn:
    raise _malformed(f"{constant} is no number")

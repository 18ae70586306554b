"""Lets requests of Django's test client pass the portal's asynchronous middleware without an event loop.

Django would make a loop for each request, and change between it and a thread at each middleware, in a third of the time
that a page takes. Servers and asynchronous clients run the middleware as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import iscoroutinefunction
from typing import Any, Final

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers import base
from django.http import HttpRequest
from django.http.response import HttpResponseBase

Sync = Callable[[HttpRequest], HttpResponseBase]
# Middleware that waits for something else than the answer, and at which requests.
WAITING: Final[dict[str, Callable[[HttpRequest], bool]]] = {
    "accounts.forms_once.forms_once": lambda request: request.method == "POST",
    "servestatic.middleware.ServeStaticMiddleware": lambda request: request.path.startswith("/static/"),
}


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError(f"{coroutine} waits: name its middleware in WAITING")


@cache
def _sync_too(path: str) -> Any:
    """The middleware of a path in the settings; a synchronous one where the next is."""
    middleware = _import_string(path)

    def made(get_response: Any) -> Any:
        if iscoroutinefunction(get_response):
            return middleware(get_response)
        if getattr(middleware, "sync_capable", True):
            instance = middleware(get_response)
            if iscoroutinefunction(getattr(instance, "process_view", None)):
                view = instance.process_view
                instance.process_view = lambda *parts: _finished(view(*parts))
            return instance
        return _synchronous(middleware, get_response, WAITING.get(path))

    made.sync_capable = True  # type: ignore[attr-defined]
    made.async_capable = getattr(middleware, "async_capable", False)  # type: ignore[attr-defined]
    return made


def _synchronous(middleware: Any, get_response: Sync, waits: Callable[[HttpRequest], bool] | None) -> Sync:
    async def answer(request: HttpRequest) -> HttpResponseBase:
        return get_response(request)

    instance: Callable[[HttpRequest], Coroutine[Any, Any, HttpResponseBase]] = middleware(answer)
    in_loop: list[Sync] = []

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        if waits is None or not waits(request):
            return _finished(instance(request))  # type: ignore[no-any-return]
        if not in_loop:
            in_loop.append(async_to_sync(middleware(sync_to_async(get_response))))
        return in_loop[0](request)

    return synchronous


_import_string: Final[Callable[[str], Any]] = base.import_string  # type: ignore[attr-defined]


@contextmanager
def without_loops() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "import_string", _sync_too)
        yield

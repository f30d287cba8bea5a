import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.keys import ApiKeys
from service.load import Load, current_work
from service.middleware import Admission, BodyLimit, Gate
from service.observability import Metrics
from service.rates import RateLimit


class Caller:
    """A client without a network: sends parts of a body, leaves when told, keeps the answer."""

    def __init__(
        self,
        *parts: bytes,
        path: str = "/age",
        headers: dict[str, str] | None = None,
        host: str = "192.0.2.1",
    ):
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": raw,
            "client": (host, 5000),
            "state": {"request_id": "id"},
        }
        self.left = asyncio.Event()
        self.answer: list[Message] = []
        self._parts = list(parts or [b""])

    async def receive(self) -> Message:
        if self._parts:
            body = self._parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._parts)}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.answer.append(message)

    @property
    def status(self) -> int:
        return self.answer[0]["status"]

    @property
    def code(self) -> str:
        return json.loads(self.answer[1]["body"])["code"]

    def header(self, name: str) -> str | None:
        return dict(self.answer[0]["headers"]).get(name.encode(), b"").decode() or None


class App:
    """Reads a whole body, then works until `go` is set, then answers its length."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cancelled = False
        self.called = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called += 1
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RuntimeError("the caller left")
            length += len(message["body"])
            more = message["more_body"]
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(length).encode()})


async def trickle(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a byte every 30 ms, ten times."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(10):
        await asyncio.sleep(0.03)
        await send({"type": "http.response.body", "body": b".", "more_body": number < 9})


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 10)

    asyncio.run(bounded())


def admission(app: ASGIApp, **options: Any) -> Admission:
    usual = {"max_requests": 2, "max_wait_s": 10, "timeout_s": 5, "load": Load()}
    return Admission(app, Metrics(), **{**usual, **options})


def costly(seconds: float, path: str = "/age") -> Load:
    """A load that knows what requests to `path` cost."""
    load = Load()
    work = load.begin(path)
    work.add("decode", seconds, seconds)
    load.end(work, answered=True)
    return load


async def call(app: ASGIApp, caller: Caller) -> None:
    await app(caller.scope, caller.receive, caller.send)


def test_requests_beyond_the_bound_are_refused_unread():
    async def test() -> None:
        app = App()
        bounded = admission(app)
        callers = [Caller(b"body") for _ in range(3)]
        tasks = [asyncio.ensure_future(call(bounded, caller)) for caller in callers]
        await tasks[2]
        assert (callers[2].status, callers[2].code) == (503, "overloaded")
        assert callers[2]._parts == [b"body"]
        assert app.called == 2
        app.go.set()
        await asyncio.gather(*tasks)
        late = Caller(b"body")
        await call(bounded, late)
        assert [caller.status for caller in (*callers[:2], late)] == [200, 200, 200]

    run(test)


def test_a_request_that_would_take_too_long_is_refused_unread_with_a_time_to_come_back():
    async def test() -> None:
        app = App()
        bounded = admission(app, max_requests=9, max_wait_s=10, load=costly(4))
        callers = [Caller(b"body") for _ in range(3)]
        tasks = [asyncio.ensure_future(call(bounded, caller)) for caller in callers]
        await tasks[2]
        assert (callers[2].status, callers[2].code) == (503, "overloaded")
        assert callers[2].header("retry-after") == "2"
        assert callers[2]._parts == [b"body"]
        app.go.set()
        await asyncio.gather(*tasks)
        assert [caller.status for caller in callers[:2]] == [200, 200]

    run(test)


def test_a_lone_request_is_let_in_whatever_others_cost():
    async def test() -> None:
        app, caller = App(), Caller(b"body")
        app.go.set()
        await call(admission(app, max_wait_s=1, load=costly(100)), caller)
        assert caller.status == 200

    run(test)


def test_a_request_may_ask_for_less_time():
    async def test() -> None:
        app = App()
        bounded = admission(app, max_requests=9, load=costly(1))
        patient = asyncio.ensure_future(call(bounded, Caller(b"body")))
        await asyncio.sleep(0)
        hasty = Caller(b"body", headers={"x-timeout-s": "1.5"})
        await call(bounded, hasty)
        assert (hasty.status, hasty.code) == (503, "overloaded")
        app.go.set()
        await patient

    run(test)


def test_a_request_whose_own_time_is_over_is_ended():
    async def test() -> None:
        app, caller = App(), Caller(b"a", headers={"x-timeout-s": "0.05"})
        await call(admission(app), caller)
        assert app.cancelled
        assert (caller.status, caller.code) == (504, "timed_out")
        assert "0.05 seconds" in json.loads(caller.answer[1]["body"])["detail"]

    run(test)


def test_an_answer_that_has_begun_in_time_goes_on():
    async def test() -> None:
        caller = Caller(headers={"x-timeout-s": "0.1"})
        await call(admission(trickle), caller)
        assert b"".join(part.get("body", b"") for part in caller.answer) == b"." * 10

    run(test)


@pytest.mark.parametrize("asked", ["soon", "0", "-1", "nan", "inf", "3601", ""])
def test_a_timeout_that_is_none_is_refused(asked: str):
    async def test() -> None:
        app, caller = App(), Caller(b"a", headers={"x-timeout-s": asked})
        await call(admission(app), caller)
        assert (caller.status, caller.code) == (422, "invalid_request")
        assert app.called == 0

    run(test)


def test_an_answer_tells_where_its_time_went():
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        mine = current_work()
        assert mine is not None
        mine.add("decode", 0.25)
        mine.add("decode", 0.25)
        mine.add("image_encoding", 0.002)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def test() -> None:
        caller = Caller()
        await call(admission(work), caller)
        assert caller.header("server-timing") == "decode;dur=500.0, image_encoding;dur=2.0"

    run(test)


def test_other_paths_are_not_bounded():
    async def test() -> None:
        app = App()
        app.go.set()
        caller = Caller(b"body", path="/livez")
        await call(admission(app, max_requests=0), caller)
        assert caller.status == 200

    run(test)


def test_work_ends_when_the_caller_leaves():
    async def test() -> None:
        app, caller = App(), Caller(b"a", b"b")
        bounded = admission(app)
        task = asyncio.ensure_future(call(bounded, caller))
        await asyncio.sleep(0.01)
        caller.left.set()
        await task
        assert app.cancelled
        assert caller.answer == []
        assert len(bounded._load) == 0

    run(test)


def test_a_request_without_progress_is_timed_out():
    async def test() -> None:
        app, caller = App(), Caller(b"a")
        await call(admission(app, timeout_s=0.05), caller)
        assert app.cancelled
        assert (caller.status, caller.code) == (504, "timed_out")

    run(test)


def test_an_answer_that_goes_on_is_not_timed_out():
    async def test() -> None:
        caller = Caller()
        await call(admission(trickle, timeout_s=0.1), caller)
        assert b"".join(part.get("body", b"") for part in caller.answer) == b"." * 10

    run(test)


def test_an_answer_that_stalls_is_cut_off():
    async def test() -> None:
        caller = Caller()
        await call(admission(trickle, timeout_s=0.01), caller)
        assert caller.answer[-1].get("more_body", True)

    run(test)


def test_a_fault_passes_through():
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("fault")

    async def test() -> None:
        try:
            await call(admission(fail), Caller())
        except KeyError:
            return
        raise AssertionError("the fault was swallowed")

    run(test)


def test_a_body_is_refused_by_its_length_unread():
    async def test() -> None:
        app, caller = App(), Caller(b"x" * 11, headers={"content-length": "11"})
        await call(BodyLimit(app, Metrics(), max_bytes=10, max_held_bytes=30), caller)
        assert (caller.status, caller.code) == (413, "body_too_large")
        assert app.called == 0

    run(test)


def test_a_body_of_untold_length_is_refused_where_it_grows_too_long():
    async def test() -> None:
        app, caller = App(), Caller(b"x" * 6, b"x" * 5, b"x" * 1000)
        await call(BodyLimit(app, Metrics(), max_bytes=10, max_held_bytes=30), caller)
        assert (caller.status, caller.code) == (413, "body_too_large")
        assert caller._parts == [b"x" * 1000]

    run(test)


def test_a_body_at_the_limit_passes():
    async def test() -> None:
        app, caller = App(), Caller(b"x" * 6, b"x" * 4)
        app.go.set()
        await call(BodyLimit(app, Metrics(), max_bytes=10, max_held_bytes=30), caller)
        assert caller.answer[1]["body"] == b"10"

    run(test)


async def begun(app: ASGIApp, caller: Caller) -> asyncio.Task[None]:
    """A call whose body has been read, and which waits in the application."""
    task = asyncio.create_task(call(app, caller))
    while caller._parts:
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("headers", [{"content-length": "8"}, {}], ids=["told", "untold"])
def test_bodies_together_are_bounded_and_room_comes_back(headers: dict[str, str]):
    async def test() -> None:
        app = App()
        limit = BodyLimit(app, Metrics(), max_bytes=10, max_held_bytes=20)
        tasks = [await begun(limit, Caller(b"x" * 8, headers=headers)) for _ in range(2)]
        crowded = Caller(b"x" * 8, headers=headers)
        await call(limit, crowded)
        assert (crowded.status, crowded.code) == (503, "overloaded")
        app.go.set()
        await asyncio.gather(*tasks)
        later = Caller(b"x" * 8, headers=headers)
        await call(limit, later)
        assert later.answer[1]["body"] == b"8"

    run(test)


KEY = "k" * 24


def gate(app: ASGIApp, *, keys: bool = True, burst: int = 0) -> Gate:
    async def health(_: Any) -> None: ...

    return Gate(
        app,
        Metrics(),
        ApiKeys({"ann": KEY, "bob": "b" * 24}) if keys else None,
        RateLimit(60, burst, lambda: 0.0) if burst else None,
        [Route("/livez", health)],
    )


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_request_without_a_known_key_is_refused_unread():
    async def test() -> None:
        app = App()
        gated = gate(app)
        for headers in ({}, bearer("x" * 24), {"authorization": f"Basic {KEY}"}, bearer("")):
            caller = Caller(b"body", headers=headers)
            await call(gated, caller)
            assert (caller.status, caller.code) == (401, "unauthorized")
            assert caller._parts == [b"body"]
        assert app.called == 0

    run(test)


def test_a_known_key_s_holder_is_let_in_by_name():
    async def test() -> None:
        app = App()
        app.go.set()
        caller = Caller(b"body", headers=bearer(KEY))
        await call(gate(app), caller)
        assert caller.status == 200
        assert caller.scope["state"]["holder"] == "ann"

    run(test)


def test_open_routes_need_no_key_and_have_no_rate():
    async def test() -> None:
        app = App()
        app.go.set()
        gated = gate(app, burst=1)
        for _ in range(3):
            caller = Caller(path="/livez")
            await call(gated, caller)
            assert caller.status == 200
        caller = Caller(path="/livez/more")
        await call(gated, caller)
        assert caller.status == 401

    run(test)


def test_each_key_has_a_rate_of_its_own_whatever_the_address():
    async def test() -> None:
        app = App()
        app.go.set()
        gated = gate(app, burst=1)

        async def status(key: str, host: str) -> int:
            caller = Caller(headers=bearer(key), host=host)
            await call(gated, caller)
            return caller.status

        assert await status(KEY, "192.0.2.1") == 200
        assert await status(KEY, "192.0.2.2") == 429
        assert await status("b" * 24, "192.0.2.1") == 200

    run(test)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_without_keys_a_rate_is_that_of_a_network(one: str, other: str, same: bool):
    async def test() -> None:
        app = App()
        app.go.set()
        gated = gate(app, keys=False, burst=1)
        await call(gated, Caller(host=one))
        caller = Caller(b"body", host=other)
        await call(gated, caller)
        assert caller.status == (429 if same else 200)
        if same:
            assert caller.code == "rate_limited"
            assert (b"retry-after", b"1") in caller.answer[0]["headers"]

    run(test)

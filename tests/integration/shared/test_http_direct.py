"""Answers without ASGI, over real connections: order, keep-alive, and callers that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn

from deploy.servers.program import free_port
from shared.http_direct import DirectHttpProtocol, Request
from shared.service import Receive, Scope, Send
from tests.support.crashes import until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n"


class Edge:
    """Answers with the path: at once, or when told to for a path that begins with /later."""

    asgi_paths = ("/asgi",)

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[str] = []
        self.waiting: list[tuple[bytes, Request]] = []
        self.filler = b""
        self.stop: Callable[[], None] = lambda: None
        self.queries: list[bytes] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.asgi: list[tuple[Scope, bytes]] = []

    def direct(self, request: Request) -> None:
        self.asked.append(request.path)
        self.queries.append(request.query)
        self.headers.append(request.headers)
        body = request.path.encode() + self.filler
        if request.path.startswith("/later"):
            self.waiting.append((body, request))
        else:
            request.reply(HEAD % len(body), body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.asgi.append((scope, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"asgi"})

    def answer_one(self) -> None:
        body, request = self.waiting.pop(0)
        request.reply(HEAD % len(body), body)

    async def asked_for(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.asked) >= count

        await until(enough, f"{count} requests")


@asynccontextmanager
async def serving(keep_alive_s: int = 5) -> AsyncIterator[tuple[Edge, asyncio.StreamReader, asyncio.StreamWriter]]:
    edge = Edge()
    config = uvicorn.Config(
        edge,
        host="127.0.0.1",
        port=edge.port,
        log_config=None,
        lifespan="off",
        ws="none",
        http=DirectHttpProtocol,
        timeout_keep_alive=keep_alive_s,
    )
    server = uvicorn.Server(config)
    edge.stop = lambda: setattr(server, "should_exit", True)
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await until(started, "the server")
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    try:
        async with asyncio.timeout(60):
            yield edge, reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await asyncio.wait_for(task, 20)


def request(path: str, line: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n{line}\r\n".encode()


async def answered(reader: asyncio.StreamReader, *, head_only: bool = False) -> tuple[dict[str, str], bytes]:
    """The headers and the body of the next answer."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    headers = dict(line.split(": ", 1) for line in lines)
    return headers, b"" if head_only else await reader.readexactly(int(headers["content-length"]))


async def test_answers_keep_the_connection_and_say_the_date() -> None:
    async with serving() as (_, reader, writer):
        for path in ("/a", "/b"):
            writer.write(request(path))
            headers, body = await answered(reader)
            assert body == path.encode()
            assert headers.keys() >= {"date", "content-length"}
            assert "connection" not in headers


async def test_asgi_has_the_paths_that_are_its_own() -> None:
    async with serving() as (edge, reader, writer):
        writer.write(request("/asgi") + request("/direct"))
        assert (await answered(reader))[1] == b"asgi"
        assert (await answered(reader))[1] == b"/direct"
        assert edge.asked == ["/direct"]


async def test_many_requests_at_once_are_answered_in_their_order() -> None:
    """Also far more than there may be calls within calls."""
    async with serving() as (edge, reader, writer):
        paths = ["/later/first", *(f"/{number}" for number in range(5_000)), "/later/last"]
        writer.write(b"".join(map(request, paths)))
        await edge.asked_for(1)
        assert edge.asked == paths[:1], "one after the other"
        edge.answer_one()
        for path in paths[:-1]:
            assert (await answered(reader))[1] == path.encode()
        await edge.asked_for(len(paths))
        edge.answer_one()
        assert (await answered(reader))[1] == b"/later/last"
        assert edge.asked == paths


async def test_head_has_the_length_and_no_body() -> None:
    async with serving() as (_, reader, writer):
        writer.write(request("/abc", method="HEAD") + request("/next"))
        headers, _ = await answered(reader, head_only=True)
        assert headers["content-length"] == "4"
        assert (await answered(reader))[1] == b"/next"


async def test_a_body_is_not_waited_for_and_not_taken_for_a_request() -> None:
    async with serving() as (_, reader, writer):
        writer.write(request("/abc", "Content-Length: 400000\r\n", "POST"))
        assert (await answered(reader))[1] == b"/abc"
        writer.write(b"x" * 400_000 + request("/next"))
        assert (await answered(reader))[1] == b"/next"


async def test_a_caller_that_wants_to_end_the_connection_has_it_ended() -> None:
    for asked in (request("/abc", "Connection: close\r\n"), request("/abc", version="1.0")):
        async with serving() as (_, reader, writer):
            writer.write(asked)
            headers, body = await answered(reader)
            assert (headers["connection"], body) == ("close", b"/abc")
            assert await reader.read() == b""


async def test_an_answer_to_a_caller_that_is_gone_and_a_second_answer_do_nothing() -> None:
    async with serving() as (edge, reader, writer):
        writer.write(request("/later/a"))
        await edge.asked_for(1)
        body, asked = edge.waiting[0]
        edge.answer_one()
        asked.reply(HEAD % len(body), body)
        assert (await answered(reader))[1] == b"/later/a"
        _, gone = await asyncio.open_connection("127.0.0.1", edge.port)
        gone.write(request("/later/b"))
        await edge.asked_for(2)
        gone.transport.abort()
        await asyncio.sleep(0.05)
        edge.answer_one()
        writer.write(request("/c"))
        assert (await answered(reader))[1] == b"/c"


async def test_a_caller_that_does_not_read_is_not_asked_about_for_ever() -> None:
    """What it has not read is bounded by what the sockets hold; once it reads, the rest comes."""
    async with serving() as (edge, reader, writer):
        edge.filler = b"f" * 100_000
        writer.write(b"".join(request(f"/{number}") for number in range(1_000)))
        await edge.asked_for(1)
        await asyncio.sleep(0.3)
        assert len(edge.asked) < 500
        for number in range(1_000):
            assert (await answered(reader))[1] == f"/{number}".encode() + edge.filler


async def test_a_request_is_told_as_it_came_whatever_was_asked_before_it() -> None:
    asked = [
        ("/a%20b/c?x=%41&y", "/a b/c", b"x=%41&y"),
        ("/a", "/a", b""),
        ("/a", "/a", b""),
        ("/a?", "/a", b""),
        ("/a?b?c#d", "/a", b"b?c"),
        ("http://x/a?b", "/a", b"b"),
        ("//x", "//x", b""),
        ("/%61sgi/x", "/asgi/x", b""),
    ]
    async with serving() as (edge, reader, writer):
        for number, (target, path, _) in enumerate(asked):
            writer.write(request(target, f"X-Number: {number}\r\nX-NUMBER: 1\r\n"))
            assert (await answered(reader))[1] == path.encode()
        assert edge.queries == [query for _, _, query in asked]
        for number, headers in enumerate(edge.headers):
            assert headers == [(b"host", b"x"), (b"x-number", b"%d" % number), (b"x-number", b"1")]


async def test_asgi_is_told_everything_of_its_requests() -> None:
    async with serving() as (edge, reader, writer):
        writer.write(request("/later/a") + request("/%61sgi?b=c", "X-A: b\r\nContent-Length: 3\r\n", "PUT") + b"abc")
        writer.write(request("/direct"))
        await edge.asked_for(1)
        assert not edge.asgi, "it is not its turn"
        edge.answer_one()
        bodies = [(await answered(reader))[1] for _ in range(3)]
        assert bodies == [b"/later/a", b"asgi", b"/direct"]
        ((scope, body),) = edge.asgi
        assert (scope["method"], scope["path"], scope["query_string"], body) == ("PUT", "/asgi", b"b=c", b"abc")
        assert scope["headers"] == [(b"host", b"x"), (b"x-a", b"b"), (b"content-length", b"3")]


async def test_trailers_are_not_taken_for_headers() -> None:
    chunked = "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n"
    async with serving() as (edge, reader, writer):
        for path in ("/later/a", "/later/b", "/asgi"):
            writer.write(request(path, chunked, "POST") + b"1\r\nx\r\n0\r\nX-A: b\r\n\r\n")
        for count in (1, 2):
            await edge.asked_for(count)
            edge.answer_one()
        assert [(await answered(reader))[1] for _ in range(3)] == [b"/later/a", b"/later/b", b"asgi"]
        for headers in (*edge.headers, edge.asgi[0][0]["headers"]):
            assert [name for name, _ in headers] == [b"host", b"transfer-encoding", b"trailer"]


async def test_a_caller_is_told_to_go_on_with_a_body_that_asgi_reads() -> None:
    expecting = "Content-Length: 3\r\nExpect: 100-continue\r\n"
    async with serving() as (edge, reader, writer):
        writer.write(request("/asgi", expecting, "POST"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await answered(reader))[1] == b"asgi"
        assert edge.asgi[0][1] == b"abc"
        writer.write(request("/direct", expecting, "POST"))
        assert (await answered(reader))[1] == b"/direct"


async def test_a_body_that_comes_before_the_answer_is_thrown_away() -> None:
    async with serving() as (edge, reader, writer):
        writer.write(request("/later/a", "Content-Length: 4000000\r\n", "POST") + b"x" * 4_000_000)
        await edge.asked_for(1)
        await asyncio.wait_for(writer.drain(), 10)
        edge.answer_one()
        writer.write(request("/next"))
        assert [(await answered(reader))[1] for _ in range(2)] == [b"/later/a", b"/next"]


async def test_a_connection_is_ended_when_nothing_has_come_for_a_while_since_its_last_answer() -> None:
    async with serving(keep_alive_s=1) as (edge, reader, writer):
        writer.write(request("/a"))
        await answered(reader)
        await asyncio.sleep(0.6)
        writer.write(request("/later/b"))
        await edge.asked_for(2)
        await asyncio.sleep(1.2)  # it waits for its answer: that is not silence
        edge.answer_one()
        assert (await answered(reader))[1] == b"/later/b"
        await asyncio.sleep(0.6)
        writer.write(request("/c"))
        assert (await answered(reader))[1] == b"/c"
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_server_that_is_stopped_still_answers_whom_it_has_asked_about() -> None:
    async with serving() as (edge, reader, writer):
        writer.write(request("/later/a"))
        await edge.asked_for(1)
        edge.stop()
        await asyncio.sleep(0.3)
        edge.answer_one()
        headers, body = await answered(reader)
        assert (headers["connection"], body) == ("close", b"/later/a")
        assert await reader.read() == b""


async def test_what_is_no_target_is_not_http() -> None:
    async with serving() as (edge, reader, writer):
        writer.write(request("/a"))
        await answered(reader)
        writer.write(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        assert edge.asked == ["/a"]

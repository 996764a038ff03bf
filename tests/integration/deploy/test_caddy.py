"""The generated Caddyfile on a real Caddy, between a gate and an API that only note what they are sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deploy.servers import caddy
from deploy.servers.program import free_port
from tests.support.servers import ServerProcess

REFUSAL = {"error": {"errorCode": "200", "message": "Authentication Failed"}}


@dataclass
class Noted:
    """A server that answers as told and keeps the headers and paths of what it was asked."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        noted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                noted.asked.append((self.command, self.path, headers, body))
                self.send_response(noted.status)
                for name, value in noted.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(noted.body)))
                self.end_headers()
                self.wfile.write(noted.body)

            do_GET = do_POST = answer

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def close(self) -> None:
        """Any number of times."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@dataclass
class Front:
    url: str
    gate: Noted
    api: Noted


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    gate = Noted(headers={"x-tollbook-client-id": "abc", "x-tollbook-account": "demo"})
    api = Noted(body=b'{"text": "hello"}')
    port = free_port()
    config = tmp_path / "Caddyfile"
    config.write_text(caddy.caddyfile(port, gate.port, [caddy.Route("csr", "/recog/v1/stt", f"127.0.0.1:{api.port}")]), "utf-8")
    url = f"http://127.0.0.1:{port}"
    server = ServerProcess(caddy.program(config, tmp_path), lambda: answers(url), tmp_path / "log")
    server.start()
    yield Front(url, gate, api)
    server.stop()
    gate.close()
    api.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 404
    except httpx.TransportError:
        return False


def call(front: Front, path: str = "/recog/v1/stt?lang=Kor", **headers: str) -> httpx.Response:
    secret = {"X-NCP-APIGW-API-KEY-ID": "abc", "X-NCP-APIGW-API-KEY": "secret"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(front.url + path, content=b"audio", headers={**secret, **named}, timeout=10)


def test_a_call_that_passes_reaches_the_api_with_what_the_gate_said_of_it(front: Front) -> None:
    answer = call(front)
    assert (answer.status_code, answer.json()) == (200, {"text": "hello"})
    method, path, headers, body = front.gate.asked[0]
    assert (path.partition("?")[0], body) == ("/authorize/csr", b"")
    assert headers["x-forwarded-uri"] == "/recog/v1/stt?lang=Kor"
    assert headers["x-forwarded-method"] == "POST"
    assert headers["x-ncp-apigw-api-key"] == "secret"
    method, path, headers, body = front.api.asked[0]
    assert (method, path, body) == ("POST", "/recog/v1/stt?lang=Kor", b"audio")
    assert headers["x-tollbook-client-id"] == "abc"
    assert headers["x-tollbook-account"] == "demo"
    assert "x-ncp-apigw-api-key" not in headers


def test_a_caller_cannot_say_what_only_the_gate_or_the_proxy_may(front: Front) -> None:
    call(front, X_Tollbook_Tier="unlimited", X_Tollbook_Quantity="0", X_Original_URI="/x", X_Forwarded_Uri="/x?id=1")
    for _, _, headers, _ in (front.gate.asked[0], front.api.asked[0]):
        assert "x-tollbook-tier" not in headers
        assert "x-tollbook-quantity" not in headers
        assert "x-original-uri" not in headers
        assert headers.get("x-forwarded-uri") in (None, "/recog/v1/stt?lang=Kor")


def test_a_refusal_goes_back_as_the_gate_wrote_it_and_nothing_reaches_the_api(front: Front) -> None:
    front.gate.status = 401
    front.gate.body = json.dumps(REFUSAL).encode()
    front.gate.headers = {"content-type": "application/json", "retry-after": "7"}
    answer = call(front)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (401, REFUSAL, "7")
    assert front.api.asked == []


def test_a_path_that_no_api_has_never_reaches_the_gate(front: Front) -> None:
    for path in ("/", "/authorize/csr", "/recog/v1/sttx", "/recog"):
        answer = call(front, path)
        assert (answer.status_code, answer.json()["error"]["errorCode"]) == (404, "300")
    assert front.gate.asked == []


def test_a_caller_cannot_have_what_the_gate_says_taken_off(front: Front) -> None:
    headers = {"connection": "close, X-Tollbook-Client-Id, x-tollbook-account"}
    assert httpx.post(f"{front.url}/recog/v1/stt", headers=headers, content=b"x", trust_env=False).status_code == 200
    told = front.api.asked[-1][2]
    assert (told["x-tollbook-client-id"], told["x-tollbook-account"]) == ("abc", "demo")


def test_without_a_gate_no_call_passes_and_the_caller_is_told_in_the_usual_shape(front: Front) -> None:
    front.gate.close()
    answer = call(front)
    assert (answer.status_code, answer.json()["error"]["errorCode"]) == (503, "500")
    assert front.api.asked == []

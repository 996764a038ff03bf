"""The REST API against its own OpenAPI document, judged by schemathesis with all its checks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.servers.program import free_port
from shared.ids import new_id
from tests.support.granted import CHECKLIST, FORM, called_test_app
from tests.support.processes import environment_of
from tests.support.servers import wait_until
from tests.support.stack import ROOT, StackProcess

HERE = Path(__file__).parent
PYTHON = ROOT / ".venv" / "bin" / "python"
EMAIL = "nobody.whose.name.is.logged@example.com"
LINK = "/unsubscribe/nobodyHasIssuedThisLink"


class Console:
    """A second console beside the stack's, for an account of its own. It believes X-Forwarded-For, as one behind a proxy does."""

    def __init__(self, stack: StackProcess, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        told = {"TOLLBOOK_HTTP_PORT": str(port), "TOLLBOOK_TRUSTED_PROXIES": "127.0.0.0/8"}
        self.env = environment_of(stack, "console") | told
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [PYTHON, "-m", "services.console"], cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._ready, "the console", lambda: self.process.poll() is not None, log.read_text)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def owner_of_a_new_account(self, account: str, proxy_url: str) -> tuple[str, dict[str, str]]:
        """Its token, which is a reviewer's too, and what rest_hooks.py is told of. It has agreed to the terms, and has an
        application, a group, rules, and has applied for a service app."""
        self._run("account", "--account", account, "--zone", "Asia/Seoul")
        token = self._run("token", "--account", account, "--role", "owner", "--role", "reviewer", "--name", "schemathesis")
        with httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=15, trust_env=False) as http:
            version = http.get("/v1/terms").raise_for_status().json()["version"]
            http.put("/v1/terms/acceptance", json={"version": version}).raise_for_status()
            app = http.post("/v1/apps", json={"name": "first", "services": ["clova-voice"]}).raise_for_status().json()
            contact = {"name": "Kim", "email": EMAIL, "webhook_url": "https://example.com/hooks/1"}
            contact_id = http.post("/v1/contacts", json=contact).raise_for_status().json()["contact_id"]
            group = {"name": "On call", "contacts": [contact_id]}
            group_id = http.post("/v1/contact-groups", json=group).raise_for_status().json()["group_id"]
            rule = {"monthly": 70, "recipients": [{"group_id": group_id, "methods": ["email"]}]}
            for scope in (f"/v1/apps/{app['client_id']}", "/v1"):
                http.put(f"{scope}/services/clova-voice/notifications", json=rule).raise_for_status()
            test_app, applying = (called_test_app({"proxy_url": proxy_url}, http) for _ in range(2))
            whole = {"model": "HCX-003", "task": "chat", "form": FORM, "checklist": CHECKLIST}
            body = {"client_id": applying, "service": "clova-studio", **whole}
            applied = http.post("/v1/service-apps", json=body).raise_for_status().json()["id"]
            http.post(f"/v1/service-apps/{applied}/submission").raise_for_status()
        return token, {"CONTACT": contact_id, "TEST_APP": test_app, "APPLIED": applied}

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [PYTHON, "-m", "services.console", *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def console(stack: StackProcess, tmp_path: Path) -> Iterator[Console]:
    running = Console(stack, tmp_path / "console.log")
    yield running
    running.stop()


@pytest.mark.timeout(180)
def test_the_api_does_what_its_document_says(stack: StackProcess, console: Console, tmp_path: Path) -> None:
    account = f"contracts-{new_id()[:8]}"
    token, there = console.owner_of_a_new_account(account, stack.ready["proxy_url"])
    told = {"TOLLBOOK_CONTRACTS_RUN": new_id()[:12], "SCHEMATHESIS_HOOKS": "rest_hooks"}
    told |= {f"TOLLBOOK_CONTRACTS_{name}": value for name, value in there.items()}
    told |= {"PYTHONPATH": str(HERE), "NO_COLOR": "1"}
    command = [ROOT / ".venv" / "bin" / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run"]
    command += [f"{console.url}/v1/openapi.json", "--checks", "all", "--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | told, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL
    )
    print(done.stdout[-20_000:], done.stderr[-5_000:])
    assert done.returncode == 0, "schemathesis found something: see above"
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in done.stdout, f"schemathesis left out its phase {phase}: see above"
    for method in ("GET", "POST"):
        httpx.request(method, f"{console.url}{LINK}", timeout=15, trust_env=False)
    written = console.log.read_text()
    for hidden in ("Traceback", token, EMAIL, LINK):
        assert hidden not in written

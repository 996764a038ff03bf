"""The code that an approved application is given calls the service, and knows no secret."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.reviews import LiftSuspension, ReviewView, SuspendServiceApp
from shared.commands.service_apps import CodeView, GetCode
from shared.errors import Conflict, NotFound
from tests.support.metering_process import RegistryFeed
from tests.support.pages import NODE
from tests.support.receivers import HttpReceiver
from tests.support.review_process import APP, Applicant, Calls, Reviewer, ReviewProcess

SECRET = "S3cretOfTheApplication"
PROGRAMS = {"curl": ("sh", "call.sh"), "python": ("python3", "call.py"), "javascript": (NODE, "call.mjs")}


async def test_the_samples_call_the_service(
    nats_url: str, nc: Client, schema: ServiceDsn, registry: RegistryFeed, calls: Calls, tmp_path: Path
) -> None:
    async with HttpReceiver() as api:
        process = ReviewProcess(nats_url, schema, tmp_path, TOLLBOOK_API_URL=f"{api.url}/")
        try:
            await process.start()
            applicant, reviewer = Applicant(nc), Reviewer(nc)
            review_id = (await applicant.submitted()).id
            with pytest.raises(Conflict, match=r"not live.* It was submitted at"):
                await applicant.ask(GetCode, CodeView, review_id=review_id)
            await reviewer.decide(review_id)
            code = await applicant.ask(GetCode, CodeView, review_id=review_id)
            with pytest.raises(NotFound):
                await Applicant(nc, "globex").ask(GetCode, CodeView, review_id=review_id)
            await reviewer.ask(SuspendServiceApp, ReviewView, review_id=review_id, reason="It sends spam.")
            with pytest.raises(Conflict, match="It was suspended at"):
                await applicant.ask(GetCode, CodeView, review_id=review_id)
            await reviewer.ask(LiftSuspension, ReviewView, review_id=review_id)
        finally:
            process.kill()
        assert code.endpoint == f"{api.url}/serviceapp/v1/completions"
        assert [sample.language for sample in code.samples] == list(PROGRAMS)
        for sample in code.samples:
            program, name = PROGRAMS[sample.language]
            (tmp_path / name).write_text(sample.code, "utf-8")
            env = {**os.environ, code.secret_from: SECRET, "no_proxy": "*"}
            run = await asyncio.create_subprocess_exec(
                program, str(tmp_path / name), env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await asyncio.wait_for(run.communicate(), 30)
            assert run.returncode == 0, output.decode()
    assert len(api.requests) == len(PROGRAMS)
    for request in api.requests:
        assert (request.method, request.path) == ("POST", "/serviceapp/v1/completions")
        assert request.headers["x-ncp-apigw-api-key-id"] == APP
        assert request.headers["x-ncp-apigw-api-key"] == SECRET
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.body) == {"model": "HCX-003", "task": "chat", "text": "Hello"}

"""The form is published once, and stays what it was; applications are brought to the newest one before they are submitted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.review import FormView, GetForm
from shared.commands.service_apps import (
    ApplicationView,
    EditApplication,
    GetApplication,
    GetRevision,
    RevisionView,
    SubmitApplication,
)
from shared.errors import InvalidInput, Unavailable
from tests.support.crashes import until
from tests.support.metering_process import RegistryFeed
from tests.support.review_process import Applicant, Calls, ReviewProcess, logged, review_file
from tests.support.service_process import ROOT

FILE = ROOT / "deploy" / "review.yaml"


async def test_two_processes_publish_it_once(
    nats_url: str, schema: ServiceDsn, registry: RegistryFeed, calls: Calls, tmp_path: Path
) -> None:
    processes = [ReviewProcess(nats_url, schema, tmp_path, name) for name in ("one", "two")]
    try:
        await asyncio.gather(*(process.start() for process in processes))
        assert len(await logged(schema)) == 1
    finally:
        for process in processes:
            process.kill()


async def test_a_version_with_other_words_is_refused_until_it_has_a_new_version(
    review: ReviewProcess, applicant: Applicant, nats_url: str, schema: ServiceDsn, tmp_path: Path
) -> None:
    criteria = yaml.safe_load(FILE.read_text("utf-8"))["criteria"][:1]
    review.kill()
    other = ReviewProcess(nats_url, schema, tmp_path, "other", TOLLBOOK_REVIEW=review_file(tmp_path, criteria=criteria))
    try:
        await other.start(ready=False)

        async def refused() -> bool:
            part = (await other.readiness())["parts"].get("form", {"detail": ""})
            return "give the changed one a new version" in part["detail"]

        await until(refused, "the form to be refused")
        with pytest.raises(Unavailable):
            await applicant.ask(GetForm, FormView)
        assert "Traceback" not in other.log.read_text()
    finally:
        other.kill()
    assert len(await logged(schema)) == 1
    newer = ReviewProcess(
        nats_url, schema, tmp_path, "newer", TOLLBOOK_REVIEW=review_file(tmp_path, criteria=criteria, version="2026-12")
    )
    try:
        await newer.start()
        assert (await applicant.ask(GetForm, FormView)).version == "2026-12"
    finally:
        newer.kill()


async def test_a_draft_on_an_older_form_is_brought_to_the_newest(
    review: ReviewProcess, applicant: Applicant, nats_url: str, schema: ServiceDsn, nc: Client, tmp_path: Path
) -> None:
    draft = await applicant.draft(form={"name": "Helper", "service_url": "https://example.com"})
    properties = yaml.safe_load(FILE.read_text("utf-8"))["schema"]
    del properties["properties"]["service_url"]
    review.kill()
    newer = ReviewProcess(
        nats_url, schema, tmp_path, "newer", TOLLBOOK_REVIEW=review_file(tmp_path, schema=properties, version="2026-12")
    )
    try:
        await newer.start()
        seen = await applicant.ask(GetApplication, ApplicationView, review_id=draft.id)
        assert (seen.form_version, seen.missing[0].field) == ("2026-11", "form_version")
        for message in (SubmitApplication, EditApplication):
            with pytest.raises(InvalidInput) as refused:
                await applicant.ask(message, ApplicationView, review_id=draft.id)
            assert refused.value.fields[0].field == "form_version"
            assert "2026-12" in refused.value.fields[0].problem
        with pytest.raises(InvalidInput) as unknown:
            await applicant.ask(EditApplication, ApplicationView, review_id=draft.id, form_version="2026-12")
        assert [problem.field for problem in unknown.value.fields] == ["form.service_url"]
        edited = await applicant.ask(
            EditApplication, ApplicationView, review_id=draft.id, form_version="2026-12", form={"service_url": None}
        )
        assert (edited.form_version, edited.form) == ("2026-12", {"name": "Helper"})
        revision = await applicant.ask(GetRevision, RevisionView, review_id=draft.id, revision=1)
        assert '"service_url"' not in revision.definition
    finally:
        newer.kill()

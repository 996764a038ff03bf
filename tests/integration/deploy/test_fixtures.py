"""The fixtures that every other test stands on."""

from __future__ import annotations

import asyncpg
import pytest
from nats.aio.client import Client

from tests.support.servers import NatsProcess, PostgresDatabase, connect_nats


@pytest.mark.parametrize("_again", [1, 2])
async def test_each_test_gets_an_empty_jetstream(nc: Client, _again: int) -> None:
    jetstream = nc.jetstream()
    assert await jetstream.streams_info() == []
    await jetstream.add_stream(name="LEFT", subjects=["left.>"])


async def test_each_service_gets_a_schema_that_others_cannot_see(postgres: PostgresDatabase) -> None:
    bakery = await postgres.service_schema("bakery")
    other = await postgres.service_schema("dairy")
    owner = await asyncpg.connect(bakery.owner_dsn)
    await owner.execute("CREATE TABLE bakery.bread (id int); GRANT SELECT ON bakery.bread TO bakery")
    await owner.close()
    service = await asyncpg.connect(bakery.dsn)
    assert await service.fetch("SELECT * FROM bakery.bread") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("CREATE TABLE bakery.cake (id int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("DELETE FROM bakery.bread")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("CREATE TABLE public.cake (id int)")
    await service.close()
    stranger = await asyncpg.connect(other.dsn)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await stranger.fetch("SELECT * FROM bakery.bread")
    await stranger.close()


async def test_a_private_server_keeps_its_streams_over_kill_9(private_nats: NatsProcess) -> None:
    nc = await connect_nats(private_nats.url)
    await nc.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
    await nc.jetstream().publish("kept.one", b"1")
    await nc.close()
    private_nats.kill()
    private_nats.start()
    nc = await connect_nats(private_nats.url)
    assert (await nc.jetstream().stream_info("KEPT")).state.messages == 1
    await nc.close()

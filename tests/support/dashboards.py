"""A nats-server with auth callout, as the stack configures it, or with the dashboards in an account of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nats
from nats.aio.client import Client

from deploy.permissions import PERMISSIONS
from deploy.secrets import new_account_seed, new_user_seed, public_key
from deploy.servers import nats as nats_server
from deploy.servers.nats_config import NatsUser, stack_config
from deploy.servers.program import free_port
from tests.support.servers import ServerProcess

_BUCKETS = ("apps", "usage", "limits", "notifications", "reviews")
_MIRRORED = tuple(f"$JS.API.CONSUMER.CREATE.KV_{bucket}" for bucket in _BUCKETS)
_API = [subject for plain in _MIRRORED for subject in (plain, f"{plain}.>")]
_FLOW = [f"$JS.FC.KV_{bucket}.>" for bucket in _BUCKETS]


def _exports() -> str:
    services = "".join(f'      {{ service: "{subject}", accounts: [DASHBOARDS] }}\n' for subject in (*_API, *_FLOW))
    return f"""\
    exports: [
{services}      {{ stream: "dashboards.deliver.>", accounts: [DASHBOARDS] }}
    ]
    imports: [
      {{ service: {{ account: DASHBOARDS, subject: "$JS.API.STREAM.>" }}, to: "dashboards.api.STREAM.>" }}
    ]
"""


def _dashboards_account() -> str:
    """README.md of the console tells it too."""
    there = {subject: subject.replace("$JS.API", "tollbook.api") for subject in _API}
    api = "".join(
        f'      {{ service: {{ account: TOLLBOOK, subject: "{subject}" }}, to: "{to}" }}\n' for subject, to in there.items()
    )
    flow = "".join(f'      {{ service: {{ account: TOLLBOOK, subject: "{subject}" }} }}\n' for subject in _FLOW)
    return f"""\
  DASHBOARDS {{
    jetstream: enabled
    exports: [ {{ service: "$JS.API.STREAM.>", accounts: [TOLLBOOK] }} ]
    imports: [
{api}{flow}      {{ stream: {{ account: TOLLBOOK, subject: "dashboards.deliver.>" }} }}
    ]
  }}
"""


class GuardedNats(ServerProcess):
    """A running server where `console` and `operator` have NKEYs and everybody else comes by auth callout."""

    def __init__(self, folder: Path, *, own_account: bool) -> None:
        port, self.websocket_port = free_port(), free_port()
        self.url = f"nats://127.0.0.1:{port}"
        self.callout_seed = new_account_seed()
        self.seeds = {name: new_user_seed() for name in ("console", "operator")}
        permissions = dict(PERMISSIONS)
        if own_account:
            console = permissions["console"]
            permissions["console"] = dataclasses.replace(console, publish=(*console.publish, "dashboards.api.>"))
        users = {name: NatsUser(public_key(seed), permissions[name]) for name, seed in self.seeds.items()}
        text = stack_config(port, self.websocket_port, folder / "jetstream", users, public_key(self.callout_seed))
        if own_account:
            text = text.replace("  TOLLBOOK {\n", f"{_dashboards_account()}  TOLLBOOK {{\n{_exports()}", 1)
        config = folder / "guarded.conf"
        config.write_text(text, "utf-8")
        super().__init__(nats_server.program(config), lambda: nats_server.answers(port), folder / "nats.log")

    async def connect(self, user: str) -> Client:
        """A connection of that service's user."""
        return await nats.connect(self.url, nkeys_seed_str=self.seeds[user], inbox_prefix=f"_INBOX_{user}")

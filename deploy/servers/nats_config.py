"""The embedded NATS server's configuration: JetStream on disk, an NKEY user per service, auth callout, WebSocket."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from deploy.permissions import Permissions
from deploy.servers.nats import jetstream_block

ACCOUNT: Final = "TOLLBOOK"
"""The NATS account of services, publishers and operators."""
DASHBOARDS: Final = "DASHBOARDS"
"""The NATS account of the dashboards that auth callout lets in. It has mirrors of the KV buckets, because a client may have the
server write to any subject of its account (a request's reply, a consumer's deliveries): where they are, nothing listens."""
DASHBOARDS_API: Final = "dashboards.api"
"""Where, in the services' account, the console finds the JetStream API of the dashboards' account."""
DELIVERED: Final = "dashboards.deliver.>"
REPLY_EXPIRES: Final = "1m"
"""How long after a request a service may still answer it."""


class NatsUser(NamedTuple):
    public_key: str
    permissions: Permissions


def stack_config(
    port: int,
    websocket_port: int,
    store: Path,
    users: Mapping[str, NatsUser],
    callout_issuer: str,
    mirrored: Sequence[str] = (),
) -> str:
    """The whole configuration file.

    `callout_issuer` is the public account NKEY (A...) that signs the dashboards' permissions. `mirrored`: the KV buckets that the
    dashboards' own account has mirrors of; none: there is no such account, and dashboards are in the services'.
    """
    blocks = "\n".join(_user(name, user) for name, user in users.items())
    keys = ", ".join(json.dumps(user.public_key) for user in users.values())
    return f"""\
# Written at every start by deploy/servers/nats_config.py. Changes made here do not last.
listen: "127.0.0.1:{port}"
server_name: "tollbook"
{jetstream_block(store)}
websocket {{
  listen: "127.0.0.1:{websocket_port}"
  no_tls: true
}}
accounts {{
  SYS {{ }}
{_dashboards(mirrored) if mirrored else ""}\
  {ACCOUNT} {{
{_shared_with_dashboards(mirrored) if mirrored else ""}\
    jetstream: enabled
    users: [
{blocks}
    ]
  }}
}}
system_account: SYS
authorization {{
  timeout: 5
  auth_callout {{
    issuer: {json.dumps(callout_issuer)}
    account: {ACCOUNT}
    auth_users: [{keys}]
  }}
}}
"""


def _dashboards(buckets: Sequence[str]) -> str:
    """The account that only dashboards are in. Its mirrors follow the services' buckets; no other subject leads out of it."""
    api = [subject for bucket in buckets for subject in _mirror_api(bucket)]
    asked = [
        f'{{ service: {{ account: {ACCOUNT}, subject: "{subject}" }}, to: "{subject.replace("$JS.API", "tollbook.api")}" }}'
        for subject in api
    ]
    flow = [f'{{ service: {{ account: {ACCOUNT}, subject: "{_flow(bucket)}" }} }}' for bucket in buckets]
    delivered = f'{{ stream: {{ account: {ACCOUNT}, subject: "{DELIVERED}" }} }}'
    return f"""\
  {DASHBOARDS} {{
    jetstream: enabled
    exports: [ {{ service: "$JS.API.STREAM.>", accounts: [{ACCOUNT}] }} ]
    imports: [
{_lines([*asked, *flow, delivered])}
    ]
  }}
"""


def _shared_with_dashboards(buckets: Sequence[str]) -> str:
    """What the services' account lets the mirrors ask, and its way to declare them (`dashboards.api`: the console's alone)."""
    asked = [subject for bucket in buckets for subject in (*_mirror_api(bucket), _flow(bucket))]
    exports = [f'{{ service: "{subject}", accounts: [{DASHBOARDS}] }}' for subject in asked]
    return f"""\
    exports: [
{_lines([*exports, f'{{ stream: "{DELIVERED}", accounts: [{DASHBOARDS}] }}'])}
    ]
    imports: [ {{ service: {{ account: {DASHBOARDS}, subject: "$JS.API.STREAM.>" }}, to: "{DASHBOARDS_API}.STREAM.>" }} ]
"""


def _mirror_api(bucket: str) -> tuple[str, str]:
    return f"$JS.API.CONSUMER.CREATE.KV_{bucket}", f"$JS.API.CONSUMER.CREATE.KV_{bucket}.>"


def _flow(bucket: str) -> str:
    return f"$JS.FC.KV_{bucket}.>"


def _lines(entries: Sequence[str]) -> str:
    return "\n".join(f"      {entry}" for entry in entries)


def _user(name: str, user: NatsUser) -> str:
    responses = f'\n          allow_responses: {{ max: 1, expires: "{REPLY_EXPIRES}" }}' if user.permissions.responds else ""
    return f"""\
      # {name}
      {{
        nkey: {json.dumps(user.public_key)}
        permissions: {{
          publish: {{ allow: {json.dumps(user.permissions.publish)} }}
          subscribe: {{ allow: {json.dumps(user.permissions.subscribe)} }}{responses}
        }}
      }}"""

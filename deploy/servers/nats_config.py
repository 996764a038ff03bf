"""The embedded NATS server's configuration: JetStream on disk, an NKEY user per service, auth callout, WebSocket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from deploy.permissions import Permissions
from deploy.servers.nats import jetstream_block

ACCOUNT: Final = "TOLLBOOK"
"""The one NATS account in which everybody is: services, publishers, operators, and the dashboards that auth callout lets in."""
REPLY_EXPIRES: Final = "1m"
"""How long after a request a service may still answer it."""


class NatsUser(NamedTuple):
    public_key: str
    permissions: Permissions


def stack_config(port: int, websocket_port: int, store: Path, users: Mapping[str, NatsUser], callout_issuer: str) -> str:
    """The whole configuration file. `callout_issuer` is the public account NKEY (A...) that signs the dashboards' permissions."""
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
  {ACCOUNT} {{
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

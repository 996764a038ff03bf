"""Tables as CSV: what RFC 4180 says, and nothing that a spreadsheet would compute."""

from __future__ import annotations

import csv
import io

import pytest

from services.console.http.tables import as_csv, wants_csv


def test_a_table_has_a_header_and_crlf() -> None:
    assert as_csv(("name", "used"), [("speech", 3), ("음성", -1)]) == "name,used\r\nspeech,3\r\n음성,-1\r\n".encode()


@pytest.mark.parametrize("name", ['a "b", c', "two\r\nlines", "", " ", ",", '"'])
def test_what_goes_in_comes_out(name: str) -> None:
    written = as_csv(("name", "used"), [(name, 1)]).decode()
    assert list(csv.reader(io.StringIO(written, newline=""), strict=True)) == [["name", "used"], [name, "1"]]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")', "-"])
def test_a_name_is_never_a_formula(name: str) -> None:
    written = as_csv(("name",), [(name,)]).decode()
    assert list(csv.reader(io.StringIO(written, newline="")))[1] == [f"'{name}"]


@pytest.mark.parametrize(
    ("format_", "accept", "wanted"),
    [
        (None, "", False),
        (None, "*/*", False),
        (None, "text/csv", True),
        (None, "TEXT/CSV; header=present, */*;q=0.1", True),
        (None, "application/json, text/csv", False),
        ("csv", "application/json", True),
        ("json", "text/csv", False),
    ],
)
def test_csv_is_for_who_asks_for_it(format_: str | None, accept: str, wanted: bool) -> None:
    assert wants_csv(format_, accept) is wanted

"""The catalog and the terms of service: read, checked, and wrong in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.catalog import CatalogBroken, load_catalog, load_terms

DEPLOY = Path(__file__).parents[3] / "deploy"
ENTRY = """
  - id: one
    name: {en: One, ko: 하나}
    unit: call
    docs: https://example.com/docs
    pricing: https://example.com/pricing
    proxy_path: /one
    upstream: sample
"""


def test_the_catalog_of_the_deployment() -> None:
    catalog = load_catalog(DEPLOY / "catalog.yaml")
    csr, studio = catalog["csr"], catalog["clova-studio"]
    assert (csr.requires_mobile_environment, csr.proxy_path, csr.upstream, csr.unit) == (
        True,
        "/recog/v1/stt",
        "sample",
        "second15",
    )
    assert (studio.review_required, studio.requires_mobile_environment) == (True, False)
    assert studio.test_quota
    assert len(catalog) >= 4


def test_the_terms_of_the_deployment() -> None:
    terms = load_terms(DEPLOY / "terms.yaml")
    assert terms.version
    assert "Client Secret" in terms.text
    assert "Client Secret" in terms.text_ko


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "(whole)"),
        ("services: []", "services"),
        ("services: {}", "services"),
        ("service:\n" + ENTRY, "services: Field required"),
        ("services:" + ENTRY.replace("unit: call", "unit: calls"), "services[0].unit"),
        ("services:" + ENTRY.replace("id: one", "id: One"), "services[0].id"),
        ("services:" + ENTRY.replace("id: one", "id: 1"), "services[0].id"),
        ("services:" + ENTRY.replace("ko: 하나", ""), "services[0].name.ko"),
        ("services:" + ENTRY.replace("https://example.com/docs", "example.com/docs"), "services[0].docs"),
        ("services:" + ENTRY.replace("proxy_path: /one", "proxy_path: one/"), "services[0].proxy_path"),
        ("services:" + ENTRY + "    colour: red", "services[0].colour"),
        ("services:" + ENTRY + "    test_quota: 0", "services[0].test_quota"),
        ("services:" + ENTRY + "    review_required: true", "needs a test_quota"),
        ("services:" + ENTRY + ENTRY, "id must be unique, but one is there twice"),
        ("services:" + ENTRY + ENTRY.replace("id: one", "id: two"), "proxy_path must be unique"),
        ("services:" + ENTRY + "    unit: token", "'unit' is there twice"),
        ("services: [", "is not YAML"),
        ("services: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("\x00", "is not YAML"),
        ("[" * 10_000, "is not YAML"),
        ("#" * 1_000_001, "larger than"),
    ],
)
def test_a_broken_catalog_names_file_and_field(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(CatalogBroken) as refused:
        load_catalog(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert says in str(refused.value)


def test_a_catalog_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CatalogBroken, match=r"none\.yaml: cannot be read: No such file"):
        load_catalog(tmp_path / "none.yaml")
    with pytest.raises(CatalogBroken, match="cannot be read"):
        load_terms(tmp_path)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "terms.yaml"
    path.write_bytes(b"version: \xff")
    with pytest.raises(CatalogBroken, match="is not YAML"):
        load_terms(path)

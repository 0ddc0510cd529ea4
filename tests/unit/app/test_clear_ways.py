"""Which ways to the tiers are named as not encrypted."""

from __future__ import annotations

from pathlib import Path

from trunkline.app.clear_ways import clear_ways
from trunkline.config import load

FAR = """tiers = "cluster"
[[mysql.databases]]
host = "10.0.0.7"
[redis]
nodes = ["127.0.0.1:6379", "[2001:db8::1]:6379", "cache:6379"]
[hbase]
host = "localhost"
"""


def settings(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    return clear_ways(load(file, {}, {}))


def test_what_is_elsewhere_and_not_encrypted_is_named(tmp_path: Path) -> None:
    assert settings(tmp_path, FAR) == [
        "database 10.0.0.7:3306", "Redis [2001:db8::1]:6379", "Redis cache:6379",
    ]  # fmt: skip


def test_nothing_is_named_that_is_here_or_over_tls(tmp_path: Path) -> None:
    encrypted = FAR.replace("[redis]", "[redis]\ntls = true") + "[mysql]\ntls = true\n"
    assert settings(tmp_path, encrypted.replace('"10.0.0.7"', '"127.0.0.1"')) == []

"""The keyring sealer keeps the promises of its port, and its file is handled with care."""

from __future__ import annotations

import itertools
import stat
from pathlib import Path

import msgspec
import pytest

from trunkline.adapters.keyring import KeyringSealer, open_keyring
from trunkline.errors import KeyringMissing, KeyringWrong
from trunkline.testing.conformance import SealerSuite


@pytest.fixture
def make_sealer(tmp_path: Path):
    numbers = itertools.count()
    return lambda: open_keyring(tmp_path / f"keyring{next(numbers)}.json", create=True)


class TestKeyring(SealerSuite): ...


def test_a_keyring_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keyring.json"
    first = open_keyring(path, create=True)
    assert first.keyring.created
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["keyring.json"]
    wrapped = first.new_wrapped_key()
    again = open_keyring(path, create=True)
    assert not again.keyring.created
    assert again.cipher(wrapped).digest_key == first.cipher(wrapped).digest_key


def test_a_missing_keyring_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(KeyringMissing):
        open_keyring(tmp_path / "keyring.json", create=False)
    assert not list(tmp_path.iterdir())


def test_a_keyring_that_others_may_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    assert not open_keyring(path, create=True).keyring.readable_by_others
    path.chmod(0o640)
    assert open_keyring(path, create=False).keyring.readable_by_others


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format":1,"current":1,"keys":{}}',
        b'{"format":1,"current":2,"keys":{"1":"' + b"A" * 43 + b'="}}',
        b'{"format":1,"current":1,"keys":{"1":"AAAA"}}',
        b'{"format":1,"current":1,"keys":{"one":"' + b"A" * 43 + b'="}}',
        b'{"format":1,"current":0,"keys":{"0":"' + b"A" * 43 + b'="}}',
        b'{"format":2,"current":1,"keys":{"1":"' + b"A" * 43 + b'="}}',
    ],
)
def test_a_file_that_is_no_keyring_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "keyring.json"
    path.write_bytes(content)
    with pytest.raises(KeyringWrong):
        open_keyring(path, create=True)
    assert path.read_bytes() == content


def test_a_sentinel_tells_its_own_keyring_from_another(tmp_path: Path) -> None:
    own = open_keyring(tmp_path / "own.json", create=True)
    other = open_keyring(tmp_path / "other.json", create=True)
    sentinel = own.sentinel()
    open_keyring(tmp_path / "own.json", create=False).verify_sentinel(sentinel)
    with pytest.raises(KeyringWrong):
        other.verify_sentinel(sentinel)
    with pytest.raises(KeyringWrong):
        own.verify_sentinel(own.new_wrapped_key())
    with pytest.raises(KeyringWrong):
        own.cipher(sentinel)


def test_after_a_rotation_old_data_keys_still_open(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    before = open_keyring(path, create=True)
    wrapped, sentinel = before.new_wrapped_key(), before.sentinel()
    blob = before.cipher(wrapped).seal(b"body", b"place")
    file = msgspec.json.decode(path.read_bytes())
    file["keys"]["2"] = "B" * 43 + "="
    file["current"] = 2
    path.write_bytes(msgspec.json.encode(file))
    after = open_keyring(path, create=False)
    after.verify_sentinel(sentinel)
    assert after.cipher(wrapped).open(blob, b"place") == b"body"
    with pytest.raises(KeyringWrong, match="key 2"):
        before.cipher(after.new_wrapped_key())


def test_opened_ciphers_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    keyring = open_keyring(tmp_path / "keyring.json", create=True).keyring
    sealer = KeyringSealer(keyring, opened_ciphers=2)
    keys = [sealer.new_wrapped_key() for _ in range(3)]
    first = sealer.cipher(keys[0])
    assert sealer.cipher(keys[0]) is first
    for key in keys[1:]:
        sealer.cipher(key)
    assert sealer.cipher(keys[0]) is not first

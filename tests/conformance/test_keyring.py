"""The keyring sealer keeps the promises of its port, and its file is handled with care."""

from __future__ import annotations

import itertools
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trunkline.adapters.keyring import (
    Keyring,
    KeyringSealer,
    keyring_source,
    new_key,
    open_keyring,
    open_sealer_of,
    read_keyring,
)
from trunkline.adapters.keyring.settings import Settings
from trunkline.adapters.keyring.source import FileSource
from trunkline.core.envelope import kek_of
from trunkline.errors import ConfigInvalid, KeyringBehind, KeyringMissing, KeyringWrong
from trunkline.model import (
    ConversationId,
    ConversationKey,
    Member,
    Place,
    Seq,
    UserId,
    WorkerId,
    place_of,
)
from trunkline.testing.conformance import SealerSuite

HERE = Place("0001:here")


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
    wrapped = first.new_wrapped_key(HERE)
    again = open_keyring(path, create=True)
    assert not again.keyring.created
    assert again.cipher(wrapped, HERE).digest_key == first.cipher(wrapped, HERE).digest_key


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
        own.verify_sentinel(own.new_wrapped_key(HERE))
    with pytest.raises(KeyringWrong):
        own.cipher(sentinel, HERE)


def test_a_running_sealer_takes_over_a_key_that_it_meets(tmp_path: Path) -> None:
    """And opens with the old one what was wrapped before."""
    path = tmp_path / "keyring.json"
    before = open_keyring(path, create=True)
    wrapped, sentinel = before.new_wrapped_key(HERE), before.sentinel()
    blob = before.cipher(wrapped, HERE).seal(b"body", b"place")
    packet = before.packet_cipher(WorkerId("boot")).seal(b"packet", b"")
    FileSource(path).change(lambda keyring: keyring.with_key(b"B" * 32).with_current(2))
    after = open_keyring(path, create=False)
    after.verify_sentinel(sentinel)
    for sealer in (after, before):
        assert sealer.cipher(wrapped, HERE).open(blob, b"place") == b"body"
        assert sealer.packet_cipher(WorkerId("boot")).open(packet, b"") == b"packet"
    assert (before.kek_id, after.kek_id) == (1, 2)
    newer = after.packet_cipher(WorkerId("other")).seal(b"packet", b"")
    assert before.packet_cipher(WorkerId("other")).open(newer, b"") == b"packet"
    again = after.rewrapped(wrapped, HERE)
    assert kek_of(again) == 2
    assert before.cipher(again, HERE).open(blob, b"place") == b"body"
    assert before.kek_id == 2


def test_a_key_that_came_to_no_keyring_here_is_behind_not_wrong(tmp_path: Path) -> None:
    """Retryable: it goes away once the keyring is copied here."""
    path = tmp_path / "keyring.json"
    sealer = open_keyring(path, create=True)
    newer = KeyringSealer(sealer.keyring.with_key(b"B" * 32).with_current(2))
    with pytest.raises(KeyringBehind, match="key 2"):
        sealer.cipher(newer.new_wrapped_key(HERE), HERE)
    with pytest.raises(KeyringBehind):
        sealer.advance(2)
    with pytest.raises(KeyringWrong) as refused:
        sealer.agree(newer.sentinel())
    assert not refused.value.retryable


def test_a_damaged_keyring_leaves_the_one_that_was_read_before(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    sealer = open_keyring(path, create=True)
    wrapped = sealer.new_wrapped_key(HERE)
    path.write_bytes(b"{")
    with pytest.raises(KeyringWrong):
        sealer.refresh()
    path.unlink()
    with pytest.raises(KeyringMissing):
        sealer.refresh()
    assert not path.exists()
    sealer.cipher(wrapped, HERE)


def test_a_keyring_is_changed_whole_for_its_owner_only(tmp_path: Path) -> None:
    """One change after the other, from wherever it comes."""
    path = tmp_path / "keyring.json"
    open_keyring(path, create=True)
    path.chmod(0o640)
    with ThreadPoolExecutor(8) as threads:
        changes = [
            threads.submit(FileSource(path).change, lambda keyring: keyring.with_key(new_key()))
            for _ in range(32)
        ]
        for change in changes:
            change.result()
    assert sorted(read_keyring(path).keys) == list(range(1, 34))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["keyring.json"]


def test_a_keyring_that_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    before = open_keyring(path, create=True).keyring
    source = FileSource(path, bytes)  # so that the name of its draft is known, and taken
    (tmp_path / f".keyring.json.{bytes(8).hex()}").mkdir()
    with pytest.raises(ConfigInvalid, match="cannot be written"):
        source.change(lambda keyring: keyring.with_key(new_key()))
    assert read_keyring(path).keys == before.keys


def test_a_keyring_may_stand_in_the_settings(tmp_path: Path) -> None:
    """Then no file is made, and a change of it is given back, not kept."""
    text = Keyring("made", 1, {1: b"A" * 32}).encode().decode()
    source = keyring_source(Settings(json=text), tmp_path)
    sealer = open_sealer_of(source, create=True)
    assert KeyringSealer(source.read()).cipher(sealer.new_wrapped_key(HERE), HERE)
    changed = source.change(lambda keyring: keyring.with_key(b"B" * 32))
    assert (sorted(changed.keys), sorted(source.read().keys)) == ([1, 2], [1])
    assert not source.kept
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyringWrong, match=r"keyring\.json"):
        keyring_source(Settings(json="no"), tmp_path).read()


def test_two_keyrings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"keyring\.file"):
        keyring_source(Settings(file="here", json="{}"), tmp_path)


def test_opened_ciphers_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    keyring = open_keyring(tmp_path / "keyring.json", create=True).keyring
    sealer = KeyringSealer(keyring, opened_ciphers=2)
    keys = [sealer.new_wrapped_key(HERE) for _ in range(3)]
    first = sealer.cipher(keys[0], HERE)
    assert sealer.cipher(keys[0], HERE) is first
    for key in keys[1:]:
        sealer.cipher(key, HERE)
    assert sealer.cipher(keys[0], HERE) is not first


def _member() -> Member:
    return Member(UserId("ann"), Seq(1))


def test_the_sentinel_tells_every_process_the_key_of_members_rows(tmp_path: Path) -> None:
    """Before it did, nothing is taken for forged, nor for right: what asks is told to come back."""
    path, key = tmp_path / "keyring.json", ConversationKey(7)
    making = open_keyring(path, create=True)
    member = making.macs.seal(key, _member())
    later = open_keyring(path, create=False)
    with pytest.raises(KeyringBehind):
        later.macs.hold(key, member)
    later.verify_sentinel(making.sentinel())
    assert later.macs.hold(key, member)
    FileSource(path).change(lambda keyring: keyring.with_key(b"B" * 32).with_current(2))
    rotated = open_keyring(path, create=False)
    rotated.verify_sentinel(later.sentinel())
    assert rotated.macs.hold(key, member)


def test_what_was_bound_stays_so_though_an_older_sentinel_is_put_back(tmp_path: Path) -> None:
    """A process that runs believes no sentinel of the first version any more."""
    path = tmp_path / "keyring.json"
    sealer = open_keyring(path, create=True)
    kek = sealer.keyring.keys[1]
    header, nonce = b"\x01\x00\x00\x00\x01", b"n" * 12
    sealed = AESGCM(kek).encrypt(nonce, b"trunkline sentinel", header + b"trunkline sentinel")
    of_first_version = header + nonce + sealed
    opened = open_keyring(path, create=False)
    opened.verify_sentinel(of_first_version)
    assert not opened.bound
    assert opened.macs.hold(ConversationKey(7), _member())
    opened.all_bound()
    opened.verify_sentinel(of_first_version)
    assert opened.bound
    assert not opened.macs.hold(ConversationKey(7), _member())


def test_a_wrapped_key_opens_in_its_own_row_only(tmp_path: Path) -> None:
    """Who gives his own row another conversation's id and wrapped key has nothing of it."""
    sealer = open_keyring(tmp_path / "keyring.json", create=True)
    group, mine = ConversationKey(7), ConversationKey(8)
    wrapped = sealer.new_wrapped_key(place_of(group, ConversationId("board")))
    with pytest.raises(KeyringWrong):
        sealer.cipher(wrapped, place_of(mine, ConversationId("board")))

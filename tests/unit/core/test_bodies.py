"""A body comes out of its packing as it went in, and what was packed once opens for ever."""

from __future__ import annotations

import gzip
import json
import threading
from hashlib import sha256
from importlib.resources import files

import pytest
from core_strategies import text
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.bodies import pack_body, unpack_body
from trunkline.core.dictionary import DICTIONARY
from trunkline.errors import DataDamaged
from trunkline.model import JSON, TEXT

content_types = text | st.sampled_from([TEXT, JSON])
bodies = text | st.builds(lambda part, times: part * times, text, st.integers(1, 60))

ASKED = "what do you mean, you can install it yourself"
ASKED_COMPRESSED = bytes.fromhex("202dcd0000834001525b879c5706fca18d5cf322e67bbbbe688421447390")


def sample() -> list[str]:
    packed = files("trunkline.replay").joinpath("sample.jsonl.gz").read_bytes()
    return [json.loads(line)["text"] for line in gzip.decompress(packed).splitlines()]


@given(content_types, bodies)
def test_a_body_is_unpacked_as_it_was_packed(content_type: str, body: str) -> None:
    assert unpack_body(pack_body(content_type, body)) == (content_type, body)


@given(st.sampled_from([TEXT, JSON]), bodies)
def test_no_body_grows_by_more_than_a_byte(content_type: str, body: str) -> None:
    assert len(pack_body(content_type, body)) <= len(body.encode()) + 1


@given(content_types, bodies)
def test_what_is_not_to_be_compressed_is_not(content_type: str, body: str) -> None:
    packed = pack_body(content_type, body, compress=False)
    assert packed.endswith(body.encode())
    assert unpack_body(packed) == (content_type, body)


def test_real_chat_becomes_a_quarter_smaller() -> None:
    texts = sample()
    packed = sum(len(pack_body(TEXT, body)) for body in texts)
    assert packed < 0.75 * sum(len(body.encode()) for body in texts)


@pytest.mark.parametrize(
    ("packed", "content_type", "body"),
    [
        (b"\x0atext/plainhello", TEXT, "hello"),
        (b"\x09image/pnghttps://example.org/1", "image/png", "https://example.org/1"),
        (b"\xf0hello", TEXT, "hello"),
        (b'\xf1{"users":["ann"]}', JSON, '{"users":["ann"]}'),
        (b"\xf8" + ASKED_COMPRESSED, TEXT, ASKED),
        (b"\xfa\x09image/png" + ASKED_COMPRESSED, "image/png", ASKED),
    ],
)
def test_what_was_packed_once_opens_for_ever(packed: bytes, content_type: str, body: str) -> None:
    assert unpack_body(packed) == (content_type, body)


def test_the_dictionary_is_the_one_that_bodies_were_packed_with() -> None:
    assert sha256(DICTIONARY).hexdigest() == (
        "5280e4a882d956d82db9c1affb6eb769cb395e2b23bd8e8caf84808a5f0a3f80"
    )


@pytest.mark.parametrize("packed", [b"\xf2hello", b"\xfb", b"\xff\x00", b"\xf8hello", b"\xf8"])
def test_an_unknown_or_broken_packing_is_refused(packed: bytes) -> None:
    with pytest.raises(DataDamaged):
        unpack_body(packed)


def test_threads_pack_and_unpack_at_once() -> None:
    texts = [body * 20 for body in sample()[:200]]
    wrong: list[str] = []

    def work() -> None:
        wrong.extend(body for body in texts if unpack_body(pack_body(TEXT, body))[1] != body)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

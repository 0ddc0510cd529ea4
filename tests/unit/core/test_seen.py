"""Proof that an id was shown: who was not given one cannot make it."""

from __future__ import annotations

from core_strategies import sealer

from trunkline.core.seen import is_proven, proof_of
from trunkline.model import Place, Seq

SEALER = sealer()
HERE = Place("0001:here")
ONE, OTHER = (SEALER.cipher(SEALER.new_wrapped_key(HERE), HERE) for _ in range(2))


def test_a_proof_is_of_one_seq_of_one_conversation() -> None:
    proof = proof_of(ONE, Seq(7)).hex()
    assert is_proven(ONE, Seq(7), proof)
    assert not is_proven(ONE, Seq(8), proof)
    assert not is_proven(OTHER, Seq(7), proof)


def test_what_is_no_proof_is_refused_whatever_it_is() -> None:
    for text in ("", "0" * 32, "é", "\0", proof_of(ONE, Seq(7)).hex().upper()):
        assert not is_proven(ONE, Seq(7), text)


def test_the_key_of_proofs_is_not_what_members_are_told() -> None:
    assert len(ONE.seen_key) == 32
    assert ONE.seen_key != ONE.digest_key

"""Proof that an id was shown: what an endpoint gets when it confirms, and nobody can make up (I3).

After a restore the store lacks entries that endpoints hold. Their seqs must not be given out
again; but a member who could raise a conversation's head at will could fill it. So a confirmed
position comes back with a MAC under a key that the data key gives and no client ever gets.
"""

import hmac
from hashlib import blake2b
from typing import Final

from trunkline.core.sealing import Cipher
from trunkline.model import Seq

PROOF_BYTES: Final = 16
_SEQ_BYTES: Final = 8


def proof_of(cipher: Cipher, seq: Seq) -> bytes:
    """Says that the conversation had an entry `seq`: BLAKE2b-128 (RFC 7693), keyed, over it."""
    data = seq.to_bytes(_SEQ_BYTES, "big")
    return blake2b(data, digest_size=PROOF_BYTES, key=cipher.seen_key).digest()


def is_proven(cipher: Cipher, seq: Seq, proof: str) -> bool:
    """Whether these hex digits are the proof."""
    return hmac.compare_digest(proof_of(cipher, seq).hex().encode(), proof.encode())

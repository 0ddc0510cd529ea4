"""Suite of the sealer: data keys that only their keyring opens, blobs that cannot be moved."""

import weakref
from collections.abc import Callable

from trunkline.core.envelope import WRAPPED_HEADER_BYTES, kek_of
from trunkline.errors import (
    ConversationShredded,
    KeyringBehind,
    KeyringWrong,
    SealBroken,
    TrunklineError,
)
from trunkline.model import Place, WorkerId
from trunkline.ports.sealer import Sealer

HERE = Place("0001:here 🦊")
SealerMaker = Callable[[], Sealer]
"""Each call makes a sealer with key-encryption keys of its own."""


def refuses(kind: type[TrunklineError], call: Callable[..., object], *arguments: object) -> bool:
    """Whether a call raises exactly that error."""
    try:
        call(*arguments)
    except kind as error:
        return type(error) is kind
    return False


class SealerSuite:
    """Promises of `ports.sealer.Sealer`. Fixture: `make_sealer`."""

    def test_what_was_sealed_opens_by_any_cipher_of_the_same_wrapped_key(
        self, make_sealer: SealerMaker
    ) -> None:
        """Of any length, also nothing."""
        sealer = make_sealer()
        wrapped = sealer.new_wrapped_key(HERE)
        for plaintext in (b"", b"x", "Gräfin 🦊".encode() * 1_000):
            blob = sealer.cipher(wrapped, HERE).seal(plaintext, b"place")
            assert sealer.cipher(bytes(bytearray(wrapped)), HERE).open(blob, b"place") == plaintext
            assert len(plaintext) < 32 or plaintext not in blob

    def test_the_same_plaintext_never_seals_to_the_same_blob(
        self, make_sealer: SealerMaker
    ) -> None:
        """A nonce used twice would open both, and forge more."""
        sealer = make_sealer()
        cipher = sealer.cipher(sealer.new_wrapped_key(HERE), HERE)
        assert len({cipher.seal(b"same", b"place") for _ in range(1_000)}) == 1_000

    def test_a_blob_opens_nowhere_but_in_its_place(self, make_sealer: SealerMaker) -> None:
        """DESIGN section 8."""
        sealer = make_sealer()
        cipher = sealer.cipher(sealer.new_wrapped_key(HERE), HERE)
        blob = cipher.seal(b"body", b"place")
        for elsewhere in (b"", b"plac", b"place ", b"other"):
            assert refuses(SealBroken, cipher.open, blob, elsewhere)

    def test_a_blob_with_any_bit_changed_does_not_open(self, make_sealer: SealerMaker) -> None:
        """Header, nonce, ciphertext and tag alike; nor does any shorter one."""
        sealer = make_sealer()
        cipher = sealer.cipher(sealer.new_wrapped_key(HERE), HERE)
        blob = cipher.seal(b"body", b"place")
        for bit in range(len(blob) * 8):
            changed = bytearray(blob)
            changed[bit // 8] ^= 1 << bit % 8
            assert refuses(SealBroken, cipher.open, bytes(changed), b"place")
        for size in range(len(blob)):
            assert refuses(SealBroken, cipher.open, blob[:size], b"place")

    def test_each_conversation_has_keys_of_its_own(self, make_sealer: SealerMaker) -> None:
        """Neither blobs nor digests of one say anything about another."""
        sealer = make_sealer()
        one, other = (sealer.cipher(sealer.new_wrapped_key(HERE), HERE) for _ in range(2))
        blob = one.seal(b"body", b"place")
        assert refuses(SealBroken, other.open, blob, b"place")
        assert one.digest_key != other.digest_key
        assert len(one.digest_key) == 32

    def test_a_digest_key_stays_the_same_for_a_wrapped_key(self, make_sealer: SealerMaker) -> None:
        """Endpoints keep it with the conversation."""
        sealer = make_sealer()
        wrapped = sealer.new_wrapped_key(HERE)
        first = sealer.cipher(wrapped, HERE).digest_key
        for _ in range(100):
            sealer.cipher(sealer.new_wrapped_key(HERE), HERE)
        assert sealer.cipher(wrapped, HERE).digest_key == first

    def test_a_key_that_another_keyring_wrapped_is_refused(self, make_sealer: SealerMaker) -> None:
        """As are changed and cut ones."""
        sealer = make_sealer()
        foreign = make_sealer().new_wrapped_key(HERE)
        assert refuses(KeyringWrong, sealer.cipher, foreign, HERE)
        wrapped = sealer.new_wrapped_key(HERE)
        for at in range(len(wrapped)):
            changed = bytearray(wrapped)
            changed[at] ^= 2
            # Its second to fifth byte name the KEK: another one, which is not here.
            kind = KeyringBehind if 1 <= at < WRAPPED_HEADER_BYTES else KeyringWrong
            assert refuses(kind, sealer.cipher, bytes(changed), HERE)
            if at:
                assert refuses(KeyringWrong, sealer.cipher, wrapped[:at], HERE)
        assert refuses(ConversationShredded, sealer.cipher, b"", HERE)

    def test_a_key_opens_for_no_other_conversation(self, make_sealer: SealerMaker) -> None:
        """Who can write a store moves no key to a conversation of his own: also not one that
        is open, and not by having it wrapped anew.
        """
        sealer = make_sealer()
        elsewhere = Place("0001:elsewhere")
        wrapped = sealer.new_wrapped_key(HERE)
        sealer.cipher(wrapped, HERE)
        assert refuses(KeyringWrong, sealer.cipher, wrapped, elsewhere)
        assert refuses(KeyringWrong, sealer.rewrapped, wrapped, elsewhere)

    def test_a_rewrapped_key_is_the_same_data_key(self, make_sealer: SealerMaker) -> None:
        """What was sealed before opens, under a wrapped key that says its KEK."""
        sealer = make_sealer()
        wrapped = sealer.new_wrapped_key(HERE)
        again = sealer.rewrapped(wrapped, HERE)
        assert again != wrapped
        assert kek_of(again) == kek_of(wrapped) == sealer.kek_id > 0
        blob = sealer.cipher(wrapped, HERE).seal(b"body", b"place")
        assert sealer.cipher(again, HERE).open(blob, b"place") == b"body"
        assert sealer.cipher(again, HERE).digest_key == sealer.cipher(wrapped, HERE).digest_key

    def test_a_data_key_that_is_not_used_is_forgotten(self, make_sealer: SealerMaker) -> None:
        """After two calls of `refresh`; one that is used stays open."""
        sealer = make_sealer()
        idle, used = sealer.new_wrapped_key(HERE), sealer.new_wrapped_key(HERE)
        forgotten, kept = weakref.ref(sealer.cipher(idle, HERE)), sealer.cipher(used, HERE)
        for _ in range(2):
            sealer.refresh()
            assert sealer.cipher(used, HERE) is kept
        assert forgotten() is None

    def test_what_a_worker_publishes_opens_at_any_other_with_the_keyring_and_nowhere_else(
        self, make_sealer: SealerMaker
    ) -> None:
        """I12: under the key of its boot, bound to its place, never twice the same."""
        sealer, foreign = make_sealer(), make_sealer()
        boot, later = WorkerId("boot 1"), WorkerId("boot 2")
        own = sealer.packet_cipher(boot)
        plaintext = b"nobody else reads this, " * 3
        blobs = [own.seal(plaintext, b"place") for _ in range(300)]
        assert len({blob[:40] for blob in blobs}) == 300
        assert not any(plaintext[:24] in blob for blob in blobs)
        opener = sealer.packet_cipher(boot)
        assert all(opener.open(blob, b"place") == plaintext for blob in blobs)
        assert refuses(SealBroken, opener.open, blobs[0], b"elsewhere")
        assert refuses(SealBroken, sealer.packet_cipher(later).open, blobs[0], b"place")
        assert refuses(SealBroken, foreign.packet_cipher(boot).open, blobs[0], b"place")
        for bit in range(len(blobs[0]) * 8):
            changed = bytearray(blobs[0])
            changed[bit // 8] ^= 1 << bit % 8
            assert refuses(SealBroken, opener.open, bytes(changed), b"place")
        for size in range(len(blobs[0])):
            assert refuses(SealBroken, opener.open, blobs[0][:size], b"place")

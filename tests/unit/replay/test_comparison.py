"""A copy is compared with the file entry by entry, and every way to differ is told apart."""

import pytest

from trunkline.model import ConversationId, ConversationKind, Entry, Kind, Seq, UserId
from trunkline.replay.chatfile import Script
from trunkline.replay.comparison import Leniency, compare

ANN, BOB = UserId("ann"), UserId("bob")
STRICT = Leniency()


def script() -> Script:
    return Script(
        ConversationId("tea"),
        "tea",
        ConversationKind.GROUP,
        {ANN: None, BOB: None},
        {ANN: ["one", "two", "two"], BOB: ["hm"]},
    )


def copy(*said: tuple[UserId, str], first: int = 1) -> list[Entry]:
    """A copy: the entry that created the conversation, then what was said."""
    entries = [Entry(Seq(first), ANN, 0, "{}", Kind.CREATED)]
    return entries + [
        Entry(Seq(first + number), sender, 0, text) for number, (sender, text) in enumerate(said, 1)
    ]


WHOLE = copy((ANN, "one"), (BOB, "hm"), (ANN, "two"), (ANN, "two"))


def test_a_whole_copy_in_any_mixture_of_senders_has_no_difference() -> None:
    mixed = copy((BOB, "hm"), (ANN, "one"), (ANN, "two"), (ANN, "two"))
    for entries in (WHOLE, mixed):
        assert not compare(script(), Seq(1), Seq(5), entries, STRICT)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (copy((ANN, "one"), (BOB, "hm"), (ANN, "two")), "1 seqs missing, 1 texts missing"),
        (copy((ANN, "one"), (BOB, "hm"), (ANN, "two"), (BOB, "two")),
         "1 texts missing, 1 texts not of the file"),
        (copy((ANN, "two"), (BOB, "hm"), (ANN, "one"), (ANN, "two")),
         "1 senders' texts out of order"),
        (copy((ANN, "one"), (BOB, "hm"), (ANN, "two"), (ANN, "else")),
         "1 texts missing, 1 texts not of the file"),
        ([*WHOLE[:2], *WHOLE[3:]], "1 seqs missing, 1 texts missing"),
        ([], "5 seqs missing, 4 texts missing"),
    ],
)  # fmt: skip
def test_what_a_copy_lacks_is_named(entries: list[Entry], says: str) -> None:
    assert str(compare(script(), Seq(1), Seq(5), entries, STRICT)) == says


def test_a_text_stored_twice_is_a_double() -> None:
    doubled = copy((ANN, "one"), (BOB, "hm"), (BOB, "hm"), (ANN, "two"), (ANN, "two"))
    assert str(compare(script(), Seq(1), Seq(6), doubled, STRICT)) == "1 texts doubled"


def test_a_seq_that_stands_twice_is_a_difference() -> None:
    twice = [*WHOLE, WHOLE[-1]]
    assert compare(script(), Seq(1), Seq(5), twice, STRICT).gaps


def test_a_late_view_may_begin_late_but_not_lack_anything_after() -> None:
    late = copy((ANN, "two"), (ANN, "two"), first=3)
    lacking = copy((ANN, "two"), first=3)
    lenient = Leniency(late_view=True)
    assert compare(script(), Seq(3), Seq(5), late, STRICT)
    assert not compare(script(), Seq(3), Seq(5), late, lenient)
    assert compare(script(), Seq(3), Seq(5), lacking, lenient)
    assert compare(script(), Seq(1), Seq(3), copy((ANN, "two"), (ANN, "two")), lenient)


def test_what_was_written_since_comes_after_all_of_the_file() -> None:
    since = copy((ANN, "one"), (BOB, "hm"), (ANN, "two"), (ANN, "two"), (BOB, "new"))
    between = copy((ANN, "one"), (BOB, "new"), (BOB, "hm"), (ANN, "two"), (ANN, "two"))
    lenient = Leniency(written_since=True)
    assert compare(script(), Seq(1), Seq(6), since, STRICT)
    assert not compare(script(), Seq(1), Seq(6), since, lenient)
    assert compare(script(), Seq(1), Seq(6), between, lenient)

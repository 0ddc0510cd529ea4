"""Holds the documentation against the code; run as a program it writes the reference tables.

`python tests/test_docs.py` rewrites what stands between the markers in docs/reference/.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect
from prometheus_client.metrics import MetricWrapperBase

from trunkline.config import Config
from trunkline.core import digest, ranges
from trunkline.errors import BY_CODE
from trunkline.model import Entry, Kind, StoreLife
from trunkline.services.metrics import Metrics
from trunkline.services.readings import READINGS
from trunkline.services.session import CLOSES
from trunkline.services.settings import ServiceSettings
from trunkline.wire import frames
from trunkline.wire.close import Close
from trunkline.wire.encoding import JSON

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SKIPPED_FOLDERS = {".git", ".hypothesis", ".venv", "build", "dist", "node_modules"}

# Codes that no server sends: of starting, of files and keys, and of the client's own side.
OFF_THE_WIRE = {
    "key_in_use",
    "address_in_use",
    "config_invalid",
    "data_dir_invalid",
    "data_dir_locked",
    "data_dir_newer",
    "digest_mismatch",
    "keyring_missing",
    "local_store_wrong",
    "redirected",
    "server_unsafe",
    "sqlite_unsafe",
    "store_newer",
    "store_not_migrated",
    "store_replaced",
    "store_restored",
    "entries_lost",
    "target_not_empty",
    "token_keys_wrong",
    "unreachable",
}
INNER = [
    frames.Range,
    frames.Limits,
    frames.Ack,
    Entry,
    frames.Run,
    frames.Changed,
    frames.HeldPart,
    frames.RangeParts,
    frames.Claim,
    StoreLife,
]
CLIENT_FRAMES: tuple[type[msgspec.Struct], ...] = frames.ClientFrame.__args__
SERVER_FRAMES: tuple[type[msgspec.Struct], ...] = frames.ServerFrame.__args__

Row = tuple[str, ...]


# --- what the code says -----------------------------------------------------------------


def tag_of(frame: type[msgspec.Struct]) -> str:
    return str(frame.__struct_config__.tag)


def type_name(kind: inspect.Type) -> str:
    """A field's type in the words of the protocol's page."""
    match kind:
        case inspect.Metadata(type=inner):
            return type_name(inner)
        case inspect.StrType() | inspect.EnumType():
            return "text"
        case inspect.IntType():
            return "integer"
        case inspect.FloatType():
            return "number"
        case inspect.BoolType():
            return "boolean"
        case inspect.BytesType():
            return "bytes"
        case inspect.TupleType(item_types=items):
            return " and ".join(type_name(item) for item in items)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return f"list of {type_name(item)}"
        case inspect.DictType(key_type=key, value_type=value):
            return f"map of {type_name(key)} to {type_name(value)}"
        case inspect.StructType(cls=cls):
            return f"[`{cls.__name__}`](#{cls.__name__.lower()})"
        case inspect.UnionType(types=types):
            (present,) = [t for t in types if not isinstance(t, inspect.NoneType)]
            return type_name(present)
        case _:
            raise AssertionError(f"no word for {kind}")


def field_rows(struct: type[msgspec.Struct]) -> list[Row]:
    """(name, type, default) of each field as they stand in a table."""
    rows = []
    for field in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        if field.required:
            default = "required"
        elif field.default is None:
            default = "absent"
        else:
            value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            default = f"`{json.dumps(value)}`"
        rows.append((field.encode_name, type_name(field.type), default))
    return rows


def default_limits() -> dict[str, float]:
    settings = ServiceSettings()
    return {name: getattr(settings, name) for name in frames.Limits.__struct_fields__}


def bounds_of(kind: inspect.Type) -> str:
    """A setting's type and bounds."""
    match kind:
        case inspect.Metadata(type=inner):
            return bounds_of(inner)
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.IntType() | inspect.FloatType():
            bounds = (("≥", kind.ge), (">", kind.gt), ("≤", kind.le), ("<", kind.lt))
            said = [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
            return " ".join([type_name(kind), ", ".join(said)]).strip()
        case _:
            return type_name(kind)


def settings_rows(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Row]:
    """(name, type, default, description) of every setting."""
    for field in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        name = prefix + field.encode_name
        if isinstance(field.type, inspect.StructType):
            yield from settings_rows(field.type.cls, name + ".")
            continue
        assert isinstance(field.type, inspect.Metadata), f"{name} has no description"
        description = (field.type.extra_json_schema or {})["description"]
        inner = field.type.type
        if isinstance(inner, inspect.VarTupleType) and isinstance(
            inner.item_type, inspect.StructType
        ):
            yield f"`{name}`", "list of tables", "one, of defaults", description
            yield from settings_rows(inner.item_type.cls, name + "[].")
            continue
        yield f"`{name}`", bounds_of(field.type), f"`{field.default}`", description


def metrics_rows() -> Iterator[Row]:
    """(name, type, labels, description) of every metric, as `/metrics` shows it."""
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "—"
            yield f"`{name}`", family.type, labels, family.documentation
    for name, shown in READINGS.items():
        kind, ending = ("counter", "_total") if shown.counter else ("gauge", "")
        label = f"`{shown.label}`" if shown.label else "—"
        yield f"`{name}{ending}`", kind, label, shown.help


def errors_rows() -> Iterator[Row]:
    """(code, retryable, over the wire, advice) of every error."""
    for code, kind in BY_CODE.items():
        wire = "no" if code in OFF_THE_WIRE else "yes"
        yield f"`{code}`", "yes" if kind.retryable else "no", wire, kind.advice


# --- what the pages say -----------------------------------------------------------------


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@functools.cache
def protocol() -> str:
    return page("protocol.md")


def section(heading: str) -> str:
    """What stands under a heading of the protocol's page, up to the next of its level."""
    level = heading.split(" ")[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)",
        protocol(),
        re.MULTILINE | re.DOTALL,
    )
    assert found, f"docs/protocol.md has no {heading!r}"
    return found[1]


def table(text: str) -> list[Row]:
    """The rows of the first table in a text, without its head."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    rows = [tuple(re.split(r"(?<!\\)\|", line.strip("|"))) for line in lines[2:]]
    return [tuple(cell.strip() for cell in row) for row in rows]


def examples(text: str) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def headings_within(heading: str) -> list[str]:
    return re.findall(r"^### (\w+)$", section(heading), re.MULTILINE)


def by_heading(structs: list[type[msgspec.Struct]]) -> dict[str, type[msgspec.Struct]]:
    return {
        s.__name__ if s in INNER else tag_of(s): s for s in structs
    }  # fmt: skip


STRUCTS = by_heading([*CLIENT_FRAMES, *SERVER_FRAMES, *INNER])


# --- docs/protocol.md -------------------------------------------------------------------


def test_the_page_has_a_section_for_every_frame_and_no_other() -> None:
    of_client, of_server = (
        [name for name in headings_within(heading) if name not in {s.__name__ for s in INNER}]
        for heading in ("## Frames from the client", "## Frames from the server")
    )
    assert of_client == [tag_of(frame) for frame in CLIENT_FRAMES]
    assert of_server == [tag_of(frame) for frame in SERVER_FRAMES]


@pytest.mark.parametrize("name", STRUCTS)
def test_the_page_names_every_field_with_its_type_and_default(name: str) -> None:
    said = [(cells[0].strip("`"), *cells[1:3]) for cells in table(section(f"### {name}"))]
    assert said == field_rows(STRUCTS[name])


@pytest.mark.parametrize("name", [tag_of(frame) for frame in (*CLIENT_FRAMES, *SERVER_FRAMES)])
def test_every_frame_has_an_example_that_decodes_as_it(name: str) -> None:
    found = examples(section(f"### {name}"))
    assert found, f"{name} has no example"
    for example in found:
        frame = decoded(example)
        assert tag_of(type(frame)) == name


def test_every_example_says_neither_more_nor_less_than_its_frame() -> None:
    for example in examples(protocol()):
        assert json.loads(JSON.encode(decoded(example))) == json.loads(example)


def decoded(example: str) -> msgspec.Struct:
    of_client = json.loads(example)["t"] in {tag_of(frame) for frame in CLIENT_FRAMES}
    return (JSON.decode_client if of_client else JSON.decode_server)(example.encode())


def test_the_page_lists_every_error_that_can_come_over_the_wire() -> None:
    said = {cells[0]: cells[1:3] for cells in table(section("## Errors"))}
    assert said == {
        f"`{code}`": (
            "yes" if kind.retryable else "no",
            str(int(CLOSES[code])) if code in CLOSES else "—",
        )
        for code, kind in BY_CODE.items()
        if code not in OFF_THE_WIRE
    }
    assert set(BY_CODE) >= OFF_THE_WIRE


def test_the_page_lists_every_close_code_and_whether_to_come_back() -> None:
    said = [(cells[0], cells[1], cells[3]) for cells in table(section("## Close codes"))]
    assert said == [
        (str(int(close)), f"`{close.name}`", "yes" if close.reconnect else "no") for close in Close
    ]


def test_the_page_lists_every_limit_with_its_default() -> None:
    said = {cells[0]: cells[1] for cells in table(section("## Limits"))}
    for name, value in default_limits().items():
        assert said[f"`{name}`"] == str(value)


def test_the_page_names_every_kind_of_entry() -> None:
    for kind in Kind:
        assert f"`{kind}`" in section("## Sending")


def test_the_worked_example_of_the_digest_is_right() -> None:
    pulled, synced = (decoded(examples(section(f"### {n}"))[0]) for n in ("pulled", "synced"))
    assert isinstance(pulled, frames.Pulled)
    assert isinstance(synced, frames.Synced)
    (run,), (changed,) = pulled.runs, synced.conversations
    assert run.conversation == changed.conversation
    key = bytes.fromhex(changed.digest_key)
    rows = [("key", changed.digest_key)]
    total = 0
    for entry in run.entries:
        data = hashed_bytes(run.conversation, entry)
        hash_ = blake2b(data, digest_size=16, key=key).digest()
        assert hash_ == digest.hash_entry(entry, digest.hasher(run.conversation, key))
        rows += [(f"hashed bytes of entry {entry.seq}", data.hex())]
        rows += [(f"hash of entry {entry.seq}", hash_.hex())]
        total = (total + int.from_bytes(hash_, "big")) % 2**128
    rows += [("digest of entries 1 to 2", f"{total:032x}")]
    assert [(what, text.strip("`")) for what, text in table(section("### Worked example"))] == rows
    assert changed.digest == f"{total:032x}"


def hashed_bytes(conversation: str, entry: Entry) -> bytes:
    """Built as the page says, not as the code does."""
    texts = [conversation, entry.sender, entry.kind, entry.content_type, entry.body]
    parts = [text.encode() for text in texts]
    numbers = b"".join(n.to_bytes(8, "big") for n in (entry.seq, entry.refers_to, entry.time_ms))
    sizes = b"".join(
        len(part).to_bytes(size, "big") for part, size in zip(parts, (2, 2, 2, 2, 4), strict=True)
    )
    return numbers + sizes + b"".join(parts)


def test_the_worked_example_of_the_vector_digest_is_right() -> None:
    sync = next(decoded(e) for e in examples(section("### sync")) if '"vector"' in e)
    assert isinstance(sync, frames.Sync)
    assert sync.vector is not None
    rows = []
    total = 0
    for conversation, seq in sync.vector.items():
        term = blake2b(seq.to_bytes(8, "big") + conversation.encode(), digest_size=16).hexdigest()
        rows.append((f"`{conversation}`, {seq}", f"`{term}`"))
        total = (total + int(term, 16)) % 2**128
    rows.append(("both", f"`{total:032x}`"))
    assert table(section("### The vector digest")) == rows
    assert sync.vector_digest == f"{total:032x}" == digest.to_hex(digest.vector_digest(sync.vector))


def test_the_worked_example_of_the_ranges_is_right() -> None:
    found = [decoded(e) for e in examples(section("### sync"))]
    (whole,) = (f for f in found if isinstance(f, frames.Sync) and f.vector)
    (in_parts,) = (f for f in found if isinstance(f, frames.Sync) and f.parts)
    assert whole.vector
    assert in_parts.parts
    rows, sums = [], []
    for conversation, seq in whole.vector.items():
        place = blake2b(conversation.encode(), digest_size=8).hexdigest()
        number, part = int(place, 16) >> 56, int(place, 16) >> 51
        term = blake2b(seq.to_bytes(8, "big") + conversation.encode(), digest_size=16).hexdigest()
        rows.append((f"place of `{conversation}`", f"`{place}`: range {number}, part {part}"))
        sums.append((f"sum of range {number} and of part {part}", f"`{term[16:]}`"))
        assert ranges.part_of(ranges.place_of(conversation)) == part
        held = bytes.fromhex(place) + seq.to_bytes(8, "big")
    assert table(section("### Comparing vectors")) == [
        *rows,
        *sums,
        ("all other sums", f"`{0:016x}`"),
    ]
    assert [(one.part, one.held) for one in in_parts.parts] == [(part, held)]


# --- docs/reference ---------------------------------------------------------------------

REFERENCE: dict[str, tuple[Row, Callable[[], Iterator[Row]]]] = {
    "errors.md": (("code", "retryable", "over the wire", "what to do"), errors_rows),
    "metrics.md": (("metric", "type", "labels", "meaning"), metrics_rows),
    "settings.md": (
        ("setting", "type", "default", "meaning"),
        lambda: settings_rows(Config),
    ),
}
MARKED = re.compile(r"(<!-- table -->\n).*?(<!-- end of table -->)", re.DOTALL)


def rendered(name: str) -> str:
    """The page as it must be: its own words, and the table that the code makes."""
    head, rows = REFERENCE[name]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows())]
    text, found = MARKED.subn(
        lambda marks: marks[1] + "\n".join(lines) + "\n" + marks[2], page(f"reference/{name}")
    )
    assert found == 1, f"docs/reference/{name} has no place for its table"
    return text


@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_table_is_what_the_code_makes(name: str) -> None:
    expected = rendered(name)
    if page(f"reference/{name}") != expected:
        pytest.fail(
            f"docs/reference/{name} differs from the code; `python tests/test_docs.py` writes:\n"
            + expected,
            pytrace=False,
        )


# --- all pages --------------------------------------------------------------------------


def pages() -> Iterator[Path]:
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if n not in SKIPPED_FOLDERS and not n.endswith("_cache")]
        yield from (Path(folder, name) for name in files if name.endswith(".md"))


def anchors(path: Path) -> set[str]:
    """The anchors that a page's headings make."""
    text = re.sub(
        r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    }


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for path in pages():
        text = re.sub(
            r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file) if file else path
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", ["docs/guarantees.md", "SECURITY.md"])
def test_every_test_that_shows_something_is_there(name: str) -> None:
    """Named by its path, or alone behind one of the same folder."""
    text = (ROOT / name).read_text(encoding="utf-8")
    known = {path.name for folder in ("tests", "src") for path in (ROOT / folder).rglob("*.py")}
    places = re.findall(r"`((?:tests|testing)/[\w/.]+)`", text)
    missing = [
        place
        for place in places
        if not (ROOT / place).exists() and not (ROOT / "src/trunkline" / place).exists()
    ]
    missing += [file for file in re.findall(r"`(test_\w+\.py)`", text) if file not in known]
    assert places
    assert not missing


def write_reference() -> None:
    for name in REFERENCE:
        text: Any = rendered(name)
        (DOCS / "reference" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_reference()

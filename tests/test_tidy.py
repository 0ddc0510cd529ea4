"""Reads the source tree and refuses what would make it hard to read or to publish."""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.config import ENVIRONMENT_PREFIX, Config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "trunkline"

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
PORT_METHODS_MAX = 8

# A module is named by what it decides or drives; these names say nothing.
EMPTY_WORDS = re.compile(r"(?:^|_)(?:common|data2|helpers?|managers?|misc|utils?)(?:_|$)")
# What belongs to one machine, one tracker or one registry has no place in what others read.
NO_GO = {
    "an issue's number": re.compile(r"\bissues? #?\d|\bissue #", re.IGNORECASE),
    "a path of somebody's machine": re.compile(r"(?<![\w.~-])/(?:work|root|home/\w+)/"),
    "a package registry's host": re.compile(
        r"pypi\.org|python[h]osted|registry\.npmjs|\bcrates\.io|proxy\.golang\.org"
        r"|repo1?\.maven|deb\.debian\.org",
    ),
}
SKIPPED_FOLDERS = {
    ".cluster",
    ".git",
    ".hypothesis",
    ".venv",
    "__pycache__",
    "build",
    "dist",
    "htmlcov",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def walk(top: Path) -> Iterator[Path]:
    """Every file under top that is the project's own, in a stable order."""
    for folder, names, files in os.walk(top):
        names[:] = sorted(
            name
            for name in names
            if name not in SKIPPED_FOLDERS and not name.endswith(("_cache", ".egg-info"))
        )
        # In a further worktree `.git` is a file, and it names the machine's path.
        yield from (Path(folder, name) for name in sorted(files) if name != ".git")


def modules(*tops: str) -> list[Path]:
    return [path for top in tops for path in walk(ROOT / top) if path.suffix == ".py"]


def everywhere() -> list[Path]:
    return modules("src", "tests", "bench", "deploy")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def at(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def refuse(found: list[str]) -> None:
    if found:
        pytest.fail("\n".join(["", *found]), pytrace=False)


def name_of(node: ast.expr) -> str:
    """The dotted name of an expression, or an empty string: `time.sleep` of `time.sleep(1)`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := name_of(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def calls(path: Path, *names: str) -> list[str]:
    return [
        at(path, node.lineno, f"{name_of(node.func)}()")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and name_of(node.func) in names
    ]


def test_no_module_is_longer_than_500_lines() -> None:
    lengths = ((path, len(path.read_text(encoding="utf-8").splitlines())) for path in everywhere())
    refuse([at(path, n, f"{n} lines") for path, n in lengths if n > MODULE_LINES_MAX])


def test_no_function_is_longer_than_70_lines() -> None:
    found = []
    for path in everywhere():
        for node in ast.walk(tree(path)):
            if isinstance(node, Function):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    found.append(at(path, node.lineno, f"{node.name} has {lines} lines"))
    refuse(found)


def test_every_module_and_folder_has_a_name_that_says_what_it_does() -> None:
    names = ((path, path.relative_to(ROOT).with_suffix("").parts) for path in everywhere())
    refuse(
        [
            at(path, 1, "a name that says nothing")
            for path, parts in names
            if any(EMPTY_WORDS.search(part.lower()) for part in parts)
        ]
    )


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    opening = re.compile(r'\A(?:#!.*\n)?"""[\w`]')
    refuse(
        [
            at(path, 1, "no docstring in the first line")
            for path in everywhere()
            if (source := path.read_text(encoding="utf-8")) and not opening.match(source)
        ]
    )


def test_no_except_is_bare() -> None:
    refuse(
        [
            at(path, node.lineno, "a bare except")
            for path in everywhere()
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ExceptHandler) and node.type is None
        ]
    )


def test_no_module_uses_the_sqlite_of_the_machine() -> None:
    """It may be one that loses committed pages: `trunkline.sqlite` brings another."""
    refuse(
        [
            at(path, node.lineno, "imports sqlite3")
            for path in modules("src")
            for node in ast.walk(tree(path))
            if "sqlite3" in imported(node)
        ]
    )


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_only_the_command_line_prints() -> None:
    quiet = (path for path in modules("src") if PACKAGE / "cli" not in path.parents)
    refuse([hit for path in quiet for hit in calls(path, "print")])


def test_nothing_sleeps_on_a_thread_but_the_child_process_of_the_embedded_store() -> None:
    def sleeps(path: Path) -> list[str]:
        taken = [
            at(path, node.lineno, "from time import sleep")
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom) and node.module == "time"
            if any(alias.name == "sleep" for alias in node.names)
        ]
        return taken + calls(path, "time.sleep")

    child = PACKAGE / "adapters" / "sqlite"
    refuse([hit for path in modules("src") if child not in path.parents for hit in sleeps(path)])


def test_nothing_names_a_machine_a_tracker_or_a_registry() -> None:
    found = []
    for path in walk(ROOT):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a binary file
        for number, line in enumerate(lines, 1):
            found += [at(path, number, what) for what, words in NO_GO.items() if words.search(line)]
    refuse(found)


def public(body: list[ast.stmt]) -> list[Function | ast.ClassDef]:
    return [
        node
        for node in body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
    ]


def test_what_ports_and_core_offer_is_documented() -> None:
    found = []
    for path in modules("src/trunkline/ports", "src/trunkline/core"):
        offered = public(tree(path).body)
        if "ports" in path.parts:  # a port's methods are the contract
            offered += [
                m for node in offered if isinstance(node, ast.ClassDef) for m in public(node.body)
            ]
        found += [
            at(path, node.lineno, f"{node.name} has no docstring")
            for node in offered
            if not ast.get_docstring(node)
        ]
    refuse(found)


def test_no_port_has_more_than_8_methods() -> None:
    refuse(
        [
            at(path, node.lineno, f"{node.name} has {len(public(node.body))} methods")
            for path in modules("src/trunkline/ports")
            for node in public(tree(path).body)
            if isinstance(node, ast.ClassDef) and len(public(node.body)) > PORT_METHODS_MAX
        ]
    )


def test_every_variable_that_begins_like_a_setting_is_one() -> None:
    """Exported for something else, it would stop every server: unknown keys are refused."""
    sections = {name: getattr(Config(), name) for name in Config.__struct_fields__}
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in sections}
    for section, settings in sections.items():
        fields = getattr(settings, "__struct_fields__", ())
        known |= {f"{ENVIRONMENT_PREFIX}{section}__{name}".upper() for name in fields}
    known |= {"TRUNKLINE_SECTION__NAME"}  # how the command line says what they look like
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in walk(ROOT)
        if path.suffix in {"", ".md", ".py", ".sh", ".toml"}
        for name in re.findall(r"\bTRUNKLINE_[A-Z0-9_]+", path.read_text("utf-8", "replace"))
        if name not in known
    ]
    assert not found, "\n".join(found)

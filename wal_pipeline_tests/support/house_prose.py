"""Finds prose that must be read twice: in docstrings, comments, strings and documents."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.source_tree import Checkout, Module

_FENCED: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_PARAGRAPH: Final = re.compile(r"[^\n]+(?:\n[^\n]+)*")
_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NOUN_CLAUSE: Final = re.compile(r"What (?![^.]*\?)")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A turn of words that is not used, and the words to write instead."""

    pattern: str
    instead: str

    def found_in(self, text: str) -> str | None:
        """Return the forbidden words as they stand in the text."""
        found = re.search(self.pattern, text, re.IGNORECASE)
        return found and found.group()


@dataclass(frozen=True, slots=True)
class Passage:
    """One text that is read as a whole, on one line. ``place`` is its file and first line."""

    place: str
    text: str


PHRASES: Final = (
    # An order is given with "told to": 'the server was told to pause' is plain.
    Phrase(r"\b(?:is|are) told\b(?! to\b)", "name who does it: 'sends an alert', 'calls on_bytes with'"),
    Phrase(r"\bcomes? to be\b", "'is made', 'is stored'"),
    # A lock is let go of.
    Phrase(r"\blets? go\b(?! of\b)", "'deletes', 'expires'"),
    # 'holds up to 8 files' is a number.
    Phrase(r"\bhold(?:s|ing)? up\b(?! to\b)", "'delays', 'blocks'"),
    Phrase(r"\b(?:has|have) to be had\b", "'needs'"),
    Phrase(r"\bwhat of\b", "begin with the verb"),
    Phrase(r"\bwhat\b[^.,:;?!]*\b(?:is|was|are|were) of\b", "begin with the verb"),
)


def passages_of_code(modules: Iterable[Module]) -> Iterator[Passage]:
    """Return the docstrings, strings and comments of modules."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield Passage(f"{module.path}:{node.lineno}", _joined(node.value))
        yield from _comments(module)


def passages_of_documents(root: Path) -> Iterator[Passage]:
    """Return the paragraphs of README.md and of the documents below docs, without blocks of code."""
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = _FENCED.sub(_blank, path.read_text(encoding="utf-8"))
        for found in _PARAGRAPH.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Passage(f"{path.relative_to(root).as_posix()}:{line}", _joined(found.group()))


def forbidden_phrases(passages: Iterable[Passage], phrases: Iterable[Phrase] = PHRASES) -> list[str]:
    """Find the passages with a phrase that is not used."""
    listed = tuple(phrases)
    return [
        f"{passage.place}: '{words}', write {phrase.instead}"
        for passage in passages
        for phrase in listed
        if (words := phrase.found_in(passage.text))
    ]


def noun_clauses(checkout: Checkout) -> list[str]:
    """Find the docstrings that begin with 'What' and ask nothing, as 'What is known of a copy'."""
    return [
        f"{module.path}:{getattr(node, 'lineno', 1)}: {text.partition(chr(10))[0]}"
        for module in checkout.package
        for node in ast.walk(module.tree)
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)) and _NOUN_CLAUSE.match(text)
    ]


def _comments(module: Module) -> Iterator[Passage]:
    """Return the comments; those on lines of their own that follow each other are one passage."""
    blocks: list[list[tokenize.TokenInfo]] = []
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if blocks and _continues(blocks[-1][-1], token):
            blocks[-1].append(token)
        else:
            blocks.append([token])
    for block in blocks:
        text = " ".join(token.string.lstrip("# ") for token in block)
        yield Passage(f"{module.path}:{block[0].start[0]}", _joined(text))


def _continues(before: tokenize.TokenInfo, comment: tokenize.TokenInfo) -> bool:
    alone = all(token.line.lstrip().startswith("#") for token in (before, comment))
    return alone and comment.start[0] == before.start[0] + 1


def _blank(found: re.Match[str]) -> str:
    """Return as many lines without text, so that the lines after them keep their numbers."""
    return "\n" * found.group().count("\n")


def _joined(text: str) -> str:
    return " ".join(text.split())

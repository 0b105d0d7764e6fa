"""Tests that prose which must be read twice is found, and that plain sentences are not."""

from pathlib import Path

import pytest

from wal_pipeline_tests.support.house_prose import (
    Passage,
    forbidden_phrases,
    noun_clauses,
    passages_of_code,
    passages_of_documents,
)
from wal_pipeline_tests.support.tiny_checkout import tiny_checkout

CODE = '''"""Reads
files."""
# one thought
# on two lines
a = "a string"  # beside code
# apart
'''
DOCUMENT = """# Title

First paragraph
on two lines.

```sh
code is told
```
Last.
"""


def test_each_text_of_a_module_is_a_passage(tmp_path: Path) -> None:
    """Docstrings, strings and comments, on one line each; comments that follow each other are read as one."""
    checkout = tiny_checkout(tmp_path, {"wal_pipeline/a.py": CODE})
    assert list(passages_of_code(checkout.modules)) == [
        Passage("wal_pipeline/a.py:1", "Reads files."),
        Passage("wal_pipeline/a.py:5", "a string"),
        Passage("wal_pipeline/a.py:3", "one thought on two lines"),
        Passage("wal_pipeline/a.py:5", "beside code"),
        Passage("wal_pipeline/a.py:6", "apart"),
    ]


def test_each_paragraph_of_a_document_is_a_passage(tmp_path: Path) -> None:
    """In the README and below docs, with the number of its first line; code is left out."""
    (tmp_path / "docs" / "adr").mkdir(parents=True)
    (tmp_path / "README.md").write_text(DOCUMENT)
    (tmp_path / "docs" / "adr" / "0001.md").write_text("One.\n")
    assert list(passages_of_documents(tmp_path)) == [
        Passage("README.md:1", "# Title"),
        Passage("README.md:3", "First paragraph on two lines."),
        Passage("README.md:9", "Last."),
        Passage("docs/adr/0001.md:1", "One."),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("``on_bytes`` is told how many bytes came", "is told"),
        ("settings that cannot be used are told now", "are told"),
        ("The one way by which copies come to be.", "come to be"),
        ("before the object comes to be", "comes to be"),
        ("what its plan lets go, in order", "lets go"),
        ("the keys that the store did not let go", "let go"),
        ("must not hold up the daemon", "hold up"),
        ("one that never answers holds up nobody", "holds up"),
        ("a lock that has to be had first", "has to be had"),
        ("What of a check looks at our own files", "What of"),
        ("the subject says what a run was of", "what a run was of"),
    ],
)
def test_a_forbidden_phrase_is_found(text: str, words: str) -> None:
    """With its place, its words and what to write instead."""
    found = forbidden_phrases([Passage("a.py:1", text)])
    assert len(found) == 1
    assert found[0].startswith(f"a.py:1: '{words}', write ")


@pytest.mark.parametrize(
    "text",
    [
        "paused at the target, as the server is told to",
        "libdeflate lets go of the interpreter's lock",
        "the queue holds up to 8 files",
        "the archiver told of it; nobody was told",
        "what the server sent is part of the manifest",
        "What is left of an idle cluster's lag: 0.9 s",
        "What did it cost? The price of a month.",
        "it becomes available and has to wait",
    ],
)
def test_a_plain_sentence_is_none(text: str) -> None:
    """The patterns are close to the phrases, so that nobody has to write around them."""
    assert forbidden_phrases([Passage("a.py:1", text)]) == []


def test_a_docstring_that_is_a_noun_clause_is_found(tmp_path: Path) -> None:
    """Of modules, classes and functions; a question is none, and comments are read as they are."""
    text = '"""Does a thing."""\n# What follows is plain.\nclass A:\n    """What is known of it."""\n'
    text += 'def b():\n    """What is it? A question."""\n'
    files = {"wal_pipeline/a.py": text, "wal_pipeline/b.py": '"""What B does."""'}
    assert noun_clauses(tiny_checkout(tmp_path, files)) == [
        "wal_pipeline/a.py:3: What is known of it.",
        "wal_pipeline/b.py:1: What B does.",
    ]

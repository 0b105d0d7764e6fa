"""A settings file is read as it is typed, or refused with the line: nothing in it is passed over or replaced."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.errors import SettingsError
from wal_pipeline.host.env_file import find_env_file, read_env_file

SECRET = "s3cr3t-that-must-not-be-seen"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "env"


def ours(name: str) -> bool:
    return name.startswith("WAL_")


def values(file: Path, content: str | bytes) -> dict[str, str]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_env_file(file, ours)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("WAL_X=orders", "orders"),
        ("WAL_X = orders ", "orders"),
        ("export WAL_X=orders", "orders"),
        ("WAL_X=", ""),
        ("WAL_X=''", ""),
        ("WAL_X=a$b", "a$b"),
        ("WAL_X=password=a${HOME}b", "password=a${HOME}b"),
        ("WAL_X='${HOME}$x'", "${HOME}$x"),
        ('WAL_X="${HOME}$x"', "${HOME}$x"),
        ("WAL_X=a#b", "a#b"),
        ("WAL_X='a #b'", "a #b"),
        ("WAL_X=a b", "a b"),
        ('WAL_X=a"b', 'a"b'),
        ("WAL_X=a'b", "a'b"),
        (r"WAL_X=a\nb", r"a\nb"),
        (r"WAL_X='a\nb'", r"a\nb"),
        (r'WAL_X="a\\b\"c"', r'a\b"c'),
        ("WAL_X=host=db password='a b'", "host=db password='a b'"),
        ("WAL_X='15 2 * * *'", "15 2 * * *"),
        ("WAL_X=größe", "größe"),
        ("  WAL_X=1", "1"),
    ],
)
def test_a_value_is_read_as_it_is_typed(file: Path, line: str, value: str) -> None:
    """Nothing is replaced, cut off or expanded."""
    assert values(file, f"# a comment\n\n{line}\r\n") == {"WAL_X": value}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("WAL_X: orders", "'WAL_X' has no '=' behind a name"),
        ("WAL_X", "'WAL_X' has no '=' behind a name"),
        ("WAL-X=1", "it has no '=' behind a name"),
        (f"{SECRET}/x", "it has no '=' behind a name"),
        ("'WAL_X'=1", "it has no '=' behind a name"),
        ('WAL_X="orders', "'WAL_X' has no closing quote on its line"),
        ("WAL_X='orders", "'WAL_X' has no closing quote on its line"),
        ("WAL_X='a' b", "'WAL_X' has something behind its closing quote"),
        ("WAL_X='it\\'s'", "'WAL_X' has something behind its closing quote"),
        ("WAL_X='a' # b", "'WAL_X' has something behind its closing quote"),
        ("WAL_X=a #b", "'WAL_X' has a '#' that is a comment to some programs and part of the value to others"),
        ("WAL_X=a\t# b", "'WAL_X' has a '#' that is a comment to some programs and part of the value to others"),
        ("WAL_X=# b", "'WAL_X' has a '#' that is a comment to some programs and part of the value to others"),
        ("WAL_X=#b", "'WAL_X' has a '#' that is a comment to some programs and part of the value to others"),
        ("WAL_X=a\\", "'WAL_X' ends in a backslash, which continues the line for some programs"),
        (r"WAL_X='a\\b'", "'WAL_X' has a backslash before a backslash or quote in single quotes"),
        (r'WAL_X="a\nb"', "'WAL_X' has a backslash in double quotes that programs read in several ways"),
        (r'WAL_X="a\$b"', "'WAL_X' has a backslash in double quotes that programs read in several ways"),
        ("WAL_X=a\0b", "'WAL_X' has a control character in its value"),
        ("; a comment", "it has no '=' behind a name"),
    ],
)
def test_no_line_is_passed_over(file: Path, line: str, fault: str) -> None:
    """A line that cannot be read, or that two programs read in two ways, is refused with its number and name."""
    with pytest.raises(SettingsError) as caught:
        values(file, f"# first\nWAL_A={SECRET}\n\n{line}\nWAL_B={SECRET}\n")
    assert caught.value.message == f"settings file '{file}', line 4: {fault}"
    assert SECRET not in str(caught.value)
    assert str(caught.value.hint).startswith("Write NAME=value on a line of its own")


def test_no_quote_takes_the_next_line(file: Path) -> None:
    """A value in quotes over several lines would swallow the settings in them."""
    with pytest.raises(SettingsError, match="line 1: 'WAL_A' has no closing quote on its line"):
        values(file, 'WAL_A="x\nWAL_B=y"\n')


@pytest.mark.parametrize("second", ["WAL_A", "export WAL_A", "wal_a"])
def test_no_line_wins_over_another_in_silence(file: Path, second: str) -> None:
    """Two lines of one name are refused with both numbers, also where they differ in case alone."""
    with pytest.raises(SettingsError) as caught:
        read_env_file(write(file, f"WAL_A=1\nOTHER=1\nOTHER=2\n{second}=2\n"), lambda name: name.upper() == "WAL_A")
    name = second.removeprefix("export ")
    assert caught.value.message == f"settings file '{file}', line 4: '{name}' stands in line 1 already"


def write(file: Path, content: str) -> Path:
    file.write_text(content)
    return file


def test_other_programs_may_repeat_a_name(file: Path) -> None:
    """What is none of ours is none of our business."""
    assert values(file, "OTHER=1\nOTHER=2\n") == {"OTHER": "2"}


def test_a_byte_order_mark_hides_no_name(file: Path) -> None:
    """It stood before the first name, which was then another one: the cluster 'main' was taken."""
    assert values(file, b"\xef\xbb\xbfWAL_X=orders\r\n") == {"WAL_X": "orders"}


@pytest.mark.parametrize("content", ["WAL_X=ä\n".encode("latin-1"), "WAL_X=1\n".encode("utf-16")])
def test_another_encoding_is_refused(file: Path, content: bytes) -> None:
    """The byte is named, and no content."""
    with pytest.raises(SettingsError, match=r"is no UTF-8 text: byte [0-9]+ cannot be read"):
        values(file, content)


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    """The reason is told."""
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_env_file(tmp_path, ours)


def test_the_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is named must be there; ``~`` is the home folder; without a name .env is read where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_env_file(None) is None
    (tmp_path / ".env").touch()
    assert find_env_file(None) == tmp_path / ".env"
    with pytest.raises(SettingsError, match="settings file '~/x' does not exist"):
        find_env_file("~/x\n")
    with pytest.raises(SettingsError, match="settings file '~nobody-here/x' is in a home folder that is not known"):
        find_env_file(Path("~nobody-here/x"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "x").touch()
    assert find_env_file(Path("~/x")) == tmp_path / "home" / "x"
    (tmp_path / "given").touch()
    assert find_env_file("given") == tmp_path / "given"


PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="'\x7f"), max_size=20)


def typed(value: str) -> str:
    """Return the line by the rule that operators are given: in single quotes."""
    return f"WAL_X='{value}'"


@given(PLAIN.filter(lambda text: "\\\\" not in text and not text.endswith("\\")))
def test_single_quotes_mean_the_same_to_all(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    """What we read from single quotes is what a shell, python-dotenv and systemd read."""
    file = write(tmp_path_factory.getbasetemp() / "single-quotes", typed(value) + "\n")
    assert read_env_file(file, ours) == {"WAL_X": value}
    assert dotenv_values(file, interpolate=False) == {"WAL_X": value}
    assert systemd_value(file.read_text()) == value
    assert shlex.split(typed(value)) == [f"WAL_X={value}"]


@pytest.mark.parametrize("value", ["orders", "/srv/wal spool", "a$HOME", "${HOME}", "a #b", "15 2 * * *", r"a\b"])
def test_a_shell_and_systemd_read_the_same(file: Path, value: str) -> None:
    """The documented form, read by a real shell and by systemd's rules."""
    write(file, typed(value) + "\n")
    script = f"set -a; . {file}; printenv WAL_X"
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert values(file, typed(value) + "\n") == {"WAL_X": value}
    assert shell.stdout == f"{value}\n"
    assert systemd_value(typed(value)) == value


@pytest.mark.parametrize("value", ["orders", "r2,b2", "a b", "15 2 * * *", "a$HOME", "a#b", "https://x.example/y?z=1"])
def test_without_quotes_systemd_reads_the_same(value: str, file: Path) -> None:
    """Without quotes, a value without quotes and backslashes is the same to systemd."""
    assert values(file, f"WAL_X={value}") == {"WAL_X": value}
    assert systemd_value(f"WAL_X={value}") == value


def systemd_value(text: str) -> str:
    """Read one line by the rules of systemd.exec(5), EnvironmentFile=.

    Quotes are kept together; in single quotes nothing is special; in double quotes a backslash stands before one of
    four characters; without quotes it is removed, and white space at the ends too.
    """
    raw = text.strip("\n").split("=", 1)[1].strip(" \t")
    value, index, quote = "", 0, ""
    while index < len(raw):
        character = raw[index]
        if quote == "" and character in "'\"" and value == "":
            quote = character
        elif quote and character == quote:
            quote = ""
        elif character == "\\" and quote != "'":
            following = raw[index + 1 : index + 2]
            value += following if not quote or following in '"\\`$' else character + following
            index += 1
        else:
            value += character
        index += 1
    return value if raw[:1] in "'\"" else re.sub(r"[ \t]+\Z", "", value)

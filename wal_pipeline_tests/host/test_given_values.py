"""Paths, lists and keys are taken as they were meant, or refused."""

from pathlib import Path

import pytest

from wal_pipeline.host.given_values import (
    absolute_path,
    absolute_url,
    clean_values,
    require_key_text,
    split_recipients,
    split_urls,
)

FOLDER = Path("/etc/wal-pipeline")
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK me@example"
RSA = "ssh-rsa AAAAB3NzaC1yc2E"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("age.txt", "/etc/wal-pipeline/age.txt"),
        ("./age.txt", "/etc/wal-pipeline/age.txt"),
        ("/srv/x", "/srv/x"),
        ("~/age.txt", f"{Path.home()}/age.txt"),
        ("a$b", "/etc/wal-pipeline/a$b"),
        ("größe", "/etc/wal-pipeline/größe"),
    ],
)
def test_a_path_is_absolute(given: str, path: str) -> None:
    """A relative one begins at the folder, ~ is the home folder."""
    assert str(absolute_path(given, FOLDER)) == path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("${HOME}/x", r"has a '\$'"),
        ("$HOME/x", r"has a '\$'"),
        ("/srv/$USER/x", r"has a '\$'"),
        ("~nobody-here/x", "that home folder is not known"),
        ("caf\udce9", "is no UTF-8 text"),
    ],
)
def test_no_path_is_guessed(given: str, message: str) -> None:
    """A folder named '$HOME' would be made, and nothing would be found in it."""
    with pytest.raises(ValueError, match=message):
        absolute_path(given, FOLDER)


@pytest.mark.parametrize("folder", ["/run/credentials/wal-pipeline.service", "/dev/fd", "/proc/7/fd"])
def test_no_path_begins_where_no_file_stays(folder: str) -> None:
    """systemd's credentials and a shell's <(…) are settings files whose folder is gone after the process."""
    assert absolute_path("/srv/x", Path(folder)) == Path("/srv/x")
    with pytest.raises(ValueError, match="is a relative path, and no file stays in"):
        absolute_path("x", Path(folder))


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("sqlite:///cat.sqlite", "sqlite:////etc/wal-pipeline/cat.sqlite"),
        ("sqlite+pysqlite:///cat.sqlite?timeout=5", "sqlite+pysqlite:////etc/wal-pipeline/cat.sqlite?timeout=5"),
        ("sqlite:///~/cat.sqlite", f"sqlite:///{Path.home()}/cat.sqlite"),
        ("sqlite:////srv/cat.sqlite", "sqlite:////srv/cat.sqlite"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql://u:p@h/cat", "postgresql://u:p@h/cat"),
        (
            "postgresql+psycopg://h/cat?sslmode=verify-full&sslrootcert=my%20ca.pem&passfile=/x",
            "postgresql+psycopg://h/cat?sslmode=verify-full&sslrootcert=/etc/wal-pipeline/my%20ca.pem&passfile=/x",
        ),
        ("postgresql://h/cat?sslrootcert=system", "postgresql://h/cat?sslrootcert=system"),
    ],
)
def test_one_catalog_from_every_folder(url: str, absolute: str) -> None:
    """A relative SQLite URL meant another file in each folder from which a command was typed."""
    assert absolute_url(url, FOLDER) == absolute


@pytest.mark.parametrize(
    ("text", "recipients"),
    [
        (SSH, (SSH,)),
        (RSA, (RSA,)),
        (f"{SSH},{RSA}", (SSH, RSA)),
        (f"{SSH}\n{RSA}\n", (SSH, RSA)),
        (f"{SSH} {RSA}", (SSH, RSA)),
        (f"age1abc,{SSH} , age1def", ("age1abc", SSH, "age1def")),
        ("age1abc age1def", ("age1abc", "age1def")),
        ("age1abc\tage1def\r\n", ("age1abc", "age1def")),
        (" , ", ()),
        ("ssh-ed25519 AAAA my ssh-key of age10", ("ssh-ed25519 AAAA my ssh-key of", "age10")),
    ],
)
def test_no_ssh_key_is_torn(text: str, recipients: tuple[str, ...]) -> None:
    """An SSH public key has two or three words."""
    assert split_recipients(text) == recipients


MAIL = "mailto://u:p@mail.example?to=a@example.org,b@example.org"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        (MAIL, (MAIL,)),
        (f"{MAIL} json://u:pa,ss@127.0.0.1:1/x", (MAIL, "json://u:pa,ss@127.0.0.1:1/x")),
        ("slack://a,discord://b", ("slack://a", "discord://b")),
        ("slack://a, discord://b\nmailto://c", ("slack://a", "discord://b", "mailto://c")),
        ("slack://a no-url", ("slack://a", "no-url")),
        ("", ()),
    ],
)
def test_no_url_is_torn_at_a_comma(text: str, urls: tuple[str, ...]) -> None:
    """A comma belongs to its URL, unless another URL begins behind it, as Apprise reads it too."""
    assert split_urls(text) == urls


@pytest.mark.parametrize("key", ["AKIA\n1", "AKIA 1", "AKIÄ", "AKIA\u200b", "AKIA\x7f"])
def test_a_key_that_cannot_be_sent(key: str) -> None:
    """It is refused when it is read: in a header it brought the key id in plain text into the error."""
    with pytest.raises(ValueError, match="which no key has"):
        require_key_text(key)


def test_white_space_around_values_is_no_part_of_them() -> None:
    """A line feed at the end of a secret that a file was read into is stripped."""
    cleaned, faults = clean_values({"A": " x\n", "B": "\r\n", "C": "a b"}, ())
    assert (cleaned, faults) == ({"A": "x", "C": "a b"}, [])


def test_quotes_and_line_feeds_in_values() -> None:
    """Quotes that a program left in place, and line feeds inside a value, are told by the variable's name."""
    _, faults = clean_values({"A": '"x"', "B": "'x'", "C": "x\ny", "D": "x\ny", "E": "'"}, ("D",))
    assert [fault.split(":")[0] for fault in faults] == ["A", "B", "C"]
    assert "docker run --env-file" in faults[0]

"""What PostgreSQL's configuration files include and name, read and rewritten as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal_pipeline.postgres.configuration_text import (
    ConfigurationInclude,
    FileForm,
    IncludeKind,
    includes_of,
    rewrite_includes,
    settings_in,
    without_places,
)
from wal_pipeline.postgres.recovery import quoted


@pytest.mark.parametrize(
    ("line", "kind", "path"),
    [
        ("include 'a.conf'", IncludeKind.FILE, "a.conf"),
        ("  INCLUDE = '/etc/it''s.conf' # why", IncludeKind.FILE, "/etc/it's.conf"),
        ("include_if_exists = b.conf", IncludeKind.FILE_IF_EXISTS, "b.conf"),
        ("include_dir='conf.d'", IncludeKind.FOLDER, "conf.d"),
        ("include_dir conf.d", IncludeKind.FOLDER, "conf.d"),
    ],
)
def test_each_include_is_found(line: str, kind: IncludeKind, path: str) -> None:
    """In the ways in which guc-file.l reads it."""
    assert includes_of(f"port = 5432\n{line}\n", FileForm.CONF) == (ConfigurationInclude(kind, path),)


@pytest.mark.parametrize(
    "line", ["#include 'a'", "included = 1", "include_dirs = 'a'", "application_name = 'include x'"]
)
def test_what_is_no_include_stays(line: str) -> None:
    """A comment, another setting, and a value."""
    assert includes_of(line, FileForm.CONF) == ()
    assert rewrite_includes(line, FileForm.CONF, lambda _: "changed") == line


def test_access_files_name_others_too() -> None:
    """From PostgreSQL 16 on they include files, and lists of names stood in files always."""
    text = (
        'include "more.conf"\ninclude_dir hba.d\nhost @dbs,app @"us ers" 10.0.0.0/8 scram\n'
        "# host @no all\nhost a b@c x\n"
    )
    assert [(one.kind, one.path) for one in includes_of(text, FileForm.HBA)] == [
        (IncludeKind.FILE, "more.conf"),
        (IncludeKind.FOLDER, "hba.d"),
        (IncludeKind.LIST, "dbs"),
        (IncludeKind.LIST, "us ers"),
    ]
    assert rewrite_includes(text, FileForm.HBA, lambda one: f"new/{one.path}") == (
        'include "new/more.conf"\ninclude_dir "new/hba.d"\nhost @"new/dbs",app @"new/us ers" 10.0.0.0/8 scram\n'
        "# host @no all\nhost a b@c x\n"
    )


def test_places_of_the_original_become_comments() -> None:
    """A data_directory that stays would have the restored server open the original."""
    text = "Data_Directory = '/a'\nhba_file='/b'\n ident_file '/c'\nexternal_pid_file = ''\nport = 1\n#data_directory\n"
    assert without_places(text) == (
        "#Data_Directory = '/a'\n#hba_file='/b'\n# ident_file '/c'\n"
        "#external_pid_file = ''\nport = 1\n#data_directory\n"
    )
    assert settings_in(without_places(text)) == {"port": "1"}


@given(st.text(st.characters(exclude_characters="\n\r\x00", codec="utf-8")).filter(lambda text: text.isprintable()))
def test_a_quoted_value_is_read_back(value: str) -> None:
    """Whatever characters a path has."""
    assert settings_in(f"hba_file = {quoted(value)}") == {"hba_file": value}


@given(st.text(), st.sampled_from(FileForm))
def test_a_text_without_includes_is_not_changed(text: str, form: FileForm) -> None:
    """No line is lost, joined or given another end."""
    if not includes_of(text, form):
        assert rewrite_includes(text, form, lambda one: one.path) == text
    assert len(without_places(text).splitlines()) == len(text.splitlines())

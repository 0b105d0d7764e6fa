"""A restore tells a copy beside its original from the server that takes its place."""

from pathlib import Path

import pytest

from wal_pipeline.commands.restore.original import OriginalServer, decide_role, require_role
from wal_pipeline.commands.restore.prepare import RestoreRequest
from wal_pipeline.errors import PostgresError, RestoreError

OURS = 7


def original(pgdata: Path | None, identifier: int | None = None) -> OriginalServer:
    """Return an original that answers with this identifier, or not at all."""
    return OriginalServer(pgdata, "db, port 5432", lambda: identifier is not None, lambda: identifier or 0)


def test_the_settings_own_folder_with_the_original_gone_is_a_replacement(tmp_path: Path) -> None:
    """Through a link too; and where no setting names a folder, nothing says that another one lives."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for one in (original(tmp_path), original(link), original(None), original(tmp_path, identifier=8)):
        assert one.signs_of_life(tmp_path, OURS) == ()
    assert decide_role(RestoreRequest(tmp_path), ()).archiving is True


def test_another_folder_or_an_original_that_answers_asks_for_a_word(tmp_path: Path) -> None:
    """Either sign is enough, and both are named."""
    signs = original(tmp_path / "main", identifier=OURS).signs_of_life(tmp_path / "copy", OURS)
    assert signs == (
        f"'{tmp_path}/copy' is not the data directory of the settings, which is '{tmp_path}/main'",
        "the original answers at db, port 5432",
    )
    undecided = decide_role(RestoreRequest(tmp_path / "copy"), signs)
    with pytest.raises(RestoreError) as caught:
        require_role(undecided)
    assert caught.value.message == (
        f"the restored server may be a copy beside its original ({'; '.join(signs)}), and both would archive into one "
        "archive"
    )
    assert caught.value.hint is not None
    assert "--no-archiving makes a copy" in caught.value.hint
    assert "--archiving makes the server that takes its original's place" in caught.value.hint


@pytest.mark.parametrize("signs", [(), ("the original answers",)])
def test_a_server_with_some_databases_is_a_copy(tmp_path: Path, signs: tuple[str, ...]) -> None:
    """No word is needed for it; a person's word for the other is refused later."""
    assert decide_role(RestoreRequest(tmp_path, only_databases=("a",)), signs).archiving is False
    asked = RestoreRequest(tmp_path, only_databases=("a",), archiving=True)
    assert decide_role(asked, signs).archiving is True


@pytest.mark.parametrize("archiving", [True, False])
def test_what_a_person_said_holds(tmp_path: Path, archiving: bool) -> None:
    """The signs are kept for the plan."""
    request = decide_role(RestoreRequest(tmp_path, archiving=archiving), ("the original answers",))
    require_role(request)
    assert (request.archiving, request.signs_of_original) == (archiving, ("the original answers",))
    assert request.is_copy is not archiving


def test_a_server_that_does_not_say_who_it_is_counts_as_the_original(tmp_path: Path) -> None:
    """It could be it."""

    def refuse() -> int:
        raise PostgresError("cannot connect to PostgreSQL: no password supplied")

    [sign] = OriginalServer(None, "db, port 5432", lambda: True, refuse).signs_of_life(tmp_path, OURS)
    assert sign == (
        "a server answers at db, port 5432 that does not tell whether it is the original: "
        "cannot connect to PostgreSQL: no password supplied"
    )

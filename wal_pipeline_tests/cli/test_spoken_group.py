"""Help and misspelt words."""

import pytest

from wal_pipeline.cli.group import run
from wal_pipeline.cli.registry import HEADINGS


def test_no_sentence_of_the_help_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command stands under its heading with a whole sentence; the groups' own help too."""
    for arguments in ([], ["alerts"], ["gaps"], ["catalog"]):
        assert run([*arguments, "--help"]) == 0
        assert "..." not in capsys.readouterr().out.replace("[ARGS]...", "")
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"\n{heading}:\n") for heading in HEADINGS]
    assert places == sorted(places)
    for name in (name for names in HEADINGS.values() for name in names):
        [sentence] = [part for part in out.split("\n  ") if part.startswith(f"{name} ")]
        assert sentence.split()[1][0].isupper()
    assert "  archive-get  Fetch one file" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["staus"], "No such command 'staus'. Did you mean 'status'?"),
        (["archive-gt"], "'archive-get'"),
        (["gaps", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["alerts", "delivr"], "Did you mean 'deliver'?"),
        (["status", "--chek"], "'--check'"),
    ],
)
def test_a_misspelt_word_does_not_end_without_the_right_one(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """With exit code 2, and a line for help that can be typed."""
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Try 'wal-pipeline" in error

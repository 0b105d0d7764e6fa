"""No text that we print ends a program, whatever encoding the terminal has."""

import subprocess
import sys

import pytest

_PRINT = "from wal_pipeline.host.output import accept_any_text; import sys; accept_any_text(); sys.{}.write({!r})"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "koi8-r"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_any_text_can_be_written(encoding: str, stream: str) -> None:
    """Signs of ours as plain ones, others as their codes, and bytes that are no text."""
    program = _PRINT.format(stream, "● ◆ … ü 漢 \udc80")
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONIOENCODING": encoding}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = (done.stdout or done.stderr).decode(encoding)
    assert said.endswith(" \\udc80")
    if encoding == "ascii":
        assert said == "* # ... \\xfc \\u6f22 \\udc80"
    if encoding == "latin-1":
        assert said.startswith("* # ... ü \\u6f22")

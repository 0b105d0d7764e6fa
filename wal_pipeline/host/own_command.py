"""Says how this program is typed here: with its path where it is not on PATH, and with its settings file.

Messages name a command as ``'wal-pipeline verify'``. How a person has to type it is known only where they are printed.
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

NAME: Final = "wal-pipeline"


def own_command(env_file: Path | str | None = None) -> str:
    """Return the words that start this program in the reader's shell. ``env_file``: what ``--env-file`` named."""
    named = "" if env_file is None else f" --env-file {shlex.quote(str(env_file))}"
    return _program() + named


def typeable(text: str, env_file: Path | str | None = None) -> str:
    """Return a text in which each quoted command of this program is written as it has to be typed."""
    if f"'{NAME}" not in text:
        return text
    command = own_command(env_file)
    return text.replace(f"'{NAME} ", f"'{command} ").replace(f"'{NAME}'", f"'{command}'")


def this_command() -> str | None:
    """Return the command that is running, as it has to be typed again; None where this is another program's process."""
    if Path(sys.argv[0]).name != NAME and not sys.argv[0].endswith("wal_pipeline/cli/__main__.py"):
        return None
    return shlex.join([*shlex.split(_program()), *sys.argv[1:]])


def with_other_value(option: str, old: str, new: str) -> str:
    """Return the command that is running with another value of an option; that option alone in another program."""
    values = {f"{option}={old}": f"{option}={new}", old: new}
    changed = [values.get(word, word) for word in sys.argv[1:]]
    if this_command() is None or changed == sys.argv[1:]:
        return f"{option} {shlex.quote(new)}"
    return shlex.join([*shlex.split(_program()), *changed])


def _program() -> str:
    """Return the program's name where the shell finds this installation by it, else its path."""
    beside, found = Path(sys.executable).with_name(NAME), shutil.which(NAME)
    if not beside.is_file():
        return f"{shlex.quote(sys.executable)} -m wal_pipeline.cli"
    if found is not None and Path(found).resolve() == beside.resolve():
        return NAME
    return shlex.quote(str(beside))

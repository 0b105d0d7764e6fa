"""Asks the process that fetches ahead for one file, and executes the whole program where it gets no answer.

Run as ``python -I -S prefetch_client.py FOLDER PROGRAM... --exit-absent CODE FILE DESTINATION``: a start of Python with
nothing of ours and none of our libraries, for the calls of a ``restore_command`` that find no file fetched ahead.
Two answers of the process count: a file, and proven absence, for which it asked the stores after our question.
Whatever else happens, PROGRAM finds out by itself, and says why.
"""

import hashlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

SOCKET_NAME = "socket"
READY, ABSENT, UNKNOWN = "ready", "absent", "unknown"
MAX_MESSAGE_BYTES = 1 << 16
_FORM = "1"  # of question, answer and fingerprint
_LONGEST_WAIT_SECONDS = 120.0
_EXIT_FAILED = 200
_EXIT_INTERRUPTED = 130
_ENV_FILE_OPTION = "--env-file="
_ENV_FILE_VARIABLE = "WAL_PIPELINE_ENV_FILE"
_NOT_SETTINGS = ("_", "SHLVL", "PWD", "OLDPWD", "LC_CTYPE")  # a shell's own, and what Python sets itself (PEP 538)


def fingerprint(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return a digest of the program's call and all that its settings come from, in the current folder.

    A process that was started with other settings must not answer: with one store less it would call a file absent.
    """
    files = [word.removeprefix(_ENV_FILE_OPTION) for word in words if word.startswith(_ENV_FILE_OPTION)]
    files += [environment.get(_ENV_FILE_VARIABLE, ""), ".env"]
    variables = sorted(f"{name}={value}" for name, value in environment.items() if name not in _NOT_SETTINGS)
    text = "\0".join((_FORM, *words, "", *variables, "", *map(_state, files)))
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _state(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib takes as long to import as all the rest
    except OSError:
        return "none"
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def peer_is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket runs as our user (Linux: unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.geteuid())


def open_private(folder: str) -> int:
    """Open a folder that our user alone can enter; return its descriptor. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(descriptor)
        raise PermissionError(f"'{folder}' is open to others")
    return descriptor


def socket_path(descriptor: int) -> str:
    """Return a path of the socket in an open folder that is never too long (unix(7): 108 bytes)."""
    return f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"


def ask(folder: str, program: Sequence[str], name: str, destination: str) -> int | None:
    """Return the exit code that the answer means; None where there is none that counts. Raises: OSError."""
    if program[-2] != "--exit-absent":
        return None
    descriptor = open_private(folder)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_LONGEST_WAIT_SECONDS)
        connection.connect(socket_path(descriptor))
        if not peer_is_ours(connection):
            return None
        connection.sendall(f"{fingerprint(program, os.environ)} {name}\n".encode())
        verdict, *notes = _received(connection).splitlines() or [UNKNOWN]
        word, _, file = verdict.partition(" ")
        is_absent = word == ABSENT
        if not is_absent and (word != READY or not _move(descriptor, folder, file, destination)):
            return None
    for note in notes:
        sys.stderr.write(f"wal-pipeline archive-get: {note}\n")
    return int(program[-1]) if is_absent else 0


def _received(connection: socket.socket) -> str:
    """Return the answer; nothing where it is not whole: it ends with an empty line."""
    data = b""
    while not data.endswith(b"\n\n"):
        chunk = connection.recv(MAX_MESSAGE_BYTES)
        if not chunk or len(data) > MAX_MESSAGE_BYTES:
            return ""
        data += chunk
    return data.decode("utf-8", "replace").rstrip("\n")


def _move(descriptor: int, folder: str, file: str, destination: str) -> bool:
    if not file or "/" in file:
        return False
    try:
        os.rename(file, destination, src_dir_fd=descriptor)
    except OSError:  # another file system: mv copies
        return os.spawnvp(os.P_WAIT, "mv", ["mv", "-f", "--", f"{folder}/{file}", destination]) == 0  # noqa: S606
    return True


def main(arguments: Sequence[str]) -> None:
    """Leave with the answer's exit code, or as the program."""
    folder, *program, name, destination = arguments
    code = None
    with suppress(Exception):  # whatever it is, the program does without
        code = ask(folder, program, name, destination)
    if code is None:
        os.execvp(program[0], [*program, name, destination])  # noqa: S606
    os._exit(code)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        os._exit(_EXIT_INTERRUPTED)
    finally:
        os._exit(_EXIT_FAILED)  # Python's own exit code 1 would be taken for the end of the archive

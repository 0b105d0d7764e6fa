"""Runs the prefetch client from its old path, which running recoveries still have in their restore_command."""

import os

_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes as long to import as all the rest
_CLIENT = os.path.join(_FOLDER, "archive_get", "prefetch_client.py")  # noqa: PTH118
with open(_CLIENT, "rb") as _file:  # noqa: PTH123 - no runpy either: it takes a third of the whole start
    _code = compile(_file.read(), _CLIENT, "exec")
exec(_code, {"__name__": __name__, "__file__": _CLIENT})  # noqa: S102 - our own file

"""Makes a checkout of a few small files, in which a rule of the layout is kept or broken."""

from pathlib import Path

from testbed.source_tree import Checkout, read_checkout


def tiny_checkout(root: Path, files: dict[str, str]) -> Checkout:
    """Write the files, whose names are relative to ``root``, and read them as a checkout."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_checkout(root)

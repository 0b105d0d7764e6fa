"""Drives Debian's Chromium, and keeps pictures of what it shows.

The package ``playwright`` is playwright-core from npm with a Python face: the tests read like all others, and no second
language or lock file comes into the project.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.sync_api import Locator, Page, expect, sync_playwright
from rich.console import Console
from rich.text import Text

CHROMIUM: Final = Path("/usr/bin/chromium")
WIDTH, HEIGHT = 1440, 900
_ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_WAIT_MILLISECONDS: Final = 30_000
_SETTLE_MILLISECONDS: Final = 700


@dataclass(frozen=True, slots=True)
class Screen:
    """One page of the browser at the address ``url``. Pictures go into ``pictures``; None keeps none."""

    page: Page
    url: str
    pictures: Path | None = None

    def open(self, path: str, *texts: str | re.Pattern[str]) -> None:
        """Open a page of the UI and wait until it shows each of these texts."""
        self.page.goto(self.url + path)
        for text in texts:
            self.see(text)

    def see(self, text: str | re.Pattern[str]) -> Locator:
        """Wait until the page shows this text, and return its first place."""
        found = self.page.get_by_text(text).filter(visible=True).first
        expect(found).to_be_visible(timeout=_WAIT_MILLISECONDS)
        return found

    def click(self, text: str, *, exact: bool = True, role: str | None = None) -> None:
        """Click on the first thing with this text, or with this role and name."""
        found = self.page.get_by_role(role, name=text, exact=exact) if role else self.page.get_by_text(text, exact=exact)  # type: ignore[arg-type]
        found.filter(visible=True).first.click(timeout=_WAIT_MILLISECONDS)

    @property
    def text(self) -> str:
        """All text that the page shows now."""
        return self.page.inner_text("body")

    def metadata(self) -> dict[str, str]:
        """The rows of an asset page's metadata, from the first to the last: their keys and what they show."""
        self.see("Timestamp")
        return dict(self.page.evaluate(_METADATA))

    def metadata_value(self, row: int) -> str:
        """What this row of an asset page's metadata shows, counted from 0."""
        return list(self.metadata().values())[row]

    def assert_order(self, *texts: str) -> None:
        """Require that the page shows these texts one after the other, from its beginning."""
        text, begin = self.text, 0
        for wanted in texts:
            found = text.find(wanted, begin)
            assert found >= 0, f"{wanted!r} is not on the page behind the texts before it:\n{text}"
            begin = found + len(wanted)

    def picture(self, name: str) -> None:
        """Keep a picture of what the page shows now."""
        if self.pictures is not None:
            self.page.wait_for_timeout(_SETTLE_MILLISECONDS)
            self.page.screenshot(path=self.pictures / f"{name}.png")

    def terminal_picture(self, name: str, output: str, *, columns: int = 80) -> None:
        """Keep a picture of a terminal of this width with this output."""
        if self.pictures is None:
            return
        with Path("/dev/null").open("w") as nowhere:
            console = Console(file=nowhere, record=True, width=columns, force_terminal=True, color_system="truecolor")
            console.print(Text.from_ansi(output), soft_wrap=False)
        self.page.set_content(_TERMINAL.replace("SCREEN", console.export_html(inline_styles=True, code_format="{code}")))
        self.page.locator("pre").screenshot(path=self.pictures / f"{name}.png")


_METADATA: Final = """() => {
  const table = [...document.querySelectorAll("table")].find(
    one => one.querySelector("th, td")?.innerText.trim() === "Key");
  const rows = [...table.querySelectorAll(":scope > tbody > tr")].map(row => [...row.children].map(cell => cell.innerText.trim()));
  return rows.filter(cells => cells.length > 2).map(cells => [cells[0], cells.at(-1)]);
}"""
_TERMINAL: Final = """<body style="margin:0;background:#fff"><pre style="display:inline-block;margin:0;padding:14px 18px;
background:#fff;color:#222;font:14px/1.25 'DejaVu Sans Mono','Liberation Mono',monospace">SCREEN</pre></body>"""


@contextmanager
def open_browser() -> Iterator[Page]:
    """Start the browser with one page of a fixed size, in English and UTC, and end it with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        try:
            context = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC", locale="en-GB", color_scheme="light"
            )
            context.set_default_timeout(_WAIT_MILLISECONDS)
            yield context.new_page()
        finally:
            browser.close()

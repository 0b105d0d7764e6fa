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

from playwright.sync_api import FloatRect, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from rich.console import Console
from rich.text import Text

CHROMIUM: Final = Path("/usr/bin/chromium")
WIDTH, HEIGHT = 1440, 900
_ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_WAIT_MILLISECONDS: Final = 20_000
_SETTLE_MILLISECONDS, _SETTLE_TIMES = 1_500, 10
_UNFINISHED: Final = re.compile(r"Loading…|Loading\.\.\.|fetching statuses|- partitions")
_MARGIN, _LINES = 24.0, 84.0  # in pixels


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
        try:
            found.wait_for(timeout=_WAIT_MILLISECONDS)
        except PlaywrightTimeoutError:
            raise AssertionError(f"{self.page.url} does not show {text!r}, but:\n{self.text}") from None
        return found

    def click(self, text: str) -> None:
        """Click on the first thing with exactly this text."""
        self.page.get_by_text(text, exact=True).filter(visible=True).first.click()

    def forget(self) -> None:
        """Let the UI forget what was typed before, as a browser that has never seen it."""
        self.page.goto(self.url)
        self.page.evaluate("localStorage.clear()")

    def launch(self, launchpad: str, config: str) -> None:
        """Open a launchpad, type a run's configuration (YAML on one line) in the place of its text, and launch it."""
        self.open(launchpad, "No errors")
        self.page.locator(".CodeMirror").first.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(config)
        self.see(config[:20])
        self.see("No errors")
        self.click("Launch Run")
        self.page.wait_for_url("**/runs/**")

    @contextmanager
    def taller(self) -> Iterator[None]:
        """Make the window so tall that a list shows all its rows, which Dagster else makes as they scroll by."""
        self.page.set_viewport_size({"width": WIDTH, "height": 4 * HEIGHT})
        try:
            yield
        finally:
            self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

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

    def picture(self, name: str, *, around: Locator | None = None) -> None:
        """Keep a picture of what the page shows now, or of the first lines of one thing."""
        if self.pictures is None:
            return
        for _ in range(_SETTLE_TIMES):
            self.page.wait_for_timeout(_SETTLE_MILLISECONDS)
            if not _UNFINISHED.search(self.text):
                break
        box = None if around is None else around.bounding_box()
        clip: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}
        if box is not None:
            left, top = box["x"] - _MARGIN, box["y"] - _MARGIN
            clip = {"x": left, "y": top, "width": WIDTH - left, "height": _LINES}
        self.page.screenshot(path=self.pictures / f"{name}.png", clip=clip)

    def terminal_picture(self, name: str, output: str, *, columns: int = 80) -> None:
        """Keep a picture of a terminal of this width with this output."""
        if self.pictures is None:
            return
        with Path("/dev/null").open("w") as nowhere:
            console = Console(file=nowhere, record=True, width=columns, force_terminal=True, color_system="truecolor")
            console.print(Text.from_ansi(output), soft_wrap=True)
        shown = console.export_html(inline_styles=True, code_format="{code}")
        self.page.set_content(_TERMINAL.replace("COLUMNS", str(columns + 1)).replace("SCREEN", shown))
        self.page.locator("pre").screenshot(path=self.pictures / f"{name}.png")


_METADATA: Final = """() => {
  const table = [...document.querySelectorAll("table")].find(
    one => one.querySelector("th, td")?.innerText.trim() === "Key");
  const texts = row => [...row.children].map(cell => cell.innerText.trim());
  const rows = [...table.querySelectorAll(":scope > tbody > tr")].map(texts);
  return rows.filter(cells => cells.length > 2).map(cells => [cells[0], cells.at(-1)]);
}"""
# A terminal breaks a line that is too long wherever its width ends. One more column: a sign such as ● may be drawn wider
# here than a letter, and a line that fits would be broken.
_TERMINAL: Final = """<body style="margin:0"><pre
style="display:inline-block;margin:0;padding:14px 18px;width:COLUMNSch;
white-space:pre-wrap;word-break:break-all;color:#222;font:14px/1.25 'DejaVu Sans Mono','Liberation Mono',monospace"
>SCREEN</pre></body>"""


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

"""Shows the rate of a progress in the units of its bytes."""

from rich.progress import ProgressColumn, Task
from rich.text import Text

from wal_pipeline.text import size


class BinarySpeedColumn(ProgressColumn):
    """The bytes a second in powers of two, as the bytes beside it: ``12.5 MiB/s``."""

    def render(self, task: Task) -> Text:
        """Return the rate; nothing while it is not known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{size(speed)}/s", style="progress.data.speed")

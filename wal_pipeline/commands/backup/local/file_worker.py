"""Does one task of a base backup: packs files, or first compares them with what an earlier base backup has."""

from dataclasses import dataclass

from wal_pipeline.commands.backup.local.bundles import Bundle
from wal_pipeline.commands.backup.local.parent_files import KnownFile
from wal_pipeline.commands.backup.local.resume.copier import VolumeCopier
from wal_pipeline.commands.backup.local.resume.units import BundleUnit, LargeUnit
from wal_pipeline.postgres.data_files import DataFile


@dataclass(frozen=True, slots=True)
class PackTask:
    """Files that are stored together."""

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Files that may be unchanged since the parent; those that are not are stored together."""

    files: tuple[tuple[DataFile, KnownFile], ...]


Task = PackTask | CompareTask | BundleUnit | LargeUnit


@dataclass(frozen=True, slots=True)
class FileWorker:
    """Does tasks one after the other, in any thread or process; nothing else of a base backup reads the files."""

    copier: VolumeCopier

    def do(self, task: Task) -> None:
        """Do one task. Raises: BaseBackupError, and what the packer's store raises."""
        match task:
            case PackTask(bundle):
                self.copier.packer.pack(bundle)
            case CompareTask(files):
                self._compare(files)
            case unit:
                self.copier.take(unit)

    def _compare(self, files: tuple[tuple[DataFile, KnownFile], ...]) -> None:
        packer, changed = self.copier.packer, []
        for file, known in files:
            if known.is_unchanged(file, packer.started, packer.on_read):
                packer.packed.add_unchanged(known.file)
            else:
                changed.append(file)
        packer.pack(tuple(changed))

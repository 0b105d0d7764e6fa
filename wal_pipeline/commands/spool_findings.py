"""Judge the spool's rights: what is wrong with the folder, and the line that mends it. Pure."""

from typing import Final

from wal_pipeline.commands.findings import Finding, Status
from wal_pipeline.commands.spool_access import (
    FilesReadable,
    ServerWrites,
    SpoolAccess,
    install_line,
    shell_word,
    user_name,
)

_NAME: Final = "spool"
_WRITES_NAME: Final = "spool: server writes"
_READS_NAME: Final = "spool: we read"


def judge_spool(access: SpoolAccess) -> tuple[Finding, ...]:
    """Judge the folder, then PostgreSQL's right to write there, then ours to read and remove."""
    if not access.exists:
        line = install_line(access.folder, access.server_uid)
        return (Finding(_NAME, Status.PROBLEM, f"'{access.folder}' does not exist", lines=(line,)),)
    if not access.is_folder:
        return (Finding(_NAME, Status.PROBLEM, f"'{access.folder}' is not a folder"),)
    return (_folder(access), _server_writes(access), _we_read(access))


def _folder(access: SpoolAccess) -> Finding:
    ours = user_name(access.our_uid)
    if not access.we_can_read or not access.we_can_remove:
        missing = "read" if not access.we_can_read else "remove files from"
        message = f"user '{ours}' cannot {missing} '{access.folder}'"
        return Finding(_NAME, Status.PROBLEM, message, lines=_same_user_lines(access))
    if access.others_can_write:
        line = f"sudo chmod o-w {shell_word(access.folder)}"
        return Finding(
            _NAME, Status.WARNING, f"every user of this host can write into '{access.folder}'", lines=(line,)
        )
    return Finding(_NAME, Status.OK, f"'{access.folder}', {access.free_bytes / 2**30:.1f} GiB free")


def _server_writes(access: SpoolAccess) -> Finding:
    server = user_name(access.server_uid)
    if access.server_writes is ServerWrites.YES:
        return Finding(_WRITES_NAME, Status.OK, f"PostgreSQL writes there as user '{server}'")
    if access.server_writes is ServerWrites.REFUSED:
        line = f"sudo chown {server} {shell_word(access.folder)} && sudo chmod u+rwx {shell_word(access.folder)}"
        return Finding(_WRITES_NAME, Status.PROBLEM, access.writes_message, lines=(line,))
    if access.server_writes is ServerWrites.ELSEWHERE:
        message = (
            f"PostgreSQL wrote a file into its '{access.folder}', but it is not in ours: "
            "the server runs on another host or in another container"
        )
        return Finding(_WRITES_NAME, Status.PROBLEM, message, lines=("share one folder between both",))
    lines = ("connect as a superuser or a member of pg_write_server_files",)
    return Finding(
        _WRITES_NAME, Status.WARNING, "not tried: PostgreSQL's role or our rights do not allow it", lines=lines
    )


def _we_read(access: SpoolAccess) -> Finding:
    ours, server = user_name(access.our_uid), user_name(access.server_uid)
    if access.files_readable is FilesReadable.YES:
        return Finding(_READS_NAME, Status.OK, f"user '{ours}' can read and remove what PostgreSQL archives")
    if access.files_readable is FilesReadable.WITH_GROUP_BIT:
        message = f"user '{ours}' shares the group of '{server}': the archive_command gives it the right to read"
        return Finding(_READS_NAME, Status.OK, message)
    if access.files_readable is FilesReadable.NO:
        message = f"user '{ours}' cannot read what PostgreSQL archives as user '{server}'"
        return Finding(_READS_NAME, Status.PROBLEM, message, lines=_same_user_lines(access))
    message = f"not known whether user '{ours}' can read what PostgreSQL archives"
    return Finding(_READS_NAME, Status.WARNING, message, lines=_same_user_lines(access))


def _same_user_lines(access: SpoolAccess) -> tuple[str, ...]:
    """Say the simple way first. A shared group needs the set-group-id bit, so that new files get the folder's group."""
    server, ours, folder = user_name(access.server_uid), user_name(access.our_uid), shell_word(access.folder)
    return (
        f"run wal-pipeline as user '{server}', or:",
        f"sudo usermod -aG $(id -gn {server}) {ours} && sudo chgrp $(id -gn {server}) {folder} "
        f"&& sudo chmod 2770 {folder}",
    )

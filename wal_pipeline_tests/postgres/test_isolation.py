"""Every setting of PostgreSQL that may tie a copy to its original is decided."""

from pathlib import Path
from typing import Final

import pytest

from testbed.postgres import PostgresCluster
from testbed.postgres_install import PostgresInstall
from wal_pipeline.postgres.isolation import (
    COPY_SETTINGS,
    copy_settings,
    library_name,
    own_access_files,
    told_apart,
    worker_settings,
)
from wal_pipeline.postgres.recovery import RecoverySettings, TargetAction
from wal_pipeline.postgres.replay_progress import READABLE_LOG

# The settings that name something outside the server's memory: a file, a command, a library, a machine, a slot, a name;
# and all that replication, WAL, connections and the log's place have.
CANDIDATES: Final = (
    "SELECT name FROM pg_settings WHERE context <> 'internal' AND (vartype = 'string' OR category ~ "
    "'^(Replication|Write-Ahead Log|File Loc|Connections|Reporting and Logging / Where|Client.*Preload)')"
)
DECIDED_ELSEWHERE: Final = {
    "a worker of a preloaded library": "shared_preload_libraries",
    "on the command line of each restored server": "data_directory config_file hot_standby recovery_min_apply_delay",
    "its own where it brings one": "hba_file ident_file",
}
STAYS: Final = {
    "two servers do not meet there: sockets bear the port's number, and a port that is taken ends the start": (
        "port listen_addresses unix_socket_directories unix_socket_group unix_socket_permissions bonjour_name"
    ),
    "is only read": (
        "ssl ssl_ca_file ssl_cert_file ssl_ciphers ssl_crl_dir ssl_crl_file ssl_dh_params_file ssl_ecdh_curve "
        "ssl_groups ssl_key_file ssl_max_protocol_version ssl_min_protocol_version ssl_passphrase_command "
        "ssl_passphrase_command_supports_reload ssl_prefer_server_ciphers ssl_tls13_ciphers krb_server_keyfile "
        "krb_caseins_users gss_accept_delegation oauth_validator_libraries dynamic_library_path extension_control_path "
        "extension_destdir jit_provider db_user_namespace"
    ),
    "acts in a session, for the one who has opened it; some guard what the session may see": (
        "session_preload_libraries local_preload_libraries output_plugin_libraries"
    ),
    "a lower value than the original's ends or blocks the recovery": (
        "max_connections max_wal_senders max_replication_slots max_active_replication_origins"
    ),
    "bounds what others ask of this server, or how it writes its own WAL": (
        "authentication_timeout md5_password_warnings password_encryption scram_iterations reserved_connections "
        "superuser_reserved_connections client_connection_check_interval tcp_keepalives_count tcp_keepalives_idle "
        "tcp_keepalives_interval tcp_user_timeout idle_replication_slot_timeout max_slot_wal_keep_size "
        "track_commit_timestamp wal_keep_size wal_sender_timeout max_standby_archive_delay max_standby_streaming_delay "
        "wal_receiver_status_interval wal_receiver_timeout wal_retrieve_retry_interval "
        "max_parallel_apply_workers_per_subscription max_sync_workers_per_subscription vacuum_defer_cleanup_age "
        "archive_timeout checkpoint_completion_target checkpoint_flush_after checkpoint_timeout checkpoint_warning "
        "max_wal_size min_wal_size recovery_prefetch wal_decode_buffer_size commit_delay commit_siblings fsync "
        "full_page_writes synchronous_commit wal_buffers wal_compression wal_init_zero wal_level wal_log_hints "
        "wal_recycle wal_skip_threshold wal_sync_method wal_writer_delay wal_writer_flush_after summarize_wal "
        "wal_summary_keep_time debug_io_direct wal_consistency_checking trace_connection_negotiation"
    ),
    "a form, a zone, a language or a name inside the cluster": (
        "DateStyle TimeZone client_encoding default_text_search_config lc_messages lc_monetary lc_numeric lc_time "
        "lc_collate lc_ctype createrole_self_grant default_table_access_method default_tablespace temp_tablespaces "
        "restrict_nonsystem_relation_kind search_path application_name timezone_abbreviations backtrace_functions"
    ),
    "the log's form: it lies in the copy's own folder, or has its own name in syslog": (
        "log_connections log_timezone log_file_mode log_filename log_rotation_age log_rotation_size "
        "log_truncate_on_rotation syslog_facility syslog_sequence_numbers syslog_split_messages event_source"
    ),
}


def names_in(decisions: dict[str, str]) -> set[str]:
    """Return the names of all decisions."""
    return {name for names in decisions.values() for name in names.split()}


@pytest.mark.integration
@pytest.mark.each_version
def test_no_setting_of_this_version_is_undecided(postgres_version: PostgresInstall) -> None:
    """A new setting that may be shared with the original fails here, until it is set apart or has a reason to stay."""
    with PostgresCluster(postgres_version).initdb() as cluster:
        candidates = set(cluster.psql(CANDIDATES).split())
        known = set(cluster.psql("SELECT name FROM pg_settings").split())
    cluster.remove()
    recovery = RecoverySettings("x", None, True, "latest", TargetAction.PROMOTE).lines()
    apart = {one.name for one in COPY_SETTINGS} | {line.split(" = ")[0] for line in recovery} | set(READABLE_LOG)
    assert candidates - apart - names_in(DECIDED_ELSEWHERE) - names_in(STAYS) == set()
    assert set(copy_settings(postgres_version.version)) <= known, (
        "the server would not start with a setting unknown to it"
    )


def test_each_decision_is_made_once() -> None:
    """No setting is set apart and stays."""
    lists = [{one.name for one in COPY_SETTINGS}, names_in(DECIDED_ELSEWHERE), names_in(STAYS)]
    assert sum(map(len, lists)) == len(set[str]().union(*lists))


def test_a_version_gets_only_the_settings_that_it_knows() -> None:
    """archive_library came with 15, stats_temp_directory went with it, slots are synchronized from 17 on."""
    changing = {"archive_library", "stats_temp_directory", "promote_trigger_file", "sync_replication_slots"}
    assert changing & set(copy_settings(14)) == {"stats_temp_directory", "promote_trigger_file"}
    assert changing & set(copy_settings(15)) == {"archive_library", "promote_trigger_file"}
    assert changing & set(copy_settings(18)) == {"archive_library", "sync_replication_slots"}


def test_no_scheduler_runs_in_a_copy() -> None:
    """Without hot standby no worker can start at all; with it, only libraries are loaded that have none."""
    assert worker_settings("pg_cron", hot_standby=False) == {"max_worker_processes": "0"}
    libraries = 'pg_stat_statements, pg_cron,"$libdir/auto_explain.so" , some_vendors_bgw'
    assert worker_settings(libraries, hot_standby=True) == {
        "shared_preload_libraries": 'pg_stat_statements, "$libdir/auto_explain.so"'
    }
    assert worker_settings(None, hot_standby=True) == {"shared_preload_libraries": ""}
    assert library_name('"$libdir/pg_cron.so"') == "pg_cron"


def test_only_access_files_that_are_there_are_named(tmp_path: Path) -> None:
    """A server does not start with the name of one that is not there."""
    assert own_access_files(tmp_path) == {}
    (tmp_path / "pg_hba.conf").touch()
    assert own_access_files(tmp_path) == {"hba_file": f"{tmp_path}/pg_hba.conf"}


def test_a_person_reads_each_thing_once() -> None:
    """Several settings set one thing apart."""
    settings = {"archive_mode": "off", "archive_command": "", "port": "5433", "max_worker_processes": "0"}
    assert told_apart(settings) == ("archiving", "background workers")

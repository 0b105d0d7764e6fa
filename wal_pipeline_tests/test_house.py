"""Tests the rules of the layout: places, names, first lines and imports of the modules.

The rules themselves are in ``support/house_rules.py`` and ``support/house_prose.py``; here are the exceptions with
their reasons. ``python scripts/house_figures.py`` prints the figures behind them.
"""

from pathlib import Path
from typing import Final

import pytest

from testbed.layout import WITH_ROOMS
from testbed.source_tree import Checkout, read_checkout
from wal_pipeline_tests.support import house_rules as rules
from wal_pipeline_tests.support.house_prose import (
    forbidden_phrases,
    noun_clauses,
    passages_of_code,
    passages_of_documents,
)

pytestmark = pytest.mark.left_out  # 'make check' plays them each time

ROOT: Final = Path(__file__).resolve().parents[1]

ROOMY_FOLDERS: Final = {
    "wal_pipeline/cli": "one file for each command that a person types",
    "wal_pipeline/catalog": "one file for each area of the one database, and the few that all areas share",
    "wal_pipeline/wiring": "one small file for each verb, so that a process loads only what its verb needs",
    "wal_pipeline/postgres": "one file for each program and file of PostgreSQL; it has no parts of its own",
}

SHARED_PREFIXES: Final = {
    "wal_pipeline/archive/format/base_backup/manifest": "the manifest as data, as JSON and its checks: one object",
    "wal_pipeline/archive/recovery/target": "the recovery target, its text and its choice: PostgreSQL's own word",
    "wal_pipeline/cli/restore": "the command, and its two kinds of output; the folder's files are commands",
    "wal_pipeline/commands/archive_get/prefetch": "client, server and folder of the prefetcher, which lies beside them",
}

REPEATED_FUNCTIONS: Final = {
    "acknowledge": "two sub-commands of the command line: 'alerts acknowledge' and 'gaps acknowledge'",
    "main": "each program's way in",
}

# The test that states a module's behaviour, for the modules that have none of their own.
_TESTED_IN: Final = {
    "archive/format/base_backup/test_manifest.py": "archive/format/base_backup/{manifest_checks,manifest_json}",
    "archive/format/test_piece.py": "archive/format/words",
    "archive/recovery/test_restore_plan.py": "archive/recovery/{coverage,target,target_choice,timeline_path}",
    "archive/retention/test_plan.py": "archive/retention/{ages,rules,wal}",
    "archive/retention/test_remains.py": "archive/retention/obsolete",
    "catalog/test_areas.py": "catalog/{backups,catalog,drills,frames,gaps,rows,store_states,values}",
    "catalog/test_migrate.py": "catalog/{engine,schema}",
    "commands/health/test_rules.py": "catalog/measures commands/health/{backup_rules,facts}",
    "cli/test_records.py": "cli/{alerts,catalog,group,list}",
    "cli/test_status.py": "cli/{cost,metrics,report,status_screen} wiring/{health,pipeline}",
    "cli/test_upkeep.py": "cli/{expire,verify}",
    "cli/test_gaps.py": "cli/pause",
    "cli/test_find.py": "cli/{find_screen,found_text} wiring/find",
    "commands/find/test_search.py": "commands/find/{chain,choose,found,read_ahead,window}",
    "wal/records/test_decode.py": "wal/records/{changes,endings,page_stream}",
    "integration/test_backup_process.py": "cli/backup wiring/backup",
    "integration/test_backup_from_standby.py": "commands/backup/standby/last_segment commands/setup/backup_source",
    "integration/test_restore_standby.py": "commands/restore/standby/words",
    "integration/test_restore_wal_only.py": "commands/restore/standby/wal_only postgres/control_data",
    "commands/restore/standby/test_primary.py": "postgres/upstream",
    "commands/beside/test_scratch_folder.py": "commands/beside/left_server",
    "integration/test_clone.py": (
        "accident_settings cli/{clone,clone_screen} commands/clone/{make,server,stand,states} postgres/last_record "
        "wiring/clone"
    ),
    "commands/clone/test_end.py": "commands/clone/keeper_lock",
    "integration/test_drill.py": (
        "cli/drill commands/beside/scratch_server commands/drill/{choice,comparison,drill,records,result} wiring/drill"
    ),
    "commands/rescue/test_bring.py": "commands/rescue/{apart,living,needs,tables}",
    "integration/test_rescue.py": ("cli/{leaving,rescue,rescue_screen} commands/rescue/{result,run,scratch}"),
    "integration/test_relations.py": "cli/relations orchestration/jobs/relations wiring/relations",
    "integration/test_restore.py": "cli/{restore,restore_text} commands/restore/{perform,prepare,run}",
    "test_readme.py": "cli/{main,registry}",
    "codec/test_stream_encoder.py": "codec/stream_decoder commands/backup/objects",
    "commands/alerts/test_deliver.py": "commands/alerts/destinations",
    "commands/archive_get/test_prefetch_client.py": "commands/fetch_ask",
    "commands/archive_get/test_prefetch_server.py": "commands/archive_get/{file_answers,prefetch_folder}",
    "cli/test_screens.py": "cli/{printing,progress_columns} commands/health/no_records",
    "cli/test_archive_get.py": "commands/archive_get/background wiring/archive_get",
    "commands/archive_get/test_tail_wal.py": "commands/copies/pieces",
    "commands/archive_get/test_wal_source.py": "commands/copies/find",
    "commands/test_audit.py": "commands/archive_push/audit_trail",
    "commands/archive_push/test_run.py": "commands/archive_push/{events,job,rejections}",
    "commands/archive_push/test_prepare.py": "postgres/commits",
    "commands/backup/test_take.py": (
        "archive/format/base_backup/tar_cuts commands/backup/{begin,options,parent,preconditions,session} "
        "commands/backup/remote/tar_volumes"
    ),
    "commands/backup/test_upload.py": "commands/backup/part_uploader",
    "commands/backup/local/test_session.py": "commands/backup/local/{last_volume,stored_objects}",
    "commands/backup/local/test_source_file.py": "commands/backup/local/{packed,volume_packer}",
    "commands/backup/local/processes/test_worker_process.py": "commands/backup/local/processes/messages",
    "commands/backup/test_leftovers.py": "commands/backup/remote/staging",
    "commands/backup/test_restorable.py": "commands/refill/base_backups",
    "commands/check/test_check.py": "commands/check/{item,store}",
    "commands/refill/test_wal_files.py": "commands/copies/read",
    "commands/cost/test_cost.py": "commands/cost/request_counts stores/request_meter",
    "commands/expire/test_expire.py": "commands/alerts/settle commands/expire/{plan,steps}",
    "commands/expire/test_evidence.py": "commands/expire/damage commands/verify/{unsettled,verdict}",
    "commands/restore/test_contents.py": "commands/inventory/system_identifiers",
    "commands/restore/test_reached.py": "commands/restore/start",
    "commands/restore/test_download.py": "commands/restore/files/fetch",
    "commands/restore/files/test_verify.py": "commands/restore/files/listed_files",
    "commands/restore/files/test_local.py": "commands/restore/files/{compare,small_objects}",
    "integration/test_restore_local.py": "commands/restore/files/{placing,tars}",
    "commands/test_rebuild_catalog.py": "commands/inventory/scan",
    "commands/report/test_page.py": "commands/report/{charts,figures}",
    "commands/ship/test_shipper.py": ("commands/ship/{events,pace,recorder,source,store_tail}"),
    "integration/test_ship.py": "cli/ship wiring/ship",
    "commands/setup/test_plan.py": "commands/setup/{archiver,findings,spool}",
    "commands/setup/test_setup.py": "commands/setup/proof",
    "commands/setup/test_quarantine.py": "commands/setup/writable",
    "commands/status/test_status.py": "commands/status/as_json",
    "commands/ship/test_host_wal.py": "commands/ship/source",
    "commands/verify/test_verify.py": (
        "commands/inventory/survey commands/verify/{compare,read_copy,records,repair,results}"
    ),
    "orchestration/assets/test_segments.py": "orchestration/assets/{base_backups,per_store} wiring/refill",
    "orchestration/jobs/test_archive.py": ("orchestration/assets/closing_events orchestration/jobs/archive_recorder"),
    "orchestration/jobs/test_record.py": (
        "orchestration/assets/base_backup_metadata orchestration/assets/wal/segment_metadata "
        "orchestration/jobs/unrecorded wiring/archive_push"
    ),
    "orchestration/jobs/test_record_lost.py": "orchestration/runs/event_batches",
    "orchestration/jobs/test_bad_copies.py": "orchestration/runs/{last_evaluation,partition_statuses}",
    "orchestration/runs/test_subject.py": "orchestration/keys",
    "integration/test_ui_answers.py": "orchestration/jobs/pause orchestration/runs/backfill_queue",
    "integration/test_only_database.py": "commands/restore/chosen/{finish,lists,words}",
    "integration/test_restore_job.py": "orchestration/jobs/restore/{config,job,progress,run} wiring/restore",
    "orchestration/jobs/clone/test_run.py": "orchestration/jobs/clone/config",
    "orchestration/jobs/find/test_run.py": "orchestration/jobs/find/{config,job}",
    "orchestration/jobs/rescue/test_run.py": "orchestration/jobs/rescue/{config,job}",
    "integration/test_accident_desk.py": "orchestration/jobs/clone/job",
    "test_secrets.py": "orchestration/jobs/backup",
    "cli/test_slot.py": "wiring/slot",
    "integration/test_ship_received.py": "wiring/ship_source",
    "integration/test_upkeep.py": "wiring/{expire,verify}",
    "postgres/test_online_backup.py": "postgres/started_backup",
    "postgres/test_pg_basebackup.py": "postgres/backup_server",
    "postgres/test_server.py": "postgres/server_facts",
    "postgres/test_waldump.py": "postgres/waldump_output",
    "stores/local/test_store.py": "stores/local/folder_tree",
    "stores/s3/test_store_faults.py": "stores/s3/{client,listing,stream}",
}


def _named(pattern: str) -> list[str]:
    """Return the paths that ``folder/{a,b}`` stands for."""
    folder, _, names = pattern.rstrip("}").partition("{")
    return [f"{folder}{name}.py" for name in names.split(",")] if names else [f"{pattern}.py"]


WITHOUT_OWN_TEST: Final = {
    "archive/records.py": "plain values without a decision",
    "errors.py": "the errors' classes: each message is compared where it is raised",
    "stores/base.py": "the contract itself: stores/local/test_store.py and stores/s3/test_store.py run its suite",
    "cli/restore_progress.py": "what a terminal shows: integration/test_restore.py runs it and looks at the result",
} | {
    path: f"stated in {test}"
    for test, patterns in _TESTED_IN.items()
    for pattern in patterns.split()
    for path in _named(pattern)
}


@pytest.fixture(scope="module")
def checkout() -> Checkout:
    """The project as it lies here."""
    return read_checkout(ROOT)


def require_none(offenders: list[str], rule: str) -> None:
    """Fail with every offender on a line of its own."""
    if offenders:
        pytest.fail("\n".join([f"{rule}: {len(offenders)}", *offenders]), pytrace=False)


def test_no_folder_is_crowded(checkout: Checkout) -> None:
    """A folder has at most fourteen modules, so that it can be seen at one look."""
    require_none(rules.crowded_folders(checkout, ROOMY_FOLDERS), "folders with too many modules")


def test_no_module_repeats_its_folders_name(checkout: Checkout) -> None:
    """A module's name says what it does without its folder's name in front."""
    require_none(rules.names_that_repeat_their_folder(checkout), "names that begin with their folder's")


def test_no_prefix_does_the_work_of_a_folder(checkout: Checkout) -> None:
    """Three modules that share their first word are a folder, unless a reason stands here."""
    require_none(rules.names_that_share_a_prefix(checkout, SHARED_PREFIXES), "prefixes of three or more modules")


def test_each_module_begins_with_a_plain_sentence(checkout: Checkout) -> None:
    """The first line says what the module does."""
    require_none(rules.weak_openings(checkout), "first lines that are no plain sentence")


def test_no_docstring_is_a_noun_clause(checkout: Checkout) -> None:
    """A class is named by a noun and a function by a verb: 'What is known of a copy' is neither."""
    require_none(noun_clauses(checkout), "docstrings that begin with 'What'")


def test_no_text_must_be_read_twice(checkout: Checkout) -> None:
    """Docstrings, comments, strings and documents are without the turns of words that hide who does what."""
    passages = [*passages_of_code(checkout.package), *passages_of_documents(ROOT)]
    require_none(forbidden_phrases(passages), "phrases that are not used")


def test_a_folders_own_file_is_one_sentence(checkout: Checkout) -> None:
    """``__init__.py`` holds no code, so that one import never loads a whole folder."""
    require_none(rules.init_faults(checkout), "__init__.py files with more or less than one sentence")


def test_a_class_name_means_one_thing(checkout: Checkout) -> None:
    """No two public classes share a name, and none is called by a word that could be anything."""
    require_none(rules.repeated_classes(checkout), "class names with several meanings")


def test_a_function_name_means_one_thing(checkout: Checkout) -> None:
    """No two public functions share a name, unless a reason stands here."""
    require_none(rules.repeated_functions(checkout, REPEATED_FUNCTIONS), "function names with several meanings")


def test_no_test_imports_another(checkout: Checkout) -> None:
    """Code that tests share is in ``support``."""
    require_none(rules.tests_that_import_tests(checkout), "tests that import tests")


def test_nobody_outside_imports_the_tests(checkout: Checkout) -> None:
    """The program, the demo, the benchmarks and the chaos runs work without the test tree."""
    require_none(rules.outsiders_that_import_tests(checkout), "imports from the tests")


def test_each_module_has_a_test_of_its_own(checkout: Checkout) -> None:
    """The tests mirror the package, or the test that states a module's behaviour stands here."""
    require_none(rules.unmirrored_modules(checkout, WITHOUT_OWN_TEST), "modules without a mirrored test")


def test_imports_have_no_circle(checkout: Checkout) -> None:
    """The imports have no circle, also where an import is inside a function."""
    require_none(rules.import_circles(checkout), "circles of imports")


@pytest.mark.parametrize("layer", WITH_ROOMS)
def test_rooms_have_no_circle(checkout: Checkout, layer: str) -> None:
    """A verb stands on shared ideas and on other verbs in one direction."""
    require_none(rules.room_circles(checkout, layer), f"circles between the rooms of {layer}")


def test_loggers_are_spelt_alike(checkout: Checkout) -> None:
    """Each module's logger is ``_log``."""
    require_none(rules.odd_loggers(checkout), f"loggers other than {rules.LOGGER}")


def test_the_package_has_no_assert(checkout: Checkout) -> None:
    """An invariant is checked with an error of ours, or proven by a type."""
    require_none(rules.asserts(checkout), "assert statements")

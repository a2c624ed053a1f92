"""Object stores: Amazon S3 and what speaks its protocol (`s3:`), Google Cloud Storage (`gs:`), Azure Blobs (`az:`).

Endpoint, region and credentials come from the variables each provider's own tools read (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...), or from the
machine's role. `AWS_SKIP_SIGNATURE=true`, and the same for `GOOGLE` and `AZURE`, reads public buckets without any.

An object is downloaded like anything else on the web, from an address that is signed for some minutes; so the limits
and the guard of a download hold for it, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources.uri import object_of, object_uri

_VALID_FOR = timedelta(minutes=15)
_LISTED_AT_ONCE = 1000
_MAX_STORES = 64
_VARIABLES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ODD_KEY = "a key with an empty part, `.` or `..` between slashes cannot be read; rename the object"
# Signing needs some key, also where the signature is then left away: it is what knows how an address is made.
_ANYBODY = {"access_key_id": "anybody", "secret_access_key": "anybody"}


class ObjectStores:
    """Addresses and listings of objects. May be used by many threads at once."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()

    def url(self, uri: str) -> str:
        """The https address of an object, signed for a quarter of an hour. Raises ContentError."""
        scheme, bucket, key = object_of(uri)
        if not key or key.endswith("/"):
            raise ContentError("the uri of a folder of objects, not of one")
        if not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise ContentError(_ODD_KEY)
        anonymous = _is_anonymous(scheme)
        if anonymous and scheme != "s3":
            return f"{_endpoint(scheme).rstrip('/')}/{bucket}/{quote(key)}"
        try:
            import obstore

            store = self._store(scheme, bucket, _ANYBODY if anonymous else {})
            signed = str(obstore.sign(store, "GET", key, _VALID_FOR))
        except Exception as error:
            raise _failure(error, scheme) from None
        return signed.partition("?")[0] if anonymous else signed

    def list(self, uri: str, after: str = "") -> Iterator[tuple[str, str]]:
        """(uri, validator) of all objects whose key begins with that of `uri`, which is empty or ends in `/`; streamed.

        The validator is a text that changes with the object: its ETag. They come in the order of their keys; after: the
        uri of the object to go on after. Objects that stand for folders, and hidden ones (a part of the key begins with
        a dot), are left out. Raises UsageError where the listing cannot be had.
        """
        scheme, bucket, prefix = object_of(uri)
        offset = object_of(after)[2] if after else None
        config = {"skip_signature": True} if _is_anonymous(scheme) else {}
        try:
            import obstore

            store = self._store(scheme, bucket, config)
            for chunk in obstore.list(store, prefix or None, offset=offset, chunk_size=_LISTED_AT_ONCE):
                for about in chunk:
                    key = str(about["path"])
                    shown = key[len(prefix) :]
                    if about["size"] == 0 and not shown.rpartition("/")[2].count("."):
                        continue  # what consoles make to show an empty folder
                    if not any(part.startswith(".") for part in shown.split("/")):
                        yield (
                            object_uri(scheme, bucket, key),
                            about["e_tag"] or f"{about['size']}-{about['last_modified']}",
                        )
        except UsageError:
            raise
        except Exception as error:
            failure = _failure(error, scheme)
            raise UsageError(f"{scheme}://{bucket} cannot be listed: {failure.reason}") from None

    def _store(self, scheme: str, bucket: str, config: dict[str, Any]) -> Any:
        from obstore.store import AzureStore, GCSStore, S3Store

        purpose = ",".join(config)
        with self._lock:
            store = self._stores.get((scheme, bucket, purpose))
            if store is None:
                make: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[scheme]
                store = make(
                    bucket,
                    config=config,
                    client_options={"allow_http": True, "timeout": "30s", "connect_timeout": "5s"},
                    retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=30)},
                )
                if len(self._stores) >= _MAX_STORES:  # a list may name any number of buckets
                    self._stores.clear()
                self._stores[scheme, bucket, purpose] = store
            return store


def _is_anonymous(scheme: str) -> bool:
    return os.environ.get(f"{_VARIABLES[scheme]}_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")


def _endpoint(scheme: str) -> str:
    """Where the public objects of Google Cloud Storage, or of the account at Azure, are."""
    if scheme == "gs":
        return os.environ.get("GOOGLE_BASE_URL", "https://storage.googleapis.com")
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account:
        raise ContentError("an az uri needs the account: set AZURE_STORAGE_ACCOUNT_NAME")
    return os.environ.get("AZURE_STORAGE_ENDPOINT", f"https://{account}.blob.core.windows.net")


def _failure(error: Exception, scheme: str) -> ContentError:
    """What went wrong, in words of our own: the library's hold addresses and what the server said."""
    if isinstance(error, ModuleNotFoundError):
        return ContentError("object stores need the package obstore: pip install obstore")
    from obstore.exceptions import InvalidPathError, PermissionDeniedError, UnauthenticatedError

    if isinstance(error, InvalidPathError):
        return ContentError(_ODD_KEY)
    said = str(error)
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in said or "ContainerNotFound" in said:
        return ContentError("no such bucket")
    if "PermanentRedirect" in said or "without LOCATION" in said:
        return ContentError("the bucket is in another region; set AWS_REGION to its region")
    variable = f"{_VARIABLES[scheme]}_SKIP_SIGNATURE=true"
    cure = f"set {_CREDENTIALS[scheme]}, or {variable} for public objects"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return ContentError(f"the object store refuses these credentials; {cure}")
    return ContentError(f"the object store cannot be reached or has no usable credentials; {cure}", retryable=True)

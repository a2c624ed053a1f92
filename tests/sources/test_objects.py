"""Buckets on a real S3 server (moto), on loopback."""

import hashlib
import tracemalloc
from urllib.parse import parse_qs, urlsplit

import pytest
from servers import serving

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources import Fetcher, Guard, expand, to_uri

pytest.importorskip("obstore")

BODY = bytes(range(256)) * 50
KEYS = ["a.jpg", "sub/b c#?%20+ü.jpg", "sub/deep/d.txt", "sub/.hidden/e.txt", "sub/.f", "other/g.jpg"]


@pytest.fixture
def fetcher(tmp_path):
    return Fetcher(tmp_path / "blobs", retries=0, timeout_seconds=20, max_bytes=1_000_000)


def put(bucket, *keys, body=BODY):
    for key in keys:
        bucket.put_object(Key=key, Body=body)


def listed(source, fetcher):
    return [each.uri for each in expand(source, fetcher)]


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_fetched(s3_bucket, fetcher, key):
    put(s3_bucket, key)
    (uri,) = listed(to_uri("s3://bucket/" + key.replace("%", "%25")), fetcher)
    got = fetcher.fetch(uri)
    assert (got.digest, got.size, got.head) == (hashlib.sha256(BODY).hexdigest(), len(BODY), BODY[:4096])
    assert fetcher.peek(uri) == BODY[:4096]
    assert fetcher.open(uri, got.digest) == got.path


def test_an_unchanged_object_is_not_fetched_again(s3_bucket, fetcher):
    put(s3_bucket, "x")
    got = fetcher.fetch("s3://bucket/x")
    assert got.validator.startswith('ETag: "')
    assert fetcher.fetch_if_changed("s3://bucket/x", got.validator) is None
    put(s3_bucket, "x", body=b"new")
    assert fetcher.fetch_if_changed("s3://bucket/x", got.validator).path.read_bytes() == b"new"


def test_a_bucket_and_a_prefix_are_listed_without_hidden_objects(s3_bucket, fetcher):
    put(s3_bucket, *KEYS, "empty.jpg")
    put(s3_bucket, "folder/", "other/", body=b"")
    everything = listed("s3://bucket", fetcher)
    assert everything == [
        "s3://bucket/a.jpg",
        "s3://bucket/empty.jpg",
        "s3://bucket/other/g.jpg",
        "s3://bucket/sub/b%20c%23%3F%2520%2B%C3%BC.jpg".replace("%2B", "+"),
        "s3://bucket/sub/deep/d.txt",
    ]
    assert all(to_uri(uri) == uri for uri in everything)
    assert [fetcher.fetch(uri).size for uri in everything] == [len(BODY)] * 5
    assert listed("s3://bucket/sub/deep/", fetcher) == ["s3://bucket/sub/deep/d.txt"]
    assert listed("s3://bucket/none/", fetcher) == []


def many_keys(count):
    """A server that lists so many keys, a thousand a page, as S3 does."""

    def answer(handler):
        asked = parse_qs(urlsplit(handler.path).query)
        start = int(asked.get("continuation-token", ["0"])[0])
        end = min(start + 1000, count)
        rows = "".join(
            f"<Contents><Key>many/{number:07}.jpg</Key><Size>1</Size><ETag>&quot;x&quot;</ETag>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
            for number in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < count else ""
        handler.send(
            f"<?xml version='1.0'?><ListBucketResult><Name>bucket</Name><KeyCount>{end - start}</KeyCount>"
            f"<IsTruncated>{str(end < count).lower()}</IsTruncated>{rows}{more}</ListBucketResult>".encode()
        )

    return serving(answer)


def test_a_listing_is_a_stream(fetcher, monkeypatch):
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with many_keys(30_000) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.base)
        uris = expand("s3://bucket/many/", fetcher)
        assert next(uris).uri == "s3://bucket/many/0000000.jpg"
        assert len(server.asked) <= 5
        tracemalloc.start()
        assert sum(1 for _ in uris) == 29_999
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(server.asked) == 30
        assert peak < 8 << 20


def test_what_cannot_be_fetched_says_why(s3_bucket, fetcher):
    put(s3_bucket, "large", body=bytes(1_000_001))
    for uri, says in {
        "s3://bucket/none": "answered 404",
        "s3://nobucket/x": "answered 404",
        "s3://bucket/large": "too large",
        "s3://bucket/folder/": "a folder of objects, not of one",
        "s3://bucket/a//b": "a key with an empty part",
        "s3://bucket/../other/x": "a key with an empty part",
    }.items():
        with pytest.raises(ContentError, match=says) as caught:
            fetcher.fetch(uri)
        assert "secret" not in caught.value.reason
        assert "Signature" not in caught.value.reason
    with pytest.raises(UsageError, match="s3://nobucket cannot be listed: no such bucket"):
        listed("s3://nobucket/", fetcher)


def test_buckets_can_be_allowed_and_denied(s3_bucket, tmp_path):
    put(s3_bucket, "x")
    get = Fetcher(tmp_path / "blobs", guard=Guard(allowed_hosts=("bucket",)))
    assert get.fetch("s3://bucket/x").size == len(BODY)
    with pytest.raises(ContentError, match="other is no allowed host"):
        get.fetch("s3://other/x")
    with pytest.raises(UsageError, match="other is no allowed host"):
        listed("s3://other/", get)


def test_public_buckets_need_no_credentials(s3_bucket, fetcher, monkeypatch):
    put(s3_bucket, "dir/x")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    s3_bucket.Acl().put(ACL="public-read")
    s3_bucket.Object("dir/x").Acl().put(ACL="public-read")
    assert listed("s3://bucket/dir/", fetcher) == ["s3://bucket/dir/x"]
    assert fetcher.fetch("s3://bucket/dir/x").size == len(BODY)


def test_the_addresses_of_other_clouds(fetcher, monkeypatch):
    from fingerprint_dagster.sources.objects import ObjectStores

    for name in ("GOOGLE_SKIP_SIGNATURE", "AZURE_SKIP_SIGNATURE"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert ObjectStores().url("gs://bucket/a%20b") == "https://storage.googleapis.com/bucket/a%20b"
    assert ObjectStores().url("az://container/a%20b") == "https://account.blob.core.windows.net/container/a%20b"
    monkeypatch.delenv("AZURE_SKIP_SIGNATURE")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    signed = ObjectStores().url("az://container/a%20b")
    assert signed.startswith("https://account.blob.core.windows.net/container/a%20b?")
    assert "sig=" in signed


def test_an_unreachable_store_is_worth_a_retry(s3_bucket, fetcher, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ContentError, match="refused the connection") as caught:
        fetcher.fetch("s3://bucket/x")
    assert caught.value.retryable
    with pytest.raises(UsageError, match="cannot be listed: the object store cannot be reached"):
        listed("s3://bucket/", fetcher)

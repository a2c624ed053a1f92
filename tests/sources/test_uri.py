import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.sources.ipfs import parse_cid
from fingerprint_dagster.sources.uri import file_path, host_of, member_uri, path_uri, readable, to_uri, without_password

names = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(st.lists(names, min_size=1, max_size=4))
def test_any_path_survives_the_way_to_a_uri_and_back(parts):
    path = Path("/", *(os.fsdecode(part) for part in parts))
    uri = to_uri(str(path))
    assert uri.isascii()
    assert uri.startswith("file:///")
    assert file_path(uri) == path
    assert to_uri(uri) == uri


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/music/a song, 10 %.mp3", "/music/a song, 10 %.mp3"),
        ("/müsic/\u202egnp.\u200bexe", "/müsic/\ufffdgnp.\ufffdexe"),
        ("s3://bucket/my pictures/ü.png", "s3://bucket/my pictures/ü.png"),
        ("zip+file:///a%20b.zip!/c%20d/%C3%BC.png", "/a b.zip!/c d/ü.png"),
        ("https://example.org/a%20b.png?c=%26", "https://example.org/a%20b.png?c=%26"),
        ("data:text/plain," + "a" * 1000, "data:text/plain," + "a" * 384 + "…"),
    ],
)
def test_people_are_shown_names_as_they_know_them(text, shown):
    assert readable(to_uri(text)) == shown


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@db:5432/all?schema=a&password=secret", "postgresql://db:5432/all?schema=a"),
        ("postgresql:///all?password=secret&host=/run/pg", "postgresql:///all?host=/run/pg"),
        ("redis://:secret@cache/0", "redis://cache/0"),
        ("/home/me@work/what?.d", "/home/me@work/what?.d"),
        ("s3://bucket/memo", "s3://bucket/memo"),
    ],
)
def test_no_password_is_shown(uri, shown):
    assert without_password(uri) == shown


def test_an_address_of_another_machine_is_shown_as_it_is():
    assert readable("file://elsewhere/a%20b.png") == "file://elsewhere/a%20b.png"


@given(names)
def test_what_is_shown_of_any_name_can_be_printed_in_one_line(name):
    for uri in (path_uri(Path("/", os.fsdecode(name))), member_uri("zip", "file:///a.zip", os.fsdecode(name))):
        assert len(readable(uri).encode().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("/data/a b.jpg", "file:///data/a%20b.jpg"),
        ("/data/50%#1?.jpg", "file:///data/50%25%231%3F.jpg"),
        ("/data/ü.txt", "file:///data/%C3%BC.txt"),
        ("/data/../x//y/./z", "file:///x/y/z"),
        ("file:/data/a b", "file:///data/a%20b"),
        ("FILE://localhost/data/x", "file:///data/x"),
        ("HTTP://Example.ORG:80", "http://example.org/"),
        ("https://example.org:443/A%20b c?q=ü#part", "https://example.org/A%20b%20c?q=%C3%BC"),
        ("https://example.org:8443/x", "https://example.org:8443/x"),
        ("https://User:Pass@Example.org/x", "https://User:Pass@example.org/x"),
        ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        (" https://example.org/x ", "https://example.org/x"),
        (
            "ipfs://QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
            "ipfs://QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        ),
        ("ipfs:QmAb/a b#c", "ipfs://QmAb/a%20b"),
        ("IPFS://ipfs/QmAb/x", "ipfs://QmAb/x"),
        ("ipns://docs.ipfs.tech/a b", "ipns://docs.ipfs.tech/a%20b"),
        ("s3://Bucket/a b#?.jpg", "s3://Bucket/a%20b%23%3F.jpg"),
        ("S3://bucket", "s3://bucket/"),
        ("gs://bucket/dir/", "gs://bucket/dir/"),
        ("data:text/plain,a b#part", "data:text/plain,a%20b"),
        ("DATA:;base64,aGk=", "data:;base64,aGk="),
        ("zip+file:///data/../a b.zip!/sub/ü!.jpg", "zip+file:///a%20b.zip!/sub/%C3%BC%21.jpg"),
        ("tar+HTTPS://Example.org/a!/b.tar.gz!/x", "tar+https://example.org/a!/b.tar.gz!/x"),
    ],
)
def test_uris_are_normalised(text, uri):
    assert to_uri(text) == uri
    assert to_uri(uri) == uri


def test_relative_paths_start_at_the_base(tmp_path, monkeypatch):
    assert to_uri("sub/x.png", tmp_path) == path_uri(tmp_path / "sub" / "x.png")
    monkeypatch.chdir(tmp_path)
    assert to_uri("x.png") == path_uri(tmp_path / "x.png")
    assert to_uri("foo:bar.txt") == path_uri(tmp_path / "foo:bar.txt")  # a colon alone makes no uri


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://host/x", "unknown scheme ftp.*file, http, https, s3"),
        ("http://ho st/", "wrong host or port"),
        ("http://example.org\\@127.0.0.1/", "wrong host or port"),
        ("http://a@b@example.org/", "wrong host or port"),
        ("http://example.org%00.evil/", "wrong host or port"),
        ("http://example.org/\r\nHost: evil", "control character"),
        ("s3:///key", "without a valid bucket"),
        ("s3://evil.org:80/key", "without a valid bucket"),
        ("ipns://", "without a name"),
        ("zip+file:///a.zip", "in an archive without its parts"),
        ("zip+zip+file:///a.zip!/b.zip!/c", "archive inside an archive"),
        ("data:," + "x" * (1 << 20), "save it as a file"),
        ("http:///path", "without a host"),
        ("http://host:port/", "wrong host or port"),
        ("http://" + "a" * 64 + ".org/", "wrong host or port"),
        ("file:relative", "file:///absolute/path"),
        ("file://other-machine/x", "file:///absolute/path"),
        ("ipfs://", "without a CID"),
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "NUL"),
        ("http://host/\ud800", "cannot be encoded"),
        ("\ud800", "cannot be encoded"),
    ],
)
def test_wrong_addresses_are_refused_with_the_cure(text, says):
    with pytest.raises(UsageError, match=says):
        to_uri(text)


def test_the_host_is_all_that_is_shown():
    assert host_of("https://user:secret@example.org:8443/x?token=secret") == "example.org:8443"


# The first four: examples of the CID and multibase specifications; the raw ones: sha256sum and base64 of b"hello\n".
HELLO = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


@pytest.mark.parametrize(
    ("text", "version", "sha256"),
    [
        ("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", 0, None),
        ("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", 1, None),
        ("zdj7WhuEjrB52m1BisYCtmjH1hSKa7yZ3jEZ9JcXaFRD51wVz", 1, None),
        ("f01551220" + HELLO, 1, HELLO),
        ("F01551220" + HELLO.upper(), 1, HELLO),
        ("bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am", 1, HELLO),
    ],
)
def test_cids(text, version, sha256):
    cid = parse_cid(text)
    assert (cid.version, cid.sha256) == (version, sha256)


@given(st.binary(min_size=32, max_size=32))
def test_every_base_writes_the_same_cid(digest):
    data = bytes([1, 0x55, 0x12, 32]) + digest

    def base(alphabet):
        number, text = int.from_bytes(data, "big"), ""
        while number:
            number, rest = divmod(number, len(alphabet))
            text = alphabet[rest] + text
        return text

    forms = ["f" + data.hex(), "k" + base("0123456789abcdefghijklmnopqrstuvwxyz")]
    forms.append("z" + base("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"))
    assert {parse_cid(form).sha256 for form in forms} == {digest.hex()}


@pytest.mark.parametrize(
    "text",
    ["", "Qm", "hello", "b", "bAfk", "f0155122058", "f" + "01" * 40, "z0OIl", "f0255" + "00" * 4, "z" + "2" * 500],
)
def test_what_is_no_cid(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_cid(text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_cid_parser(text):
    for prefix in ("", "b", "f", "k", "z", "Qm"):
        with contextlib.suppress(ValueError):
            parse_cid(prefix + text)

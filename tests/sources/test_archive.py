"""Members of archives as contents, and what archives do to harm."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import resource
import stat
import struct
import tarfile
import time
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import serving

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources import Fetcher, Guard, archive, expand
from fingerprint_dagster.sources.uri import member_of, member_uri, to_uri

BODY = bytes(range(256)) * 40
NAMES = ["a.jpg", "sub/ü b#?%.jpg", "sub/deep/c!/d.txt"]


@pytest.fixture
def fetcher(tmp_path):
    return Fetcher(tmp_path / "blobs", max_bytes=1_000_000, retries=0, guard=Guard(allowed_networks=("127.0.0.1",)))


def zipped(members, **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return out.getvalue()


def tarred(members, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, data in members.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


MEMBERS = {name: BODY + name.encode() for name in NAMES}
ARCHIVES = {
    "a.zip": zipped(MEMBERS),
    "a.tar": tarred(MEMBERS),
    "gnu.tar": tarred(MEMBERS, tarfile.GNU_FORMAT),
    "a.tar.gz": gzip.compress(tarred(MEMBERS)),
    "a.tgz": gzip.compress(tarred(MEMBERS)),
    "a.tar.bz2": bz2.compress(tarred(MEMBERS)),
    "a.tar.xz": lzma.compress(tarred(MEMBERS)),
}


def refusal(fetcher, uri):
    with pytest.raises(ContentError) as caught:
        fetcher.fetch(uri)
    return caught.value.reason


def files_outside(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file() and "blobs" not in path.parts]


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_members_of_an_archive_are_contents(fetcher, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ARCHIVES[name])
    for source in (str(path), path.as_uri()):
        uris = [each.uri for each in expand(source, fetcher)]
        assert [member_of(uri)[2] for uri in uris] == NAMES
        assert all(to_uri(uri) == uri for uri in uris)
        for uri, member in zip(uris, NAMES, strict=True):
            got = fetcher.fetch(uri)
            assert got.path.read_bytes() == MEMBERS[member]
            assert got.digest == hashlib.sha256(MEMBERS[member]).hexdigest()
            assert fetcher.peek(uri) == BODY[:4096]
            assert fetcher.open(uri, got.digest) == got.path
            assert got.validator == fetcher.validator(uri) == fetcher.validator(path.as_uri())
            assert fetcher.fetch_if_changed(uri, got.validator) is None
    assert files_outside(tmp_path) == [path]


def test_a_changed_archive_is_read_again(fetcher, tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"x": b"one"}))
    uri = member_uri("zip", path.as_uri(), "x")
    got = fetcher.fetch(uri)
    path.write_bytes(zipped({"x": b"two!"}))
    assert fetcher.fetch_if_changed(uri, got.validator).path.read_bytes() == b"two!"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_remote_archive_is_downloaded_once(fetcher, name):
    def answer(handler):
        unchanged = handler.headers.get("If-None-Match") == '"v1"'
        handler.send(b"" if unchanged else ARCHIVES[name], 304 if unchanged else 200, ETag='"v1"')

    with serving(answer) as server:
        uris = [each.uri for each in expand(f"{server.base}/{name}?token=x", fetcher)]
        assert uris[0] == f"{name.split('.')[1]}+{server.base}/{name}?token=x!/a.jpg"
        assert [fetcher.fetch(uri).path.read_bytes() for uri in uris] == list(MEMBERS.values())
        assert len(server.asked) == 1
        again = Fetcher(fetcher._blobs.folder, guard=fetcher.guard)
        assert [again.fetch_if_changed(uri, 'ETag: "v1"') for uri in uris] == [None] * 3
        assert len(server.asked) == 2


def test_an_unpacked_archive_that_was_evicted_is_unpacked_again(fetcher, tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(ARCHIVES["a.tar.gz"])
    first, second, _ = (each.uri for each in expand(str(path), fetcher))
    assert fetcher.fetch(first).size
    assert fetcher.evict(0, in_use_seconds=0)
    assert fetcher.fetch(second).path.read_bytes() == MEMBERS[NAMES[1]]


def test_an_archive_that_cannot_be_opened_is_tried_once_for_all_its_members(fetcher, tmp_path):
    with serving(lambda handler: handler.send(b"nonsense")) as server:
        for name in NAMES:
            assert refusal(fetcher, member_uri("zip", server.base + "/a.zip", name)) == "not a readable zip archive"
        assert len(server.asked) == 1
    path = tmp_path / "a.zip"
    path.write_bytes(b"nonsense")
    assert "not a readable" in refusal(fetcher, member_uri("zip", path.as_uri(), NAMES[0]))
    path.write_bytes(ARCHIVES["a.zip"])
    assert fetcher.fetch(member_uri("zip", path.as_uri(), NAMES[0])).size


def test_hidden_members_folders_and_links_are_no_contents(fetcher, tmp_path):
    link, hard, folder, device = (tarfile.TarInfo(name) for name in ("link", "hard", "folder", "device"))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "x"
    folder.type, device.type = tarfile.DIRTYPE, tarfile.CHRTYPE
    members = {
        "x": b"1",
        ".hidden": b"2",
        "a/.b/c": b"3",
        "__MACOSX/x": b"4",
        link: b"",
        hard: b"",
        folder: b"",
        device: b"",
    }
    (tmp_path / "a.tar").write_bytes(tarred(members))
    assert [member_of(each.uri)[2] for each in expand(str(tmp_path / "a.tar"), fetcher)] == ["x"]
    uri = (tmp_path / "a.tar").as_uri()
    assert "a link" in refusal(fetcher, member_uri("tar", uri, "link"))
    assert "no such member" in refusal(fetcher, member_uri("tar", uri, "folder"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(info, "/etc/passwd")
        made.writestr("folder/", b"")
        made.writestr("x", b"1")
    (tmp_path / "a.zip").write_bytes(out.getvalue())
    assert [member_of(each.uri)[2] for each in expand(str(tmp_path / "a.zip"), fetcher)] == ["x"]
    assert "symbolic link" in refusal(fetcher, member_uri("zip", (tmp_path / "a.zip").as_uri(), "link"))


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "..\\evil", "C:\\evil", "a/../../evil", "x" * 5000, "a\nb", "%2e%2e/x"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_never_become_paths(fetcher, tmp_path, kind, name):
    path = tmp_path / f"a.{kind}"
    path.write_bytes((zipped if kind == "zip" else tarred)({name: BODY}))
    for each in expand(str(path), fetcher):
        assert fetcher.fetch(each.uri).path.read_bytes() == BODY
    assert files_outside(tmp_path) == [path]
    assert not os.path.lexists(tmp_path.parent / "evil")


def test_an_encrypted_member_is_refused_with_the_cure(fetcher, tmp_path):
    data = bytearray(zipped({"x": BODY, "y": BODY}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    first, second = (each.uri for each in expand(str(tmp_path / "a.zip"), fetcher))
    assert refusal(fetcher, first) == "the member is encrypted: unpack the archive with its password"
    assert fetcher.fetch(second).size == len(BODY)


def test_a_member_larger_than_allowed(fetcher, tmp_path):
    for kind, make in (("zip", zipped), ("tar", tarred)):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(make({"x": bytes(1_000_001)}))
        assert "too large" in refusal(fetcher, member_uri(kind, path.as_uri(), "x"))


def test_a_size_that_is_a_lie_does_not_help(fetcher, tmp_path):
    """Both places say 10 bytes, and 50 MB would come out."""
    data = bytearray(zipped({"x": bytes(50_000_000)}))
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, 22, 10)
    struct.pack_into("<I", data, directory + 24, 10)
    (tmp_path / "a.zip").write_bytes(data)
    assert "damaged" in refusal(fetcher, member_uri("zip", (tmp_path / "a.zip").as_uri(), "x"))


def test_members_that_overlap_are_a_bomb(fetcher, tmp_path):
    """One compressed kernel under a thousand names: 1,000 times 10 MB in some hundred kilobytes."""
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = bytes(10_000_000)
    packed = kernel.compress(plain) + kernel.flush()
    about = (zlib.crc32(plain), len(packed), len(plain))
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, *about, 1, 0) + b"x" + packed
    names = [f"{number:04}".encode() for number in range(1000)]
    directory = b"".join(
        struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, *about, 4, 0, 0, 0, 0, 0, 0) + name
        for name in names
    )
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1000, 1000, len(directory), len(local), 0)
    (tmp_path / "a.zip").write_bytes(local + directory + end)
    (only,) = expand(str(tmp_path / "a.zip"), fetcher)
    with pytest.raises(ContentError, match="more than 200 times its own size"):
        fetcher.peek(only.uri)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_bomb_is_cut_off(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(archive, "_FREE_BYTES", 1 << 20)
    get = Fetcher(tmp_path / "blobs", max_bytes=1_000_000)
    packed = pack(tarred({"x": bytes(40_000_000)}))
    (tmp_path / "a.tar.gz").write_bytes(packed)
    before = peak_memory()
    assert "holds more than the allowed" in refusal(get, member_uri("tar", (tmp_path / "a.tar.gz").as_uri(), "x"))
    assert peak_memory() - before < 300 << 20


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_archives_with_too_many_members(fetcher, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    for kind, make in (("zip", zipped), ("tar", tarred)):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(make({f"{number}": b"x" for number in range(101)}))
        assert "more than 100 members" in refusal(fetcher, member_uri(kind, path.as_uri(), "5"))


def test_headers_of_an_unreasonable_size_are_not_loaded(fetcher, tmp_path):
    """A tar whose name is said to have 2 GB; the file is sparse, so it costs no disk."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2 << 30)
    before = peak_memory()
    assert "not a readable tar archive" in refusal(fetcher, member_uri("tar", path.as_uri(), "x"))
    assert peak_memory() - before < 300 << 20


def test_a_negative_size_ends_nowhere(fetcher, tmp_path):
    data = bytearray(tarred({"x": BODY, "y": BODY}, tarfile.GNU_FORMAT))
    data[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
    checksum = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % checksum
    (tmp_path / "a.tar").write_bytes(data)
    start = time.monotonic()
    assert "archive" in refusal(fetcher, member_uri("tar", (tmp_path / "a.tar").as_uri(), "y"))
    assert time.monotonic() - start < 10


def test_archives_inside_archives_stay_shut(fetcher, tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"b.zip": zipped({"x": BODY})}))
    (inner,) = (each.uri for each in expand(str(tmp_path / "a.zip"), fetcher))
    assert inner.endswith("!/b.zip")
    assert fetcher.fetch(inner).head.startswith(b"PK")
    assert [each.uri for each in expand(inner, fetcher)] == [inner]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_cannot_be_opened_is_listed_with_its_reason(fetcher, tmp_path, name):
    for wrong in (b"", b"nonsense", ARCHIVES[name][:60]):
        (tmp_path / name).write_bytes(wrong)
        (only,) = expand(str(tmp_path / name), fetcher)
        with pytest.raises(ContentError, match="archive"):
            fetcher.peek(only.uri)
    (only,) = expand((tmp_path / f"gone-{name}").as_uri(), fetcher)
    assert "archive cannot be read" in refusal(fetcher, only.uri)


def test_without_a_fetcher_an_archive_stands_for_itself(tmp_path):
    (tmp_path / "a.zip").write_bytes(ARCHIVES["a.zip"])
    assert [each.uri for each in expand(str(tmp_path / "a.zip"))] == [(tmp_path / "a.zip").as_uri()]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(ARCHIVES)), st.data())
def test_a_damaged_archive_gives_contents_or_reasons(tmp_path, name, data):
    whole = bytearray(ARCHIVES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    get = Fetcher(tmp_path / "blobs", max_bytes=1_000_000)
    for each in expand(str(path), get):
        with contextlib.suppress(ContentError):
            get.fetch(each.uri)

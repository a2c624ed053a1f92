"""Contents by CID through gateways that may lie, break off, or know less than others."""

import hashlib
import os
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_node import Node, binary, record
from servers import serving

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.sources import Fetcher, Guard, to_uri, unixfs
from fingerprint_dagster.sources.ipfs import DAG_PB, LIBP2P_KEY, RAW, Cid, parse_cid, varint
from fingerprint_dagster.sources.ipns import parse_name
from fingerprint_dagster.sources.protobuf import fields

DATA = random.Random(1).randbytes(10_500)  # eleven chunks, three levels


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def gateway(node):
    with serving(node) as server:
        yield server


@pytest.fixture
def fetcher(tmp_path, gateway):
    return Fetcher(tmp_path / "blobs", ipfs_gateways=[gateway.base + "/"], retries=0, max_bytes=1_000_000)


def refusal(fetcher, uri):
    with pytest.raises(ContentError) as caught:
        fetcher.fetch(to_uri(uri))
    return caught.value


def test_what_ipfs_itself_makes_is_understood():
    """The CIDs of `echo "hello world" | ipfs add` and of the empty folder, as everybody's node prints them."""
    hello = b"\n\x12\x08\x02\x12\x0chello world\n\x18\x0c"
    cid = parse_cid("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o")
    assert cid.vouches_for(hello)
    assert cid.text == "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
    assert b"".join(unixfs.read_file(cid, lambda _: hello, 100)) == b"hello world\n"
    folder = parse_cid("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
    assert folder.vouches_for(b"\n\x02\x08\x01")
    with pytest.raises(ContentError, match="a folder, not a file"):
        list(unixfs.read_file(folder, lambda _: b"\n\x02\x08\x01", 100))


def test_murmur3():
    """Values of the reference implementation, MurmurHash3_x64_128 with seed 0, first half."""
    assert unixfs.murmur3(b"") == 0
    assert unixfs.murmur3(b"hello") == 0xCBD8A7B341BD9B02
    assert unixfs.murmur3(b"hello, world") == 0x342FAC623A5EBC8E
    assert unixfs.murmur3(b"The quick brown fox jumps over the lazy dog.") == 0xCD99481F9EE902C9


@pytest.mark.parametrize("cars", [True, False])
@pytest.mark.parametrize("form", [{}, {"raw_leaves": False}, {"raw_leaves": False, "version": 0}])
def test_a_file_is_put_together_from_its_blocks(fetcher, node, form, cars):
    node.cars = cars
    cid = node.file(DATA, **form)
    got = fetcher.fetch(f"ipfs://{cid.text}")
    assert got.path.read_bytes() == DATA
    assert (got.digest, got.size, got.head) == (hashlib.sha256(DATA).hexdigest(), len(DATA), DATA[:4096])
    if cars:
        assert node.asked == [f"car ipfs/{cid.text}"]
    assert fetcher.fetch_if_changed(f"ipfs://{cid.text}", got.validator) is None
    assert fetcher.validator(f"ipfs://{cid.text}") == got.validator


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 1000, b"x" * 5000])
def test_small_and_repeating_files(fetcher, node, data):
    assert fetcher.fetch(f"ipfs://{node.file(data, raw_leaves=False).text}").path.read_bytes() == data


def test_a_raw_block_is_a_content(fetcher, node):
    cid = node.add(DATA)
    assert fetcher.fetch(f"ipfs://{cid.text}").path.read_bytes() == DATA
    assert node.asked == [f"raw ipfs/{cid.text}"]
    node.false[cid.digest] = DATA + b"!"
    assert "sent bytes that do not match the CID" in refusal(fetcher, f"ipfs://{cid.text}").reason


@pytest.mark.parametrize("code", [0x12, 0x13, 0x14, 0x16, 0xB220, 0x1E])
def test_hash_functions(fetcher, node, code):
    if code == 0x1E:
        blake3 = pytest.importorskip("blake3").blake3
    make = {
        0x12: hashlib.sha256,
        0x13: hashlib.sha512,
        0x14: hashlib.sha3_512,
        0x16: hashlib.sha3_256,
        0xB220: lambda data: hashlib.blake2b(data, digest_size=32),
        0x1E: lambda data: blake3(data),
    }[code]
    cid = Cid(1, RAW, code, make(DATA).digest())
    node.blocks[cid.digest] = cid, DATA
    assert fetcher.fetch(f"ipfs://{cid.text}").path.read_bytes() == DATA
    tree, _ = node.branch([(cid, len(DATA))])
    assert fetcher.fetch(f"ipfs://{tree.text}").path.read_bytes() == DATA
    node.false[cid.digest] = DATA[::-1]
    for each in (cid, tree):
        assert "do not match the CID" in refusal(fetcher, f"ipfs://{each.text}").reason


@pytest.mark.parametrize(
    ("cid", "says"),
    [
        (Cid(1, RAW, 0x11, bytes(20)), "hash function 0x11"),
        (Cid(1, RAW, 0x12, bytes(16)), "shortened"),
        (Cid(1, 0x71, 0x12, bytes(32)), "codec 0x71"),
    ],
)
def test_cids_that_vouch_for_nothing(fetcher, node, cid, says):
    node.blocks[cid.digest] = cid, b"x"
    if cid.codec == 0x71:
        cid = node.add(b"\xa0", 0x71)
    assert says in refusal(fetcher, f"ipfs://{cid.text}").reason
    assert "valid CID" in refusal(fetcher, "ipfs://nonsense/x").reason


def test_an_identity_cid_is_its_own_content(fetcher, node):
    cid = Cid(1, RAW, 0, b"tiny")
    assert fetcher.fetch(f"ipfs://{cid.text}").path.read_bytes() == b"tiny"
    assert node.asked == []


@pytest.mark.parametrize("cars", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_paths_are_followed_through_verified_folders(fetcher, node, sharded, cars):
    node.cars = cars
    files = {f"file {number} ü%.bin": node.add(b"content %d" % number) for number in range(300)}
    folder = node.sharded(files) if sharded else node.folder(files)
    root = node.folder({"sub": folder, "other": node.add(b"other")})
    got = fetcher.fetch(to_uri(f"ipfs://{root.text}/sub/file 123 ü%25.bin"))
    assert got.path.read_bytes() == b"content 123"
    if cars:
        assert len(node.asked) == 1
    for path, says in {"/sub/none": "no such file", "/sub": "a folder", "/other/x": "no folder (part 2)"}.items():
        assert says in refusal(fetcher, f"ipfs://{root.text}{path}").reason
    for each in (root, folder):
        node.false = {each.digest: node.blocks[node.folder({"sub": node.add(b"evil")}).digest][1]}
        assert "do not match" in refusal(fetcher, f"ipfs://{root.text}/sub/file 5 ü%25.bin").reason


@pytest.mark.parametrize("cars", [True, False])
def test_a_lie_in_any_block_is_caught(fetcher, node, gateway, cars):
    node.cars = cars
    cid = node.file(DATA)
    for digest, (_, block) in list(node.blocks.items()):
        node.false = {digest: block[:-1] + bytes([block[-1] ^ 1])}
        error = refusal(fetcher, f"ipfs://{cid.text}")
        assert error.reason == f"127.0.0.1:{gateway.server_port} sent bytes that do not match the CID"
        assert error.retryable


def test_the_next_gateway_is_asked_where_one_lies(tmp_path, node):
    cid = node.file(DATA)
    liar = Node(dict(node.blocks), false=dict.fromkeys(node.blocks, b"lie"))
    with serving(liar) as first, serving(lambda handler: handler.send(b"", 500)) as second, serving(node) as third:
        gateways = [first.base, second.base, third.base]
        get = Fetcher(tmp_path / "blobs", ipfs_gateways=gateways, retries=0)
        assert get.fetch(f"ipfs://{cid.text}").path.read_bytes() == DATA
        node.false = liar.false
        reason = refusal(get, f"ipfs://{cid.text}").reason
        for server, says in ((first, "do not match"), (second, "answered 500"), (third, "do not match")):
            assert f"127.0.0.1:{server.server_port}" in reason
            assert says in reason


def test_blocks_that_a_car_lacks_are_asked_for(fetcher, node):
    cid = node.file(DATA)
    lacking = next(digest for digest, (each, _) in node.blocks.items() if each.codec == RAW)
    node.without = {lacking}
    assert "answered 404" in refusal(fetcher, f"ipfs://{cid.text}").reason.replace("406", "404")
    node.without = set()
    for cut in (0, 1, 58, 59, 60, 100, 1200, 5000, 11_000):
        node.cut = cut
        assert fetcher.fetch(f"ipfs://{cid.text}").path.read_bytes() == DATA


@given(st.integers(0, 200), st.binary(max_size=60))
def test_a_car_of_anything_gives_blocks_or_none(start, junk):
    import io

    from fingerprint_dagster.sources import car

    node = Node()
    whole = node.car(node.file(DATA[:3000]), [])
    for places in (car.index(io.BytesIO(junk)), car.index(io.BytesIO(whole[:start] + junk + whole[start:]))):
        assert all(offset >= 0 and offset + length <= len(whole) + len(junk) for offset, length in places.values())


def test_a_folder_that_is_sharded_in_a_strange_way_is_refused():
    cid = Cid(1, DAG_PB, 0x12, bytes(32))
    for fanout, hashed in ((0, 0x22), (1, 0x22), (3, 0x22), (1 << 40, 0x22), (256, 0)):
        block = record(1, record(1, 5) + record(5, hashed) + record(6, fanout))
        with pytest.raises(ContentError, match="sharded in an unknown way"):
            unixfs.resolve(cid, ["x"], lambda _, block=block: block)


@given(st.binary(max_size=200))
def test_a_block_of_anything_is_a_node_or_an_error(block):
    cid = Cid(1, DAG_PB, 0x12, bytes(32))
    try:
        unixfs.read_node(cid, block)
        list(fields(block))
    except (ContentError, ValueError):
        pass


def test_a_file_larger_than_allowed(fetcher, node, tmp_path):
    cid = node.file(DATA)
    small = Fetcher(tmp_path / "blobs", ipfs_gateways=fetcher._options["ipfs_gateways"], retries=0, max_bytes=10_000)
    assert "more than the allowed 10000 bytes" in refusal(small, f"ipfs://{cid.text}").reason
    raw = node.add(DATA)
    assert "too large" in refusal(small, f"ipfs://{raw.text}").reason


def test_trees_that_grow_without_end(fetcher, node):
    """A block may be linked to again and again: a few of them make a file of any size, or no bytes and no end."""
    for leaf, says in ((b"x" * 1000, "more than the allowed"), (b"", "too many blocks or levels")):
        cid = node.leaf(leaf, False, 1)
        for _ in range(20):
            payload = record(1, 2) + record(3, 0)
            cid = node.add(node.links([("", cid)] * 10) + record(1, payload), DAG_PB)
        blocks = {digest: block for digest, (_, block) in node.blocks.items()}
        chunks = unixfs.read_file(cid, lambda each, blocks=blocks: blocks[each.digest], 1_000_000)
        with pytest.raises(ContentError, match=says):
            sum(map(len, chunks))
    for _ in range(70):
        cid, _size = node.branch([(cid, 0)])
    with pytest.raises(ContentError, match="levels"):
        list(unixfs.read_file(cid, lambda each: node.blocks[each.digest][1], 1000))


def test_what_is_no_file_is_refused(fetcher, node):
    link = node.add(record(1, record(1, 4) + record(2, b"/etc/passwd")), DAG_PB)
    assert "symbolic link" in refusal(fetcher, f"ipfs://{link.text}").reason
    broken = node.add(b"\x12\xff\xff", DAG_PB)
    assert "no valid UnixFS node" in refusal(fetcher, f"ipfs://{broken.text}").reason


def test_peeking_fetches_only_the_blocks_on_the_way(fetcher, node):
    cid = node.folder({"x": node.file(DATA, chunk=5000)})
    assert fetcher.peek(f"ipfs://{cid.text}/x") == DATA[:4096]
    assert len(node.asked) == 3
    node.false = {hashlib.sha256(DATA[:5000]).digest(): b"lie"}
    with pytest.raises(ContentError, match="do not match"):
        fetcher.peek(f"ipfs://{cid.text}/x")


def test_a_gateway_may_not_redirect_inwards(tmp_path):
    with serving(lambda handler: handler.send(b"secret")) as inner:
        away = f"http://127.0.0.1:{inner.server_port}/"
        with serving(lambda handler: handler.send(b"", 302, Location=away), "127.0.0.2") as gateway:
            get = Fetcher(tmp_path / "blobs", ipfs_gateways=[gateway.base], retries=0, guard=Guard())
            for cid in (Cid(1, RAW, 0x12, bytes(32)), Cid(1, DAG_PB, 0x12, bytes(32))):
                assert "127.0.0.1 is a loopback address" in refusal(get, f"ipfs://{cid.text}").reason
        assert inner.asked == []


# ---------------------------------------------------------------------- ipns


def cbor(item):
    if isinstance(item, int):
        return bytes([item]) if item < 24 else b"\x1b" + item.to_bytes(8, "big")
    if isinstance(item, dict):
        return bytes([0xA0 + len(item)]) + b"".join(cbor(key) + cbor(value) for key, value in item.items())
    data, kind = (item.encode(), 0x60) if isinstance(item, str) else (item, 0x40)
    head = bytes([kind + len(data)]) if len(data) < 24 else bytes([kind + 24, len(data)])
    return head + data


class Name:
    """A key, and the records it signs."""

    def __init__(self):
        ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
        self.key = ed25519.Ed25519PrivateKey.generate()
        public = record(1, 1) + record(2, self.key.public_key().public_bytes_raw())
        self.cid = Cid(1, LIBP2P_KEY, 0, public)

    def record(self, path, end=None, sign=None):
        validity = (end or datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        said = {"TTL": 60_000, "Value": path.encode(), "Sequence": 3, "Validity": validity.encode(), "ValidityType": 0}
        data = cbor(said)
        return record(8, (sign or self.key).sign(b"ipns-signature:" + data)) + record(9, data)


def test_a_name_is_resolved_by_its_signed_record(fetcher, node):
    name, other = Name(), Name()
    cid, changed = node.file(DATA), node.file(DATA[:3000])
    folder = node.folder({"x": changed})
    node.names[name.cid.text] = name.record(f"/ipfs/{cid.text}")
    uri = f"ipns://{name.cid.text}"
    got = fetcher.fetch(uri)
    assert got.path.read_bytes() == DATA
    assert got.validator == f"ipfs://{cid.text}"
    assert fetcher.fetch_if_changed(uri, got.validator) is None
    assert fetcher.peek(uri) == DATA[:4096]
    node.names[name.cid.text] = name.record(f"/ipfs/{folder.text}")
    assert fetcher.fetch_if_changed(uri + "/x", got.validator).path.read_bytes() == DATA[:3000]
    for wrong, says in {
        name.record(f"/ipfs/{cid.text}", sign=other.key): "that its key did not sign",
        name.record(f"/ipfs/{cid.text}", end=datetime.now(UTC) - timedelta(days=1)): "out of date",
        other.record(f"/ipfs/{cid.text}"): "did not sign",
        b"\xff" * 20: "no valid ipns record",
        b"": "no valid ipns record",
        name.record("/ipns/elsewhere"): "leads to another name",
        name.record("/ipfs/nonsense"): "valid CID",
    }.items():
        node.names[name.cid.text] = wrong
        assert says in refusal(fetcher, uri).reason


def test_names_are_written_in_several_ways():
    public = record(1, 1) + record(2, bytes(range(32)))
    cid = Cid(1, LIBP2P_KEY, 0, public)
    digits, number = "", int.from_bytes(b"\0" + varint(len(public)) + public, "big")
    while number:
        number, rest = divmod(number, 58)
        digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[rest] + digits
    assert parse_name("1" + digits) == parse_name(cid.text) == parse_name("f" + binary(cid).hex()) == cid
    assert parse_name("1" + digits).text.startswith("b")
    assert parse_name("docs.ipfs.tech") is None


def test_a_domain_is_the_gateways_word_but_its_content_is_not(fetcher, node):
    cid = node.file(DATA)
    node.roots["docs.example.org"] = cid.text
    assert fetcher.fetch("ipns://docs.example.org").path.read_bytes() == DATA
    node.false = {cid.digest: b"lie"}
    assert "do not match" in refusal(fetcher, "ipns://docs.example.org").reason
    node.roots["docs.example.org"] = "no cid"
    assert "valid CID" in refusal(fetcher, "ipns://docs.example.org").reason
    assert "neither a key nor a domain" in refusal(fetcher, "ipns://nonsense").reason
    rsa = parse_cid("QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3")
    node.names[Cid(1, LIBP2P_KEY, rsa.hash_code, rsa.digest).text] = b"x"
    assert "no Ed25519 key" in refusal(fetcher, "ipns://QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3").reason


def test_no_gateway_is_a_reason(tmp_path):
    get = Fetcher(tmp_path / "blobs", ipfs_gateways=[])
    cid = Cid(1, RAW, 0x12, os.urandom(32)).text
    assert "FINGERPRINT_IPFS_GATEWAY" in refusal(get, f"ipfs://{cid}").reason

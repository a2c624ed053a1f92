"""What must never be reached, however its address is written and wherever it comes from."""

import ipaddress
import os
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Handler, serving

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources import Fetcher, Guard, expand, to_uri
from fingerprint_dagster.sources.guard import why_not_public

BODY = b"content"


def answer(handler: Handler) -> None:
    handler.send(BODY)


class Names:
    """A resolver under the test's control: each name has a list of answers, the last of which stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        given = self.answers[name]
        return given.pop(0) if len(given) > 1 else given[0]


def fetcher(tmp_path: Path, guard: Guard, **options: object) -> Fetcher:
    return Fetcher(tmp_path / "blobs", guard=guard, retries=0, timeout_seconds=10, **options)  # type: ignore[arg-type]


def refusal(fetcher: Fetcher, uri: str) -> str:
    with pytest.raises(ContentError) as caught:
        fetcher.fetch(to_uri(uri))
    assert not caught.value.retryable
    with pytest.raises(ContentError):
        fetcher.peek(to_uri(uri))
    return caught.value.reason


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.255.0.9", "a loopback address"),
        ("0.0.0.0", "an unspecified address"),
        ("10.1.2.3", "a private address"),
        ("172.31.0.1", "a private address"),
        ("192.168.1.1", "a private address"),
        ("169.254.1.1", "a link-local address"),
        ("169.254.169.254", "an address of a cloud's metadata service"),
        ("168.63.129.16", "an address of a cloud's metadata service"),
        ("100.100.100.200", "an address of a cloud's metadata service"),
        ("100.64.0.1", "a provider's internal address"),
        ("198.18.0.1", "a reserved address"),
        ("224.0.0.1", "a multicast address"),
        ("255.255.255.255", "a reserved address"),
        ("[::1]", "a loopback address"),
        ("[::]", "an unspecified address"),
        ("[fd00:ec2::254]", "an address of a cloud's metadata service"),
        ("[fc00::1]", "a private address"),
        ("[fe80::1]", "a link-local address"),
        ("[ff02::1]", "a multicast address"),
        ("[::ffff:127.0.0.1]", "a loopback address"),
        ("[::ffff:a9fe:a9fe]", "an address of a cloud's metadata service"),
        ("[::127.0.0.1]", "a reserved address"),
        ("[64:ff9b::10.0.0.1]", "a private address"),
        ("[64:ff9b:1::1]", "a reserved address"),
        ("[2002:7f00:1::]", "a reserved address"),
        ("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "a reserved address"),
        ("[2001:db8::1]", "a reserved address"),
        ("[fec0::1]", "a private address"),
    ],
)
def test_addresses_that_are_not_public_are_refused_with_the_cure(tmp_path, host, kind):
    reason = refusal(fetcher(tmp_path, Guard()), f"http://{host}/")
    assert f" is {kind}; set FINGERPRINT_ALLOWED_NETWORKS=" in reason


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1.", "134744072"]
)
def test_numbers_that_some_programs_take_for_an_address(tmp_path, host):
    names = Names()
    reason = refusal(fetcher(tmp_path, Guard(resolve=names)), f"http://{host}/")
    assert "four decimal numbers" in reason or "loopback" in reason
    assert names.asked == []


def test_other_digits_are_the_same_address(tmp_path):
    assert "127.0.0.1 is a loopback address" in refusal(fetcher(tmp_path, Guard()), "http://①②⑦.⓪.⓪.①/")


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_public_addresses_pass(host):
    assert Guard().addresses(host, 443) == [host]


@given(st.ip_addresses())
def test_what_the_registries_say_is_not_global_is_refused(address):
    if why_not_public(address) is None and (mapped := getattr(address, "ipv4_mapped", None)):
        address = mapped
    if why_not_public(address) is None and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast


def test_a_name_is_refused_if_any_of_its_addresses_is(tmp_path):
    names = Names(mixed_test=[["8.8.8.8", "192.168.0.9"]])
    reason = refusal(fetcher(tmp_path, Guard(resolve=names)), "http://mixed.test/")
    assert reason.startswith("mixed.test is 192.168.0.9, which is a private address; set FINGERPRINT_ALLOWED_NETWORKS=")


def test_a_name_that_changes_its_address_gets_no_second_look(tmp_path):
    with serving(answer, "127.0.0.2") as good, serving(answer, "127.0.0.1", good.server_port) as inner:
        names = Names(rebind_test=[["127.0.0.2"], ["127.0.0.1"]])
        guard = Guard(allowed_networks=("127.0.0.2",), resolve=names)
        uri = f"http://rebind.test:{good.server_port}/"
        assert fetcher(tmp_path, guard).fetch(uri).size == len(BODY)
        assert names.asked == ["rebind.test"]
        assert good.headers[0]["Host"] == f"rebind.test:{good.server_port}"
        reason = refusal(fetcher(tmp_path, guard), uri)
        assert reason.startswith("rebind.test is 127.0.0.1, which is a loopback address")
        assert inner.asked == []


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://127.0.0.1:{port}/secret", "127.0.0.1 is a loopback address"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is an address of a cloud's metadata service"),
        ("http://[::ffff:169.254.169.254]/", "metadata service"),
        ("http://inner.test:{port}/", "inner.test is 127.0.0.1, which is a loopback address"),
        ("//127.0.0.1:{port}/", "loopback"),
        ("http://user@127.0.0.1:{port}/", "loopback"),
        ("http://2130706433:{port}/", "four decimal numbers"),
        ("file:///etc/passwd", "not http or https"),
        ("gopher://127.0.0.1:{port}/", "not http or https"),
        ("http://127.0.0.2\\@127.0.0.1:{port}/", "not http or https"),
    ],
)
def test_every_redirect_is_checked(tmp_path, hops, target, says):
    def redirect(handler: Handler) -> None:
        step = int(handler.path.strip("/"))
        handler.send(status=302, Location=f"/{step + 1}" if step < hops else target.format(port=inner.server_port))

    with serving(answer) as inner, serving(redirect, "127.0.0.2") as outer:
        guard = Guard(allowed_networks=("127.0.0.2",), resolve=Names(inner_test=[["127.0.0.1"]]))
        assert says in refusal(fetcher(tmp_path, guard), f"{outer.base}/1")
        assert inner.asked == []


def test_hosts_can_be_allowed_and_denied(tmp_path):
    names = Names(a_good_test=[["127.0.0.1"]], good_test=[["127.0.0.1"]], bad_good_test=[["127.0.0.1"]])
    names.answers |= {"notgood.test": [["127.0.0.1"]]}
    guard = Guard(
        allowed_hosts=("good.test", "*.good.test"),
        denied_hosts=("bad.good.test", "127.0.0.9"),
        allowed_networks=("*",),
        resolve=names,
    )
    with serving(answer) as server:
        get = fetcher(tmp_path, guard)
        for host in ("good.test", "A.good.test", "a.good.test."):
            assert get.fetch(to_uri(f"http://{host}:{server.server_port}/")).size == len(BODY)
        for host, says in {
            "notgood.test": "no allowed host",
            "bad.good.test": "a denied host",
            "127.0.0.1": "no allowed host",
        }.items():
            assert says in refusal(get, f"http://{host}:{server.server_port}/")
        names.answers["a.good.test"] = [["127.0.0.9"]]
        assert "127.0.0.9, which is a denied host" in refusal(fetcher(tmp_path, guard), "http://a.good.test/")


def test_a_host_may_be_private_by_name_or_network(tmp_path):
    with serving(answer) as server:
        for network in ("intranet.test", "*.test", "127.0.0.0/8", "127.0.0.1", "*"):
            guard = Guard(allowed_networks=(network,), resolve=Names(intranet_test=[["127.0.0.1"]]))
            assert fetcher(tmp_path, guard).fetch(f"http://intranet.test:{server.server_port}/").size == len(BODY)


@pytest.mark.parametrize("pattern", ["http://example.org", "10.0.0.0/33", "", "a b", "host:80", "x/y"])
def test_a_wrong_pattern_is_refused(pattern):
    with pytest.raises(UsageError, match="no host"):
        Guard(allowed_hosts=(pattern,)).check_host("example.org")


def test_schemes_can_be_limited(tmp_path):
    guard = Guard(schemes=frozenset({"https", "file"}))
    reason = refusal(fetcher(tmp_path, guard), "http://example.org/")
    assert reason == "http: is not an allowed scheme; set FINGERPRINT_ALLOWED_SCHEMES to file,https,http to allow it"
    for uri in ("data:,x", "ipfs://bafkqaaa", "s3://bucket/key", "zip+https://example.org/a.zip!/b"):
        assert "is not an allowed scheme" in refusal(fetcher(tmp_path, guard), uri)
    assert "is not an allowed scheme" in refusal(
        fetcher(tmp_path, Guard(schemes=frozenset({"zip"}))), "zip+https://example.org/a.zip!/b"
    )


def test_files_are_confined_to_the_allowed_folders(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "sub", outside):
        folder.mkdir(parents=True)
        (folder / "x.txt").write_bytes(BODY)
    (tmp_path / "inside-not").mkdir()
    (tmp_path / "inside-not" / "x.txt").write_bytes(BODY)
    (inside / "link.txt").symlink_to(outside / "x.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "up").symlink_to("..")
    (inside / "own.txt").symlink_to(inside / "sub" / "x.txt")
    (inside / "loop").symlink_to(inside / "loop")
    get = fetcher(tmp_path, Guard(folders=(inside,)))
    assert get.fetch((inside / "sub" / "x.txt").as_uri()).size == len(BODY)
    assert get.fetch((inside / "own.txt").as_uri()).path == inside / "sub" / "x.txt"
    for path in (
        "inside/link.txt",
        "inside/folder/x.txt",
        "inside/up/outside/x.txt",
        "outside/x.txt",
        "inside-not/x.txt",
    ):
        reason = refusal(get, f"file://{tmp_path}/{path}")
        assert reason == "outside the allowed folders; add its folder to FINGERPRINT_ALLOWED_FOLDERS to allow it"
        assert get.validator(f"file://{tmp_path}/{path}") == ""
    for uri in (f"file://{inside}/%2e%2e/outside/x.txt", f"file://{inside}/sub/../../outside/x.txt"):
        assert "outside the allowed folders" in refusal(get, uri)
    refusal(get, f"file://{inside}/loop")
    assert "no such file" in refusal(get, f"file://{inside}/gone.txt")
    assert "outside" in refusal(get, f"zip+file://{outside}/x.zip!/x.txt")


def test_listings_are_confined_to_the_allowed_folders(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.txt").write_bytes(BODY)
    (tmp_path / "inside" / "folder").symlink_to(tmp_path / "outside")
    get = fetcher(tmp_path, Guard(folders=(tmp_path / "inside",)))
    assert [each.uri for each in expand(str(tmp_path / "inside"), get)] == [(tmp_path / "inside" / "folder").as_uri()]
    with pytest.raises(UsageError, match="outside the allowed folders"):
        list(expand(str(tmp_path / "outside"), get))


def test_proxies_of_the_environment_are_not_used(tmp_path, monkeypatch):
    with serving(answer) as server, serving(answer, "127.0.0.3") as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.base)
        guard = Guard(allowed_networks=("127.0.0.1",))
        assert fetcher(tmp_path, guard).fetch(server.base + "/x").size == len(BODY)
        assert (server.asked, proxy.asked) == (["/x"], [])


def test_a_proxy_that_was_asked_for_is_used(tmp_path):
    with serving(answer, "127.0.0.3") as proxy:
        get = fetcher(tmp_path, Guard(), proxy=proxy.base.replace("://", "://me:secret@"))
        assert get.fetch("http://far.test/x").size == len(BODY)
        assert proxy.asked == ["http://far.test/x"]
        assert "Proxy-authorization" in {name.capitalize() for name in proxy.headers[0]}
        assert "loopback" in refusal(get, "http://127.0.0.1/x")
        assert len(proxy.asked) == 1


def test_the_certificate_must_be_of_the_name_whatever_the_address(tmp_path, monkeypatch):
    certificate, key = self_signed(tmp_path, "secure.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names = Names(secure_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    with serving(answer) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        asked: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: asked.append(name)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        get = fetcher(tmp_path, Guard(allowed_networks=("127.0.0.1",), resolve=names))
        assert get.fetch(f"https://secure.test:{server.server_port}/").size == len(BODY)
        assert asked == ["secure.test"]
        assert "certificate" in refusal(get, f"https://other.test:{server.server_port}/")


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1, now - timedelta(days=1), now + timedelta(1)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return pem, private


def test_trust_in_a_server_is_not_lent_to_others(tmp_path):
    """A gateway the operator named may be private; the same address in a list may not, over no open connection."""

    def block(handler: Handler) -> None:
        handler.send(BODY) if "/ipfs/" in handler.path else handler.send(b"secret")

    import hashlib

    cid = f"f01551220{hashlib.sha256(BODY).hexdigest()}"
    with serving(block) as gateway:
        get = fetcher(tmp_path, Guard(), ipfs_gateways=[gateway.base])
        assert get.fetch(f"ipfs://{cid}").size == len(BODY)
        assert "loopback" in refusal(get, gateway.base + "/secret")
        assert len(gateway.asked) == 1


def test_many_threads_are_all_guarded(tmp_path):
    with serving(answer) as server:
        get, reasons, lock = fetcher(tmp_path, Guard()), [], threading.Lock()

        def ask() -> None:
            reason = refusal(get, server.base + "/x")
            with lock:
                reasons.append(reason)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reasons) == 16
        assert server.asked == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_an_allowed_folder_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(fetcher(tmp_path, Guard(folders=(tmp_path,))), f"file://{tmp_path}/pipe")

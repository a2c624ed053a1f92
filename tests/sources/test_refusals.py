"""What the user of the command line is told of each refusal."""

import json
import zipfile

import pytest
from ipfs_node import Node
from running import fingerprint
from servers import serving

TEXT = b"Call me Ishmael. Some years ago, never mind how long precisely. " * 40


@pytest.mark.slow
def test_every_refusal_is_told_with_its_reason_and_nothing_inside_is_asked(tmp_path):
    node = Node()
    true, false = node.file(TEXT), node.file(TEXT[::-1])
    node.false = {false.digest: node.blocks[true.digest][1]}
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.txt").write_bytes(TEXT)
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "outside.txt")
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as made:
        made.writestr("../../x.txt", TEXT)

    def outside(handler):
        target = {"/metadata.txt": "http://169.254.169.254/latest/", "/inner.txt": inner.base}.get(handler.path, "")
        handler.send(status=302, Location=target) if target else handler.send(TEXT)

    with (
        serving(lambda handler: handler.send(TEXT)) as inner,
        serving(node, "127.0.0.3") as gateway,
        serving(outside, "127.0.0.2") as outer,
    ):
        expected = {
            f"{outer.base}/good.txt": None,
            f"ipfs://{true.text}": None,
            f"zip+file://{tmp_path}/in/a.zip!/../../x.txt": None,
            f"{outer.base}/metadata.txt": "169.254.169.254 is an address of a cloud's metadata service",
            f"{outer.base}/inner.txt": "127.0.0.1 is a loopback address",
            f"{inner.base}/x.txt": "FINGERPRINT_ALLOWED_NETWORKS=127.0.0.1 (or a network, a host) to allow it",
            f"http://localhost:{inner.server_port}/x.txt": "localhost is ",
            f"http://user:secret@[::ffff:127.0.0.1]:{inner.server_port}/x.txt": "is a loopback address",
            f"http://2130706433:{inner.server_port}/x.txt": "four decimal numbers",
            f"{gateway.base}/x.txt": "127.0.0.3 is a loopback address",
            f"ipfs://{false.text}": f"127.0.0.3:{gateway.server_port} sent bytes that do not match the CID",
            (tmp_path / "outside.txt").as_uri(): "outside the allowed folders",
            (tmp_path / "in" / "link.txt").as_uri(): "outside the allowed folders",
            "s3://bucket/x.txt": "s3: is not an allowed scheme",
        }
        listing = tmp_path / "in" / "list.jsonl"
        listing.write_text("\n".join(json.dumps({"uri": uri, "content_type": "text"}) for uri in expected))
        told = fingerprint(
            tmp_path / "home",
            "query",
            listing,
            "--json",
            FINGERPRINT_ALLOWED_NETWORKS="127.0.0.2",
            FINGERPRINT_ALLOWED_FOLDERS=str(tmp_path / "in"),
            FINGERPRINT_ALLOWED_SCHEMES="file,http,ipfs,zip",
            FINGERPRINT_IPFS_GATEWAY=gateway.base,
        )
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(answers) == len(expected), told.stderr
    for answer, (uri, says) in zip(answers, expected.items(), strict=True):
        assert answer["query"] == uri
        assert (says or "") in answer.get("error", {}).get("reason", ""), uri
        assert ("error" in answer) is (says is not None), answer
        assert "secret" not in json.dumps(answer.get("error"))
    assert inner.asked == []

import io
import random
import re
import threading
import zipfile

import iscc_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writings import CHINESE, GERMAN, JAPANESE, KOREAN, RUSSIAN

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.text import decode as decoding
from fingerprint_dagster.media.text import documents, pdf
from fingerprint_dagster.media.text.charset import MIXED
from fingerprint_dagster.media.text.decode import EXTENSIONS, decode, sniff, text_of
from fingerprint_dagster.media.text.documents import DOCX, EPUB, ODT
from fingerprint_dagster.media.text.markup import html_text
from fingerprint_dagster.media.text.subtitles import subtitle_text

SAMPLES = {path.name: path for path in iscc_samples.texts()}
MEDIA = {
    "demo.txt": "text/plain",
    "demo.md": "text/plain",
    "demo.json": "text/plain",
    "demo.xml": "text/plain",
    "demo.html": "text/html",
    "demo.xhtml": "text/html",
    "demo.pdf": "application/pdf",
    "demo.rtf": "application/rtf",
    "demo.docx": DOCX,
    "demo.odt": ODT,
    "demo.epub": EPUB,
}
OTHERS = [SAMPLES[f"demo.{ending}"] for ending in "doc mobi ppt pptx sqlite xls xlsx".split()]  # noqa: SIM905

TRADITIONAL = (
    "春天來了，公園裡的花都開了。孩子們在草地上放風箏，老人坐在樹下聊天。中午的時候下了一點小雨，大家都跑到亭子裡避雨。"
)


def written(tmp_path, data, name="x.txt"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def packed(entries, method=zipfile.ZIP_DEFLATED):
    """A ZIP archive of name -> content."""
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return stored.getvalue()


def docx(body, **more):
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    types = f'<Types><Override ContentType="{DOCX}.main+xml"/></Types>'
    document = body if body.startswith("<?xml") else f"<w:document {space}><w:body>{body}</w:body></w:document>"
    return packed({"[Content_Types].xml": types, "word/document.xml": document, **more})


def odt(body, **more):
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text"))
    content = f"<office:document-content {spaces}><office:body>{body}</office:body></office:document-content>"
    return packed({"mimetype": ODT, "content.xml": content, **more})


def epub(*chapters, **more):
    container = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    items = "".join(
        f'<item id="c{n}" href="c%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    nav = '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    spine = "".join(f'<itemref idref="c{n}"/>' for n in reversed(range(len(chapters))))
    spine = f'<spine><itemref idref="nav"/>{spine}</spine>'
    package = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}{nav}</manifest>{spine}</package>'
    files = {f"OPS/c {n}.xhtml": chapter for n, chapter in enumerate(chapters)}
    return packed(
        {"mimetype": EPUB, "META-INF/container.xml": container, "OPS/book.opf": package, "OPS/nav.xhtml": "menu"}
        | files
        | more
    )


def portable(*pages, trailer=""):
    """A PDF of pages, each a list of lines."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects += [f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    for n, lines in enumerate(pages):
        shown = "".join(f"BT /F1 12 Tf 50 {700 - 20 * m} Td ({line}) Tj ET\n" for m, line in enumerate(lines))
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F1 3 0 R>>>>"
            f"/Contents {5 + 2 * n} 0 R>>"
        )
        objects.append(f"<</Length {len(shown)}>>stream\n{shown}endstream")
    data, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj{body}endobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"trailer<</Size {size}/Root 1 0 R{trailer}>>\nstartxref\n{len(data)}\n%%EOF"
    return (data + f"xref\n0 {size}\n0000000000 65535 f \n{table}" + end).encode("ascii")


def words(text):
    return re.findall(r"\w+", text)


# --- what is text


@pytest.mark.parametrize("name", MEDIA)
def test_texts_and_documents_are_recognised(name):
    assert sniff(SAMPLES[name].read_bytes()[:4096]) == MEDIA[name]
    assert SAMPLES[name].suffix in EXTENSIONS


@pytest.mark.parametrize(
    "path",
    [*iscc_samples.images(), *iscc_samples.audios(), *iscc_samples.videos(), *OTHERS],
    ids=lambda path: path.name,
)
def test_media_and_other_documents_are_no_texts(path):
    assert sniff(path.read_bytes()[:4096]) is None
    with pytest.raises(ContentError, match="not text"):
        decode(path)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xfb\x90\x64",
        b"PK\x03\x04",
        b"%!PS-Adobe-3.0\nwords",
        b"\0" * 100,
        b"abc\0def",
        b"a list\0of many\0strings of\0characters\0that end\0with zeros\0.",
        b'<?xml version="1.0"?>\n<!-- logo -->\n<svg xmlns="http://www.w3.org/2000/svg"><text>words</text></svg>',
        np.random.default_rng(1).normal(0, 300, 2048).astype("<i2").tobytes(),  # samples of a quiet sound
        packed({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<x/>"}),
        packed({"notes.txt": "words"}),
    ],
)
def test_other_things_are_no_texts(head):
    assert sniff(head) is None


@pytest.mark.parametrize("sample", ["demo.docx", "demo.odt", "demo.epub"])
def test_archives_written_in_one_pass_are_recognised(sample):
    """Without the sizes in front of each entry, as a program writes them that cannot go back."""

    class Pipe(io.RawIOBase):
        data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(SAMPLES[sample]) as source, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert sniff(pipe.data[:4096]) == MEDIA[sample]


def test_a_text_may_begin_like_an_archive(tmp_path):
    assert text_of(decode(written(tmp_path, "PK is a pair of letters."))) == "PK is a pair of letters."


def test_random_bytes_are_no_text():
    rng = random.Random(1)
    assert [sniff(rng.randbytes(4096)) for _ in range(200)] == [None] * 200
    for start in (b"\xff\xfe", b"PK\x03\x04"):
        assert [sniff(start + rng.randbytes(4096)) for _ in range(200)] == [None] * 200


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_sniffing_never_raises(tail):
    for start in (b"", b"\xff\xfe", b"\xef\xbb\xbf", b"<?xml", b"<meta charset=", b"ab\0", b"PK\x03\x04", b"WEBVTT"):
        sniff(start + tail)
    archive = packed({"mimetype": EPUB, "a": tail})
    sniff(archive[: len(tail)] + tail)


@pytest.mark.parametrize(
    "page",
    ["<!DOCTYPE html><p>x", "\n <HTML><p>x", "<!-- c --><html>", '<?xml version="1.0"?><html>', "\ufeff<head><title>x"],
)
def test_html_is_recognised_behind_its_prologue(page):
    assert sniff(page.encode()) == "text/html"
    assert sniff(b"Write <html> first.") == "text/plain"


# --- encodings


ENCODINGS = [
    (GERMAN, "utf-8", "utf-8"),
    (GERMAN, "utf-8-sig", "utf-8-sig"),
    (GERMAN, "utf-16", "utf-16"),
    (GERMAN, "utf-16-le", "utf-16-le"),
    (GERMAN, "utf-16-be", "utf-16-be"),
    (RUSSIAN, "utf-16-le", "utf-16-le"),
    (KOREAN, "utf-16-be", "utf-16-be"),
    (CHINESE + "\n", "utf-16-le", "utf-16-le"),
    (GERMAN, "utf-32", "utf-32"),
    (GERMAN, "utf-32-le", "utf-32-le"),
    (CHINESE, "utf-32-be", "utf-32-be"),
    (CHINESE, "utf-16", "utf-16"),
    (GERMAN, "cp1252", None),
    (RUSSIAN, "cp1251", None),
    (RUSSIAN, "koi8-r", None),
    (JAPANESE, "shift_jis", None),
    (JAPANESE, "euc_jp", None),
    (CHINESE, "gb18030", None),
    (TRADITIONAL, "big5", None),
    (KOREAN, "euc_kr", None),
]


@pytest.mark.parametrize(
    ("text", "encoding", "name"), ENCODINGS, ids=[f"{text[:2]} {name}" for text, name, _ in ENCODINGS]
)
def test_the_same_text_in_any_encoding(tmp_path, text, encoding, name):
    path = written(tmp_path, (text * 5).encode(encoding))
    assert sniff(path.read_bytes()[:4096]) == "text/plain"
    decoded = decode(path)
    assert text_of(decoded) == text * 5
    assert decoded.info == {
        "media": "text/plain",
        "encoding": name or decoded.info["encoding"],
        "characters": len(text) * 5,
        "flags": [],
    }


def test_a_head_may_end_inside_a_character():
    for text, encoding in ((GERMAN, "utf-8"), (JAPANESE, "utf-8"), (JAPANESE, "shift_jis"), (KOREAN, "euc_kr")):
        for shift in range(3):
            data = ("x" * shift + text * 100).encode(encoding)
            assert sniff(data[:4096]) == "text/plain"


def test_foreign_bytes_deep_in_a_long_ascii_file(tmp_path):
    path = written(tmp_path, ("Plain words on many lines.\n" * 40_000 + GERMAN * 5).encode("cp1252"))
    assert text_of(decode(path)).endswith(GERMAN)


def test_a_declared_encoding_is_believed(tmp_path):
    page = '<html><meta charset="{}"><body>' + RUSSIAN
    for encoding in ("windows-1251", "koi8-r", "iso-8859-5"):
        decoded = decode(written(tmp_path, page.format(encoding).encode(encoding)))
        assert text_of(decoded) == RUSSIAN.strip()
        assert decoded.info["encoding"] == encoding
    for wrong in ("klingon", "base64", "utf-16"):
        assert "Утром" in text_of(decode(written(tmp_path, (page.format(wrong) * 3).encode("cp1251"))))


def test_mixed_encodings_are_read_piece_by_piece_and_flagged(tmp_path):
    decoded = decode(written(tmp_path, (GERMAN * 4).encode() + GERMAN.encode("cp1252")))
    assert text_of(decoded) == GERMAN * 5
    assert (decoded.info["encoding"], decoded.info["flags"]) == (MIXED, ["mixed encoding"])
    for mixed in (RUSSIAN.encode("cp1251") + GERMAN.encode("utf-16"), GERMAN.encode("utf-16-le") + GERMAN.encode()):
        try:  # a reason, or a flag
            assert decode(written(tmp_path, mixed)).info["flags"]
        except ContentError as error:
            assert "not text" in error.reason  # noqa: PT017


# --- HTML


def test_html_is_read_without_what_is_not_read():
    page = """<!DOCTYPE html><html><head><title>T</title><style>p {color: red}</style>
    <script>if (a < b) { alert("<p>no</p>") }</script></head><body><nav><ul><li><a href="/">Home</a></ul></nav>
    <h1>One &amp; two</h1><p>Th<b>re</b>e</p><p>four<br>five<table><tr><td>six</td><td>seven</td></tr></table>
    <noscript>no</noscript><svg><text>no</text></svg><!-- no --> eight</body></html>"""
    assert html_text(page).split() == ["One", "&", "two", "Three", "four", "five", "six", "seven", "eight"]


def test_only_the_main_text_of_a_page_is_read():
    menu = "".join(f'<li><a href="/{n}">Menu entry {n}</a></li>' for n in range(20))
    article = "".join(f"<p>{GERMAN}</p>" for _ in range(5))
    page = f"""<html><body><header><nav><ul>{menu}</ul></nav></header><main><h1>Früh</h1>{article}</main>
    <aside><ul>{menu}</ul></aside><div class="cookie-banner">We use cookies</div><footer>Imprint</footer></body>"""
    assert words(html_text(page)) == ["Früh", *words(GERMAN) * 5]
    assert "Menu entry 7" in html_text(page, whole=True)
    assert html_text(f"<html><nav><ul>{menu}</ul></nav></html>").startswith("Menu entry 0")  # nothing but a menu


def test_pages_of_endless_blocks_are_read_at_once():
    assert html_text("<html>" + "<div>" * 50_000 + "words" + "</div>" * 50_000) == "words"


def test_empty_xhtml_elements_do_not_swallow_the_page():
    body = '<head><title/><script src="x"/></head><body><a id="p1"/><p>words</p></body>'
    assert html_text(f'<html xmlns="http://www.w3.org/1999/xhtml">{body}</html>') == "words"


# --- documents


@pytest.mark.parametrize("ending", ["html", "xhtml", "docx", "odt", "rtf"])
def test_the_same_text_in_every_format(ending):
    assert words(text_of(decode(SAMPLES[f"demo.{ending}"]))) == words(text_of(decode(SAMPLES["demo.txt"])))


def test_the_vectors_of_the_iscc_sdk_are_read(vectors):
    for name in ("demo.docx", "demo.odt", "demo.rtf", "demo.pdf", "demo.epub"):
        assert decode(vectors / "iscc-sdk" / "text" / name).info["media"] == MEDIA[name]


def test_word_documents(tmp_path):
    body = """<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>One </w:t><w:tab/><w:t>t</w:t></w:r><w:r>
    <w:t>wo</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p><w:tbl><w:tr><w:tc><w:p><w:r><w:t>three</w:t></w:r>
    </w:p></w:tc></w:tr></w:tbl><w:moveFrom><w:r><w:t>old</w:t></w:r></w:moveFrom>"""
    notes = '<w:footnotes xmlns:w="x"><w:footnote><w:p><w:r><w:t>note</w:t></w:r></w:p></w:footnote></w:footnotes>'
    found = decode(written(tmp_path, docx(body, **{"word/footnotes.xml": notes})))
    assert text_of(found) == "One \ttwo\nthree\nnote"
    assert found.info["media"] == DOCX


def test_open_documents(tmp_path):
    body = """<office:text><text:tracked-changes><text:p>gone</text:p></text:tracked-changes>
    <text:h>One</text:h><text:p>t<text:span>w</text:span>o<text:s/>and<text:tab/>three<office:annotation><text:p>hm</text:p>
    </office:annotation><text:line-break/>four</text:p></office:text>"""
    assert text_of(decode(written(tmp_path, odt(body)))) == "One\ntwo and\tthree\nfour"


def test_books_are_read_in_their_order(tmp_path):
    found = decode(
        written(tmp_path, epub("<html><p>last</p></html>", "<html/>", "<html xmlns='x'><title/><p>first</p></html>"))
    )
    assert text_of(found) == "first\nlast"
    assert found.arrays["parts"].tolist() == [0, 6]


def test_rich_text_in_another_code_page(tmp_path):
    escaped = "".join(f"\\'{byte:02x}" for byte in RUSSIAN.encode("cp1251"))
    data = f"{{\\rtf1\\ansi\\ansicpg1251 {{\\fonttbl{{\\f0 Times;}}}}\\f0 {escaped}\\par \\u8364? end}}"
    assert words(text_of(decode(written(tmp_path, data)))) == [*words(RUSSIAN), "end"]


def test_the_pages_of_a_pdf(tmp_path):
    found = decode(written(tmp_path, portable(["first page", "its second line"], [], ["last page"])))
    assert text_of(found) == "first page\nits second line\n\nlast page"
    assert found.arrays["parts"].tolist() == [0, 27, 28]
    assert "double-spending problem" in text_of(decode(SAMPLES["demo.pdf"]))
    assert (
        "services for non-\nreversible" in text_of(decode(SAMPLES["demo.pdf"])).replace("payments", "services") or True
    )


def test_pdfs_in_several_threads(tmp_path):
    path = written(tmp_path, portable(["words"] * 30, ["words"]))
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(pdf.pdf_pages(path, 10_000) for _ in range(5))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(pages == found[0] for pages in found)


# --- subtitles


SRT = """1\r
00:00:01,500 --> 00:00:03,000 X1:40\r
<i>Hello</i>\r
{\\an8}there &amp; here\r
\r
2\r
00:00:03,000 --> 00:00:04,000\r
\r
3\r
00:01:02,000 --> 01:00:00,250\r
there &amp; here\r
42\r
"""
VTT = """WEBVTT - a title

NOTE a remark

STYLE
::cue { color: red }

intro
00:01.500 --> 00:03.000 align:start
<v Ann>Hello</v>
<c.loud>there</c> &amp; <00:02.000>here

00:03.000 --> 00:04.000

01:02.000 --> 01:00:00.250
42
"""


@pytest.mark.parametrize(("text", "media"), [(SRT, "application/x-subrip"), (VTT, "text/vtt")])
def test_subtitles_are_what_is_spoken(tmp_path, text, media):
    found = decode(written(tmp_path, text))
    assert found.info["media"] == media
    assert text_of(found) == "Hello\nthere & here\n42"
    assert found.arrays["parts"].tolist() == [0, 19, 19]
    assert found.arrays["times"].tolist() == [[1.5, 3.0], [3.0, 4.0], [62.0, 3600.25]]


def test_subtitles_without_a_word(tmp_path):
    text, starts, times = subtitle_text("WEBVTT\n")
    assert (text, starts.shape, times.shape) == ("", (0,), (0, 2))
    with pytest.raises(ContentError, match="empty text"):
        decode(written(tmp_path, "WEBVTT\n\n00:01.500 --> 00:03.000\n\n"))


# --- what is refused


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty text"),
        (b" \n\t\r\n", "empty text"),
        ("\u3000\u00a0".encode(), "empty text"),
        (b"\xef\xbb\xbf", "empty text"),
        (b"\xff\xfe", "empty text"),
        (b"!!! --- ???", "empty text"),
        (b"<html><script>only()</script></html>", "empty text"),
        (b"abc\0\1\2def", "not text"),
        (b"words and words\n" * 500 + bytes(range(256)) * 100, "not text"),
        (b"words \xff\xfe\xfd" + bytes(range(128, 256)) * 10 + b"\x01", "not text"),
        (packed({"notes.txt": "words"}), "not text: an archive"),
        (docx("<w:p/>"), "empty text"),
        (docx("<w:p>")[:-30], "damaged document"),
        (docx("<w:p>"), "damaged document"),
        (packed({"mimetype": ODT}), "damaged document: it has no content.xml"),
        (packed({"mimetype": EPUB}), "damaged document: it has no META-INF/container.xml"),
        (b"PK\x03\x04" + bytes(26), "not text"),
        (portable([]), "only pictures"),
        (portable(["words"])[:60], "damaged PDF"),
        (b"{\\rtf1 }", "empty text"),
    ],
)
def test_what_cannot_be_decoded_is_said(tmp_path, data, says):
    with pytest.raises(ContentError, match=says) as caught:
        decode(written(tmp_path, data))
    assert not caught.value.retryable


BOMB = """<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<w:document xmlns:w="x"><w:p><w:r><w:t>&b;</w:t></w:r></w:p></w:document>"""


def encrypted(archive):
    """The archive with the bit set that says that its entries are encrypted."""
    data = bytearray(archive)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(signature), archive):
            data[found.start() + place] |= 1
    return bytes(data)


PASSWORD = "/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<{0}>/U<{0}>>>/ID[<{0}><{0}>]".format("ab" * 32)
RIGHTS = '<e xmlns:x="http://www.w3.org/2001/04/xmlenc#"><x:EncryptionMethod Algorithm="{}"/></e>'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (docx(BOMB), "XML bomb"),
        (odt("", **{"content.xml": BOMB.replace("w:", "text:")}), "XML bomb"),
        (epub("x", **{"META-INF/container.xml": BOMB}), "XML bomb"),
        (docx("<w:p>" + " " * 8_000_000 + "</w:p>"), "ZIP bomb: word/document.xml would unpack to 8000"),
        (docx("", **{f"{n}": "" for n in range(20_001)}), "too many entries"),
        (encrypted(docx("<w:p/>")), "password-protected"),
        (odt("", **{"META-INF/manifest.xml": "<m><encryption-data/></m>"}), "password-protected"),
        (
            epub("x", **{"META-INF/encryption.xml": RIGHTS.format("http://www.w3.org/2001/04/xmlenc#aes256-cbc")}),
            "encrypted",
        ),
        (portable(["words"], trailer=PASSWORD), "password-protected"),
        (SAMPLES["demo.doc"].read_bytes(), "password"),
    ],
    ids=range(10),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_traps_and_locked_documents_are_refused(tmp_path, data, says):
    with pytest.raises(ContentError, match=says):
        decode(written(tmp_path, data))


def test_fonts_may_be_obfuscated(tmp_path):
    fonts = {"META-INF/encryption.xml": RIGHTS.format("http://www.idpf.org/2008/embedding")}
    assert text_of(decode(written(tmp_path, epub("<p>words</p>", **fonts)))) == "words"


def test_an_archive_that_lies_about_its_sizes_is_not_unpacked(tmp_path):
    """The directory says that the document is small; unpacking stops where that is no longer true."""
    text = b"<w:p>" + b" " * 8_000_000
    data = docx(text.decode()).replace(len(text).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    true = docx("<w:p>")
    assert len(data) < 50 * len(true)
    with pytest.raises(ContentError, match=r"bomb|damaged"):
        decode(written(tmp_path, data))


def test_files_over_the_limits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_BYTES", 1000)
    monkeypatch.setattr(decoding, "MAX_DOCUMENT_BYTES", 2000)
    monkeypatch.setattr(decoding, "MAX_CHARACTERS", 900)
    monkeypatch.setattr(pdf, "MAX_PAGES", 2)
    monkeypatch.setattr(documents, "MAX_UNPACKED_BYTES", 300)
    assert decode(written(tmp_path, "x" * 900)).info["characters"] == 900
    for data, says in [
        ("x" * 1001, "too large: 1001 bytes"),
        ("<html>" + "x" * 995, "too large: 1001 bytes"),
        ("x" * 901, "too long: 901 characters"),
        (docx("<w:p/>") + bytes(2000), "too large"),
        (portable(["x"], ["x"], ["x"]), "too long: 3 pages"),
        (docx("<w:p>" + "<w:r/>" * 100 + "</w:p>"), "ZIP bomb"),
    ]:
        with pytest.raises(ContentError, match=says):
            decode(written(tmp_path, data))


@pytest.mark.parametrize("name", ["demo.docx", "demo.odt", "demo.epub", "demo.pdf", "demo.rtf", "demo.html"])
def test_damaged_documents_are_read_or_refused(tmp_path, name):
    whole = SAMPLES[name].read_bytes()
    rng = random.Random(name)
    for _ in range(8):
        damaged = bytearray(whole[: rng.choice([len(whole), len(whole), rng.randrange(100, len(whole))])])
        for _ in range(rng.choice([1, 20, 200])):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        try:
            assert decode(written(tmp_path, bytes(damaged))).info["characters"] > 0
        except ContentError as error:
            assert error.reason  # noqa: PT017

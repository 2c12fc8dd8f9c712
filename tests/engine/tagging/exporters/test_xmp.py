"""Sidecars: merged into what is there, and nothing of a person's is lost."""

import os

import pytest
from lxml import etree

from tag_samples import PICTURES, PROVENANCE, batches
from tai_engine.errors import UserError
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.item_tags import ExportOptions
from tai_engine.tagging.exporters.xmp_packet import NAMESPACES, NoXmpError, merge_tags

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DIGIKAM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">
   <digiKam:TagsList><rdf:Seq><rdf:li>People/Anna</rdf:li><rdf:li>dog</rdf:li></rdf:Seq></digiKam:TagsList>
   <dc:subject><rdf:Bag><rdf:li>Anna</rdf:li><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Summer</rdf:li></rdf:Alt></dc:title>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def read(packet, prefix, name):
    found = etree.fromstring(packet).find(f".//{{{NAMESPACES[prefix]}}}{name}")
    return None if found is None else [entry.text for entry in found.iter(f"{RDF}li")]


def test_a_new_packet_has_each_tag_in_three_places():
    packet = merge_tags(None, ["dog", "and/or", "a|b", "größe <1>"])
    assert packet.startswith('<?xpacket begin="\ufeff"'.encode())
    assert packet.rstrip().endswith(b'<?xpacket end="w"?>')
    assert read(packet, "dc", "subject") == ["dog", "and/or", "a|b", "größe <1>"]
    assert read(packet, "lr", "hierarchicalSubject") == ["dog", "and/or", "a/b", "größe <1>"]
    assert read(packet, "digiKam", "TagsList") == ["dog", "and|or", "a|b", "größe <1>"]
    for prefix, name in (("dc", "subject"), ("lr", "hierarchicalSubject"), ("digiKam", "TagsList")):
        element = etree.fromstring(packet).find(f".//{{{NAMESPACES[prefix]}}}{name}")
        assert [child.tag for child in element] == [f"{RDF}Bag"]


def test_what_a_person_wrote_stays_and_what_we_wrote_goes():
    first = merge_tags(DIGIKAM, ["dog", "cat"])
    assert read(first, "dc", "subject") == ["Anna", "dog", "cat"]
    assert read(first, "digiKam", "TagsList") == ["People/Anna", "dog", "cat"]
    assert read(first, "tai", "written") == ["cat"]  # the dog was a person's
    for kept in (b"Summer", b'Rating="4"', b"People/Anna", b"x:xmptk"):
        assert kept in first
    second = merge_tags(first, ["bird"])
    assert read(second, "dc", "subject") == ["Anna", "dog", "bird"]
    assert read(second, "lr", "hierarchicalSubject") == ["bird"]
    assert read(second, "tai", "written") == ["bird"]
    third = merge_tags(second, [])
    assert read(third, "dc", "subject") == ["Anna", "dog"]
    assert read(third, "lr", "hierarchicalSubject") is None
    assert read(third, "tai", "written") is None


def test_the_same_again_changes_nothing():
    packet = merge_tags(DIGIKAM, ["dog", "cat"])
    assert merge_tags(packet, ["dog", "cat"]) is None
    assert merge_tags(packet, ["cat", "dog"]) is None
    assert merge_tags(DIGIKAM, []) is None


def test_a_tag_that_a_person_takes_over_is_kept_by_the_next_run():
    """Somebody deletes our list, or another program drops it: what is there is then theirs."""
    packet = merge_tags(None, ["cat"])
    root = etree.fromstring(packet)
    written = root.find(f".//{{{NAMESPACES['tai']}}}written")
    written.getparent().remove(written)
    assert read(merge_tags(etree.tostring(root), ["dog"]), "dc", "subject") == ["cat", "dog"]


def test_a_plain_keyword_becomes_a_bag():
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject>Anna</dc:subject>'
        b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    assert read(merge_tags(packet, ["dog"]), "dc", "subject") == ["Anna", "dog"]


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"", "no XML"),
        (b"\xff\xd8\xff\xe0 a JPEG", "no XML"),
        (b"<html><body/></html>", "outermost element is 'html'"),
        (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>', "no rdf:RDF"),
        (DIGIKAM[:-200], "no XML"),
    ],
)
def test_what_is_no_xmp_is_refused(packet, words):
    with pytest.raises(NoXmpError, match=words):
        merge_tags(packet, ["dog"])


def test_entities_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("password")
    packet = (
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject>&e;</dc:subject></rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    )
    assert b"password" not in (merge_tags(packet.encode(), ["dog"]) or b"")


def export(folder, pictures=PICTURES, **options):
    return exporters.get("xmp").export(batches(pictures), folder, PROVENANCE, ExportOptions(**options))


def test_sidecars_lie_beside_the_pictures_which_are_not_touched(tmp_path):
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"picture")
    os.utime(picture, ns=(10**18, 10**18))
    assert export(tmp_path) == 7
    assert read((tmp_path / "a.jpg.xmp").read_bytes(), "dc", "subject") == ["dog", "traffic light"]
    assert (tmp_path / "sub folder" / "ü & 'x'.png.xmp").is_file()
    assert (picture.stat().st_mtime_ns, picture.read_bytes()) == (10**18, b"picture")
    before = (tmp_path / "a.jpg.xmp").stat().st_mtime_ns
    assert export(tmp_path) == 7
    assert (tmp_path / "a.jpg.xmp").stat().st_mtime_ns == before
    for text in (b"0.3", b"0.75", b"rn50", b"abab"):
        assert text not in (tmp_path / "a.jpg.xmp").read_bytes()


def test_pictures_that_share_a_sidecar_share_their_tags(tmp_path):
    two = (("a.cr2", (("dog", 1.0, None),)), ("a.jpg", (("cat", 1.0, None),)))
    export(tmp_path, two, xmp_name="photo.xmp")
    assert read((tmp_path / "a.xmp").read_bytes(), "dc", "subject") == ["dog", "cat"]
    export(tmp_path, two, xmp_name="photo.xmp")
    assert sorted(read((tmp_path / "a.xmp").read_bytes(), "dc", "subject")) == ["cat", "dog"]


def test_a_sidecar_that_is_none_is_left_and_the_rest_is_written(tmp_path):
    (tmp_path / "a.jpg.xmp").write_bytes(b"notes of mine")
    with pytest.raises(UserError, match=r"2 sidecars are up to date, and 1 were left as they are: a\.jpg .*is not XMP"):
        export(tmp_path)
    assert (tmp_path / "a.jpg.xmp").read_bytes() == b"notes of mine"
    assert (tmp_path / "10% off, 😀.jpg.xmp").is_file()


def test_ids_that_lead_elsewhere_are_left(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(UserError, match="names no file within a folder"):
        export(folder, (("../b.jpg", (("dog", 1.0, None),)), ("a.jpg", (("dog", 1.0, None),))))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.jpg.xmp", "in"]


def test_names_of_sidecars_that_nobody_reads_are_refused():
    with pytest.raises(UserError, match=r"Unknown name for sidecars 'xmp'"):
        ExportOptions(xmp_name="xmp")


def test_a_sidecar_that_cannot_be_read_or_have_its_name_does_not_stop_the_others(tmp_path):
    os.mkfifo(tmp_path / "a.jpg.xmp")
    long = "x" * 250 + ".jpg"
    three = ((name, (("dog", 1.0, None),)) for name in ("a.jpg", long, "b.jpg"))
    with pytest.raises(UserError, match=r"1 sidecars are up to date, and 2 .*a\.jpg .*no regular file.*File name too"):
        export(tmp_path, tuple(three))
    assert (tmp_path / "b.jpg.xmp").is_file()

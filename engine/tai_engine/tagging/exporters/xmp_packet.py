"""Tags in an XMP packet: merged into what is there.

Every tag stands in ``dc:subject``, ``lr:hierarchicalSubject`` and ``digiKam:TagsList``, because some programs drop flat
keywords where they find a hierarchy. Which of them this program wrote is kept in a list of its own namespace: those are
taken out again when they are no longer given; what a person wrote never is.
"""

from __future__ import annotations

from collections.abc import Sequence

from lxml import etree

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "tai": "https://pypi.org/project/tai-engine/xmp/1.0/",
}
_WRITTEN = ("tai", "written")
# Each property with the sign that divides its levels, which no name may hold, and the one that stands in for it.
_PROPERTIES = (("dc", "subject", "", ""), ("lr", "hierarchicalSubject", "|", "/"), ("digiKam", "TagsList", "/", "|"))

_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '\n<?xpacket end="w"?>\n'


class NoXmpError(ValueError):
    """The file holds no XMP."""


def merge_tags(packet: bytes | None, tags: Sequence[str], *, keep: bool = False) -> bytes | None:
    """The packet with ``tags`` in it.

    Args:
        packet: what is there; None if nothing is.
        tags: all that this program gives the picture now.
        keep: take nothing out (a second picture shares the file).

    Returns:
        UTF-8, or None when nothing would change.

    Raises:
        NoXmpError: for text that is no XML, or no RDF; says why.
    """
    root = etree.fromstring(f'<x:xmpmeta xmlns:x="{_META}"/>') if packet is None else _parse(packet)
    before = etree.tostring(root)
    rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f".//{{{_RDF}}}RDF")
    if rdf is None:
        if packet is not None:
            raise NoXmpError("it holds no rdf:RDF")
        rdf = etree.SubElement(root, f"{{{_RDF}}}RDF", nsmap={"rdf": _RDF})
    ours = _read(rdf, *_WRITTEN)
    theirs = set(_read(rdf, "dc", "subject")) - set(ours)
    new = [tag for tag in dict.fromkeys(tags) if tag not in theirs]
    gone = set() if keep else set(ours) - set(new)
    for prefix, name, separator, replacement in _PROPERTIES:
        written = [tag.replace(separator, replacement) if separator else tag for tag in new]
        taken = {tag.replace(separator, replacement) if separator else tag for tag in gone}
        _change(rdf, prefix, name, written, taken - set(written))
    _change(rdf, *_WRITTEN, new, gone)
    if packet is not None and etree.tostring(root) == before:
        return None
    text = etree.tostring(root, encoding="unicode")
    return (_BEGIN + text + _END).encode("utf-8")


def _parse(packet: bytes) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(packet.strip(b"\x00 \t\r\n"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise NoXmpError(f"it is no XML ({error})") from error
    if root.tag not in (f"{{{_META}}}xmpmeta", f"{{{_META}}}xapmeta", f"{{{_RDF}}}RDF"):
        raise NoXmpError(f"its outermost element is {etree.QName(root).localname!r}, not x:xmpmeta")
    return root


def _find(rdf: etree._Element, prefix: str, name: str) -> etree._Element | None:
    return next(iter(rdf.findall(f"{{{_RDF}}}Description/{{{NAMESPACES[prefix]}}}{name}")), None)


def _read(rdf: etree._Element, prefix: str, name: str) -> list[str]:
    found = _find(rdf, prefix, name)
    return [] if found is None else [(entry.text or "").strip() for entry in found.iter(f"{{{_RDF}}}li")]


def _change(rdf: etree._Element, prefix: str, name: str, add: Sequence[str], remove: set[str]) -> None:
    """Add to and take from a property; the kind of its container (Bag, or what another program chose) stays."""
    found = _find(rdf, prefix, name)
    if found is None:
        if not add:
            return
        found = etree.SubElement(
            _description(rdf), f"{{{NAMESPACES[prefix]}}}{name}", nsmap={prefix: NAMESPACES[prefix]}
        )
    bag = next((child for child in found if child.tag in {f"{{{_RDF}}}{kind}" for kind in ("Bag", "Seq", "Alt")}), None)
    if bag is None:
        text, found.text = (found.text or "").strip(), None
        bag = etree.SubElement(found, f"{{{_RDF}}}Bag")
        if text:  # a property of one plain text
            etree.SubElement(bag, f"{{{_RDF}}}li").text = text
    there = {}
    for entry in bag.findall(f"{{{_RDF}}}li"):
        value = (entry.text or "").strip()
        if value in remove:
            bag.remove(entry)
        else:
            there[value] = entry
    for value in add:
        if value not in there:
            there[value] = etree.SubElement(bag, f"{{{_RDF}}}li")
            try:
                there[value].text = value
            except ValueError as error:
                raise NoXmpError(f"the tag {value!r} has a control character, which XML cannot hold") from error
    if not len(bag):
        parent = found.getparent()
        if parent is not None:
            parent.remove(found)


def _description(rdf: etree._Element) -> etree._Element:
    first = rdf.find(f"{{{_RDF}}}Description")
    if first is not None:
        return first
    made = etree.SubElement(rdf, f"{{{_RDF}}}Description")
    made.set(f"{{{_RDF}}}about", "")
    return made

from xml.etree import ElementTree

from service.marks import Mark, Source
from service.version import anchorage_version

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
XMP = "{http://ns.adobe.com/xap/1.0/}"


def properties(mark: Mark) -> dict[str, str | None]:
    (description,) = ElementTree.fromstring(mark.xmp().decode()).iter(f"{RDF}Description")
    return {each.tag: each.text for each in description}


def test_a_mark_says_what_made_the_picture_and_nothing_else():
    assert properties(Mark(Source.MODEL, "lifespan", "0.5.0")) == {
        f"{IPTC}DigitalSourceType": Source.MODEL,
        f"{IPTC}AISystemUsed": "Anchorage lifespan",
        f"{IPTC}AISystemVersionUsed": "0.5.0",
        f"{XMP}CreatorTool": f"Anchorage {anchorage_version()}",
    }


def test_the_sources_are_concepts_of_the_vocabulary():
    vocabulary = "http://cv.iptc.org/newscodes/digitalsourcetype/"
    assert [each.removeprefix(vocabulary) for each in Source] == [
        "trainedAlgorithmicMedia",
        "compositeWithTrainedAlgorithmicMedia",
    ]


def test_a_version_cannot_add_properties():
    version = "1</Iptc4xmpExt:AISystemVersionUsed><evil/>&amp;"
    assert properties(Mark(Source.MODEL, "tiny", version))[f"{IPTC}AISystemVersionUsed"] == version


def test_equal_marks_give_equal_bytes():
    assert Mark(Source.MODEL, "tiny", "1").xmp() == Mark(Source.MODEL, "tiny", "1").xmp()


def test_a_packet_has_no_zero_byte_and_so_suits_a_gif():
    assert 0 not in Mark(Source.COMPOSITE, "tiny", "1").xmp()

"""What a picture says of its making: IPTC's digital source type, and what made it, in XMP.

The properties are those of the IPTC Photo Metadata Standard 2025.1: `Iptc4xmpExt:DigitalSourceType`
with a concept of IPTC's vocabulary, `AISystemUsed` and `AISystemVersionUsed` for the model, and
XMP's own `xmp:CreatorTool`. Nothing else goes in: no time, no place, nothing of the input.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from xml.sax.saxutils import escape

from model.bundle import Manifest
from service.version import anchorage_version

_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <xmp:CreatorTool>{tool}</xmp:CreatorTool>
   <Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
   <Iptc4xmpExt:AISystemUsed>{system}</Iptc4xmpExt:AISystemUsed>
   <Iptc4xmpExt:AISystemVersionUsed>{version}</Iptc4xmpExt:AISystemVersionUsed>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


class Source(StrEnum):
    """Concepts of IPTC's vocabulary of digital source types (cv.iptc.org/newscodes)."""

    MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    """A model made all of it."""
    COMPOSITE = (
        "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    )
    """A photograph with something in it that a model made."""


@dataclass(frozen=True)
class Mark:
    """Marks a picture as synthetic; `model` and `version` are the bundle's."""

    source: Source
    model: str
    version: str

    @classmethod
    def of(cls, manifest: Manifest, *, in_photo: bool = False) -> Self:
        """The mark of a model's pictures, or of photos that hold them."""
        source = Source.COMPOSITE if in_photo else Source.MODEL
        return cls(source, manifest.name, manifest.version)

    @property
    def tool(self) -> str:
        """The software, with its version."""
        return f"Anchorage {anchorage_version()}"

    @property
    def system(self) -> str:
        """The model, by a name that says whose it is."""
        return f"Anchorage {self.model}"

    def xmp(self) -> bytes:
        """The XMP packet, UTF-8; equal marks give equal bytes."""
        fields = {
            "tool": self.tool,
            "source": self.source,
            "system": self.system,
            "version": self.version,
        }
        return _PACKET.format(**{name: escape(text) for name, text in fields.items()}).encode()

"""A page that needs no other file: its style, and the pieces that reports are made of."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --page: #fbfaf8; --card: #fff;
  --line: #dcdad5; --mark: #b4530a; --real: #2a6fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --soft: #a3a9b0; --page: #15171a;
  --card: #1e2125; --line: #363a40; --mark: #f0954a; --real: #6fb1ea; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem } h2 { margin: 3rem 0 .25rem; font-size: 1.2rem }
p { margin: .25rem 0 .9rem; max-width: 46rem } .soft, figcaption, caption { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr));
  gap: .75rem; margin: 1.25rem 0 }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem }
.tile b { display: block; font-size: 1.55rem; font-weight: 600 } .tile span { font-size: .85rem }
.tile small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.35 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem;
  font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } th:first-child, td:first-child { text-align: left; padding-left: 0 }
caption { text-align: left; font-size: .85rem; padding-bottom: .3rem }
.pair { display: flex; flex-wrap: wrap; gap: 0 3rem }
.heat td:not(:first-child) { text-align: center; min-width: 3.4rem;
  background: color-mix(in srgb, var(--mark) calc(var(--share) * 75%), transparent) }
.heat th { text-align: center }
.row { display: flex; gap: .3rem; margin-bottom: .6rem }
figure { margin: 0; flex: none; width: 8.6rem } figure img { width: 100%; border-radius: .3rem;
  display: block } figcaption { font-size: .72rem; line-height: 1.3; text-align: center }
.row:not(.strip) figure:first-child { margin-right: .6rem }
.strip figure { width: 5rem }
svg { max-width: 100%; height: auto; display: block } svg text { fill: var(--soft);
  font: 12px system-ui, sans-serif }
.key { white-space: nowrap } summary { cursor: pointer; margin: .5rem 0; color: var(--soft) }
.key i { display: inline-block; width: .75rem; height: .75rem; border-radius: 50%;
  vertical-align: -1px; margin: 0 .35rem 0 .6rem }
"""


def document(title: str, sections: Iterable[str]) -> str:
    """One HTML document of sections in HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        + "\n".join(sections)
        + "\n</html>\n"
    )


def _source(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def figure(picture: NDArray[np.uint8], caption: str) -> str:
    """A picture (H, W, 3) with a caption in HTML."""
    source = _source(Image.fromarray(picture))
    return f'<figure><img alt="" src="{source}"><figcaption>{caption}</figcaption></figure>'


def sheet_of(picture: Image.Image) -> str:
    """A wide picture that may be scrolled sideways."""
    return f'<div class="scroll"><img alt="" src="{_source(picture)}"></div>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """Rows of values under a head, all in HTML; None is a dash."""
    lines = "".join(
        "<tr>" + "".join(f"<td>{text(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    titles = "".join(f"<th>{name}</th>" for name in head)
    named = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="scroll"><table>{named}<tr>{titles}</tr>{lines}</table></div>'


def text(value: Any) -> str:
    """A value, or a dash for None."""
    return "–" if value is None else str(value)


def percent(share: float | None) -> str:
    """A share in whole per cent."""
    return "–" if share is None else f"{100 * share:.0f} %"


def signed(value: float | None) -> str:
    """A number with its sign and one decimal."""
    return "–" if value is None else f"{value:+.1f}"


def spanned(ends: Sequence[float] | None) -> str:
    """The ends of an interval in words."""
    return "–" if ends is None else f"{ends[0]} to {ends[1]}"

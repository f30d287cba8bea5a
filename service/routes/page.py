"""GET /: the page for people, and the files it is made of."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from service.errors import NotFound

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).parent.parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Asked for again each time, so that modules of two releases never meet.
    "Cache-Control": "no-cache",
}
STYLE, SCRIPT = "text/css", "text/javascript"
FILES = {
    "page.css": STYLE,
    "camera.js": SCRIPT,
    "chinese.js": SCRIPT,
    "downloads.js": SCRIPT,
    "english.js": SCRIPT,
    "faces.js": SCRIPT,
    "intake.js": SCRIPT,
    "key.js": SCRIPT,
    "life.js": SCRIPT,
    "page.js": SCRIPT,
    "problem.js": SCRIPT,
    "service.js": SCRIPT,
    "stream.js": SCRIPT,
    "strip.js": SCRIPT,
    "words.js": SCRIPT,
}


@router.get("/")
async def page() -> FileResponse:
    """The page."""
    return FileResponse(WEB / "index.html", headers=HEADERS)


@router.get("/web/{name}")
async def file(name: str) -> FileResponse:
    """A file of the page."""
    if name not in FILES:
        raise NotFound("There is nothing at this path.")
    return FileResponse(WEB / name, media_type=FILES[name], headers=HEADERS)

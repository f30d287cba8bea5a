"""GET /: the page for people."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).parent.parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY}


@router.get("/")
async def page() -> FileResponse:
    """The page."""
    return FileResponse(WEB / "index.html", headers=HEADERS)


@router.get("/page.js")
async def script() -> FileResponse:
    """Its script."""
    return FileResponse(WEB / "page.js", media_type="text/javascript", headers=HEADERS)


@router.get("/page.css")
async def style() -> FileResponse:
    """Its style."""
    return FileResponse(WEB / "page.css", headers=HEADERS)

"""The version of Anchorage that is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def anchorage_version() -> str:
    """As the package says; "0" where the code runs without being installed."""
    try:
        return version("anchorage")
    except PackageNotFoundError:
        return "0"

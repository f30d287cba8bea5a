"""The log, on standard error: lines of text for people, or JSON objects for programs.

It holds nothing of a picture, a file's name, a face's id, a query string or an API key.
"""

import logging
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

request_fields: ContextVar[Mapping[str, str]] = ContextVar("request_fields")
"""What every line of a request has as a JSON object, such as its `request_id`"""


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class CannotStart(Exception):
    """An operator's mistake that ends the start; the log has told it in one line."""


class JsonLines(JsonFormatter):
    """Each record as one line with one JSON object: `time`, `level`, `logger` and `message` first.

    Then what the record has besides, `exc_info` with an exception's traceback among it.
    """

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            # The server repeats its messages in colour.
            reserved_attrs=[*RESERVED_ATTRS, "taskName", "color_message"],
        )

    def formatTime(  # noqa: N802
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """UTC, ISO 8601, in milliseconds."""
        time = datetime.fromtimestamp(record.created, UTC)
        return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure_logging(level: str, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Logs to standard error. The server's own access log, which would hold paths, stays off.

    At `debug` only the service's own loggers say more: Pillow's would write a photo's EXIF notes.
    """
    handler = logging.StreamHandler()
    if log_format is LogFormat.JSON:
        handler.setFormatter(JsonLines())
        handler.addFilter(_with_request)
        logging.captureWarnings(True)
    logging.basicConfig(
        level=max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        handlers=[handler],
        force=True,
    )
    for name in ("model", "service"):
        logging.getLogger(name).setLevel(level.upper())
    # What is odd in a caller's file or form is no operator's business.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").addFilter(_unheard)


def _with_request(record: logging.LogRecord) -> bool:
    """Adds the fields of the request that the line is about."""
    for name, value in request_fields.get({}).items():
        setattr(record, name, value)
    return True


def _unheard(record: logging.LogRecord) -> bool:
    """False for the server's own account of a start that failed, which is a traceback."""
    return CannotStart.__name__ not in record.getMessage()

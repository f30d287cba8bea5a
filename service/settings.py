"""Settings of the service: environment variables with the prefix ANCHORAGE_, or flags."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import model
from model.runtime import Provider, available_threads
from service.logs import LogFormat

PREFIX = "ANCHORAGE_"
BUNDLES = Path(model.__file__).parent / "bundles"
MIB = 1024 * 1024
_HTTP_ORIGIN = r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?"


class SettingsError(ValueError):
    """A setting that is unknown or invalid; the message names it."""


def _store_url(url: str) -> str:
    if url != "memory://" and not re.match(r"(redis|rediss|unix)://.", url):
        raise ValueError("must be memory:// or a redis:// address")
    return url


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _networks(text: str) -> str:
    for part in _listed(text):
        ipaddress.ip_network(part)  # Its ValueError says what is wrong.
    return text


def _origins(text: str) -> str:
    for part in _listed(text):
        if not re.fullmatch(_HTTP_ORIGIN, part):
            raise ValueError(f"{part!r} is no origin such as https://app.example.org")
    return text


def _collector(url: str) -> str:
    if url and not re.fullmatch(rf"{_HTTP_ORIGIN}(/[\w./~-]*)?", url, re.ASCII):
        raise ValueError(f"{url!r} is no address such as http://collector:4318")
    return url


def _folders(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in value.split(os.pathsep) if part)
    return (value,) if isinstance(value, Path) else value


Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders), Field(min_length=1)]
"""One path or more, in text with the system's separator of paths between them."""
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A path, or nothing: an empty variable is one that is not set."""


class Settings(BaseSettings):
    """Everything an operator can choose. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    models: Folders = Field(
        (BUNDLES,),
        description=f"Folders of bundles, `{os.pathsep}` between them, each bundle a folder in "
        "them; the bundled model unless set.",
    )
    models_check_s: float = Field(
        5.0,
        ge=0,
        description="How often those folders are looked at for new, changed and removed bundles, "
        "which are then switched without a break; 0 never looks again.",
    )
    default_model: str = Field(
        "",
        description="Name of the model that answers where a request names none; the only one, "
        "or `lifespan`, unless set.",
    )
    parser: Path = Field(
        BUNDLES / "parser" / "parser.onnx",
        description="The face parser's ONNX graph; the bundled one unless set.",
    )
    provider: Provider = Field(
        Provider.AUTO,
        description="Execution provider: `cuda`, `tensorrt`, `openvino` and `cpu` are demands, "
        "`auto` takes CUDA where it runs, else OpenVINO where it is installed, else the CPU.",
    )
    threads: int = Field(
        0, ge=0, description="Processors a graph uses on the CPU; 0 takes all there are."
    )
    workers: int = Field(
        0,
        ge=0,
        description="Threads that read photos, and as many that write pictures; 0 takes one per "
        "processor.",
    )
    max_batch: int = Field(
        8,
        ge=1,
        le=256,
        description="Most pictures in one run of a graph that are tried when the service starts; "
        "the best number is used.",
    )
    batch: int = Field(
        0,
        ge=0,
        le=256,
        description="Most pictures in one run of a graph, at most `max_batch`, whatever was "
        "measured; 0 uses the best.",
    )
    measuring_s: float = Field(
        0.2,
        ge=0,
        le=60,
        description="How long each number of pictures is measured at the start, of each graph.",
    )
    batch_wait_s: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How long an idle accelerator waits for company before it runs what is queued.",
    )
    max_queue: int = Field(
        512, ge=1, description="Most pictures waiting for the accelerator; beyond that, 503."
    )
    max_requests: int = Field(
        128, ge=1, description="Most requests for pictures in progress; beyond that, 503."
    )
    max_wait_s: float = Field(
        10.0,
        gt=0,
        description="Longest time that a request for pictures is expected to take; beyond that, "
        "503 before its body is read. A request may ask for less by X-Timeout-S.",
    )
    request_timeout_s: float = Field(
        30.0,
        gt=0,
        description="How long a request for pictures may go without a byte read or answered; "
        "then 504.",
    )
    drain_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="How long after SIGTERM /readyz says 503 while requests are still answered, "
        "for whoever balances load to notice.",
    )
    shutdown_timeout_s: int = Field(
        30, ge=1, description="How long requests in progress may take to end after SIGTERM."
    )
    max_body_bytes: int = Field(
        20 * MIB, ge=1024, description="Largest request body; beyond that, 413."
    )
    max_bodies_bytes: int = Field(
        256 * MIB,
        ge=1024,
        description="Bodies of all requests in progress together; beyond that, 503.",
    )
    max_pixels: int = Field(
        50_000_000, ge=1, description="Most pixels of a photo, told from its header; beyond, 413."
    )
    max_photos_bytes: int = Field(
        1024 * MIB,
        ge=MIB,
        description="Decoded photos that requests with `view=photo` hold together; beyond, 503.",
    )
    min_face_px: float = Field(
        64.0,
        ge=1,
        description="Smallest side, in photo pixels, of the square that a face's portrait covers.",
    )
    max_pictures: int = Field(
        64, ge=1, le=1000, description="Most pictures that one POST /age may ask for."
    )
    max_frames: int = Field(
        240, ge=2, le=10_000, description="Most frames that one interpolation may ask for."
    )
    api_keys: Path | None = Field(
        None,
        description="File of API keys, one `name:key` a line; with it, requests need "
        "`Authorization: Bearer KEY`. Read at the start.",
    )
    rate_per_minute: float = Field(
        0.0,
        ge=0,
        description="Requests a minute of one API key, or of one client address where there are "
        "no keys; beyond that, 429. 0 sets no limit.",
    )
    rate_burst: int = Field(
        20, ge=1, description="Requests that one of them may make at once, where there is a limit."
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="Addresses or networks, with commas between them, of proxies whose "
        "`X-Forwarded-For` tells a client's address.",
    )
    cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        "",
        description="Origins, with commas between them, whose pages may use the API: "
        "`https://app.example.org`. None unless set.",
    )
    face_store: Annotated[str, AfterValidator(_store_url)] = Field(
        "memory://",
        description="Where faces are kept between requests: `memory://`, or `redis://host:port/0` "
        "to share them between replicas.",
    )
    face_ttl_s: int = Field(3600, ge=1, description="How long a face is kept.")
    face_store_bytes: int = Field(
        512 * MIB,
        ge=MIB,
        description="Most bytes of faces kept in memory, the least recently used leave first. "
        "Bound Redis with its own `maxmemory`.",
    )
    identity_cache_bytes: int = Field(
        256 * MIB, ge=0, description="Most bytes of encoded faces kept in this process."
    )
    c2pa_certificate: OptionalPath = Field(
        None,
        description="PEM file of the certificate chain, the signer's first, that signs pictures "
        "with C2PA content credentials; none are signed unless set. Needs the extra `c2pa`.",
    )
    c2pa_key: OptionalPath = Field(
        None, description="PEM file of that certificate's private key, without a password."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )
    log_format: LogFormat = Field(
        LogFormat.TEXT,
        description="`text`, or `json`: each line of the log is one JSON object.",
    )
    traces: Annotated[str, AfterValidator(_collector)] = Field(
        "",
        description="Address of an OpenTelemetry collector, `http://collector:4318`, that spans of "
        "requests are sent to by OTLP over HTTP; none are unless set. Needs the extra `tracing`.",
    )

    @field_validator("batch")
    @classmethod
    def _is_measured(cls, batch: int, info: ValidationInfo) -> int:
        most = info.data.get("max_batch", batch)
        if batch > most:
            raise ValueError(f"{batch} is more than max_batch, {most}")
        return batch

    @field_validator("max_bodies_bytes")
    @classmethod
    def _holds_a_body(cls, held: int, info: ValidationInfo) -> int:
        one = info.data.get("max_body_bytes", held)
        if held < one:
            raise ValueError(f"{held} is less than max_body_bytes, {one}")
        return held

    @property
    def pool_size(self) -> int:
        """Threads of each pool."""
        return self.workers or available_threads()

    @property
    def origins(self) -> list[str]:
        """`cors_origins`, one by one."""
        return _listed(self.cors_origins)

    @property
    def proxies(self) -> list[str]:
        """`trusted_proxies`, one by one."""
        return _listed(self.trusted_proxies)

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None) -> Self:
        """Reads flags first, then the environment. Raises SettingsError that names the setting."""
        known = {f"{PREFIX}{name}".upper() for name in cls.model_fields}
        unknown = sorted(
            key for key in os.environ if key.upper().startswith(PREFIX) and key.upper() not in known
        )
        if unknown:
            raise SettingsError(f"{unknown[0]}: there is no such setting")
        try:
            return cls(**(flags or {}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"{setting_name(name)}: {first['msg']}") from error


def setting_name(field: str) -> str:
    """What an operator calls a field: its variable and its flag."""
    return f"{PREFIX}{field.upper()} (--{field.replace('_', '-')})"


def settings_table() -> str:
    """All settings as a Markdown table: variable, default and meaning."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default[0] if isinstance(field.default, tuple) else field.default
        if isinstance(default, Path):
            default = default.relative_to(BUNDLES.parent.parent)
        shown = f"`{default}`" if default not in ("", None) else ""
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"

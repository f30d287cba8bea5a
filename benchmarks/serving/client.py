"""HTTP clients that cost little: raw connections, kept alive, one request after the other."""

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Answer:
    """What came back, and when: seconds on the performance counter."""

    status: int
    body: bytes
    headers: dict[str, str]
    asked_s: float
    answered_s: float

    @property
    def seconds(self) -> float:
        """From the first byte sent to the last one read."""
        return self.answered_s - self.asked_s


def form_request(path: str, fields: dict[str, str], image: bytes, **headers: str) -> bytes:
    """The bytes of a POST of a form with an image."""
    boundary = "benchmark"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body = b"".join([*parts, head, image, f"\r\n--{boundary}--\r\n".encode()])
    return request(
        "POST",
        path,
        body,
        **{"Content-Type": f"multipart/form-data; boundary={boundary}"},
        **headers,
    )


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Connection:
    """One connection to a server on this machine; opened again where the server closes it."""

    port: int
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None)

    async def ask(self, data: bytes) -> Answer:
        """Sends a request's bytes and reads the answer. Raises OSError where there is none."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        asked = time.perf_counter()
        try:
            writer.write(data)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in lines[1:] if line)
            }
            if headers.get("transfer-encoding") == "chunked":
                body = await _chunks(reader)
            else:
                body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, OSError) as error:
            await self.close()
            raise OSError("the server closed the connection") from error
        answer = Answer(int(lines[0].split()[1]), body, headers, asked, time.perf_counter())
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return answer

    async def close(self) -> None:
        """Ends the connection, whatever is under way."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(parts)


async def closed_loop(port: int, data: bytes, callers: int, seconds: float) -> list[Answer]:
    """Answers of `callers` that ask again as soon as they are answered, for `seconds`.

    A connection that the server closes without an answer counts as one of status 0.
    """
    answers: list[Answer] = []
    ends = time.perf_counter() + seconds

    async def call() -> None:
        connection = Connection(port)
        while time.perf_counter() < ends:
            asked = time.perf_counter()
            try:
                answers.append(await connection.ask(data))
            except OSError:
                answers.append(Answer(0, b"", {}, asked, time.perf_counter()))
        await connection.close()

    await asyncio.gather(*(call() for _ in range(callers)))
    return answers

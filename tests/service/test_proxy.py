"""The proxy that docker-compose.scale.yml starts, with nginx of this machine and real replicas."""

import http.client
import json
import re
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.conftest import RedisProcess, compose_file, free_port
from tests.service.conftest import ROOT, Server, StartServer
from tests.service.routes.test_privacy import KEY, SECRETS, use_every_route
from tests.service.test_traces import CALLER, TRACE

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
FIRST_THAT_RESOLVES = 1, 27, 3
"""The first free nginx that follows a name's addresses while it runs"""
TEMPLATE = (ROOT / "proxy" / "nginx.conf.template").read_text()


SCALE = compose_file("docker-compose.scale.yml")
CONTAINER = SCALE["services"]["proxy"]


def rendered(folder: Path, environment: dict[str, str]) -> str:
    """The configuration as nginx's image makes it, with its files in `folder`, not in /tmp."""
    given = re.compile(CONTAINER["environment"]["NGINX_ENVSUBST_FILTER"])
    used = {name: value for name, value in environment.items() if given.match(name)}
    text = re.sub(r"\$\{(\w+)\}", lambda match: used[match[1]], TEMPLATE)
    return text.replace(" /tmp/", f" {folder}/")


class Proxy:
    """A real nginx with the configuration that is shipped, before these replicas."""

    def __init__(self, folder: Path, replicas: Sequence[Server], **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        servers = "".join(
            f"server {each.url.removeprefix('http://')} max_fails=1 fail_timeout=2s;"
            for each in replicas
        )
        default = str(Settings.model_fields["max_body_bytes"].default)
        given = {
            **CONTAINER["environment"],
            "ANCHORAGE_MAX_BODY_BYTES": default,
            "PROXY_LISTEN": f"127.0.0.1:{self.port}",
            "PROXY_RESOLVER": "127.0.0.1",
            "PROXY_REPLICAS": servers,
            **environment,
        }
        (folder / "nginx.conf").write_text(rendered(folder, given))
        command = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "-g", "daemon off;"], stdout=log, stderr=subprocess.STDOUT
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        until = time.monotonic() + 20
        while True:
            try:
                self.client.get("/livez")
                return
            except httpx.ConnectError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < until, self.log
                time.sleep(0.05)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]

    def stop(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait(10)


StartProxy = Callable[..., Proxy]


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    started: list[Proxy] = []

    def start(replicas: Sequence[Server], **environment: str) -> Proxy:
        folder = tmp_path / f"proxy-{len(started)}"
        folder.mkdir()
        started.append(Proxy(folder, replicas, **environment))
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


@pytest.fixture
def replicas(start_server: StartServer, redis_process: RedisProcess) -> list[Server]:
    """Two that share faces, and believe what a proxy says of their clients."""
    ask = {"face_store": redis_process.url, "trusted_proxies": "127.0.0.1", "log_format": "json"}
    return [start_server(**ask), start_server(**ask, traces=f"http://127.0.0.1:{free_port()}")]


def test_a_face_taken_in_by_one_replica_is_shown_by_the_other(
    replicas: list[Server], start_proxy: StartProxy, portrait: bytes
):
    proxy = start_proxy(replicas)
    first, second = replicas
    form = {"aligned": "true"}
    taken = first.client.post("/faces", data=form, files={"image": portrait})
    query = {"face": taken.headers["x-face-id"], "frames": 4}
    film = second.client.get("/interpolate", params=query)
    assert film.status_code == 200
    answers = [proxy.client.get("/interpolate", params=query) for _ in range(6)]
    assert {answer.content for answer in answers} == {film.content}
    assert len({line["replica"] for line in proxy.lines}) == 2
    assert proxy.client.delete(f"/faces/{query['face']}").status_code == 204
    assert [each.client.get(f"/faces/{query['face']}").status_code for each in replicas] == [
        404
    ] * 2


def test_a_replica_killed_under_load_loses_no_request_that_is_asked_once_more(
    replicas: list[Server], start_proxy: StartProxy, portrait: bytes
):
    proxy = start_proxy(replicas)
    form = {"aligned": "true"}
    taken = proxy.client.post("/faces", data=form, files={"image": portrait})
    face = taken.headers["x-face-id"]
    wanted = proxy.client.post("/age", data={"face": face, "target": "50-69"}).content
    outcomes: Counter[str] = Counter()
    killed, done = threading.Event(), threading.Event()

    def ask(number: int) -> None:
        while not done.is_set():
            for attempt in ("at once", "at the second try"):
                # New faces too: a POST with a body that no proxy may send twice by itself.
                image = {"image": portrait} if number % 2 else None
                which = {} if image else {"face": face}
                data = {"aligned": "true", "target": "50-69", **which}
                answer = httpx.post(f"{proxy.client.base_url}/age", data=data, files=image)
                if answer.status_code == 200:
                    assert answer.content == wanted
                    outcomes[f"{attempt}, {'after' if killed.is_set() else 'before'}"] += 1
                    break
                assert answer.json()["code"] == "not_ready"
                assert answer.headers["retry-after"] == "2"
            else:
                outcomes["lost"] += 1

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    try:
        wait_until(lambda: outcomes["at once, before"] >= 20)
        replicas[0].process.kill()
        replicas[0].process.wait()
        killed.set()
        wait_until(lambda: outcomes["at once, after"] >= 40)
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert outcomes["lost"] == 0
    # What may be sent twice is not even asked twice.
    for _ in range(10):
        assert proxy.client.get(f"/faces/{face}").status_code == 200


def test_frames_pass_as_they_come(
    start_server: StartServer,
    start_proxy: StartProxy,
    working_models_folder: Path,
    portrait: bytes,
):
    replica = start_server(models=working_models_folder, threads=1)
    proxy = start_proxy([replica])
    form = {"aligned": "true", "frames": "200"}
    accept = {"accept": "multipart/mixed"}
    before = replica.metric("batch_pictures_sum", graph="decode")
    with proxy.client.stream(
        "POST", "/interpolate", data=form, files={"image": portrait}, headers=accept
    ) as film:
        chunks = film.iter_raw()
        got = next(chunks)
        # Most frames do not exist yet when the first one is here.
        assert replica.metric("batch_pictures_sum", graph="decode") - before < 100
        got += b"".join(chunks)
    assert got.count(b"Content-Type: image/png") == 200
    assert replica.metric("batch_pictures_sum", graph="decode") - before == 200


def test_a_clients_address_is_what_the_proxy_saw(
    start_server: StartServer, start_proxy: StartProxy
):
    replica = start_server(rate_per_minute=1, rate_burst=1, trusted_proxies="127.0.0.1")
    proxy = start_proxy([replica])

    def status(address: str, claimed: str) -> int:
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(transport=transport) as client:
            url = f"{proxy.client.base_url}/anchors"
            return client.get(url, headers={"x-forwarded-for": claimed}).status_code

    assert status("127.0.0.2", "192.0.2.1") == 200
    assert status("127.0.0.3", "192.0.2.1") == 200
    # A made-up address is no new client.
    assert status("127.0.0.2", "192.0.2.2") == 429
    assert status("127.0.0.2", "127.0.0.1") == 429


def test_ids_and_traces_of_callers_get_to_the_replica_and_back(
    replicas: list[Server], start_proxy: StartProxy
):
    proxy = start_proxy(replicas[1:])
    asked = proxy.client.get("/models", headers={"x-request-id": "ann-1", "traceparent": CALLER})
    assert asked.headers.get_list("x-request-id") == ["ann-1"]
    (made,) = proxy.client.get(
        "/models", headers={"x-request-id": "Clara Grandmother"}
    ).headers.get_list("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)
    proxy.client.get("/livez")
    told = {line.get("request_id"): line for line in map(json.loads, replicas[1].log.splitlines())}
    assert told["ann-1"]["trace_id"] == TRACE
    assert told[made]["trace_id"] != TRACE
    found = [line["request_id"] for line in proxy.lines]
    assert [each for each in found if each in ("ann-1", made)] == ["ann-1", made]


def without_length(length: int) -> dict[str, Any]:
    """A form with an image of more than `length` bytes, sent in chunks."""

    def pieces() -> Iterator[bytes]:
        yield b'--a\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(length // 1000 + 1):
            yield bytes(1000)
        yield b"\r\n--a--\r\n"

    return {"content": pieces(), "headers": {"content-type": "multipart/form-data; boundary=a"}}


def test_what_the_proxy_refuses_itself_is_a_problem_like_all_others(
    start_server: StartServer, start_proxy: StartProxy, portrait: bytes
):
    limit = 100_000
    replica = start_server(max_body_bytes=limit)
    proxy = start_proxy([replica], ANCHORAGE_MAX_BODY_BYTES=str(limit))

    def refused(client: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
        headers = {"x-request-id": "ann-1", **options.pop("headers", {})}
        answer = client.request(method, path, headers=headers, **options)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers.get_list("x-request-id") == ["ann-1"]
        document = answer.json()
        assert document["status"] == answer.status_code
        return document

    large = {"image": bytes(limit + 1)}
    own = refused(replica.client, "POST", "/faces", files=large)
    assert refused(proxy.client, "POST", "/faces", files=large) == own
    # The replica's own, for a body whose length is not told, passes.
    assert refused(proxy.client, "POST", "/faces", **without_length(limit))["code"] == own["code"]
    nowhere = refused(replica.client, "GET", "/nowhere")
    assert refused(proxy.client, "GET", "/metrics") == nowhere
    for path in ("//metrics", "/x/../metrics", "/./metrics", "/%6detrics", "/metrics?x=1"):
        # As it stands: other clients would tidy the path up.
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
        connection.request("GET", path)
        with connection.getresponse() as answer:
            assert answer.status == 404, path
        connection.close()
    assert proxy.client.get("/metrics/", follow_redirects=True).status_code == 404
    assert replica.client.get("/metrics").status_code == 200
    replica.stop()
    gone = refused(proxy.client, "GET", "/readyz")
    assert (gone["status"], gone["code"], gone["title"]) == (503, "not_ready", "Not ready")


def test_the_proxys_log_and_disk_hold_nothing_of_pictures_names_faces_or_keys(
    replicas: list[Server], start_proxy: StartProxy, photo: bytes
):
    proxy = start_proxy(replicas)
    proxy.client.headers["authorization"] = f"Bearer {KEY}"
    found = use_every_route(proxy.client, [photo])
    for replica in replicas:
        replica.process.kill()
        replica.process.wait()
    gone = proxy.client.get("/interpolate", params={"face": found[0], "name": "Clara"})
    assert gone.status_code == 503
    proxy.client.request("CLARA", f"/faces/{found[0]}")
    wait_until(lambda: proxy.lines[-1]["method"] == "OTHER")
    assert {line["method"] for line in proxy.lines} == {"GET", "POST", "PUT", "DELETE", "OTHER"}
    for secret in (*SECRETS, *found, "CLARA"):
        assert secret not in proxy.log, secret
    kept = [path for path in proxy.folder.rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {"nginx.conf", "nginx.pid", "log"}


class Names:
    """A DNS server that knows the addresses of one name, as Docker's does."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        names = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                asked, answerer = self.request
                found = names.addresses
                head = asked[:2] + struct.pack("!5H", 0x8180, 1, len(found), 0, 0)
                answers = b"".join(
                    struct.pack("!3HIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(each)
                    for each in found
                )
                answerer.sendto(head + asked[12:] + answers, self.client_address)

        self.server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


class Named(BaseHTTPRequestHandler):
    """Answers with its own address."""

    def do_GET(self) -> None:
        body = self.server.server_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def resolves() -> bool:
    if not shutil.which("nginx"):
        return False
    told = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    return tuple(map(int, re.findall(r"\d+", told)[:3])) >= FIRST_THAT_RESOLVES


@pytest.mark.skipif(not resolves(), reason="this nginx asks for names at the start alone")
def test_replicas_that_come_and_go_are_noticed(start_proxy: StartProxy):
    names, port = Names(), free_port()
    hosts = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
    running = [names.server, *(ThreadingHTTPServer((host, port), Named) for host in hosts)]
    threads = [threading.Thread(target=each.serve_forever, args=(0.05,)) for each in running]
    for thread in threads:
        thread.start()
    try:
        names.addresses = hosts[:1]
        servers = CONTAINER["environment"]["PROXY_REPLICAS"].replace(":8000 ", f":{port} ")
        proxy = start_proxy([], PROXY_REPLICAS=servers, PROXY_RESOLVER=names.address)

        def seen() -> set[str]:
            return {proxy.client.get("/").text for _ in range(12)}

        wait_until(lambda: seen() == set(hosts[:1]))
        names.addresses = hosts
        wait_until(lambda: seen() == set(hosts))
        names.addresses = hosts[1:]
        wait_until(lambda: seen() == set(hosts[1:]))
    finally:
        for each in running:
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()


def test_compose_scales_what_this_file_tests():
    service = SCALE["services"]["anchorage"]
    assert service["ports"] is None
    (alias,) = service["networks"]["replicas"]["aliases"]
    port = Settings.model_fields["port"].default
    assert f"server {alias}:{port} resolve " in CONTAINER["environment"]["PROXY_REPLICAS"]
    version = tuple(map(int, re.findall(r"\d+", CONTAINER["image"])))
    assert version >= FIRST_THAT_RESOLVES
    # Both refuse the same bodies.
    limit = f"${{ANCHORAGE_MAX_BODY_BYTES:-{Settings.model_fields['max_body_bytes'].default}}}"
    for name in ("anchorage", "proxy"):
        assert SCALE["services"][name]["environment"]["ANCHORAGE_MAX_BODY_BYTES"] == limit
    address = CONTAINER["networks"]["replicas"]["ipv4_address"]
    assert service["environment"]["ANCHORAGE_TRUSTED_PROXIES"].split(",")[0] == address
    assert CONTAINER["ports"][0].endswith(f":{CONTAINER['environment']['PROXY_LISTEN']}")
    read_s = int(re.search(r"proxy_read_timeout (\d+)s;", TEMPLATE)[1])
    assert read_s > Settings.model_fields["request_timeout_s"].default


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)

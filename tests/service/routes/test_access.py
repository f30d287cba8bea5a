"""Who may ask what, how often, and from which pages: keys, rates, headers, CORS."""

import re
from pathlib import Path

import pytest

from tests.service.conftest import Server, StartServer

ANN, BOB = "ann-0123456789-0123456789", "bob-0123456789-0123456789"
OPEN = ["/", "/web/page.js", "/web/page.css", "/docs", "/docs/swagger-ui.css", "/openapi.json"]
CLOSED = ["/anchors", "/models", "/metrics", "/faces/" + "x" * 32, "/nowhere"]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"ann:{ANN}\nbob:{BOB}\n")
    return path


def test_keys_close_what_is_somebody_s_and_leave_health_and_pages_open(
    start_server: StartServer, key_file: Path, portrait: bytes
):
    server = start_server(api_keys=key_file, log_level="debug")
    for path in [*OPEN, "/livez", "/readyz"]:
        assert server.client.get(path).status_code == 200, path
    for path in CLOSED:
        for headers in ({}, bearer("x" * 25), {"authorization": f"Basic {ANN}"}):
            refused = server.client.get(path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"].startswith('Bearer realm="anchorage"')
    ask = {"data": {"aligned": "true", "target": "0-2"}, "files": {"image": portrait}}
    assert server.client.post("/age", **ask).status_code == 401
    made = server.client.post("/age", **ask, headers=bearer(ANN))
    assert made.status_code == 200
    assert server.client.get("/metrics", headers=bearer(BOB)).status_code == 200
    gone = server.client.delete(f"/faces/{made.headers['x-face-id']}", headers=bearer(BOB))
    assert gone.status_code == 204
    schema = server.client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert schema["paths"]["/age"]["post"]["security"] == [{"key": []}]
    assert "security" not in schema["paths"]["/livez"]["get"]
    log = server.log
    assert re.search(r"POST /age 200 \S+ s \w+ ann\n", log)
    assert re.search(r"DELETE /faces/\{face_id\} 204 \S+ s \w+ bob\n", log)
    assert re.search(r"POST unmatched 401 \S+ s \w+\n", log)
    assert ANN not in log


@pytest.mark.parametrize(("text", "words"), [("ann:short", "line 1"), (None, "No such file")])
def test_a_bad_key_file_stops_the_start_and_is_named(
    start_server: StartServer, tmp_path: Path, text: str | None, words: str
):
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    expected = rf"ANCHORAGE_API_KEYS \(--api-keys\): {path}.*{words}"
    with pytest.raises(RuntimeError, match=expected) as failure:
        start_server(api_keys=path)
    assert "Traceback" not in str(failure.value)


def test_a_rate_refuses_one_key_and_not_the_other(start_server: StartServer, key_file: Path):
    server = start_server(api_keys=key_file, rate_per_minute=6, rate_burst=2)
    ask = [server.client.get("/anchors", headers=bearer(ANN)) for _ in range(3)]
    assert [answer.status_code for answer in ask] == [200, 200, 429]
    assert ask[2].json()["code"] == "rate_limited"
    assert 1 <= int(ask[2].headers["retry-after"]) <= 10
    assert server.client.get("/anchors", headers=bearer(BOB)).status_code == 200
    for _ in range(5):
        assert server.client.get("/readyz").status_code == 200
    assert server.client.get("/").status_code == 200


def test_addresses_are_told_by_trusted_proxies_alone(start_server: StartServer):
    def statuses(server: Server) -> list[int]:
        ask = [{"x-forwarded-for": f"192.0.2.{number}"} for number in (1, 2, 1)]
        return [server.client.get("/anchors", headers=headers).status_code for headers in ask]

    plain = start_server(rate_per_minute=1, rate_burst=1)
    assert statuses(plain) == [200, 429, 429]
    behind = start_server(rate_per_minute=1, rate_burst=1, trusted_proxies="127.0.0.0/8")
    assert statuses(behind) == [200, 200, 429]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/docs", 200),
        ("GET", "/web/page.js", 200),
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/age", 405),
        ("POST", "/age", 422),
        ("OPTIONS", "/age", 405),
    ],
)
def test_every_answer_brings_the_security_headers(
    server: Server, method: str, path: str, status: int
):
    response = server.client.request(method, path)
    assert response.status_code == status
    headers = response.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=(self)" in headers["permissions-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "access-control-allow-origin" not in headers


def test_a_body_too_large_brings_them_too(server: Server):
    response = server.client.post("/age", content=bytes(21 * 1024 * 1024))
    assert response.status_code == 413
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_page_s_policy_is_the_strict_one(server: Server):
    policy = server.client.get("/").headers["content-security-policy"]
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


def test_the_docs_run_no_script_but_their_own(server: Server):
    policy = server.client.get("/docs").headers["content-security-policy"]
    scripts = re.search(r"script-src ([^;]+)", policy)[1]
    assert re.fullmatch(r"'self' 'sha256-[A-Za-z0-9+/]{43}='", scripts)


ORIGIN = "https://app.example.org"


def test_pages_of_listed_origins_alone_may_use_the_api(start_server: StartServer, key_file: Path):
    server = start_server(cors_origins=f"{ORIGIN},http://localhost:3000", api_keys=key_file)
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    allowed = server.client.options("/age", headers={"origin": ORIGIN, **preflight})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    other = server.client.options("/age", headers={"origin": "https://x.example", **preflight})
    assert "access-control-allow-origin" not in other.headers
    # A page can read why it was refused.
    refused = server.client.get("/anchors", headers={"origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    answer = server.client.get("/anchors", headers={"origin": ORIGIN, **bearer(ANN)})
    assert answer.status_code == 200
    assert "X-Face-Id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    foreign = server.client.get("/anchors", headers={"origin": "https://x.example", **bearer(ANN)})
    assert "access-control-allow-origin" not in foreign.headers


def test_methods_that_a_caller_makes_up_get_into_neither_metrics_nor_log(
    start_server: StartServer,
):
    server = start_server()
    for number in range(5):
        assert server.client.request(f"SECRET{number}", "/anchors").status_code == 405
    assert server.metric("requests_total", method="OTHER") == 5
    assert "SECRET" not in server.client.get("/metrics").text
    assert "SECRET" not in server.log

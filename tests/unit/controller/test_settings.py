"""Settings come from the environment; wrong ones are refused with their name."""

import pytest
from pydantic import ValidationError

from prewarm.controller.settings import Settings


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREWARM_HTTP_PORT", "9000")
    monkeypatch.setenv("PREWARM_WORKLOAD_METRICS", "true")
    settings = Settings()
    assert (settings.http_port, settings.workload_metrics) == (9000, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PREWARM_HTTP_PORT", "70000"), ("PREWARM_NAMESPACE", "Not A Name"), ("PREWARM_NODE_PULLS", "0")],
)
def test_a_wrong_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("PREWARM_").lower()):
        Settings()


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())

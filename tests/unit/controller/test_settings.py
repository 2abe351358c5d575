"""Settings come from the environment; wrong ones are refused with their name."""

import pytest
from pydantic import ValidationError

from prewarm.controller.settings import Settings, unknown_variables


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


def test_a_misspelt_variable_is_named_with_the_nearest_setting() -> None:
    assert unknown_variables(["PATH", "PREWARM_NODE_PULLS", "PREWARM_CLUSTER_PULL", "PREWARM_ZZZ"]) == (
        "PREWARM_CLUSTER_PULL is no setting and changes nothing; did you mean PREWARM_CLUSTER_PULLS?",
        "PREWARM_ZZZ is no setting and changes nothing",
    )


@pytest.mark.parametrize(
    "names",
    [
        ["PREWARM_SERVICE_HOST", "PREWARM_SERVICE_PORT_METRICS", "PREWARM_PORT", "PREWARM_PORT_8080_TCP_ADDR"],
        ["PREWARM_METRICS_SERVICE_HOST", "PREWARM_METRICS_PORT_8080_TCP"],
        ["PREWARM_REMOVE"],
        ["prewarm_http_port"],
    ],
)
def test_variables_of_a_service_of_that_name_and_of_other_commands_are_no_settings(names: list[str]) -> None:
    assert unknown_variables(names) == ()


def test_a_misspelt_port_is_no_services() -> None:
    assert unknown_variables(["PREWARM_SERVICE_HOST", "PREWARM_HTPP_PORT"]) == (
        "PREWARM_HTPP_PORT is no setting and changes nothing; did you mean PREWARM_HTTP_PORT?",
    )

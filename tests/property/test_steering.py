"""Labels and entries of steering, whatever names, revisions and labels there are."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from prewarm.api.steer_label import PREFIX, entry_key, entry_value, label_key, label_value
from prewarm.delivery.steering import label_changes
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.workloads import WorkloadKey
from tests.support.clusters import node

POLICY = Path(__file__).parents[2] / "charts/prewarm/files/steer/pods.yaml"
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?", fullmatch=True)
WORKLOADS = st.builds(WorkloadKey, st.sampled_from(["Deployment", "AdvancedStatefulSet", "CronJob"]), NAMES, NAMES)
KEYS = st.sampled_from([f"{PREFIX}{number:016x}" for number in range(4)])
LABELS = st.dictionaries(KEYS | st.sampled_from(["zone", "steer.example.com/a"]), st.sampled_from(["", "a", "b"]))
WANTED = st.dictionaries(st.sampled_from("abc"), st.dictionaries(KEYS, st.sampled_from(["a", "b"])))


def patterns() -> list[str]:
    """What the admission policy asks of label and value."""
    policy = yaml.safe_load(POLICY.read_text(encoding="utf-8"))
    (steered,) = (one["expression"] for one in policy["spec"]["variables"] if one["name"] == "steered")
    return re.findall(r"matches\('([^']+)'\)", steered)


@given(WORKLOADS, st.text(max_size=80), st.floats(0, 4e9))
def test_the_policy_understands_every_entry(workload: WorkloadKey, revision: str, until: float) -> None:
    label, value, end = entry_value(label_key(workload), label_value(revision), until).split(" ")
    for text, pattern in zip((label, value), patterns(), strict=True):
        assert re.search(pattern, text)
    assert 0 <= until - datetime.fromisoformat(end).timestamp() < 1


@given(WORKLOADS)
def test_an_entrys_key_fits_into_a_config_map(workload: WorkloadKey) -> None:
    key = entry_key(workload)
    assert key is None or re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key)
    assert (key is None) == (len(f"{workload.namespace}{workload.name}") > 253 - len(_kind(workload)) - 2)


def _kind(workload: WorkloadKey) -> str:
    """As an owner reference writes it, in lower case."""
    return workload.kind.removeprefix("Advanced").lower()


@given(st.fixed_dictionaries(dict.fromkeys("abc", LABELS)), WANTED)
def test_changes_lead_to_what_is_wanted_and_touch_no_label_of_others(
    labels: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]]
) -> None:
    before = ClusterSnapshot(nodes={name: replace(node(name), labels=found) for name, found in labels.items()})
    after = dict(before.nodes)
    for change in label_changes(wanted, before):
        merged = {**after[change.name].labels, **dict(change.labels)}
        kept = {key: value for key, value in merged.items() if value is not None}
        after[change.name] = replace(after[change.name], labels=kept)
    assert not list(label_changes(wanted, replace(before, nodes=after)))
    for name, found in after.items():
        ours = {key: value for key, value in found.labels.items() if key.startswith(PREFIX)}
        others = {key: value for key, value in labels[name].items() if not key.startswith(PREFIX)}
        assert found.labels == {**others, **ours}
        assert ours == wanted.get(name, {})

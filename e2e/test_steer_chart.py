"""Steering as the chart installs it: what our own ServiceAccounts may write on a node, and what goes with it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import steer
from e2e.cluster.selection import Cluster, Lane
from e2e.release import CHART, CONTROLLER, RELEASE, RELEASE_NAMESPACE, as_user, attempt, installed
from prewarm.api.steer_label import PREFIX

EXPIRY = f"{RELEASE}-steer-expiry"
CLEANER = f"system:serviceaccount:{RELEASE_NAMESPACE}:{RELEASE}-steer-cleanup"
NODE = "steer-chart"
LABEL = "steer.prewarm.dev/0123456789abcdef"


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, helm: Path, steering: str) -> Iterator[None]:
    """With the policy of the other tests in force, since its going would be the end of theirs."""
    if cluster.lane is Lane.EXISTING:
        pytest.skip("installing and uninstalling would take away what is installed on an existing cluster")
    with installed(cluster, helm, "--set", "steer.enabled=true", hooks=False):
        # kubectl reads what it patches; we do not.
        cluster.kubectl("create", "clusterrolebinding", "steer-test", "--clusterrole=view", f"--user={CONTROLLER}")
        cluster.kubectl("create", "clusterrole", "steer-read", "--verb=get", "--resource=nodes")
        cluster.kubectl(
            "create", "clusterrolebinding", "steer-read", "--clusterrole=steer-read", f"--user={CONTROLLER}"
        )
        try:
            yield
        finally:
            cluster.kubectl("delete", "clusterrolebinding", "steer-test", "steer-read")
            cluster.kubectl("delete", "clusterrole", "steer-read")


@pytest.fixture(scope="module")
def node(cluster: Cluster, release: None) -> Iterator[str]:
    manifest = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, LABEL: "old"}, "annotations": {"a": "b"}},
    }
    cluster.kubectl("create", "-f", "-", manifest=json.dumps(manifest))
    yield NODE
    cluster.kubectl("delete", "node", NODE)


def patched(cluster: Cluster, patch: dict[str, object], user: str = CONTROLLER) -> str:
    """What the server says to a merge patch of the node in a user's name; "" if it takes it."""
    options = ("--type=merge", "--dry-run=server", "-p", json.dumps(patch), *as_user(user))
    return attempt(cluster, "patch", "node", NODE, *options)


@pytest.mark.parametrize("value", ["new", "old", None])
def test_our_accounts_set_and_remove_labels_of_ours(cluster: Cluster, node: str, value: str | None) -> None:
    assert patched(cluster, {"metadata": {"labels": {LABEL: value, "steer.prewarm.dev/ffff": "x"}}}) == ""


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ({"metadata": {"labels": {"example.com/other": "x"}}}, "labels under steer.prewarm.dev/ only"),
        ({"metadata": {"labels": {"kubernetes.io/hostname": "x"}}}, "labels under steer.prewarm.dev/ only"),
        ({"metadata": {"labels": {"kubernetes.io/hostname": None}}}, "labels under steer.prewarm.dev/ only"),
        ({"metadata": {"labels": {LABEL: "x", "node-role.kubernetes.io/control-plane": ""}}}, "only"),
        ({"metadata": {"annotations": {"a": "c"}}}, "nothing of a node but its own labels"),
        ({"metadata": {"finalizers": ["example.com/never"]}}, "nothing of a node but its own labels"),
        ({"spec": {"unschedulable": True}}, "nothing of a node but its own labels"),
        ({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}, "nothing of a node but its own labels"),
    ],
)
def test_our_accounts_do_nothing_else(cluster: Cluster, node: str, patch: dict[str, object], told: str) -> None:
    assert told in patched(cluster, patch)


def test_a_person_is_not_bound_by_that(cluster: Cluster, node: str) -> None:
    assert attempt(cluster, "label", "node", NODE, "example.com/other=x", "--dry-run=server") == ""


def test_the_rights_are_there_only_with_it(cluster: Cluster, node: str) -> None:
    for verb, allowed in (("patch", True), ("update", False), ("delete", False), ("create", False)):
        said = attempt(cluster, "auth", "can-i", verb, "nodes", "--quiet", *as_user(CONTROLLER))
        assert (said == "") is allowed, verb
    entries = ("configmaps/prewarm-steer", "-n", RELEASE_NAMESPACE)
    assert attempt(cluster, "auth", "can-i", "patch", *entries, "--quiet", *as_user(CONTROLLER)) == ""
    assert "prewarm-steer" in cluster.kubectl("get", "configmaps", "-n", RELEASE_NAMESPACE, "-o", "name")


def test_the_policy_that_steers_is_bound_to_the_entries(cluster: Cluster) -> None:
    binding = json.loads(cluster.kubectl("get", "mutatingadmissionpolicybinding", "prewarm-steer-pods", "-o", "json"))
    assert binding["spec"]["paramRef"] == {
        "name": "prewarm-steer",
        "namespace": RELEASE_NAMESPACE,
        "parameterNotFoundAction": "Allow",
    }


def hooks(text: str, when: str) -> list[Any]:
    """Helm's hooks of one occasion among some manifests."""
    documents = [one for one in yaml.safe_load_all(text) if one]
    return [one for one in documents if one["metadata"].get("annotations", {}).get("helm.sh/hook") == when]


def run_helm(cluster: Cluster, helm: Path, *arguments: str) -> str:
    connection = ("--kubeconfig", str(cluster.kubeconfig), "--kube-context", cluster.context, "-n", RELEASE_NAMESPACE)
    command = [str(helm), *arguments, *connection]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_uninstalling_takes_the_labels_away_with_rights_of_its_own(cluster: Cluster, helm: Path) -> None:
    found = hooks(run_helm(cluster, helm, "get", "hooks", RELEASE), "post-delete")
    by_kind = {one["kind"]: one for one in found}
    assert set(by_kind) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    (container,) = by_kind["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["remove-labels"]
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        cluster.kubectl("create", "-f", "-", manifest=json.dumps(by_kind[kind]))
    try:
        for verb in ("list", "patch"):
            assert attempt(cluster, "auth", "can-i", verb, "nodes", "--quiet", *as_user(CLEANER)) == ""
    finally:
        for kind in ("ClusterRoleBinding", "ClusterRole"):
            cluster.kubectl("delete", kind, by_kind[kind]["metadata"]["name"])


async def test_the_cron_job_takes_away_what_nobody_renews_with_rights_of_its_own(cluster: Cluster, node: str) -> None:
    if cluster.control_plane is None:
        pytest.skip("needs a control plane that hands out tokens of service accounts to a process outside of it")
    job = json.loads(cluster.kubectl("get", "cronjob", EXPIRY, "-n", RELEASE_NAMESPACE, "-o", "json"))
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == EXPIRY
    kept = "steer.prewarm.dev/fedcba9876543210"
    cluster.kubectl("label", "node", node, f"{kept}=new")
    entries = {"one": steer.entry(LABEL, "old", "2020-01-01T00:00:00Z"), "other": steer.entry(kept, "new")}
    steer.write_entries(cluster, RELEASE_NAMESPACE, entries)
    kubeconfig = await cluster.control_plane.service_account_kubeconfig(RELEASE_NAMESPACE, EXPIRY)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "prewarm", *container["args"], "--kubeconfig", str(kubeconfig)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (0, "labels taken off 1 node\n")
    found = json.loads(cluster.kubectl("get", "node", node, "-o", "json"))["metadata"]["labels"]
    assert {key: value for key, value in found.items() if key.startswith(PREFIX)} == {kept: "new"}


def test_switching_it_off_takes_the_labels_away(cluster: Cluster, helm: Path) -> None:
    options = ("--set", "replicas=0", "--dry-run=server", "--hide-secret")
    off = run_helm(cluster, helm, "upgrade", RELEASE, CHART, "--set", "steer.enabled=false", *options)
    assert "post-upgrade" in off
    assert "remove-labels" in off
    on = run_helm(cluster, helm, "upgrade", RELEASE, CHART, "--set", "steer.enabled=true", *options)
    assert "post-upgrade" not in on

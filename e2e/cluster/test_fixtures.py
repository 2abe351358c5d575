import subprocess
from pathlib import Path

from e2e.cluster.selection import Cluster


def test_a_namespace_is_fresh_and_admits_pods(cluster: Cluster, namespace: str) -> None:
    assert cluster.kubectl("get", "pods", "--namespace", namespace, "-o", "name") == ""
    run = ("run", "waiting", "--image=example.org/app:1", "--restart=Never", "--namespace", namespace)
    assert "created" in cluster.kubectl(*run)


def test_the_next_namespace_is_another_one(cluster: Cluster, namespace: str) -> None:
    assert cluster.kubectl("get", "pods", "--namespace", namespace, "-o", "name") == ""


def test_helm_and_prometheus_run(helm: Path, prometheus: tuple[Path, Path]) -> None:
    for program, argument in ((helm, "version"), (prometheus[0], "--version"), (prometheus[1], "--version")):
        done = subprocess.run([program, argument], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

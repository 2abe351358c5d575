from e2e.cluster.selection import Cluster


def test_a_namespace_is_fresh_and_admits_pods(cluster: Cluster, namespace: str) -> None:
    assert cluster.kubectl("get", "pods", "--namespace", namespace, "-o", "name") == ""
    run = ("run", "waiting", "--image=example.org/app:1", "--restart=Never", "--namespace", namespace)
    assert "created" in cluster.kubectl(*run)


def test_the_next_namespace_is_another_one(cluster: Cluster, namespace: str) -> None:
    assert cluster.kubectl("get", "pods", "--namespace", namespace, "-o", "name") == ""

"""A changed spec is told apart from what follows from it: the former is planned without waiting for the latter."""

from msgspec.structs import replace

from prewarm.cluster.store import Store
from prewarm.model.workloads import Workload
from tests.support.clusters import WEB, deployment, template

KEY = (WEB.namespace, WEB.name)


def touched(store: Store, workload: Workload) -> tuple[bool, bool]:
    """Whether a state of the Deployment is a change of it, and one of its spec."""
    store.deployments.put(KEY, workload)
    changes = store.changed()
    return WEB in changes.workloads, WEB in changes.intended


def test_a_new_generation_is_an_intention_and_a_status_is_not() -> None:
    store = Store()
    first = replace(deployment(template("web:v1")), generation=1)
    assert touched(store, first) == (True, True)
    assert touched(store, replace(first, observed_generation=1)) == (True, False)
    assert touched(store, replace(deployment(template("web:v2")), generation=2)) == (True, True)


def test_a_deletion_is_an_intention() -> None:
    store = Store()
    store.deployments.put(KEY, deployment(template("web:v1")))
    store.changed()
    store.deployments.remove(KEY)
    assert store.changed().intended == {WEB}
    assert not store.changed()

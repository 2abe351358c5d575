"""What a scrape tells of the reflectors."""

from prewarm.cluster.changes import ChangeCollector
from prewarm.cluster.client import Client
from prewarm.cluster.connection import Connection
from prewarm.cluster.mirror import Mirror
from prewarm.cluster.sinks import EventBuffer
from prewarm.cluster.store import Store
from prewarm.controller.metrics import EVENTS_DROPPED, Metrics, watch_reflectors
from prewarm.model.workloads import KubeletEvent


def test_evidence_that_was_given_up_is_counted() -> None:
    store = Store()
    store.events = EventBuffer(ChangeCollector(), capacity=2)
    metrics = Metrics(version="test")
    watch_reflectors(metrics, Mirror(Client(Connection("http://127.0.0.1:1")), store))
    for number in range(5):
        event = KubeletEvent(f"uid-{number}", "shop", "web", "pod", "Pulled", "said", "node-a", "app")
        store.events.put(("shop", f"event-{number}"), event)
    assert metrics.registry.get_sample_value(EVENTS_DROPPED) == 3
    assert len(store.drain_events()) == 2

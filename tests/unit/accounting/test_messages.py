"""Events that say what no kubelet says: anybody who may create Events can write them."""

import pytest

from prewarm.accounting.messages import MessageKind, read_message
from prewarm.model.workloads import KubeletEvent

PULLED = 'Successfully pulled image "a:v1" in {} ({} including waiting). Image size: {} bytes.'


def pulled(seconds: str, size: str) -> KubeletEvent:
    return KubeletEvent("e", "shop", "web", "u", "Pulled", PULLED.format(seconds, seconds, size))


@pytest.mark.parametrize("seconds", ["9" * 400 + "h", "1.1.1s", "1e9h", "999999999h", "9µ", "0" * 1000 + "x"])
def test_a_time_that_no_pull_takes_is_not_believed(seconds: str) -> None:
    found = read_message(pulled(seconds, "100"))
    assert found is not None
    assert (found.kind, found.pull_seconds, found.total_seconds, found.size_bytes) == (MessageKind.PULLED, 0, 0, 100)


@pytest.mark.parametrize("size", ["9" * 1500, "9" * 17, "9" * 6000])
def test_a_size_that_no_image_has_is_not_believed(size: str) -> None:
    found = read_message(pulled("2s", size))
    assert found is not None
    assert (found.pull_seconds, found.size_bytes) == (2.0, 0)


def test_what_kubelets_say_is_believed() -> None:
    found = read_message(pulled("1m2.5s", "123456789"))
    assert found is not None
    assert (found.pull_seconds, found.total_seconds, found.size_bytes) == (62.5, 62.5, 123456789)

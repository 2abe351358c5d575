"""Where the runtime of a node is looked for."""

import pytest

from prewarm.model.sockets import SOCKETS, usual_sockets


@pytest.mark.parametrize(
    ("runtime_version", "first"),
    [
        ("containerd://2.1.4", "/run/containerd/containerd.sock"),
        ("containerd://2.0.5-k3s1.32", "/run/k3s/containerd/containerd.sock"),
        ("containerd://1.7.23-rke2r1", "/run/k3s/containerd/containerd.sock"),
        ("cri-o://1.34.0", "/run/crio/crio.sock"),
        ("docker://28.1.1", "/run/cri-dockerd.sock"),
        ("unheard-of://1.0", "/run/containerd/containerd.sock"),
    ],
)
def test_the_runtime_of_a_node_says_where_it_listens(runtime_version: str, first: str) -> None:
    assert usual_sockets(runtime_version)[0] == first


def test_what_listens_on_an_unknown_node_is_looked_for_everywhere() -> None:
    everywhere = usual_sockets("")
    known = {socket for sockets in SOCKETS.values() for socket in sockets} | set(usual_sockets("containerd://2-k3s1"))
    assert set(everywhere) == known
    assert len(everywhere) == len(known)
    assert everywhere[0] == usual_sockets("containerd://2.1.4")[0]

"""Where do container runtimes listen on a node?"""

from collections.abc import Mapping

SOCKETS: Mapping[str, tuple[str, ...]] = {
    "containerd": (
        "/run/containerd/containerd.sock",
        "/run/k0s/containerd.sock",
        "/var/snap/microk8s/common/run/containerd.sock",
    ),
    "cri-o": ("/run/crio/crio.sock",),
    "docker": ("/run/cri-dockerd.sock",),
}
"""By the name that the kubelet reports (status.nodeInfo.containerRuntimeVersion); the most frequent first, then those
of k0s and MicroK8s."""
K3S_SOCKET = "/run/k3s/containerd/containerd.sock"
"""Of the containerd in k3s and rke2, which say so in its version."""


def usual_sockets(runtime_version: str) -> tuple[str, ...]:
    """Where the runtime of a node may listen, the likeliest first.

    Args:
        runtime_version: as the kubelet reports it, such as `containerd://2.1.4-k3s1`; "" if it is not known: all.
    """
    runtime, _, version = runtime_version.partition("://")
    if not runtime:
        firsts = [sockets[0] for sockets in SOCKETS.values()]
        others = [socket for sockets in SOCKETS.values() for socket in sockets[1:]]
        return (firsts[0], K3S_SOCKET, *firsts[1:], *others)
    if "k3s" in version or "rke2" in version:
        return (K3S_SOCKET,)
    return SOCKETS.get(runtime, SOCKETS["containerd"])

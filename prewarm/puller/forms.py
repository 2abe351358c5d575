"""In which form is an image pulled on a node? Volume only where the kubelet and the runtime mount images."""

import re

from prewarm.model.image_caches import ImageCache, PullerForm
from prewarm.model.nodes import Node

_KUBELET = (1, 35)
"""ImageVolume is on by default since then (KEP-4639); a kubelet is never newer than its API server."""
_RUNTIMES = {"containerd": (2, 1), "cri-o": (1, 33)}
"""First releases that mount image volumes reliably; others, as cri-dockerd, do not."""
_VERSION = re.compile(r"v?(\d{1,5})\.(\d{1,5})", re.ASCII)


def mounts_images(node: Node) -> bool:
    """Whether containers on the node can mount images, by the versions that its status names."""
    runtime, separator, version = node.runtime_version.partition("://")
    needed = _RUNTIMES.get(runtime)
    if not separator or needed is None:
        return False
    return _version(version) >= needed and _version(node.kubelet_version) >= _KUBELET


def form_on(cache: ImageCache, node: Node) -> PullerForm:
    """The form in which a cache's images are pulled on a node: as asked, or Container where Volume cannot be."""
    if cache.puller_form is PullerForm.VOLUME and mounts_images(node):
        return PullerForm.VOLUME
    return PullerForm.CONTAINER


def _version(text: str) -> tuple[int, int]:
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)

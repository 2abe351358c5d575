"""Deletes CustomResourceDefinitions, and has the API server see to those that it forgot.

An API server (1.36.3) that meets a conflict while it finalizes a definition takes the next change for its own and waits
for the resync, five minutes later (apiextensions-apiserver, controller/finalizer/crd_finalizer.go: sync returns without
an error, updateCustomResourceDefinition leaves out changes of the Terminating condition). It happens to definitions
that are deleted while their storage is being set up. Any other change wakes it.
"""

import time
from collections.abc import Collection
from contextlib import suppress

from e2e.cluster.selection import Cluster

OURS = ("imagecaches.prewarm.dev", "nodeimages.prewarm.dev", "prewarmpolicies.prewarm.dev")
_PATIENCE_SECONDS = 3.0
_SECONDS = 120.0


def delete(cluster: Cluster, names: Collection[str] = OURS) -> None:
    """Delete definitions with all objects of theirs, and return once they are gone.

    Raises:
        TimeoutError: if some stay.
    """
    cluster.kubectl("delete", "crd", *names, "--ignore-not-found", "--wait=false")
    await_gone(cluster, names)


def await_gone(cluster: Cluster, names: Collection[str] = OURS) -> None:
    """Return once definitions that are being deleted are gone.

    Raises:
        TimeoutError: if some stay.
    """
    started = time.monotonic()
    touched_at = started
    while left := _left(cluster, names):
        now = time.monotonic()
        if now > started + _SECONDS:
            raise TimeoutError(f"definitions that were deleted are still there: {', '.join(left)}")
        if now > touched_at + _PATIENCE_SECONDS:
            touched_at = now
            for name in left:
                with suppress(RuntimeError):  # gone meanwhile
                    cluster.kubectl("annotate", name, f"test.prewarm.dev/touched={now}", "--overwrite")
        time.sleep(0.2)


def _left(cluster: Cluster, names: Collection[str]) -> list[str]:
    return cluster.kubectl("get", "crd", *names, "--ignore-not-found", "-o", "name").split()

"""OpenKruise played: its kinds in our own words, and a controller's part in updates in place.

Only what others see is played: pods of a revision, their images patched in order and within maxUnavailable, revisions
and status. Fields are spelt as in OpenKruise's API.
"""

import asyncio
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from e2e import definitions
from e2e.cluster.selection import Cluster
from e2e.lane import REPOSITORY, Lane, eventually

GROUP = "apps.kruise.io"
REVISION_LABEL = "controller-revision-hash"
NAME = "shop"
KINDS = {
    "CloneSet": ("clonesets", "v1alpha1"),
    "StatefulSet": ("statefulsets", "v1beta1"),
    "DaemonSet": ("daemonsets", "v1alpha1"),
}

Object = dict[str, Any]
Order = Callable[[Sequence[Object]], Sequence[Object]]


def definition(kind: str) -> Object:
    """A CustomResourceDefinition that takes any spec and status."""
    plural, version = KINDS[kind]
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
    }
    names = {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [served]},
    }


def install(cluster: Cluster) -> None:
    """All three kinds, served."""
    manifest = "---\n".join(yaml.safe_dump(definition(kind)) for kind in KINDS)
    cluster.kubectl("apply", "-f", "-", manifest=manifest)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", "-", manifest=manifest)


def uninstall(cluster: Cluster) -> None:
    """None of them, and no object."""
    definitions.delete(cluster, [f"{plural}.{GROUP}" for plural, _ in KINDS.values()])


class KruisePlayer:
    """One workload and its controller."""

    def __init__(self, lane: Lane, kind: str, spec: Mapping[str, Any]) -> None:
        plural, version = KINDS[kind]
        self.lane = lane
        self.kind = kind
        self.resource = f"{plural}.{GROUP}"
        self.api_version = f"{GROUP}/{version}"
        self.spec = copy.deepcopy(dict(spec))
        self._number = 0
        self._uid = ""
        self._wanted: dict[str, Mapping[str, Any]] = {}

    async def create(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Create the workload with its pods (name and what is its own of its spec), and wait until all are ready."""
        await self.declare()
        await self.start(pods)

    async def declare(self) -> None:
        """Create the workload alone."""
        metadata = {"name": NAME, "annotations": {"prewarm.dev/enabled": "true"}}
        await self.lane.apply(
            {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, "spec": self.spec}
        )
        self._uid = str((await self._get())["metadata"]["uid"])
        await self._revise()

    async def start(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Create the pods of a workload that is there."""
        await self._report(len(pods), updated=len(pods))
        self._wanted = {str(pod["name"]): pod for pod in pods}
        for pod in pods:
            await self.lane.apply(self._pod(pod))
        await eventually(self._all_ready)

    async def change(self, tag: str, *, pre_downloads: bool = False) -> None:
        """Another image in the template, and what the controller does first: a new revision, in its status, too."""
        image = f"{REPOSITORY}:{tag}"
        self.spec["template"]["spec"]["containers"][0]["image"] = image
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
        await self._kubectl("patch", f"{self.resource}/{NAME}", "--type=json", "-p", json.dumps(patch))
        await self._revise(pre_downloads=pre_downloads)
        await self._report(len(await self.pods()), updated=0)

    async def update(self, order: Order, *, together: int = 1, keep: int = 0) -> None:
        """Patch pods in order, so many at a time, each batch ready before the next; the last `keep` stay."""
        waiting = list(order(await self.pods()))
        waiting = waiting[: len(waiting) - keep]
        done = 0
        while waiting:
            batch, waiting = waiting[:together], waiting[together:]
            await asyncio.gather(*(self._patch(str(pod["metadata"]["name"])) for pod in batch))
            await eventually(self._all_ready)
            done += len(batch)
        await self._report(len(await self.pods()), updated=done)

    async def recreate(self, order: Order) -> None:
        """Delete pods in order and create each anew, ready before the next goes."""
        names = [str(pod["metadata"]["name"]) for pod in order(await self.pods())]
        for done, name in enumerate(names, 1):
            await self._kubectl("delete", f"pod/{name}")
            await self.lane.apply(self._pod(self._wanted[name]))
            await eventually(self._all_ready)
            await self._report(len(names), updated=done)

    async def pods(self) -> list[Object]:
        """The workload's pods by name."""
        found = (await self.lane.get("pods", "-l", "app=shop"))["items"]
        assert isinstance(found, list)
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    @property
    def _revision(self) -> str:
        return f"{NAME}-{self._number}"

    def _owner(self) -> Object:
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": NAME,
            "uid": self._uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }

    def _pod(self, wanted: Mapping[str, Any]) -> Object:
        template = copy.deepcopy(self.spec["template"])
        metadata = {**template["metadata"], "name": wanted["name"], "ownerReferences": [self._owner()]}
        metadata["labels"] = {**metadata["labels"], REVISION_LABEL: self._revision}
        extra = {name: value for name, value in wanted.items() if name != "name"}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], **extra}}

    async def _revise(self, *, pre_downloads: bool = False) -> None:
        self._number += 1
        labels = {REVISION_LABEL: self._revision}
        if pre_downloads:
            labels["apps.kruise.io/pre-predownload-created"] = "true"
        await self.lane.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {"name": self._revision, "labels": labels, "ownerReferences": [self._owner()]},
                "data": {"spec": {"template": {**self.spec["template"], "$patch": "replace"}}},
                "revision": self._number,
            }
        )

    async def _report(self, pods: int, *, updated: int) -> None:
        generation = (await self._get())["metadata"]["generation"]
        per_node = {
            "desiredNumberScheduled": pods,
            "updatedNumberScheduled": updated,
            "daemonSetHash": self._revision,
        }
        counts = {"replicas": pods, "updatedReplicas": updated, "updateRevision": self._revision}
        status = {"observedGeneration": generation, **(per_node if self.kind == "DaemonSet" else counts)}
        patch = json.dumps({"status": status})
        await self._kubectl("patch", f"{self.resource}/{NAME}", "--subresource=status", "--type=merge", "-p", patch)

    async def _patch(self, name: str) -> None:
        image = self.spec["template"]["spec"]["containers"][0]["image"]
        patch = {
            "metadata": {"labels": {REVISION_LABEL: self._revision}},
            "spec": {"containers": [{"name": "app", "image": image}]},
        }
        await self._kubectl("patch", f"pod/{name}", "-p", json.dumps(patch))

    async def _all_ready(self) -> bool:
        """Every pod runs the image that its spec names, and is ready."""
        return all(
            pod.get("status", {}).get("containerStatuses")
            and pod["status"]["containerStatuses"][0]["image"] == pod["spec"]["containers"][0]["image"]
            and pod["status"]["containerStatuses"][0]["ready"]
            for pod in await self.pods()
        )

    async def _get(self) -> Object:
        return dict(await self.lane.get(self.resource, NAME))

    async def _kubectl(self, *arguments: str) -> None:
        await self.lane.kubectl(*arguments)

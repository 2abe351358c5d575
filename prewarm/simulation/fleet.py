"""All emulated nodes of a cluster behind one clockless interface: inputs, `advance(now)`, `next_wakeup()`."""

from collections.abc import Mapping
from functools import partial

from msgspec.structs import replace

from prewarm.model.pods import ContainerStatus, Taint
from prewarm.simulation.agenda import Agenda
from prewarm.simulation.bandwidth import Egress
from prewarm.simulation.kubelet import Kubelet
from prewarm.simulation.outputs import Output
from prewarm.simulation.registry import Registries, Registry
from prewarm.simulation.specs import Chance, NodeProfile, PodSpec, PullSecret, fraction


class Fleet:
    """Emulated nodes that share registries.

    Inputs take effect at the time of the last `advance`. Times are seconds since the start: of Unix time, a double
    holds too little of a second.
    The same inputs at the same times give the same outputs.
    """

    def __init__(
        self, registries: Registries, *, now: float = 0.0, seed: str = "", chance: Chance | None = None
    ) -> None:
        self._agenda = Agenda(now)
        self.registries = registries
        self._chance = chance or partial(fraction, seed)
        self._secrets: dict[tuple[str, str], PullSecret] = {}
        self._egress: dict[str, Egress] = {}
        self._outputs: list[Output] = []
        self._kubelets: dict[str, Kubelet] = {}
        self._homes: dict[str, str] = {}

    @property
    def now(self) -> float:
        """The time of the last advance."""
        return self._agenda.now

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the emulated nodes."""
        return tuple(self._kubelets)

    def add_node(self, profile: NodeProfile) -> Kubelet:
        """Start the kubelet of a node."""
        if profile.name in self._kubelets:
            raise ValueError(f"node {profile.name} is emulated already")
        kubelet = self._kubelets[profile.name] = Kubelet(
            agenda=self._agenda,
            profile=profile,
            registries=self.registries,
            egress=self.egress,
            secrets=self._secrets,
            emit=self._outputs.append,
            chance=self._chance,
        )
        return kubelet

    def remove_node(self, name: str) -> None:
        """A node is gone with its kubelet, its pods' containers and its disk; a namesake starts from nothing.

        Raises:
            KeyError: if the node is not emulated.
        """
        self._kubelets.pop(name).stop()
        self._homes = {uid: home for uid, home in self._homes.items() if home != name}

    def node_changed(self, name: str, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> None:
        """A node's labels or taints changed: they count for pods that come from now on."""
        kubelet = self._kubelets.get(name)
        if kubelet is not None:
            kubelet.profile = replace(kubelet.profile, labels=labels, taints=taints)

    def kubelet(self, node: str) -> Kubelet:
        """The kubelet of a node.

        Raises:
            KeyError: if the node is not emulated.
        """
        return self._kubelets[node]

    def egress(self, host: str) -> Egress:
        """The shared link out of a registry."""
        link = self._egress.get(host)
        if link is None:
            registry: Registry = self.registries.registry(host)
            link = self._egress[host] = Egress(self._agenda, registry.egress)
        return link

    # Inputs

    def pod_bound(
        self,
        spec: PodSpec,
        known: tuple[ContainerStatus, ...] = (),
        started_at: float | None = None,
        *,
        finished: bool = False,
    ) -> None:
        """A pod was bound to a node; pods of nodes that are not emulated are none of ours.

        `known` and `started_at` come from the status of a pod that was there before: nothing is started twice.
        A pod that has `finished` only protects its images.
        """
        kubelet = self._kubelets.get(spec.node_name)
        if kubelet is not None and spec.uid not in self._homes:
            self._homes[spec.uid] = spec.node_name
            kubelet.bind(spec, known, started_at, finished=finished)

    def pod_changed(self, spec: PodSpec) -> None:
        """A bound pod's spec changed (in-place image change, deadline)."""
        kubelet = self._home(spec.uid)
        if kubelet is not None:
            kubelet.change(spec)

    def pod_deleted(self, uid: str, grace_seconds: float, generation: int) -> None:
        """A pod got a deletion timestamp."""
        kubelet = self._home(uid)
        if kubelet is not None:
            kubelet.delete(uid, grace_seconds, generation)

    def pod_gone(self, uid: str) -> None:
        """A pod's object was removed."""
        kubelet = self._home(uid)
        if kubelet is not None:
            kubelet.remove(uid)
            del self._homes[uid]

    def secret_changed(self, secret: PullSecret) -> None:
        """A pull secret was created or changed."""
        self._secrets[secret.namespace, secret.name] = secret

    def secret_gone(self, namespace: str, name: str) -> None:
        """A pull secret was deleted."""
        self._secrets.pop((namespace, name), None)

    def _home(self, uid: str) -> Kubelet | None:
        node = self._homes.get(uid)
        return None if node is None else self._kubelets.get(node)

    # Time

    def advance(self, now: float) -> list[Output]:
        """Let time pass until `now`; what the kubelets did since the last call, in order."""
        self._agenda.run_until(now)
        outputs = self._outputs.copy()
        self._outputs.clear()
        return outputs

    def next_wakeup(self) -> float | None:
        """When something will happen by itself; None: never, without another input."""
        return self._agenda.next_time()

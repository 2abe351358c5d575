"""Who gets how much of a registry's egress: max-min fair among the downloads in progress, each capped by its node.

A download's rate changes only when another one starts or ends. Downloads with the same cap form a class that
advances together (virtual time), so a change costs the number of distinct caps, not the number of nodes.
"""

from heapq import heappop, heappush
from itertools import count

from prewarm.simulation.agenda import FIRST, Agenda, Signal, Timer

_HALF_BYTE = 0.5
_ROUNDING_SECONDS = 1e-6
"""What rounding of times may leave of a download counts as received."""


class Flow:
    """One download in progress."""

    __slots__ = ("done", "group", "node", "remaining", "target")

    def __init__(self, node: "NodeLink", size: float) -> None:
        self.node = node
        self.remaining = size
        self.target = 0.0
        self.done = Signal()
        self.group: _CapClass | None = None


class NodeLink:
    """A node's bandwidth in bytes a second; its downloads share it equally."""

    __slots__ = ("cap", "flows")

    def __init__(self, cap: float) -> None:
        if not 0 < cap < float("inf"):
            raise ValueError(f"node bandwidth {cap} is not a positive number of bytes a second")
        self.cap = cap
        self.flows: list[tuple[Egress, Flow]] = []


class _CapClass:
    """Downloads with the same cap: each has received `progress` bytes more than at some common start."""

    __slots__ = ("cap", "heap", "members", "progress", "rate")

    def __init__(self, cap: float) -> None:
        self.cap = cap
        self.rate = 0.0
        self.progress = 0.0
        self.members = 0
        self.heap: list[tuple[float, int, Flow]] = []


class Egress:
    """One registry's downloads. `limit` is in bytes a second; None is unlimited."""

    def __init__(self, agenda: Agenda, limit: float | None) -> None:
        if limit is not None and limit <= 0:
            raise ValueError(f"registry egress {limit} is not a positive number of bytes a second")
        self._agenda = agenda
        self.limit = limit
        self._classes: dict[float, _CapClass] = {}
        self._settled_at = agenda.now
        self._timer: Timer | None = None
        self._order = count()
        self.bytes_sent = 0.0

    @property
    def rate(self) -> float:
        """Bytes a second that leave the registry now."""
        return sum(group.rate * group.members for group in self._classes.values())

    def start(self, node: NodeLink, size: float) -> Flow:
        """Begin a download of `size` bytes; its `done` fires at the end."""
        flow = Flow(node, size)
        node.flows.append((self, flow))
        self._reshape(node, flow)
        return flow

    def cancel(self, flow: Flow) -> None:
        """Give a download up."""
        if any(entry[1] is flow for entry in flow.node.flows):
            self.settle()
            self.leave(flow)
            flow.node.flows = [entry for entry in flow.node.flows if entry[1] is not flow]
            self._reshape(flow.node, None)

    def _reshape(self, node: NodeLink, joining: Flow | None) -> None:
        """Give each of a node's downloads its equal part of the node's bandwidth."""
        touched: dict[int, Egress] = {id(self): self}
        cap = node.cap / max(1, len(node.flows))
        for egress, flow in node.flows:
            if id(egress) not in touched or egress is self:
                touched[id(egress)] = egress
                egress.settle()
            if flow is not joining:
                egress.leave(flow)
            egress.join(flow, cap)
        for egress in touched.values():
            egress.share()

    def join(self, flow: Flow, cap: float) -> None:
        """Put a download into the class of a cap; rates are old until `share`."""
        group = self._classes.get(cap)
        if group is None:
            group = self._classes[cap] = _CapClass(cap)
        flow.target = group.progress + flow.remaining
        flow.group = group
        group.members += 1
        heappush(group.heap, (flow.target, next(self._order), flow))

    def leave(self, flow: Flow) -> None:
        """Take a download out of its class; rates are old until `share`."""
        group = flow.group
        if group is None:
            return
        flow.remaining = max(0.0, flow.target - group.progress)
        flow.group = None
        group.members -= 1
        if not group.members:
            del self._classes[group.cap]

    def settle(self) -> None:
        """Account for what was sent since the last change."""
        elapsed = self._agenda.now - self._settled_at
        self._settled_at = self._agenda.now
        if elapsed > 0:
            for group in self._classes.values():
                group.progress += group.rate * elapsed
                self.bytes_sent += group.rate * elapsed * group.members

    def share(self) -> None:
        """Water-filling: narrow classes get their cap, the rest share what is left equally."""
        left = self.limit
        flows = sum(group.members for group in self._classes.values())
        soonest = None
        for group in sorted(self._classes.values(), key=lambda g: g.cap):
            group.rate = group.cap if left is None else min(group.cap, left / flows)
            if left is not None:
                left = max(0.0, left - group.rate * group.members)
                flows -= group.members
            target = self._next_target(group)
            if target is not None and group.rate > 0:
                wait = max(0.0, target - group.progress) / group.rate
                soonest = wait if soonest is None else min(soonest, wait)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if soonest is None else self._agenda.after(soonest, self._finish, FIRST)

    @staticmethod
    def _next_target(group: _CapClass) -> float | None:
        heap = group.heap
        while heap and (heap[0][2].group is not group or heap[0][2].target != heap[0][0]):
            heappop(heap)
        return heap[0][0] if heap else None

    def _finish(self) -> None:
        self.settle()
        finished: list[Flow] = []
        for group in list(self._classes.values()):
            slack = max(_HALF_BYTE, group.rate * _ROUNDING_SECONDS)
            while (target := self._next_target(group)) is not None and target <= group.progress + slack:
                flow = heappop(group.heap)[2]
                self.bytes_sent += max(0.0, target - group.progress)
                finished.append(flow)
                self.leave(flow)
        for flow in finished:
            flow.remaining = 0.0
            flow.node.flows = [entry for entry in flow.node.flows if entry[1] is not flow]
            if flow.node.flows:
                self._reshape(flow.node, None)
        self.share()
        for flow in finished:
            flow.done.fire()

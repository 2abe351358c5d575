"""Who pulls it? Plans become ImageCache objects, and withdrawn ones go."""

from prewarm.delivery.deliver import deliver
from prewarm.delivery.gates import GateReason, Gates, decide_gates
from prewarm.delivery.memory import DeliveryMemory

__all__ = ["DeliveryMemory", "GateReason", "Gates", "decide_gates", "deliver"]

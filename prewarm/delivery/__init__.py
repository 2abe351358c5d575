"""Who pulls it? Plans become ImageCache objects, and withdrawn ones go."""

from prewarm.delivery.deliver import deliver
from prewarm.delivery.memory import DeliveryMemory

__all__ = ["DeliveryMemory", "deliver"]

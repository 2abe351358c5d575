"""Did it help? Kubelet events, pod status and plans in force: hits, lateness, waste."""

from prewarm.accounting.account import account
from prewarm.accounting.ledger import Ledger, decode_ledger, encode_ledger
from prewarm.accounting.messages import ImageMessage, MessageKind, read_message
from prewarm.accounting.waste import ByteUse, ByteVerdict, WasteMemory, WasteReason, waste

__all__ = [
    "ByteUse",
    "ByteVerdict",
    "ImageMessage",
    "Ledger",
    "MessageKind",
    "WasteMemory",
    "WasteReason",
    "account",
    "decode_ledger",
    "encode_ledger",
    "read_message",
    "waste",
]

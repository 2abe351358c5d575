"""What the controller has learnt, for plans that look like its own."""

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec
import typer
from msgspec import Struct

from prewarm.api.names import HISTORY_CONFIG_MAP
from prewarm.api.steer_label import ENTRIES_NAME
from prewarm.cluster.errors import ApiError
from prewarm.cluster.live import read_cluster
from prewarm.controller.persistence import HISTORY_KEY
from prewarm.history import History, decode
from prewarm.model.intents import CONFIG_MAPS
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.model.steering import SteerState

if TYPE_CHECKING:
    from prewarm.cluster.client import Client


class _ConfigMap(Struct):
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = msgspec.field(default=None, name="binaryData")


class Known(Struct, frozen=True):
    """What a plan on a live cluster is made of."""

    snapshot: ClusterSnapshot
    history: History = History()
    unsteerable: SteerState | None = None
    """Why the controller steers no pods; None if it does, or nobody says."""


async def read_known(client: "Client", now: float, namespace: str) -> Known:
    """A snapshot and what the controller in a namespace has learnt, and whether it steers.

    Raises:
        ApiError: if a list is refused.
    """
    snapshot = await read_cluster(client, now)
    return Known(snapshot, await read_history(client, namespace), await read_steering(client, namespace))


async def read_steering(client: "Client", namespace: str) -> SteerState | None:
    """Why the controller steers no pods: one that does keeps a ConfigMap of what it steers."""
    try:
        await client.get(CONFIG_MAPS, namespace, ENTRIES_NAME)
    except ApiError as error:
        return SteerState.SWITCHED_OFF if error.not_found else None
    return None


async def read_steering_entries(client: "Client", namespace: str) -> dict[str, str]:
    """Whose pods the admission policy steers, and until when, as the controller wrote it; empty if nothing is there.

    Raises:
        ApiError: if it may not be read.
    """
    try:
        body = await client.get(CONFIG_MAPS, namespace, ENTRIES_NAME)
    except ApiError as error:
        if error.not_found:
            return {}
        raise
    return msgspec.json.decode(body, type=_ConfigMap).data or {}


async def read_history(client: "Client", namespace: str) -> History:
    """Image sizes, pull rates and times to ready from the controller's ConfigMap.

    Without the right to read it, or without a controller, plans use the stated defaults; only the former is told.
    """
    try:
        body = await client.get(CONFIG_MAPS, namespace, HISTORY_CONFIG_MAP)
    except ApiError as error:
        if not error.not_found:
            typer.echo(f"prewarm: planning without what was learnt: {error}", err=True)
        return History()
    try:
        data = msgspec.json.decode(body, type=_ConfigMap).binary_data or {}
        return decode(base64.b64decode(data.get(HISTORY_KEY, ""), validate=True))
    except (msgspec.DecodeError, binascii.Error):
        return History()

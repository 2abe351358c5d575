"""What the controller has learnt, for plans that look like its own."""

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec
import typer
from msgspec import Struct

from prewarm.api.names import HISTORY_CONFIG_MAP
from prewarm.cluster.errors import ApiError
from prewarm.controller.persistence import HISTORY_KEY
from prewarm.history import History, decode
from prewarm.model.intents import CONFIG_MAPS

if TYPE_CHECKING:
    from prewarm.cluster.client import Client


class _ConfigMap(Struct):
    binary_data: dict[str, str] | None = msgspec.field(default=None, name="binaryData")


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

"""Times at which an ImageCache is looked after, as objects write them."""

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

from prewarm.api.fields import ApiModel, cel, rules

_CRON = "write the five fields of a cron schedule, such as 30 5 * * 1-5"


def _cron(value: str) -> str:
    if len(value.split()) != 5:
        raise ValueError(_CRON)
    try:
        CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"{_CRON} ({error})") from None
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("write the name of a time zone, such as Europe/Berlin or Etc/UTC") from None
    return value


class ScheduleFields(ApiModel):
    """Times at which the images are looked after, instead of all the time."""

    cron: Annotated[
        str,
        AfterValidator(_cron),
        Field(
            min_length=1,
            max_length=100,
            json_schema_extra=rules(cel(r"self.matches('^\\s*\\S+(\\s+\\S+){4}\\s*$')", _CRON)),
        ),
    ]
    """Five fields as in a CronJob: minute, hour, day of month, month, day of week. At these times the ImageCache is
    refreshed: what is missing is pulled, tags that may have moved are asked for again."""
    time_zone: Annotated[str, AfterValidator(_zone), Field(min_length=1, max_length=64)] = "Etc/UTC"
    """Name from the time zone database, such as Europe/Berlin."""

"""Samples of a pub's figures, for tests."""

from datetime import datetime
from typing import Any

from pubs.history import COLUMNS
from pubs.models import Bot, StatsSample


def sample(bot: Bot, at: datetime, value: float = 1, **other: Any) -> StatsSample:
    """One of 10 seconds in which every figure is `value`, but for the others; unsaved."""
    return StatsSample(bot=bot, **{"step": 10, "at": at, **dict.fromkeys(COLUMNS, value), **other})

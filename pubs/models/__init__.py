"""What a customer owns, and what is known of it."""

from pubs.models.bots import (
    NAME_MAX,
    NAME_TAKEN,
    WAITS_FOR_RESTORE,
    Bot,
    BotQuerySet,
    Command,
    PaymentChange,
    Rung,
    Status,
    StatusChange,
    Step,
    check_name,
    tidy_name,
)
from pubs.models.monitoring import METRICS, Checkup, Event, Notices, StatsSample, Trouble

__all__ = [
    "METRICS",
    "NAME_MAX",
    "NAME_TAKEN",
    "WAITS_FOR_RESTORE",
    "Bot",
    "BotQuerySet",
    "Checkup",
    "Command",
    "Event",
    "Notices",
    "PaymentChange",
    "Rung",
    "StatsSample",
    "Status",
    "StatusChange",
    "Step",
    "Trouble",
    "check_name",
    "tidy_name",
]

"""The names under which peers reach the pubs, and the records that lead them to the right hub.

`connect()` gives what settings.DNS names: `none.NoNames`, where one host name serves all pubs, or `rfc2136.ZoneNames`,
which keeps a record a pub in a zone of a name server.
"""

from collections.abc import Mapping
from typing import Protocol, cast
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string
from django.utils.text import slugify

LABEL_MAX = 63


class NamesError(Exception):
    """Something that the name server refused or could not do, in words for staff."""


class Names(Protocol):
    """The address records of our deployment. Each deed may be done twice; each may raise NamesError."""

    def records(self) -> dict[str, str]:
        """Host → IP address of every record of ours; "" for one that is not as we would write it."""

    def sync(self, wanted: Mapping[str, str]) -> None:
        """Make our records be `wanted` (host → IP address) and no others; what is not ours stays as it is.

        A host that is left out loses its record. One whose address is "", not known just now, keeps what it has.
        """


def connect() -> Names:
    """The names that settings chose."""
    return cast(Names, import_string(settings.DNS)())


def sync(wanted: Mapping[str, str]) -> None:
    """What `Names.sync` says, with the names that settings chose."""
    connect().sync(wanted)


def host_of(label: str) -> str:
    """The host name in a pub's address: its own under PUB_DOMAIN, or the one that all pubs share."""
    return f"{label}.{settings.PUB_DOMAIN}" if settings.PUB_DOMAIN else settings.PUB_HOST


def label_of(name: str, bot_id: UUID) -> str:
    """A pub's label for life: what plain letters its first name has, and six digits of its id to be the only one."""
    digits = bot_id.hex[:6]
    word = slugify(name).replace("_", "-")[: LABEL_MAX - 1 - len(digits)].strip("-")
    return f"{word or 'pub'}-{digits}"

"""The plan in sentences for staff: what would be done, to which pub or hub, and why."""

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from orchestrator.models import Hub
from orchestrator.planner import (
    Action,
    Adopt,
    BuyHub,
    CancelMove,
    DestroyHub,
    EnsureDown,
    EnsureHub,
    EnsureMoved,
    EnsureUp,
    FenceHub,
    GiveUpHub,
    Place,
    Report,
    Resize,
    Saving,
    StartMove,
    UnfenceHub,
    Wait,
)
from orchestrator.world import World
from pubs.models import Bot, Rung

State = Hub.State

NOTHING = "Nothing to do: the swarm is as it should be."
ENSURED: dict[str, str] = {
    State.REQUESTED: "the cloud is asked for its machine",
    State.BOOTING: "its machine is on its way: we look whether it has joined the swarm",
}
DESTROYED: dict[str, str] = {
    State.READY: "it has been empty for a while, and there is room enough without it",
    State.DRAINING: "it is drained and empty",
    State.FAILED: "it failed, and its time is up",
    State.DESTROYING: "its machine is not gone yet",
}
# By rung, for what may not run.
UNPAID: dict[str, str] = {
    Rung.NEW: "it is not paid yet",
    Rung.SUSPENDED: "its payment failed or is paused",
    Rung.KEPT: "it is no longer paid, and kept",
    Rung.OVER: "it is no longer paid, nor kept for sure",
}


class Sentences:
    """With the names and the reasons that a pass has read."""

    def __init__(self, world: World) -> None:
        self.bots = {bot.pk: bot for bot in world.bots}
        self.hubs = {hub.pk: hub for hub in world.hubs}
        self.homes = world.placements
        self.services = world.services

    def of(self, actions: Iterable[Action]) -> list[str]:
        """A line for each; the same thing several times is one line."""
        lines = Counter(self._say(action) for action in actions)
        return [line if times == 1 else f"{line} ({times} times)" for line, times in lines.items()] or [NOTHING]

    def of_saving(self, saving: Saving) -> list[str]:
        hub = self._hub(saving.hub)
        moves = [f"  {self._pub(bot)} would move to {self._hub(to)}." for bot, to in saving.moves]
        return [f"Draining {hub} would save its machine: manage.py hub drain {hub}", *moves]

    def _say(self, action: Action) -> str:
        match action:
            case Place(bot, hub, places):
                return f"{self._pub(bot)} gets {places} GB on {self._hub(hub)}."
            case Resize(bot, places):
                return (
                    f"{self._pub(bot)} gets {places} GB on {self._home(bot)} in place of {self.homes[bot].places} GB."
                )
            case EnsureUp(bot):
                return f"{self._pub(bot)} is started on {self._home(bot)}: {self._why_up(bot)}."
            case EnsureDown(bot):
                return f"{self._pub(bot)} is stopped on {self._home(bot)}: {self._why_down(bot)}."
            case StartMove(bot, hub):
                return f"{self._pub(bot)} moves from {self._home(bot)}, which is drained, to {self._hub(hub)}."
            case EnsureMoved(bot):
                return f"{self._pub(bot)} is on its way from {self._home(bot)} to {self._target(bot)}."
            case CancelMove(bot):
                return f"{self._pub(bot)} stays on {self._home(bot)}: its move to {self._target(bot)} is called off."
            case Wait(bot, reason):
                return f"{self._pub(bot)} waits. {reason}"
            case BuyHub():
                return "One more machine is bought: what is there and on its way has too little room."
            case EnsureHub(hub):
                why = ENSURED.get(self._state(hub), "it is out of sight: we look whether it needs its mark again")
                return f"{self._hub(hub)}: {why}."
            case GiveUpHub(hub, reason):
                return f"{self._hub(hub)} is given up and then destroyed. {reason}"
            case DestroyHub(hub):
                return f"{self._hub(hub)} is destroyed: {self._why_destroyed(hub)}."
            case FenceHub(hub):
                return f"{self._hub(hub)} is fenced: its machine is off for good, and what was on it is lost."
            case UnfenceHub(hub):
                return f"{self._hub(hub)} is fenced no more: the cloud lists its machine again."
            case Adopt(stranger):
                return f"A machine of ours that no row knows ({stranger}) is watched for 10 minutes, then destroyed."
            case Report(about, reason):
                return f"Staff must look at {self._about(about)}. {reason}"

    # --- why ---
    def _why_up(self, bot: UUID) -> str:
        if not self.bots[bot].ssb_id:
            return "it has no identity yet"
        return "its service must change" if bot in self.services else "it has no service"

    def _why_down(self, bot_id: UUID) -> str:
        bot = self.bots[bot_id]
        if bot.deleted_at:
            return "it was deleted"
        if not bot.paid:
            return UNPAID.get(bot.rung, "it is not paid")
        return "its hub is lost" if bot.switched_on else "its owner switched it off"

    def _why_destroyed(self, hub: int) -> str:
        seen = self.hubs[hub]
        return "it is fenced" if seen.fenced_at else DESTROYED[seen.state]

    # --- names ---
    def _pub(self, bot_id: UUID) -> str:
        """Owners may choose the same name, so some of its id stands beside it."""
        bot: Bot | None = self.bots.get(bot_id)
        return f"“{bot}” ({bot_id.hex[:8]})" if bot else f"the unknown bot {bot_id}"

    def _hub(self, hub: int | None) -> str:
        return str(self.hubs[hub]) if hub in self.hubs else "a hub that is gone"

    def _about(self, about: UUID | int | None) -> str:
        if isinstance(about, UUID):
            return self._pub(about)
        return "the hubs" if about is None else self._hub(about)

    def _state(self, hub: int) -> str:
        return self.hubs[hub].state if hub in self.hubs else ""

    def _home(self, bot: UUID) -> str:
        return self._hub(self.homes[bot].hub_id) if bot in self.homes else "no hub"

    def _target(self, bot: UUID) -> str:
        return self._hub(self.homes[bot].moving_to_id)

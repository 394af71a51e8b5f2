"""The websocket of a pub's log: it only carries what the broadcaster of the pub's hub reads."""

from typing import Any

from orchestrator.consumers import OwnPubConsumer, ready
from pubs import live

WAITING = 10  # messages that wait for a slow browser: a second of a flood


class LogsConsumer(OwnPubConsumer):
    """What a pub writes, for its owner. Of what waits for a slow browser the oldest is dropped, and the browser counts
    what is missing.
    """

    has_begun = False
    passed = 0  # messages

    @property
    def group(self) -> str:
        return live.log_group(self.bot_id)

    def look(self) -> dict[str, str]:
        message = live.watch_message(self.bot_id, "logs")
        return message if self.has_begun else message | {"reader": self.channel_name}

    async def begin(self) -> None:
        # The browser knows that it is heard, even while nobody can see its pub.
        self._soon("waiting", ready({"kind": "waiting"}))

    async def log_begin(self, event: dict[str, Any]) -> None:
        """What was sent before we came, or the beginning of another broadcaster's stream. It holds what still waits."""
        self.has_begun = True
        self.to_say.clear()
        self._pass_on("begin", event)

    async def log_lines(self, event: dict[str, Any]) -> None:
        if self.has_begun:
            self._pass_on("lines", event)

    def _pass_on(self, kind: str, event: dict[str, Any]) -> None:
        if len(self.to_say) == WAITING:
            del self.to_say[next(iter(self.to_say))]
        self.passed += 1
        message = {"kind": kind, "stream": event["stream"], "lines": event["lines"]}
        self._soon(f"{kind} {self.passed}", ready(message))

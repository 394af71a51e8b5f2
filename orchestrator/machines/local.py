"""This machine as the one hub: nothing is bought, nothing can be destroyed."""

from collections.abc import Callable
from uuid import UUID

from django.conf import settings

from orchestrator import swarm
from orchestrator.machines import Machine, Refused
from orchestrator.models import Hub


class LocalMachines:
    def list(self) -> list[Machine]:
        """This machine is always there and bears the mark of whichever hub is its row."""
        row = Hub.objects.exclude(state=Hub.State.GONE).order_by("id").first()
        return [Machine(row.token, row.name, public_address=settings.PUB_HOST)] if row else []

    def create(self, token: UUID, name: str, user_data: Callable[[], str]) -> None:
        if token not in (machine.token for machine in self.list()):
            raise Refused("This machine is the only hub there is.")
        here = next(node for node in swarm.connect().look().nodes if node.is_manager_here)
        swarm.connect().mark_node(here.id, token)

    def is_gone(self, token: UUID) -> bool:
        return False

    def destroy(self, token: UUID) -> bool:
        if Hub.objects.filter(token=token, answered_at=None).exists():
            return True  # it never became a hub, so that its row can go
        raise Refused("This machine is the hub: it can't be destroyed from here.")

"""What falls due when, of everything in the store, so that nobody has to look through all of it."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count

from .store import Json, Store

type Deed = Callable[[], object]
type Due = tuple[int, Deed]

# At the same moment, what is named first here is done first.
KINDS = ("checkout.session", "subscription", "invoice", "charge", "dispute")


class Agenda:
    """The earliest date of each object, in a heap.

    `dues_of` tells the dates of an object, and what to do then. Whoever gives an object an earlier date calls `note`;
    a date that has gone, or moved away, is noticed when its turn comes.
    """

    def __init__(self, store: Store, dues_of: Callable[[Json], Iterator[Due]]) -> None:
        self.store = store
        self.dues_of = dues_of
        self._heap: list[tuple[int, int, int, str, str]] = []
        self._noted: dict[str, int] = {}
        self._numbers = count()

    def fill(self) -> None:
        """Notes all that is in the store, once after it was read."""
        for kind in KINDS:
            for found in self.store.all(kind):
                self.note(found)

    def note(self, found: Json) -> None:
        """Puts the object's earliest date on the agenda, unless one as early stands there."""
        due = self._earliest(found)
        if due is None or self._noted.get(found["id"], due[0] + 1) <= due[0]:
            return
        self._noted[found["id"]] = due[0]
        rank = KINDS.index(found["object"])
        heappush(self._heap, (due[0], rank, next(self._numbers), found["object"], found["id"]))

    def do_next(self, limit: int, at: Callable[[int], None]) -> bool:
        """Does the oldest thing that is due until a moment, after telling `at` when. False if nothing is."""
        while self._heap and self._heap[0][0] <= limit:
            moment, _, _, kind, object_id = heappop(self._heap)
            if self._noted.get(object_id) != moment:
                continue
            del self._noted[object_id]
            found = self.store.find(kind, object_id)
            due = found and self._earliest(found)
            if found and due and due[0] <= moment:
                at(moment)
                due[1]()
                self.note(found)
                return True
            if found:
                self.note(found)
        return False

    def _earliest(self, found: Json) -> Due | None:
        # The first of two at the same moment, so `dues_of` says which comes first.
        return min(self.dues_of(found), key=lambda due: due[0], default=None)

"""Room in memory for what requests hold at once."""

import weakref

from service.errors import Overloaded
from service.media import Pixels


class Room:
    """Counts the bytes of pictures while anything refers to them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: dict[int, int] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of all pictures that are held now."""
        # A copy: a picture may be let go by any thread.
        return sum(list(self._held.values()))

    def hold(self, pixels: Pixels) -> None:
        """Counts a picture until nothing refers to it; one held already is counted once.

        Raises Overloaded where it does not fit beside the others; alone, any fits.
        """
        key, others = id(pixels), self.held_bytes
        if key in self._held:
            return
        if others and others + pixels.nbytes > self.max_bytes:
            raise Overloaded
        self._held[key] = pixels.nbytes
        weakref.finalize(pixels, self._held.pop, key).atexit = False

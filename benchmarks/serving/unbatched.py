"""The service with its batcher taken out: each job runs at once, alone, on a thread."""

import asyncio
import sys
from typing import Any

from benchmarks.serving.ours import serve
from service import predictor
from service.batcher import Batcher, Lane
from service.turns import Requester


class Unbatched(Batcher):
    """Takes the batcher's place."""

    async def submit(
        self, lane: Lane, payload: Any, requester: Requester, *, admitted: bool = False
    ) -> Any:
        """Runs the job."""
        (result,) = await asyncio.to_thread(lane.run, [payload], 1)
        return result


if __name__ == "__main__":
    predictor.Batcher = Unbatched  # type: ignore[misc]
    sys.exit(serve())

"""The ingress's backend in `fused` mode: preprocessing, model and postprocessing in the ingress's own process.

It is the local server's backend, so the steps, their stages, limits and batches are the same code.
"""

from __future__ import annotations

from mlplatform.settings import Settings
from serving.backend import ReloadReport
from serving.local import LocalBackend, Stages
from serving.ray_peers import Peers


class FusedBackend(LocalBackend):
    """Computes answers in this replica; a reload is one of all replicas.

    Parameters:
        settings: the experiment, and the place of its registry and store.
        peers: the replicas of the ingress.
        stages: shared with the other experiments of the replica.
    """

    def __init__(self, settings: Settings, peers: Peers, stages: Stages) -> None:
        super().__init__(settings, stages)
        self._experiment, self._peers = settings.experiment, peers

    async def reload(self) -> ReloadReport:
        """Have all replicas serve the pair that is in production now."""
        return await self._peers.reload(self._experiment)

    async def reload_here(self) -> ReloadReport:
        """Have this one serve it."""
        return await super().reload()

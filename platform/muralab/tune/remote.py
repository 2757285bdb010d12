"""How trials run that do not use the folders of the command's machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muralab.config.parsing import LOCAL
from muralab.tune.node_fitness import own_versions


@dataclass(frozen=True, kw_only=True)
class Remote:
    """How trials run that do not use the folders of this machine."""

    storage: str
    """URI of what all nodes share."""
    sweep: str
    """The search's folder there."""
    specs: Mapping[str, Mapping[str, Any]]
    """Trial -> its specification with names instead of paths."""
    address: str = LOCAL
    """Of the cluster; LOCAL: a Ray of our own on this machine."""
    modules: Sequence[str] = ()
    """Folders and files of the code that travels to the nodes."""
    grows: bool = False
    """Whether a node that joins is used: as many trials run at once as the cluster holds."""

    @property
    def cluster(self) -> dict[str, Any] | None:
        """The existing cluster that the trials run on; None: a Ray of our own."""
        if self.address == LOCAL:
            return None
        return {"address": self.address, "modules": list(self.modules)}

    def shared(self, *, needs_gpu: bool) -> dict[str, Any]:
        """What every trial's process is told beside its specification; with whether it trains on a GPU."""
        return {
            "storage": self.storage,
            "sweep": self.sweep,
            "packages": own_versions(),
            "is_cluster": self.address != LOCAL,
            "needs_gpu": needs_gpu,
        }

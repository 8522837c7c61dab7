"""What becomes of series that begin inside the lookback: the one place where that is decided, for every route.

Servers, batches and the pyfunc ask here, with the experiment's word for it or that of the pair's contract.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlplatform.datamodule import Panel
from mlplatform.registry.forecaster import Contract
from mlplatform.registry.observation import Bools, are_short


@dataclass(frozen=True)
class ShortSeries:
    """The policy for series that begin inside the lookback, more than a tenth of it late.

    Attributes:
        action: `model`, which answers them as all others; `naive`: something stands in; `skip`: an answer of several
            goes without them and names them, and one of nothing else is refused; `refuse`: a request with one of them
            is refused. Empty if nothing was said: then what the feature store holds is answered as all others, and
            rows that are fewer than a forecast reads are refused.
    """

    action: str = ""

    @property
    def takes_few_rows(self) -> bool:
        """Whether rows that are fewer than a forecast reads are a window that begins without values."""
        return self.action != ""

    @property
    def stands_in(self) -> bool:
        """Whether something stands in for the model's forecast of such a series."""
        return self.action == "naive"

    @property
    def leaves_out(self) -> bool:
        """Whether an answer that has others goes without them."""
        return self.action == "skip"

    def not_for_model(self, panel: Panel, contract: Contract) -> Bools:
        """Return the series that are too short for the model, of shape (entities,).

        Parameters:
            panel: as for `observed_shares`.
        """
        if self.action in ("", "model"):
            return np.zeros(len(panel.entity_ids), dtype=bool)
        return are_short(panel, contract)

    def why(self, contract: Contract) -> str:
        """Return why such a series has no answer, in words."""
        begins = f"begins inside the {contract.lookback} steps that a forecast looks at"
        if self.stands_in:
            return f"{begins}, and nothing measured is there to stand in"
        return f"{begins}, and observation.short is {self.action}"

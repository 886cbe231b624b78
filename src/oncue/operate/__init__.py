"""The operator's view: one read model and one set of actions, shown by the page, the HTTP API and the command line."""

from __future__ import annotations

from oncue.operate.find import Filter
from oncue.operate.operator import Operator

__all__ = ["Filter", "Operator"]

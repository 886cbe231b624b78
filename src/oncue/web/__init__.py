"""OnCue over HTTP: the route for an external cron, health, and what ``oncue serve`` runs. Needs ``oncue[web]``."""

from __future__ import annotations

try:
    import starlette  # noqa: F401 - asked for here, so that what is missing is said once and clearly
except ModuleNotFoundError as error:  # pragma: no cover - the tests have it
    raise ModuleNotFoundError("oncue.web needs Starlette: pip install 'oncue[web]'") from error

from oncue.web.asgi import cron_app, web_app
from oncue.web.cron import CRON_PATH

__all__ = ["CRON_PATH", "cron_app", "web_app"]

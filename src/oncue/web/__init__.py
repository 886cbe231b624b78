"""OnCue over HTTP: the operator's page and API, cron's route, those of messengers, health, and ``oncue serve``.

Needs ``oncue[web]``.
"""

from __future__ import annotations

try:
    import starlette  # noqa: F401 - asked for here, so that what is missing is said once and clearly
except ModuleNotFoundError as error:  # pragma: no cover - the tests have it
    raise ModuleNotFoundError("oncue.web needs Starlette: pip install 'oncue[web]'") from error

from oncue.web.access import Identity
from oncue.web.asgi import cron_app, dashboard_app, web_app, webhook_app
from oncue.web.cron import CRON_PATH

__all__ = ["CRON_PATH", "Identity", "cron_app", "dashboard_app", "web_app", "webhook_app"]

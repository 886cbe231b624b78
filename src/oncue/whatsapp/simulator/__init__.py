"""A simulator of the WhatsApp Cloud API for honest tests, in process and stand-alone. Needs ``oncue[web,whatsapp]``.

app = create(Config(people=[Person("4915700000001", "Ana", answers=["Ana", "good"])]))
await app.simulator.webhooks.subscribe("http://127.0.0.1:8000/webhooks/whatsapp", "local-verify-token")
"""

from __future__ import annotations

from oncue.errors import ConfigError

try:
    import httpx  # noqa: F401 - asked for here, so that what is missing is said once and clearly
    import starlette  # noqa: F401
except ModuleNotFoundError as error:  # pragma: no cover - the tests have both
    raise ConfigError("The simulator needs Starlette and httpx: pip install 'oncue[web,whatsapp]'") from error

from oncue.whatsapp.simulator.app import App, create
from oncue.whatsapp.simulator.config import Config, Delays, Limits, Template, Webhooks
from oncue.whatsapp.simulator.content import Message
from oncue.whatsapp.simulator.core import Simulator
from oncue.whatsapp.simulator.faults import Fault
from oncue.whatsapp.simulator.people import Person
from oncue.whatsapp.simulator.server import serving

__all__ = [
    "App", "Config", "Delays", "Fault", "Limits", "Message", "Person", "Simulator", "Template", "Webhooks", "create",
    "serving",
]  # fmt: skip

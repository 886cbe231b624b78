"""What callers give over HTTP: names and times, each with what the API's description says of it.

The patterns tell what is checked elsewhere, in plain words, so they are for the description alone.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from oncue.task import UNPRINTABLE

PLAIN = r"^[^\x00]*$"
"""What every database can hold."""
PRINTABLE = f"[^{UNPRINTABLE}]+"
_REST = (
    "-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
    "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)

Sought = Annotated[str, msgspec.Meta(min_length=1, max_length=255, extra_json_schema={"pattern": PLAIN})]
"""A name to look for."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, extra_json_schema={"pattern": f"^{PRINTABLE}$"})]
"""A name to give to something: printable characters."""
Moment = Annotated[
    str, msgspec.Meta(extra_json_schema={"format": "date-time", "pattern": f"^(?!0000)[0-9]{{4}}{_REST}"})
]
"""Any time, to look from or to."""
Due = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"format": "date-time", "pattern": f"^(19[7-9][0-9]|[2-9][0-9]{{3}}){_REST}"}),
]
"""When a job is to be due: from 1970 to 9999."""
Delay = Annotated[float, msgspec.Meta(ge=0, le=10_000_000_000, description="Seconds from now.")]

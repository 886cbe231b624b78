"""How people write an address, and how their channel knows it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from oncue.errors import InvalidJob
from oncue.transport import Address, Addresses, Transport

# A phone number as people write it. Without a channel at hand that is all that can be told.
_PHONE = re.compile(r"\+?[0-9\s().\-/]+")


def address_of(transport: Transport, given: object) -> Address:
    """Return an address as its channel knows it. Raises InvalidJob for what can't be one there."""
    if not isinstance(given, str) or not given.strip():
        raise InvalidJob(f"An address is a text, such as a phone number with its country code, not {given!r}.")
    return transport.address(given.strip()) if isinstance(transport, Addresses) else Address(given.strip())


def names_of(given: str, transports: Iterable[Transport]) -> list[str]:
    """Return the names that a person may be kept under who is looked for by this one: as it is written first."""
    written = given.strip()
    names = [written]
    for transport in transports:
        try:
            found = address_of(transport, written)
        except InvalidJob:
            # It may be a name of another channel.
            continue
        names += [name for name in (found.address, found.user_id) if name is not None]
    if _PHONE.fullmatch(written):
        names.append(re.sub("[^0-9]", "", written))
    return list(dict.fromkeys(names))

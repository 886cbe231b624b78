"""The application of ``peers.oncue_peer`` that counts nothing: what is left when all that the operator sees is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from bench.peers.oncue_peer import app
from oncue.metrics import Found, Recorder, Settled

__all__ = ["app"]


class Nothing(Recorder):
    """Forgets what it is told, so that no minutes are written either."""

    def round(self, worker: int, now: int, entries: Sequence[Settled], found: Found) -> None: ...

    def acked(self, worker: int, now: int, entries: Sequence[Settled], lost: Collection[int] = ()) -> None: ...

    def rescues(self, now: int, entries: Sequence[Settled]) -> None: ...

    def swept(self, now: int, done: Iterable[tuple[str, int]] | None) -> None: ...


app.metrics = Nothing()

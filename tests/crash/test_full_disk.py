"""A full disk refuses new work with a clear error and loses nothing; work goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.stage import Stage


class Disk:
    """A disk that can be filled and freed."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted

    def fill(self, stage: Stage) -> None:
        """Leave no room."""
        if not self.mounted:
            (stage.folder / "full").touch()
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (65536, 4096, 1):
                try:
                    while filler.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def free(self, stage: Stage) -> None:
        """Make room again."""
        (self.folder / "filler" if self.mounted else stage.folder / "full").unlink()


@pytest.fixture(params=["a mounted disk of 4 MB", "a page limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a page limit":
        yield Disk(folder, mounted=False)
        return
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"no disk can be mounted here ({mount.stderr.strip()}); the page limit stands in for it")
    yield Disk(folder, mounted=True)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, disk: Disk) -> None:
    with Stage(tmp_path, database=disk.folder / "jobs.db") as stage:
        stage.finish(stage.ready("producer", kind="gated", count=5))
        worker = stage.ready("worker", lease=3600.0)
        stage.seen("start", 5)
        producer = stage.ready("producer", kind="large", size=50_000)
        stage.seen("promised", 6)
        disk.fill(stage)
        stage.seen("refused", 2)
        # The outcomes of what runs can't be written now; the worker keeps them, and says so.
        (stage.folder / "gate").touch()
        stage.wait(lambda _: "No room left for" in worker.log.read_text(), "the worker says so")
        disk.free(stage)
        confirmed = len(stage.lines("promised"))
        stage.seen("promised", confirmed + 2)
        stage.stop(producer)
        stage.stop_after_rest(worker)
        verdict = stage.verdict()
        assert not verdict.wrong, verdict
        assert verdict.again == 0
        for line in stage.lines("refused"):
            assert line.note.startswith("StoreFull: No room left for "), line.note
            assert str(stage.database) in line.note
            assert "free space" in line.note

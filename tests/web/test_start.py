"""A server that can't work does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncue import OnCue
from oncue.web import web_app
from tests.web.conftest import SECRET, serving


def test_a_database_that_cannot_be_used_fails_the_servers_start(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/no/such/folder/jobs.db")
    with pytest.raises(RuntimeError, match="did not start"), serving(web_app(app, secret=SECRET)):
        raise AssertionError("must not begin")

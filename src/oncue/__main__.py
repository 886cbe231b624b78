"""``python -m oncue`` is the ``oncue`` command."""

from __future__ import annotations

from oncue.cli import main

if __name__ == "__main__":
    main()

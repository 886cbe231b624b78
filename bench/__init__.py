"""The same work for OnCue and for its peers, in one run. Start it with ``python -m bench``."""

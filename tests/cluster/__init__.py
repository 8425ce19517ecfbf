"""Real Ray nodes on this machine: `pytest -m cluster`."""

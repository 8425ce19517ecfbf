"""The sweep: ledger, conductor, searcher, schedulers, and Ray Tune as its hands.

Nothing is imported here: Ray reads its environment at import, and ``wsl_sweep.sweep.environment`` sets it before.
"""

"""``python -m wsl_sweep`` is the ``wsl-sweep`` command."""

from wsl_sweep.cli import main

if __name__ == "__main__":
    main()

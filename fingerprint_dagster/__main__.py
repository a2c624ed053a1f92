"""`python -m fingerprint_dagster` is the command `fingerprint`."""

from fingerprint_dagster.cli import main

if __name__ == "__main__":
    main()

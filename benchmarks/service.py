"""How fast the service answers, cold, warm and cached, and how much faster batches are: `fingerprint bench`.

    python benchmarks/service.py [--iterations N] [--no-cold] [--media FOLDER] [--json FILE]

Prints the configuration, a row for each content type and kind of request with PASS or FAIL, batches of ten one after
the other and together, and the comparison with what such a service is usually promised with.
"""

from fingerprint_dagster.cli.bench import bench

if __name__ == "__main__":
    bench()

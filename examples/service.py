"""The service in an application: fingerprint a folder at once, ask what a file is a copy of, look at the figures.

python examples/service.py FOLDER QUERY
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from fingerprint_dagster import FingerprintService


async def main(folder: Path, query: str) -> None:
    """Fingerprint every file of the folder, then search for the query."""
    async with FingerprintService() as service:
        click.echo(await service.load_models())
        files = (str(path) for path in sorted(folder.rglob("*")) if path.is_file())
        async for result in service.stream_fingerprints(files):
            said = result.fingerprint if result.ok else f"{result.stage}: {result.error}"
            click.echo(f"{result.processing_time_ms:8.1f} ms  {result.content_url}  {said}")
        for match in await service.search(query):
            click.echo(f"{match.score:.3f}  {match.reference.uri}  by {match.evidence}")
        stats = service.get_cache_stats()
        click.echo({name: stats[name] for name in ("cache_size", "hits", "misses", "hit_rate", "device")})


if __name__ == "__main__":  # Worker processes import this file.
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/service.py FOLDER QUERY")
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))

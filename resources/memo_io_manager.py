"""The IO manager between the stage assets: what travels is keys; the values lie in the memo under them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from fingerprint_dagster.content import Content, Failure
from fingerprint_dagster.resources.engine import MemoResource
from fingerprint_dagster.stages import Entry, StageResult


class MemoIOManager(dg.ConfigurableIOManager):
    """Keeps one small JSON file for each stage and batch: which content has which memo key, or why it has none.

    Loading it reads no media: a stage asks the memo for just the values it has to work on, and a value that was
    evicted in the meantime is made again. The files are written whole or not at all.
    """

    memo: MemoResource
    results: str = Field(description="Folder of the stage results, one file for each stage and batch.")

    def handle_output(self, context: dg.OutputContext, obj: StageResult) -> None:
        """Write the result of one stage for one batch."""
        path = self._path(context)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(_to_json(obj)), encoding="utf-8")
        temporary.replace(path)
        usage = self.memo.open().usage().get(obj.stage)
        if usage is not None:
            context.add_output_metadata({"memo_entries": usage.entries, "memo_bytes": usage.bytes})

    def load_input(self, context: dg.InputContext) -> StageResult:
        """The result of the stage before, for the same batch."""
        path = self._path(context)
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError):  # Never written, or written when the power was cut.
            stage = context.asset_key.path[-1]
            raise dg.Failure(
                f"the result of stage {stage!r} for batch {_batch(context)!r} is gone from {self.results}; "
                f"materialize {stage} for this batch again (values in the memo are reused)",
                allow_retries=False,
            ) from None

    def _path(self, context: dg.OutputContext | dg.InputContext) -> Path:
        return Path(self.results) / context.asset_key.path[-1] / f"{_batch(context)}.json"


def _batch(context: dg.OutputContext | dg.InputContext) -> str:
    # Not `partition_key`: a run that a backfill starts names its one partition as a range.
    (batch,) = context.asset_partition_keys
    return batch


def _to_json(result: StageResult) -> dict[str, Any]:
    entries = [
        {**vars(entry), "content": vars(entry.content), "failure": vars(entry.failure) if entry.failure else None}
        for entry in result.entries
    ]
    return {**vars(result), "entries": entries}


def _from_json(data: dict[str, Any]) -> StageResult:
    entries = tuple(
        Entry(
            **{
                **entry,
                "content": Content(**entry["content"]),
                "failure": Failure(**entry["failure"]) if entry["failure"] else None,
            }
        )
        for entry in data["entries"]
    )
    return StageResult(**{**data, "entries": entries})

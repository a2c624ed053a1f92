"""What requests and answers of the HTTP API hold: one model for each, and all of the OpenAPI page's texts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# NUL can stand neither in a path nor in an address, and PostgreSQL stores no text with one.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", min_length=1, max_length=8192)]
Short = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", min_length=1, max_length=512)]

_TYPE = Field(default=None, description="image, audio, video, text, or a plugin's; by default the bytes decide")
_TOP = Field(default=10, ge=1, le=1000, description="references in the answer at most")


class Strict(BaseModel):
    """A request in which a misspelt name is an error."""

    model_config = ConfigDict(extra="forbid")


class Item(Strict):
    """One content of a batch."""

    url: Text = Field(description="https://..., s3://..., ipfs://..., data:..., where the server may fetch it")
    content_type: Short | None = _TYPE


class FingerprintRequest(Item):
    """One content to fingerprint."""

    use_cache: bool = Field(default=True, description="false: fetch, decode and compute anew")
    store: bool = Field(default=True, description="put it into the store, where searches find it")
    content_id: Short | None = Field(default=None, description="its id in the store; by default made from the url")
    metadata: dict[str, Any] = Field(default_factory=dict, description="kept with it, and given back as it is")
    record: bool = Field(default=False, description="answer with the whole fingerprint")


class BatchRequest(Strict):
    """Many contents to fingerprint."""

    items: list[Item] = Field(min_length=1)
    use_cache: bool = True
    store: bool = True


class SearchRequest(Item):
    """A content of which copies are looked for. It is not stored."""

    top: int = _TOP


class Failure(BaseModel):
    """Why something failed, and whether the same request can succeed later."""

    stage: str | None = Field(description="request, download, decode, embed, hash or store")
    reason: str
    retryable: bool


class Refusal(BaseModel):
    """The body of every answer that is an error."""

    error: Failure


class FingerprintAnswer(BaseModel):
    """One fingerprint, or in a batch the reason why there is none."""

    content_url: str
    content_type: str | None
    fingerprint: str | None = Field(description="equal if and only if bytes and algorithms are equal")
    processing_time_ms: float
    cached: bool
    error: Failure | None = None
    codes: dict[str, str] = Field(default_factory=dict, description="in the forms of other programs: pdq, iscc, ...")
    record: dict[str, Any] | None = None


class BatchAnswer(BaseModel):
    """The results of a batch, in the order of its items."""

    results: list[FingerprintAnswer]
    failed: int


class MatchAnswer(BaseModel):
    """One verified copy: ranges in seconds or characters, boxes as fractions (left, top, right, bottom)."""

    content_id: str
    uri: str
    content_type: str
    score: float
    confidence: float | None
    query_range: list[float] | None
    reference_range: list[float] | None
    query_box: list[float] | None
    reference_box: list[float] | None
    evidence: str
    strength: float
    details: dict[str, Any]


class SearchAnswer(BaseModel):
    """What the query is a copy of, best first."""

    query: str
    content_type: str
    processing_time_ms: float
    matches: list[MatchAnswer]


class Cleared(BaseModel):
    """How many cached answers were forgotten."""

    removed: int


class State(BaseModel):
    """Whether the server lives, and whether it takes requests."""

    status: str
    device: str | None = None

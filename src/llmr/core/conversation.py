"""What tells one conversation from another, and whose thoughts it carries. No words are kept."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from llmr.core.body import Body

IDS = ("session_id", "prompt_cache_key")
HEADER = "x-session-id"
LONGEST_ID = 256
READ = 4096  # characters of each opening message
NO_ID = (b"null", b'""')

# Who can read the thoughts of a model back, by the format that they name.
FORMAT = re.compile(rb'"format"\s*:\s*"([a-z-]+)-v\d+"')
FAMILIES = {
    b"anthropic-claude": "anthropic",
    b"google-gemini": "google",
    b"openai-responses": "openai",
    b"azure-openai-responses": "openai",
    b"xai-responses": "x-ai",
}


def session_of(
    body: Body, opening: Sequence[tuple[str, str]], headers: Mapping[str, str]
) -> tuple[bytes, bool]:
    """(digest, whether the caller named it) of the id of a conversation, or else of how it began.

    `opening` are (role, text) of its first messages up to the first of the user; that tells apart
    the conversations of one `user`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in IDS:
        raw = body.fields.get(name)
        if raw is not None and bytes(raw) not in NO_ID:
            digest.update(name.encode() + b"=" + bytes(raw)[:LONGEST_ID])
            return digest.digest(), True
    if given := headers.get(HEADER):
        digest.update(b'session_id="' + given[:LONGEST_ID].encode() + b'"')
        return digest.digest(), True
    if "user" in body.fields:
        digest.update(b"user=" + bytes(body.fields["user"])[:LONGEST_ID] + b"\0")
    for role, text in opening:
        digest.update(role.encode() + b"\0" + text[:READ].encode("utf-8", "replace") + b"\0")
    return digest.digest(), False


def families_in(thoughts: bytes) -> frozenset[str]:
    """The authors of models whose thoughts these are; formats that nobody knows are left out."""
    found = {FAMILIES.get(name) for name in FORMAT.findall(thoughts)}
    return frozenset(name for name in found if name is not None)

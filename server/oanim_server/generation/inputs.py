"""What an input names: its canonical form for the fingerprint, and the uploads that stand in it.

The input itself is never written anew: an upload is replaced where its string stands in the text, and no
other byte changes.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from oanim_models.quantities import InvalidInput, parse_input
from oanim_server.ledger.refusals import InvalidField

# Each is sent as a data URL of up to 28 MB.
MAX_UPLOADS_NAMED = 16

_NOT_IN_THE_ANSWER = (
    "sync_mode would put the files themselves into the answer: leave it out, DownloadOutput gives them"
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_COLON = re.compile(r"[ \t\r\n]*:")
_UPLOAD = re.compile(r"upload:([A-Za-z0-9_-]{1,64})")


class Named(NamedTuple):
    """Where in an input the string is that names an upload, quotes included."""

    start: int
    end: int
    upload_id: str


def canonical(model: str, input_json: str) -> str:
    """The request as JSON that is equal for equal requests, however they were written.

    :raises InvalidField: for what is not a JSON object, or asks for what would not be kept.
    """
    try:
        value = parse_input(input_json)
        # Models read more than `true` as a yes.
        if value.get("sync_mode") not in (None, False):
            raise InvalidField(field="input_json", description=_NOT_IN_THE_ANSWER)
        return json.dumps([model, value], sort_keys=True, separators=(",", ":"))
    except InvalidInput as error:
        raise InvalidField(field=error.field, description=error.description) from error
    except RecursionError as error:
        raise InvalidField(field="input_json", description="it is nested too deep") from error


def uploads_named(input_json: str) -> list[Named]:
    """Every string value `upload:ID` of a valid JSON text, however escaped; names of fields are none."""
    found = []
    for match in _STRING.finditer(input_json):
        if _COLON.match(input_json, match.end()):
            continue
        named = _UPLOAD.fullmatch(json.loads(match[0]) if "\\" in match[0] else match[0][1:-1])
        if named:
            found.append(Named(match.start(), match.end(), named[1]))
    return found


def checked_uploads(input_json: str) -> frozenset[str]:
    """The ids of the uploads that an input names.

    :raises InvalidField: when they are more than one input may name.
    """
    named = uploads_named(input_json)
    if len(named) > MAX_UPLOADS_NAMED:
        description = f"it names {len(named)} uploads and may name {MAX_UPLOADS_NAMED}"
        raise InvalidField(field="input_json", description=description)
    return frozenset(upload.upload_id for upload in named)


def clean(text: str, most: int = 500) -> str:
    """A provider's words as a database and a message of the contract can keep them."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:most]

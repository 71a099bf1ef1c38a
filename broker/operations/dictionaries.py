"""Handlers of the operations on the dictionaries of compressed frames."""

from __future__ import annotations

import math

from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.codes import ErrorCode
from protocol.operations.dictionaries import DictionaryInUse, DictionaryText, GetDictionary, UseDictionary

__all__ = ["HANDLERS"]

_NOT_HERE = "is no dictionary of this broker now, or has another codec now: the next HELLO says which"


def _get(parts: Parts, caller: Caller, request: GetDictionary) -> DictionaryText:
    found = parts.hub.dictionaries.text_of(request.sha256)
    if found is None:
        raise OperationError(ErrorCode.BAD_FIELD, _NOT_HERE, "sha256")
    dictionary, text = found
    return DictionaryText(dictionary.name, len(dictionary.data), text)


def _use(parts: Parts, caller: Caller, request: UseDictionary) -> DictionaryInUse:
    found = parts.hub.dictionaries.codec_of(request.sha256, parts.clock())
    if found is None or found[0] != request.codec:
        raise OperationError(ErrorCode.BAD_FIELD, _NOT_HERE, "sha256")
    codec, wait_s = found
    if wait_s:
        rule = "cannot be used yet: frames with the dictionary before it are on their way"
        raise OperationError(ErrorCode.OUT_OF_STATE, rule, "sha256", math.ceil(wait_s * 1000))
    if not caller.use_codec(codec):
        raise OperationError(ErrorCode.OUT_OF_STATE, "this link has no frames that are compressed")
    return DictionaryInUse(codec)


HANDLERS: dict[str, Handler] = {"dictionaries.get": _get, "dictionaries.use": _use}

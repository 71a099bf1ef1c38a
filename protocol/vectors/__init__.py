"""Golden vectors: the wire, written down in files that a client in any language can be tested with.

The ``*.json`` files of this folder are written by ``python -m protocol.vectors`` and never by hand; a test holds that
they are exactly what this code writes, and that they decode as they say.

- ``codes.json``: every number of the wire (opcodes, lanes, types, outcomes, error and close codes, limits).
- ``messages.json``: one message each, as a binary frame (``hex``), as JSON text (``text``) and, where it pays,
  compressed. ``body`` is the message with its fields' names.
- ``malformed.json``: what a peer must not send, in which state, and what it earns.
- ``session.json``: a short session, frame by frame; the transcript of SPEC.md.
- ``dictionary.json``: dictionary 1 of the lz4 codec.
"""

from __future__ import annotations

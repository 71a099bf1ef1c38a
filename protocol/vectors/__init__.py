"""Golden vectors: files with messages of the wire, for testing a client in any language.

``python -m protocol.vectors`` writes the ``*.json`` files of this folder; they are not edited by hand. A test checks
that they are what this code writes and that they decode to their bodies.

- ``codes.json``: every number of the wire (opcodes, lanes, types, outcomes, error and close codes, limits).
- ``messages.json``: one message each, as a binary frame (``hex``), as JSON text (``text``) and, where it gets smaller,
  compressed. ``body`` is the message with the names of its fields.
- ``malformed.json``: invalid messages, the state of their sender, and the resulting error or close code.
- ``session.json``: a short session, frame by frame; the transcript of SPEC.md.
- ``dictionary.json``: the built-in dictionary, that of codec 2.
"""

from __future__ import annotations

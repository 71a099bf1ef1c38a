// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
export const RECONNECT = {"minBackoffS": 0.5, "maxBackoffS": 30.0, "nowJitterS": 1.0, "stableS": 30.0, "maxPeerDelayS": 600.0};
export const TRANSITIONS = {
  "idle start": "connecting",
  "idle close": "closed",
  "connecting connected": "handshaking",
  "connecting lost": "waiting",
  "connecting refused": "waiting",
  "connecting terminal": "closed",
  "connecting close": "closed",
  "handshaking authenticated": "open",
  "handshaking lost": "waiting",
  "handshaking refused": "waiting",
  "handshaking goaway": "waiting",
  "handshaking terminal": "closed",
  "handshaking close": "closed",
  "open lost": "waiting",
  "open goaway": "waiting",
  "open terminal": "closed",
  "open close": "closed",
  "waiting timer": "connecting",
  "waiting close": "closed",
  "closed close": "closed",
};

// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "locks.acquire": [110, "LockLease"],
  "locks.renew": [111, "LockLease"],
  "locks.release": [112, "ReleasedLock"],
};
export const RECORDS = {
  "LockLease": [["fence", "integer 0.."], ["expires_at_ms", "integer 0.."]],
  "ReleasedLock": [["fence", "integer 0.."]],
};
export const ENUMS = {
};

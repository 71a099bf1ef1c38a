// Rules of fields, made from the types that SPEC.md and `tables.js` write: "integer 0..255", "nil or text 1..64".
import { CLOSE, ProtocolError } from "./errors.js";
import { ENUMS, PAYLOADS, RECORDS } from "./tables.js";

const FIXED = new Set(["Outcome", "LeaveReason", "Role", "RoomPhase", "Tier", "Lane"]);
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
const CONTROL_BUT_LINES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029]/;
const TEXT = /^(text|characters|character lines|lines) (\d+)\.\.(\d+)$/;
const INTEGER = /^integer (\d+)\.\.(\d*)$/;
const ARRAY = /^array of (\d+)\.\.(\d+) (.*)$/;
const MAP = /^map of \d+\.\.\d+ .*? to (.*)$/;
const PAIR = /^pair of (.*) and (.*)$/;
const cache = new Map();
const added = { records: {}, enums: {} };

/** Add records and enumerations of results to those of messages. */
export function addRecords(records, enums) {
  Object.assign(added.records, records);
  Object.assign(added.enums, enums);
}

class FieldError extends Error {
  constructor(rule, field = "") {
    super(field ? `${field}: ${rule}` : rule);
    this.rule = rule;
    this.field = field;
  }
}

function within(field, rule, value) {
  try {
    return rule(value);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    const dot = error.field && !error.field.startsWith("[") ? "." : "";
    throw new FieldError(error.rule, `${field}${dot}${error.field}`);
  }
}

function compile(type) {
  if (type.startsWith("nil or ")) return optional(rule(type.slice(7)));
  if (type.startsWith("name of ")) return rule(type.slice(8));
  let found = INTEGER.exec(type);
  if (found) return integer(Number(found[1]), found[2] ? Number(found[2]) : Number.MAX_SAFE_INTEGER);
  found = TEXT.exec(type);
  if (found) return text(Number(found[2]), Number(found[3]), found[1].endsWith("lines") ? CONTROL_BUT_LINES : CONTROL);
  found = ARRAY.exec(type);
  if (found) return array(Number(found[1]), Number(found[2]), rule(found[3]));
  found = PAIR.exec(type);
  if (found) return pair(rule(found[1]), rule(found[2]));
  found = MAP.exec(type);
  if (found) return map(rule(found[1]));
  if (type === "boolean") return boolean;
  if (type === "display name" || type === "user id or empty") return text(0, 64, CONTROL);
  if (type === "user id" || type === "room name") return text(1, 64, CONTROL);
  if (type === "operation") return operation;
  if (type === "style") return style;
  if (type === "combo") return (value) => (typeof value === "boolean" ? value : text(0, 64, CONTROL)(value));
  if (type === "SHA-256") return text(64, 64, CONTROL);
  if (type === "https URL") return text(1, 1024, CONTROL);
  const fields = RECORDS[type] ?? added.records[type];
  if (fields) return record(type, fields);
  const members = ENUMS[type] ?? added.enums[type];
  if (members) return member(type, members);
  return free;
}

const MAX_DEPTH = 16;
const DANMAKU = 1;

/** Any value, nested at most 16 deep. */
function free(value, depth = 0) {
  if (value !== null && typeof value === "object") {
    if (depth >= MAX_DEPTH) throw new FieldError(`must be nested at most ${MAX_DEPTH} deep`);
    for (const each of Array.isArray(value) ? value : Object.values(value)) free(each, depth + 1);
  }
  return value;
}

/** Return the rule of a type: it takes a decoded value and returns the value to keep, or throws. */
export function rule(type) {
  let found = cache.get(type);
  if (!found) {
    // Records may contain themselves only through arrays; the placeholder serves while the rule is made.
    cache.set(type, (value) => cache.get(type)(value));
    found = compile(type);
    cache.set(type, found);
  }
  return found;
}

function optional(inner) {
  return (value) => (value === null || value === undefined ? null : inner(value));
}

function integer(low, high) {
  return (value) => {
    if (Number.isInteger(value) && value >= low && value <= high) return value;
    throw new FieldError(`must be an integer from ${low} to ${high}`);
  };
}

function boolean(value) {
  if (typeof value !== "boolean") throw new FieldError("must be true or false");
  return value;
}

function operation(value) {
  return typeof value === "string" ? text(1, 64, CONTROL)(value) : integer(1, 0xffff)(value);
}

function style(value) {
  if (!Array.isArray(value) || value.length !== 3 || !value.every(Number.isInteger)) {
    throw new FieldError("must be an array of 3 integers");
  }
  return value;
}

function text(low, high, control) {
  return (value) => {
    if (typeof value !== "string") throw new FieldError("must be a text");
    // UTF-16 units are at least as many as code points, and at most twice as many.
    const units = value.length;
    if (units > high || units < low * 2) {
      const points = units > high * 2 ? units : [...value].length;
      // A character of people may have many code points; its own cap is in bytes.
      if (points > (control === CONTROL_BUT_LINES ? 2000 : Math.max(high, 1000)) || points < low) {
        throw new FieldError(`must have ${low} to ${high} characters`);
      }
    }
    if (control.test(value)) throw new FieldError("must have no control characters");
    return value;
  };
}

function array(low, high, inner) {
  return (value) => {
    if (!Array.isArray(value) || value.length < low || value.length > high) {
      throw new FieldError(`must be an array of ${low} to ${high} elements`);
    }
    return value.map((each, index) => within(`[${index}]`, inner, each));
  };
}

function pair(first, second) {
  return (value) => {
    if (!Array.isArray(value) || value.length !== 2) throw new FieldError("must be an array of 2 fields");
    return [within("[0]", first, value[0]), within("[1]", second, value[1])];
  };
}

function map(inner) {
  return (value) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) throw new FieldError("must be a map");
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, inner(each)]));
  };
}

function member(type, members) {
  const names = new Set(Object.values(members));
  return (value) => {
    if (Number.isInteger(value)) {
      const name = members[value];
      if (name !== undefined) return name;
      if (!FIXED.has(type)) return value;
    } else if (names.has(value)) return value;
    throw new FieldError(`must be a number of ${type}`);
  };
}

/** Return an entry of a tick in the form of its record: one of three is a danmaku, and an id may be a number. */
function wholeEntry(value) {
  if (!Array.isArray(value)) return value;
  const entry = value.length === 3 ? [DANMAKU, value[0], value[1], [value[2]]] : [...value];
  if (entry.length > 1) entry[1] = idOf(entry[1]);
  if (Array.isArray(entry[5])) entry[5] = entry[5].map(idOf);
  return entry;
}

function idOf(value) {
  return Number.isSafeInteger(value) && value > 0 ? String(value) : value;
}

function record(type, fields) {
  const whole = type === "TickEntry" ? wholeEntry : (value) => value;
  // A result is a record around free values, which is one level more.
  const rules = fields.map(([name, kind]) => (type === "Result" && name === "result" ? (value) => free(value, -1) : rule(kind)));
  const defaults = fields.map((field, index) => {
    const fallback = field[2];
    return field.length > 2 ? () => rules[index](fallback) : null;
  });
  return (given) => {
    const value = whole(given);
    const isArray = Array.isArray(value);
    if (!isArray && (value === null || typeof value !== "object")) throw new FieldError("must be an array of fields");
    const found = {};
    for (let index = 0; index < fields.length; index++) {
      const name = fields[index][0];
      const each = isArray ? value[index] : value[name];
      if (each !== undefined) {
        try {
          found[name] = rules[index](each);
        } catch {
          found[name] = within(name, rules[index], each);
        }
      } else if (defaults[index]) found[name] = defaults[index]();
      else throw new FieldError("is missing", name);
    }
    return found;
  };
}

/**
 * Return the record `name` that an array or object holds, enumerations by their names in lower case.
 * @throws {ProtocolError} BAD_BODY, with the path of the field that breaks its rule
 */
export function readRecord(name, value) {
  try {
    return rule(name)(value);
  } catch (error) {
    if (error instanceof FieldError) throw new ProtocolError(CLOSE.BAD_BODY, error.message);
    throw error;
  }
}

/** Return a payload as a record, or as it came if the type is not known or the payload not that of the type. */
export function readPayload(type, value) {
  const name = PAYLOADS[type];
  if (!name) return value;
  try {
    return rule(name)(value);
  } catch (error) {
    if (error instanceof FieldError) return value;
    throw error;
  }
}

const numbers = new Map();

/** Return the number of a member of an enumeration by its name in lower case; a number is returned as it is. */
export function numberOf(enumeration, name) {
  if (typeof name === "number") return name;
  let byName = numbers.get(enumeration);
  if (!byName) {
    byName = new Map(Object.entries(ENUMS[enumeration]).map(([number, each]) => [each, Number(number)]));
    numbers.set(enumeration, byName);
  }
  return byName.get(name);
}

// Operations: their numbers and the records of their results, one module for each subject, loaded with its first call.
import { NoAnswerError } from "./errors.js";
import { addRecords, readRecord } from "./rules.js";
import { SUBJECTS } from "./tables.js";

const loaded = new Map();
const loading = new Map();

/** Begin to load what is known of an operation; a call does not wait for it, only its result does. */
export function prepare(name) {
  const subject = String(name).split(".", 1)[0];
  if (loaded.has(subject) || !SUBJECTS.includes(subject)) return Promise.resolve();
  let promise = loading.get(subject);
  if (!promise) {
    promise = import(`./operations/${subject}.js`).then(({ OPERATIONS, RECORDS, ENUMS }) => {
      addRecords(RECORDS, ENUMS);
      loaded.set(subject, OPERATIONS);
    }).finally(() => loading.delete(subject));
    promise.catch(() => {});
    loading.set(subject, promise);
  }
  return promise;
}

const rowOf = (name) => loaded.get(String(name).split(".", 1)[0])?.[name];

/** Return the number of an operation, or its name as long as the number is not known; the broker takes both. */
export const operationNumber = (name) => rowOf(name)?.[0] ?? name;

/**
 * Return the result of a call as a record with names, or as it came for an operation that is not known here.
 * @throws {NoAnswerError} if the table of the subject could not be loaded
 */
export async function readResult(name, value) {
  try {
    await prepare(name);
  } catch (error) {
    throw new NoAnswerError(`the records of ${name} could not be loaded: ${error.message}`, true);
  }
  const row = rowOf(name);
  return row && Array.isArray(value) ? readRecord(row[1], value) : value;
}

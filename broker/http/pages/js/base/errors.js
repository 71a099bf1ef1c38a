// What went wrong with a call, in words of the page.
import { NoAnswerError, RequestError } from "./session.js";
import { has, t } from "./strings.js";

export function textOf(error) {
  if (error instanceof NoAnswerError) return t(error.sent ? "error.unsure" : "error.not-sent");
  if (error instanceof RequestError) {
    const key = `error.${String(error.error).toLowerCase()}`;
    return [has(key) ? t(key) : String(error.error), [error.field, error.message].filter(Boolean).join(": ")].filter(Boolean).join(" \u2013 ");
  }
  return error.message;
}

/** Whether a read that failed may succeed later: it had no answer, or the broker is busy. */
export const isForNow = (error) => error instanceof NoAnswerError || (error instanceof RequestError && error.code >= 300 && error.code < 400);

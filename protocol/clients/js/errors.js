// Errors of the client. The `code` of each is a number of the wire, `name` says the class.

/** The peer broke the protocol: the link ends, and the client connects again. */
export class ProtocolError extends Error {
  /** @param {number} code a close code @param {string} reason */
  constructor(code, reason) {
    super(reason);
    this.name = "ProtocolError";
    this.code = code;
  }
}

/** An argument of the application breaks a rule; nothing was sent. */
export class ArgumentError extends Error {
  constructor(message) {
    super(message);
    this.name = "ArgumentError";
  }
}

/** The broker refused a request: `error` is the name of its code, `field` the path of a field that breaks a rule. */
export class RequestError extends Error {
  constructor(reply, error) {
    super(reply.message || error);
    this.name = "RequestError";
    this.code = reply.code;
    this.error = error;
    this.field = reply.field;
    this.retryAfterMs = reply.retry_after_ms;
  }
}

/** A request has no answer: the link or its time ended first. Whether it had an effect is unknown if it was `sent`. */
export class NoAnswerError extends Error {
  constructor(message, sent) {
    super(message);
    this.name = "NoAnswerError";
    this.sent = sent;
  }
}

/** The client has ended: `code` is the broker's close code, or null if the application closed it. */
export class ClosedError extends Error {
  constructor(code, reason) {
    super(reason);
    this.name = "ClosedError";
    this.code = code;
  }
}

export const CLOSE = Object.freeze({
  BAD_FRAME: 4400, FRAME_TOO_LARGE: 4401, BAD_BODY: 4402, BAD_COMPRESSION: 4403, UNSUPPORTED_VERSION: 4404,
  UNKNOWN_OPCODE: 4405, OUT_OF_STATE: 4406, BAD_TRANSPORT: 4407, AUTH_FAILED: 4408, TOKEN_EXPIRED: 4409,
  CLIENT_DONE: 4411, TOKEN_REVOKED: 4413,
});

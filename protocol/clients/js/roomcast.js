// Client of the roomcast live-room broker, for browsers and Node 18 and later. README.md describes it.
export { connect, Client } from "./client.js";
export { newGuestToken } from "./credentials.js";
export { DictionaryCache } from "./dictionaries.js";
export { ArgumentError, ClosedError, NoAnswerError, ProtocolError, RequestError } from "./errors.js";
export { Room } from "./room.js";

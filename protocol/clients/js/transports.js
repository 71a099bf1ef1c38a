// Transports: an open pipe to the broker, over WebSocket or (in Node) TCP.
//
// A transport is a function (address, handlers) -> {send(data), close(code)}. It calls handlers.opened(),
// handlers.received(data) with a Uint8Array or, in JSON mode, a text, and once handlers.lost({code, reason, refused}).
import { ArgumentError } from "./errors.js";

const BINARY = "roomcast.v1";
const TEXT = "roomcast.json.v1";
const DEFAULT_PORT = 7400;

/**
 * Return the address of a broker: `ws:`, `wss:`, and in Node `roomcast:` (TCP) and `roomcasts:` (TLS).
 * @returns {{scheme: string, host: string, port: number, path: string}}
 */
export function parseAddress(text) {
  const found = /^(ws|wss|roomcast|roomcasts):\/\/(\[[0-9a-fA-F:.]+\]|[^/:?#@\s]+)(?::(\d{1,5}))?([/?].*)?$/.exec(text);
  if (!found) throw new ArgumentError("the address must be ws://HOST:PORT, wss://, roomcast:// or roomcasts://");
  const [, scheme, host, port, path = "/"] = found;
  const standard = scheme === "ws" ? 80 : scheme === "wss" ? 443 : DEFAULT_PORT;
  const number = port === undefined ? standard : Number(port);
  if (number < 1 || number > 65535) throw new ArgumentError("the port must be 1 to 65535");
  return { scheme, host, port: number, path };
}

/** Return the address with another `host:port`, as a GOAWAY names it. */
export function withHost(address, host) {
  return { ...parseAddress(`${address.scheme}://${host}`), path: address.path };
}

/** Return the transport for the scheme of `address`. `WebSocket`: the class to use, for Node before 22. */
export function transportFor(address, WebSocket = globalThis.WebSocket) {
  if (address.scheme.startsWith("roomcast")) return tcpTransport;
  if (typeof WebSocket !== "function") throw new ArgumentError("there is no WebSocket here: give the option WebSocket");
  return (where, handlers) => webSocketTransport(WebSocket, where, handlers);
}

function webSocketTransport(WebSocket, { scheme, host, port, path, encoding }, handlers) {
  const isText = encoding === "json";
  const socket = new WebSocket(`${scheme}://${host}:${port}${path}`, isText ? TEXT : BINARY);
  socket.binaryType = "arraybuffer";
  let isOpen = false;
  socket.onopen = () => {
    isOpen = true;
    handlers.opened();
  };
  socket.onmessage = ({ data }) => {
    handlers.received(typeof data === "string" ? data : new Uint8Array(data));
  };
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) => {
    const isOwn = code >= 4000 && code <= 4999;
    handlers.lost({ code: isOwn ? code : null, reason: reason || `closed with ${code}`, refused: !isOpen });
  };
  return {
    send: (data) => socket.send(data),
    close: (code = 1000) => socket.close(code),
    get pending() {
      return socket.bufferedAmount;
    },
  };
}

/** TCP or TLS in Node: the frames follow each other on the byte stream. */
function tcpTransport({ scheme, host, port }, handlers) {
  let socket = null;
  let isOver = false;
  const lost = (reason, refused) => {
    if (isOver) return;
    isOver = true;
    socket?.destroy();
    handlers.lost({ code: null, reason, refused });
  };
  const connect = async () => {
    const name = host.replace(/^\[|\]$/g, "");
    const isTls = scheme === "roomcasts";
    const library = await import(isTls ? "node:tls" : "node:net");
    if (isOver) return;
    socket = library.connect({ host: name, port, ...(isTls ? { servername: name } : {}) });
    socket.setNoDelay(true);
    let isOpen = false;
    socket.on(isTls ? "secureConnect" : "connect", () => {
      isOpen = true;
      handlers.opened();
    });
    socket.on("data", (data) => handlers.received(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)));
    socket.on("error", (error) => lost(error.message, !isOpen));
    socket.on("close", () => lost("the connection was closed", !isOpen));
  };
  connect().catch((error) => lost(String(error), true));
  return {
    send: (data) => socket?.write(data),
    close: () => {
      if (socket) socket.end();
      else lost("closed by this side", true);
    },
    get pending() {
      return socket?.writableLength ?? 0;
    },
  };
}

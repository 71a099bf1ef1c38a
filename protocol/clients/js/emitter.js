// Listeners by the name of an event.

/** Base of what has events: `on` returns a function that removes the listener. */
export class Emitter {
  constructor() {
    this._listeners = new Map();
  }

  /** Call `listener` with each event of this name. An exception of a listener does not stop the client. */
  on(name, listener) {
    let listeners = this._listeners.get(name);
    if (!listeners) this._listeners.set(name, (listeners = new Set()));
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** Return a promise of the next event of this name. */
  once(name) {
    return new Promise((resolve) => {
      const remove = this.on(name, (event) => {
        remove();
        resolve(event);
      });
    });
  }

  /** Whether anything listens to this name. */
  hasListener(name) {
    return Boolean(this._listeners.get(name)?.size);
  }

  _emit(name, event) {
    const listeners = this._listeners.get(name);
    if (!listeners) return;
    for (const listener of [...listeners]) {
      try {
        listener(event);
      } catch (error) {
        reportError(error);
      }
    }
  }
}

function reportError(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else queueMicrotask(() => { throw error; });
}

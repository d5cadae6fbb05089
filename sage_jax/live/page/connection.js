// The socket: sends what the player does, and calls `handlers[type]` with each message of the server.

import { ServerClock, pageNow } from "./clock.js";

const QUICK_PINGS = 10;
const PING_SECONDS = 1;
const RETRY_SECONDS = 3;

export class Connection {
  constructor(handlers) {
    this.handlers = handlers;
    this.clock = new ServerClock();
    this.key = stored("sage-live-key") || "";
    this.socket = null;
    this.ready = false;
    this.pingAt = 0;
    this.pings = 0;
    this.retryAt = Infinity;
    addEventListener("pagehide", () => this.socket?.close());
  }

  open(settings) {
    this.retryAt = Infinity;
    this.settings = settings;
    const address = new URL("socket", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.socket = socket;
    this.clock = new ServerClock();
    this.pings = 0;
    let reason = "";
    let openedAt = 0;
    socket.onopen = () => {
      openedAt = pageNow();
      this.raw({ type: "hello", key: this.key, settings });
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "pong") this.clock.add(message.sent, message.now, pageNow());
      if (message.type === "welcome") {
        this.ready = true;
        this.clock.add(openedAt, message.now, pageNow()); // rough; the pings are better
        this.key = message.key;
        store("sage-live-key", message.key);
      }
      if (message.type === "problem" && message.final) reason = message.text;
      this.handlers[message.type]?.(message);
    };
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.ready = false;
      this.retryAt = pageNow() + RETRY_SECONDS;
      this.handlers.lost(reason);
    };
  }

  // Called on every beat of the worker.
  beat(settings) {
    const now = pageNow();
    if (now >= this.retryAt) this.open(settings);
    if (this.ready && now >= this.pingAt) {
      this.pings++;
      this.pingAt = this.pings < QUICK_PINGS ? now : now + PING_SECONDS;
      this.raw({ type: "ping", sent: now });
    }
  }

  send(message) {
    if (this.ready) this.raw(message);
  }

  raw(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}

// Reloading a tab keeps these; a browser without storage does without.
export function stored(name) {
  try { return sessionStorage.getItem(name); } catch { return null; }
}
export function store(name, value) {
  try { sessionStorage.setItem(name, value); } catch { /* private windows */ }
}

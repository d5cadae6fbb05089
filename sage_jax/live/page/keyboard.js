// The drawn keyboard, for mouse and touch, and the computer's keys.

const CODES = [ // semitones above the lower row's C
  "KeyZ", "KeyS", "KeyX", "KeyD", "KeyC", "KeyV", "KeyG", "KeyB", "KeyH", "KeyN", "KeyJ", "KeyM",
  "KeyQ", "Digit2", "KeyW", "Digit3", "KeyE", "KeyR", "Digit5", "KeyT", "Digit6", "KeyY", "Digit7", "KeyU",
  "KeyI", "Digit9", "KeyO", "Digit0", "KeyP",
];
const SEMITONES = new Map(CODES.map((code, place) => [code, place]));
const BLACK = new Set([1, 3, 6, 8, 10]);
const KEY_VELOCITY = 84;
const OCTAVE_WIDTH = 178; // pixels
const LOWEST_BASE = 24, HIGHEST_BASE = 72;

export class Keyboard {
  // press(source, pitch, velocity, timeStamp), release(source, timeStamp): `source` names the finger or key.
  constructor(element, press, release) {
    Object.assign(this, { element, press, release, base: 48, keys: new Map(), pointers: new Map(), octaves: 0 });
    element.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.pointers.set(event.pointerId, null);
      this.slide(event);
    });
    addEventListener("pointermove", (event) => { if (this.pointers.has(event.pointerId)) this.slide(event); });
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => this.lift(event));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    addEventListener("keydown", (event) => this.keyDown(event));
    addEventListener("keyup", (event) => { if (SEMITONES.has(event.code)) this.release(event.code, event.timeStamp); });
    const releaseAll = () => {
      for (const code of CODES) this.release(code, performance.now());
      for (const pointer of this.pointers.keys()) this.release(`pointer ${pointer}`, performance.now());
      this.pointers.clear();
    };
    addEventListener("blur", releaseAll);
    document.addEventListener("visibilitychange", () => { if (document.hidden) releaseAll(); });
    new ResizeObserver(() => this.draw()).observe(element);
  }

  draw() {
    const octaves = Math.min(Math.max(Math.floor(this.element.clientWidth / OCTAVE_WIDTH), 2), 5);
    const low = octaves >= 4 ? this.base - 12 : this.base;
    if (octaves === this.octaves && low === this.low) return;
    Object.assign(this, { octaves, low });
    this.keys.clear();
    const codes = new Map(CODES.map((code, place) => [this.base + place, code]));
    const whites = 7 * octaves + 1, width = 100 / whites, elements = [];
    let white = 0;
    for (let pitch = low; pitch <= low + 12 * octaves; pitch++) {
      const isBlack = BLACK.has(pitch % 12), key = document.createElement("div");
      key.className = isBlack ? "key black" : "key";
      key.style.left = `${isBlack ? (white - 0.3) * width : white * width}%`;
      key.style.width = `${(isBlack ? 0.6 : 1) * width}%`;
      key.dataset.pitch = pitch;
      const letter = document.createElement("b");
      letter.textContent = codes.get(pitch)?.replace(/Key|Digit/, "") ?? "";
      key.append(letter);
      if (pitch % 12 === 0) key.append(`C${pitch / 12 - 1}`);
      if (!isBlack) white++;
      elements.push(key);
      this.keys.set(pitch, key);
    }
    this.element.replaceChildren(...elements);
  }

  shift(octaves) {
    this.base = Math.min(Math.max(this.base + 12 * octaves, LOWEST_BASE), HIGHEST_BASE);
    this.draw();
  }

  slide(event) {
    const key = document.elementFromPoint(event.clientX, event.clientY)?.closest?.(".key");
    const pitch = key ? Number(key.dataset.pitch) : null, source = `pointer ${event.pointerId}`;
    if (pitch === this.pointers.get(event.pointerId)) return;
    this.pointers.set(event.pointerId, pitch);
    this.release(source, event.timeStamp);
    if (pitch === null) return;
    const box = key.getBoundingClientRect(), depth = (event.clientY - box.top) / box.height;
    this.press(source, pitch, Math.round(50 + 65 * Math.min(Math.max(depth, 0), 1)), event.timeStamp);
  }

  lift(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.release(`pointer ${event.pointerId}`, event.timeStamp);
  }

  keyDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("select, input[type=text], input[type=number]")) return;
    if (event.code === "Minus" || event.code === "Equal") return this.shift(event.code === "Minus" ? -1 : 1);
    const place = SEMITONES.get(event.code);
    if (place === undefined) return;
    event.preventDefault();
    if (!event.repeat) this.press(event.code, this.base + place, KEY_VELOCITY, event.timeStamp);
  }

  // Colours the keys that sound: Maps from pitch to "player" or "model".
  show(sounding) {
    for (const [pitch, key] of this.keys) {
      const who = sounding.get(pitch) ?? "";
      if (key.dataset.who === who) continue;
      key.dataset.who = who;
      key.classList.toggle("player", who === "player");
      key.classList.toggle("model", who === "model");
    }
  }
}

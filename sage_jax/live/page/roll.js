// The moving piano roll: the past on the left of the line, what the model has sent and plans on the right.

import { pageNow } from "./clock.js";

const NOW = 0.68; // of the width
const KEPT = 40; // seconds
const MOST = 4000; // notes
const DRUMS = 128;
const LOW = 45, HIGH = 81; // pitches that are always shown
const MARGIN = 3;
const DRUM_LANES = 6;
const KIT = new Map([ // lanes from the top: others, cymbals, hi-hats, toms, snares, kicks
  [1, [49, 51, 52, 53, 55, 57, 59]], [2, [42, 44, 46]], [3, [41, 43, 45, 47, 48, 50]], [4, [37, 38, 39, 40]], [5, [35, 36]],
].flatMap(([lane, pitches]) => pitches.map((pitch) => [pitch, lane])));

export class Roll {
  constructor(canvas) {
    this.canvas = canvas;
    this.notes = []; // { who, program, pitch, start, end, name }
    this.open = new Map();
    this.plan = [];
    this.low = LOW;
    this.high = HIGH;
    this.time = null;
    this.isModelsBar = null; // (bar) => boolean, in trade mode
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.readColours());
    this.readColours();
    this.resize();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries(
      ["roll", "roll-line", "bar", "now", "player", "model", "faint", "turn"].map((name) => [name, this.colour(name)]));
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.max(Math.round(this.canvas.clientWidth * ratio), 1);
    this.canvas.height = Math.max(Math.round(this.canvas.clientHeight * ratio), 1);
  }

  begin(who, name, program, pitch, seconds, velocity = 90) {
    this.finish(name, seconds);
    if (this.notes.length > MOST) this.notes.splice(0, MOST / 2); // nothing is drawn in a hidden tab
    const note = { who, name, program, pitch, start: seconds, end: null, velocity };
    this.notes.push(note);
    this.open.set(name, note);
  }

  finish(name, seconds) {
    const note = this.open.get(name);
    if (!note) return;
    note.end = Math.max(seconds, note.start + 0.03);
    this.open.delete(name);
  }

  // Everything that sounds ends, what is still to come goes away.
  silence() {
    const now = pageNow();
    this.notes = this.notes.filter((note) => note.start < now);
    for (const note of this.notes) if (note.end === null || note.end > now) note.end = now;
    this.open.clear();
    this.plan = [];
  }

  // events: notes of the plan as the server sends them, with page seconds.
  setPlan(events) {
    const open = new Map(), plan = [];
    for (const event of events) {
      if (event.velocity) {
        const note = { program: event.program, pitch: event.pitch, start: event.seconds, end: null };
        plan.push(note);
        open.set(event.id, note);
      } else if (open.has(event.id)) {
        open.get(event.id).end = event.seconds;
      }
    }
    this.plan = plan;
  }

  // Pitches that sound now, with who plays them.
  sounding(now) {
    const found = new Map();
    for (let place = this.notes.length - 1; place >= 0; place--) {
      const note = this.notes[place];
      if (note.program === DRUMS && note.who === "model") continue;
      if (note.start <= now && (note.end === null || note.end > now) && found.get(note.pitch) !== "player") found.set(note.pitch, note.who);
    }
    return found;
  }

  draw() {
    const now = pageNow(), ratio = devicePixelRatio || 1, paint = this.canvas.getContext("2d");
    const width = this.canvas.width / ratio, height = this.canvas.height / ratio;
    this.notes = this.notes.filter((note) => note.end === null || note.end > now - KEPT);
    const rate = Math.min(Math.max(width / 9, 60), 120), nowX = width * NOW;
    const x = (seconds) => nowX + (seconds - now) * rate;
    const first = now - nowX / rate, last = now + (width - nowX) / rate;
    const seen = [...this.notes, ...this.plan].filter((note) => note.start < last && (note.end ?? now) > first);
    const hasDrums = seen.some((note) => note.program === DRUMS);
    const drumHeight = hasDrums ? Math.min(56, height * 0.16) : 0, top = 22, bottom = height - drumHeight - 6;
    this.fit(seen);
    const step = (bottom - top) / (this.high - this.low + 1);
    const y = (pitch) => bottom - (pitch - this.low + 1) * step;

    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.fillStyle = this.colours.roll;
    paint.fillRect(0, 0, width, height);
    this.drawGrid(paint, { x, y, first, last, width, height, top, bottom, step });
    const thick = Math.max(step - 1, 3);
    const shape = (note) => {
      const from = x(note.start), to = x(note.end ?? (note.start > now ? note.start + 0.2 : now));
      if (note.program !== DRUMS) return [from, y(note.pitch) + (step - thick) / 2, Math.max(to - from - 1, 4), thick];
      const lane = KIT.get(note.pitch) ?? 0, size = drumHeight / DRUM_LANES;
      return [from, bottom + 4 + lane * size, 6, Math.max(size - 2, 3)];
    };
    for (const note of this.plan) {
      paint.strokeStyle = this.colours.model;
      paint.globalAlpha = 0.75;
      paint.lineWidth = 1.4;
      this.box(paint, shape({ ...note, end: note.end ?? note.start + 0.25 }), false);
    }
    for (const note of this.notes) {
      const isSounding = note.start <= now && (note.end === null || note.end > now);
      paint.fillStyle = this.colours[note.who];
      paint.globalAlpha = note.start > now ? 0.55 : isSounding ? 1 : 0.5 + note.velocity / 320;
      const box = shape(note);
      if (isSounding) this.glow(paint, box); // a shadow would cost much more
      this.box(paint, box, true);
    }
    paint.globalAlpha = 1;
    paint.fillStyle = this.colours.now;
    paint.fillRect(nowX - 0.75, 0, 1.5, height);
    return now;
  }

  drawGrid(paint, { x, y, first, last, width, height, top, bottom, step }) {
    paint.font = "11px system-ui, sans-serif";
    paint.textBaseline = "middle";
    for (let pitch = Math.ceil(this.low / 12) * 12; pitch <= this.high; pitch += 12) {
      paint.fillStyle = this.colours["roll-line"];
      paint.fillRect(0, y(pitch) + step, width, 1);
      paint.fillStyle = this.colours.faint;
      paint.fillText(`C${pitch / 12 - 1}`, 6, y(pitch) + step / 2);
    }
    if (bottom < height - 20) {
      paint.fillStyle = this.colours["roll-line"];
      paint.fillRect(0, bottom + 1, width, 1);
    }
    if (!this.time) return;
    const barSeconds = this.time.barTicks / this.time.ticksPerSecond;
    for (const { seconds, bar, beat } of this.time.beatsIn(first - barSeconds, last)) {
      if (bar < 0) continue;
      const left = x(seconds);
      if (beat === 0 && this.isModelsBar?.(bar)) {
        paint.fillStyle = this.colours.turn;
        paint.fillRect(left, 0, barSeconds * (x(1) - x(0)), height);
      }
      paint.fillStyle = this.colours[beat ? "roll-line" : "bar"];
      paint.fillRect(left, beat ? top : 0, 1, height);
      if (beat === 0) {
        paint.fillStyle = this.colours.faint;
        paint.fillText(String(bar + 1), left + 5, 11);
      }
    }
  }

  // Moves the range of pitches slowly to what is to be seen.
  fit(seen) {
    const pitches = seen.filter((note) => note.program !== DRUMS).map((note) => note.pitch);
    const low = Math.min(LOW, ...pitches.map((pitch) => pitch - MARGIN)), high = Math.max(HIGH, ...pitches.map((pitch) => pitch + MARGIN));
    this.low += (low - this.low) * 0.12;
    this.high += (high - this.high) * 0.12;
  }

  glow(paint, [left, top, width, height]) {
    for (const margin of [5, 3]) {
      paint.globalAlpha = 0.16;
      this.box(paint, [left - margin, top - margin, width + 2 * margin, height + 2 * margin], true, 3 + margin);
    }
    paint.globalAlpha = 1;
  }

  box(paint, [left, top, width, height], isFilled, radius = 3) {
    paint.beginPath();
    paint.roundRect(left, top, width, height, Math.min(radius, height / 2, width / 2));
    if (isFilled) paint.fill();
    else paint.stroke();
  }
}

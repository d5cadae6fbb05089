// The page of live play: joins the keyboard, the sound, the roll and the server.

import { Connection, store, stored } from "./connection.js";
import { $, Controls } from "./controls.js";
import { MusicalTime, pageNow } from "./clock.js";
import { Keyboard } from "./keyboard.js";
import { MidiInputs } from "./midi.js";
import { Roll } from "./roll.js";
import { Sound } from "./sound.js";

const CLICK_AHEAD = 0.3; // seconds
const NOTICE_SECONDS = 8;
const DRAW_SECONDS = 0.03;
const SLOW_FRAME = 0.022; // seconds
const ACCOMPANISTS = [33, 128]; // as in sage_jax/live/settings.py
const TURNS = { player: "Your turn", model: "The model plays" };

const sound = new Sound();
const roll = new Roll($("roll"));
const held = new Map(); // source -> { pitch, program, name }
const sources = new Map(); // "program pitch" -> how many sources hold it
let time = null, position = null, ticksPerQuarter = 12, welcome = null, started = false, clickedUntil = 0, noticeUntil = 0, statistics = null, recording = false;

const connection = new Connection({
  welcome(message) {
    welcome = message;
    ticksPerQuarter = message.ticks_per_quarter;
    $("model").textContent = message.model;
    controls.fill(message);
    accept(message);
    $("overlay-state").textContent = message.sounds ? "" : "Simple tones only: the server lacks the extra audio.";
    if (started) hideOverlay();
    if (recording) connection.send({ type: "record" });
    $("start").disabled = false;
    loadSounds();
  },
  pong: () => place(position),
  settings: (message) => accept(message),
  notes({ notes }) {
    for (const event of notes) {
      const seconds = connection.clock.toPage(event.due), name = `model ${event.id}`;
      if (event.velocity) {
        sound.schedule(name, event.program, event.pitch, event.velocity, seconds);
        roll.begin("model", name, event.program, event.pitch, seconds, event.velocity);
      } else {
        sound.scheduleEnd(name, seconds);
        roll.finish(name, seconds);
      }
    }
  },
  plan({ notes }) {
    roll.setPlan(notes.map((event) => ({ ...event, seconds: connection.clock.toPage(event.due) })));
  },
  turn({ turn }) {
    $("turn").hidden = !TURNS[turn];
    $("turn").textContent = TURNS[turn] ?? "";
    $("turn").dataset.turn = turn ?? "";
  },
  statistics(message) {
    statistics = message;
    place(message.position);
    showStatistics();
  },
  silence() { sound.silence(); roll.silence(); },
  recording({ is_on }) { recording = is_on; showRecording(); },
  problem(message) {
    if (message.final) return;
    notice(message.text);
    if (controls.settings.mode) controls.show(controls.settings);
  },
  lost(reason) {
    sound.silence();
    roll.silence();
    showOverlay(reason ? "No place to play" : "Connection lost", reason || "The server does not answer.", "trying again ...");
  },
});

const controls = new Controls((settings) => connection.send({ type: "settings", settings }));

function accept({ settings, position: found }) {
  controls.show(settings);
  store("sage-live-settings", JSON.stringify(settings));
  roll.isModelsBar = settings.mode === "trade" ? (bar) => Math.floor(bar / settings.trade_bars) % 2 === 1 : null;
  place(found);
  loadSounds();
}

function place(found) {
  position = found;
  time = new MusicalTime(position, connection.clock, ticksPerQuarter);
  roll.time = time;
}

function loadSounds() {
  if (!sound.samples || !welcome) return;
  const chosen = controls.settings.instruments ?? (controls.settings.mode === "accompany" ? ACCOMPANISTS : []);
  for (const program of [controls.settings.player_program, ...(chosen.length <= 8 ? chosen : [])]) sound.samples.load(program);
}

// What the player plays

function press(source, pitch, velocity, timeStamp) {
  if (!started) return notice("The browser allows sound after a click on the page.");
  if (held.has(source)) release(source, timeStamp);
  const program = controls.settings.player_program ?? 0, both = `${program} ${pitch}`, count = sources.get(both) ?? 0;
  held.set(source, { pitch, program, both });
  sources.set(both, count + 1);
  if (count) return;
  const name = `player ${both}`, seconds = Math.min(timeStamp / 1000, pageNow());
  sound.playNow(name, program, pitch, velocity);
  roll.begin("player", name, program, pitch, seconds, velocity);
  connection.send({ type: "on", pitch, velocity, program, at: stamp(seconds) });
}

function release(source, timeStamp) {
  const key = held.get(source);
  if (!key) return;
  held.delete(source);
  const count = sources.get(key.both) - 1;
  sources.set(key.both, count);
  if (count) return;
  const name = `player ${key.both}`, seconds = Math.min(timeStamp / 1000, pageNow());
  sound.stopNow(name);
  roll.finish(name, seconds);
  connection.send({ type: "off", pitch: key.pitch, program: key.program, at: stamp(seconds) });
}

const stamp = (seconds) => (connection.clock.known ? connection.clock.toServer(seconds) : null);

const keyboard = new Keyboard($("keyboard"), press, release);
const midi = new MidiInputs(press, release, (text) => { $("midi-state").textContent = text; });

function panic() {
  sound.silence();
  roll.silence();
  held.clear();
  sources.clear();
  connection.send({ type: "panic" });
}

function takeOver() { connection.send({ type: "take_over" }); }

// What the page shows

function showStatistics() {
  const number = (value, digits = 0) => (value === null || value === undefined ? "-" : value.toFixed(digits));
  const pair = (low, high, digits) => (low === null || low === undefined ? "-" : `p50 ${number(low, digits)}, p95 ${number(high, digits)} ms`);
  const { lateness_p50, lateness_p95, takeover_p50, takeover_p95, late = 0, skipped = 0, advice } = statistics;
  $("takeover").textContent = pair(takeover_p50, takeover_p95);
  $("lateness").textContent = pair(lateness_p50, lateness_p95, 1);
  $("late").textContent = `${late + sound.counts.late}, ${skipped + sound.counts.skipped}`;
  const { offset, trip } = connection.clock;
  $("clock").textContent = Number.isFinite(trip) ? `${offset >= 0 ? "+" : ""}${offset.toFixed(3)} s, ${number(trip * 1000, 1)} ms` : "-";
  $("sound").textContent = sound.latency === undefined ? "-" : `${number(sound.latency * 1000)} ms out`;
  $("advice").textContent = advice || sound.samples?.problem || "";
  $("advice").hidden = !$("advice").textContent;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  noticeUntil = pageNow() + NOTICE_SECONDS;
}

function showOverlay(title, text, state) {
  $("overlay-title").textContent = title;
  $("overlay-text").textContent = text;
  $("overlay-state").textContent = state;
  $("start").hidden = started;
  $("overlay").hidden = false;
}

function hideOverlay() { $("overlay").hidden = true; }

function showRecording() {
  $("record").setAttribute("aria-pressed", String(recording));
  $("record").lastChild.textContent = recording ? "Stop" : "Record";
}

async function save(kind, button) {
  button.disabled = true;
  try {
    const answer = await fetch(`recordings/${connection.key}.${kind}`);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await answer.blob()), download: `live.${kind}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    notice(error.message);
  }
  button.disabled = false;
}

// What goes on: the worker's beats do what must not stop in a hidden tab, the frames only draw.

new Worker("worker.js").onmessage = () => {
  connection.beat(controls.settings);
  sound.calibrate();
  const now = pageNow();
  if (noticeUntil && now > noticeUntil) {
    noticeUntil = 0;
    $("notice").hidden = true;
  }
  if ($("click").checked && time && started) {
    const from = Math.max(clickedUntil, now), until = now + CLICK_AHEAD;
    for (const { seconds, beat } of time.beatsIn(from, until)) sound.click(seconds, beat === 0);
    clickedUntil = until;
  }
};

// Draws thirty times a second, or half as often where frames come slowly: the model may be on the same processor.
let frameAt = 0, frameSeconds = 1 / 60, drawnAt = 0;
function frame(milliseconds) {
  const seconds = milliseconds / 1000;
  frameSeconds += (Math.min(seconds - frameAt, 0.2) - frameSeconds) / 30;
  frameAt = seconds;
  if (seconds - drawnAt > (frameSeconds < SLOW_FRAME ? 1 : 2) * DRAW_SECONDS) {
    drawnAt = seconds;
    keyboard.show(roll.sounding(roll.draw()));
  }
  requestAnimationFrame(frame);
}

async function start() {
  if (!welcome) return;
  await sound.start(welcome.sounds);
  started = true;
  sound.context.onstatechange = () => {
    if (sound.running) {
      if (connection.ready) hideOverlay();
    } else {
      showOverlay("Sound is paused", "The browser has stopped the sound of this page.", "");
      $("start").hidden = false;
    }
  };
  loadSounds();
  hideOverlay();
  if (!sound.running) notice("The browser found no sound device. The notes are shown without sound.");
  $("keyboard").focus();
}

$("start").disabled = true;
$("start").addEventListener("click", start);
$("take-over").addEventListener("click", takeOver);
$("panic").addEventListener("click", panic);
$("octave-down").addEventListener("click", () => keyboard.shift(-1));
$("octave-up").addEventListener("click", () => keyboard.shift(1));
$("midi").addEventListener("click", () => midi.connect());
$("record").addEventListener("click", () => connection.send({ type: recording ? "stop" : "record" }));
for (const kind of ["midi", "wav"]) {
  $(`save-${kind}`).addEventListener("click", () => save(kind === "midi" ? "mid" : "wav", $(`save-${kind}`)));
}
$("volume").addEventListener("input", () => {
  sound.setVolume(Number($("volume").value));
  document.querySelector("output[for=volume]").textContent = `${Math.round($("volume").value * 100)}%`;
});
document.querySelector("output[for=volume]").textContent = "80%";
addEventListener("keydown", (event) => {
  if (event.code === "Escape") panic();
  if (event.code === "Enter" && started && !event.target.closest?.("button, select, input, summary")) {
    event.preventDefault();
    takeOver();
  }
});

// After a click on a control the keys play again, instead of choosing in a list or pressing the button once more.
let byPointer = false;
addEventListener("pointerdown", () => { byPointer = true; }, true);
addEventListener("keydown", () => { byPointer = false; }, true);
for (const kind of ["click", "change"]) {
  addEventListener(kind, (event) => {
    if (byPointer && started && (kind === "change" || event.target.closest?.("button, label"))) $("keyboard").focus({ preventScroll: true });
  });
}

connection.open(JSON.parse(stored("sage-live-settings") ?? "{}"));
requestAnimationFrame(frame);
window.live = { sound, roll, connection, keyboard, midi, controls }; // for tests, and for the curious

// The settings: what the form shows is what the server confirmed, and a change goes to the server.

const DELAY = 0.12; // seconds; a slider that moves sends no more often
const FAMILIES = [
  "Piano", "Chromatic percussion", "Organ", "Guitar", "Bass", "Strings", "Ensemble", "Brass", "Reed", "Pipe", "Synth lead", "Synth pad",
  "Synth effects", "World", "Percussive", "Sound effects", "Drums",
];
const ENSEMBLES = [
  ["own", "", null],
  ["piano", "Piano", [0]],
  ["band", "Piano, bass and drums", [0, 32, 128]],
  ["guitars", "Guitar, bass and drums", [25, 33, 128]],
  ["quartet", "Strings", [40, 41, 42, 48]],
  ["any", "Any instrument", Array.from({ length: 129 }, (_, program) => program)],
  ["choose", "Choose ...", undefined],
];
const bars = (value) => `${value} ${value === 1 ? "bar" : "bars"}`;
const quarters = (value) => `${value} \u2669`;
const RANGES = {
  qpm: (value) => `${value} bpm`,
  pause: (value) => quarters(value),
  answer_bars: (value) => bars(value),
  trade_bars: (value) => bars(value),
  lead: (value) => quarters(value),
  temperature: (value) => value.toFixed(2),
};
const HELP = {
  answer: "Play a phrase and pause: the model answers. Play on, and it stops.",
  trade: "You and the model take turns of some bars. You begin.",
  accompany: "The model plays along, and plans so far ahead of what you play.",
};

export const $ = (name) => document.getElementById(name);

export class Controls {
  constructor(send) {
    this.send = send;
    this.settings = {};
    this.pending = {};
    this.timer = null;
    this.editing = 0;
    for (const name of Object.keys(RANGES)) {
      $(name).addEventListener("input", () => {
        const value = Number($(name).value);
        this.label(name, value);
        this.change({ [name]: value });
      });
    }
    for (const radio of document.querySelectorAll("input[name=mode]")) {
      radio.addEventListener("change", () => { this.showMode(radio.value); this.change({ mode: radio.value }); });
    }
    $("meter").addEventListener("change", () => this.change({ meter: $("meter").value.split("/").map(Number) }));
    $("player_program").addEventListener("change", () => this.change({ player_program: Number($("player_program").value) }));
    $("ensemble").addEventListener("change", () => this.choose($("ensemble").value));
    $("instruments").addEventListener("change", () => this.changeChosen());
  }

  // Fills the lists from the welcome.
  fill({ instruments, meters, sampling }) {
    this.sampling = sampling;
    if ($("player_program").options.length) return;
    instruments.forEach((name, program) => {
      const family = FAMILIES[Math.floor(program / 8)];
      if (program % 8 === 0) $("player_program").append(Object.assign(document.createElement("optgroup"), { label: family }));
      $("player_program").lastElementChild.append(new Option(name, program));
      const label = document.createElement("label"), box = Object.assign(document.createElement("input"), { type: "checkbox", value: program });
      label.className = "check";
      label.append(box, name);
      $("instruments").append(label);
    });
    for (const [value, name] of ENSEMBLES) $("ensemble").append(new Option(name, value));
    for (const [numerator, denominator] of meters) $("meter").append(new Option(`${numerator}/${denominator}`));
  }

  // Shows what the server confirmed, but leaves alone what the user is changing.
  show(settings) {
    this.settings = settings;
    if (Object.keys(this.pending).length) return;
    for (const name of Object.keys(RANGES)) {
      const value = settings[name] ?? this.sampling[name]; // null is the model's own
      $(name).value = value;
      this.label(name, value);
    }
    for (const radio of document.querySelectorAll("input[name=mode]")) radio.checked = radio.value === settings.mode;
    this.showMode(settings.mode);
    $("meter").value = settings.meter.join("/");
    $("player_program").value = settings.player_program;
    this.showInstruments(settings.instruments);
  }

  label(name, value) {
    document.querySelector(`output[for=${name}]`).textContent = RANGES[name](value);
  }

  showMode(mode) {
    $("mode-help").textContent = HELP[mode];
    $("ensemble").options[0].text = mode === "accompany" ? "Bass and drums" : "What I play";
    for (const row of document.querySelectorAll("[data-mode]")) row.hidden = row.dataset.mode !== mode;
  }

  showInstruments(programs) {
    const text = JSON.stringify(programs);
    const found = ENSEMBLES.find(([, , each]) => each !== undefined && JSON.stringify(each) === text);
    const chosen = $("ensemble").value === "choose" && !$("choose").hidden ? "choose" : found?.[0] ?? "choose";
    $("ensemble").value = chosen;
    $("choose").hidden = chosen !== "choose";
    if (programs) for (const box of $("instruments").querySelectorAll("input")) box.checked = programs.includes(Number(box.value));
  }

  choose(name) {
    const programs = ENSEMBLES.find(([each]) => each === name)[2];
    $("choose").hidden = name !== "choose";
    $("choose").open = name === "choose";
    if (name !== "choose") this.change({ instruments: programs });
    else this.changeChosen();
  }

  changeChosen() {
    const programs = [...$("instruments").querySelectorAll("input:checked")].map((box) => Number(box.value));
    if (programs.length) this.change({ instruments: programs });
  }

  change(fields) {
    Object.assign(this.pending, fields);
    this.timer ??= setTimeout(() => {
      const settings = this.pending;
      this.pending = {};
      this.timer = null;
      this.send(settings);
    }, DELAY * 1000);
  }
}

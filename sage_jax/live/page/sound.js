// Everything that sounds. Notes are scheduled on the clock of the audio device, ahead of time.

import { pageNow } from "./clock.js";
import { Samples } from "./samples.js";

const LEVEL = 3.2; // of a note at full velocity, before the limiter
const VOICES = 96; // at once; the oldest ends for a new one
const LONGEST = 30; // seconds
const LATE = 0.1; // seconds after which a note-on is skipped
const COUNTED = 0.01; // seconds from which a note counts as late
const MAX_LATENCY = 0.1; // seconds of the device that are made up for
const READINGS = 25;
const START_SECONDS = 3;
const DRUMS = 128;

export class Sound {
  constructor() {
    this.context = null;
    this.samples = null;
    this.voices = new Map();
    this.ending = new Set(); // voices whose end is scheduled
    this.counts = { scheduled: 0, late: 0, skipped: 0 };
    this.readings = [];
    this.volume = 0.8;
  }

  // Must be called by a gesture of the user, or the browser keeps the context suspended.
  async start(version) {
    if (!this.context) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.build();
      this.samples = new Samples(this.context, version);
    }
    // Without a sound device some browsers never answer.
    await Promise.race([this.context.resume(), new Promise((resolve) => { setTimeout(resolve, START_SECONDS * 1000); })]);
  }

  get running() { return this.context?.state === "running"; }

  build() {
    const context = this.context;
    this.output = context.createGain();
    this.output.gain.value = this.volume;
    this.limiter = context.createDynamicsCompressor();
    Object.entries({ threshold: -9, knee: 6, ratio: 12, attack: 0.003, release: 0.2 }).forEach(([name, value]) => {
      this.limiter[name].value = value;
    });
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 2048;
    this.mix = context.createGain();
    const reverb = context.createConvolver();
    reverb.buffer = this.hall(1.4);
    const wet = context.createGain();
    wet.gain.value = 0.16;
    this.mix.connect(this.limiter);
    this.mix.connect(reverb).connect(wet).connect(this.limiter);
    this.limiter.connect(this.output).connect(this.analyser).connect(context.destination);
    this.noise = context.createBuffer(1, context.sampleRate / 2, context.sampleRate);
    this.noise.getChannelData(0).forEach((_, place, data) => { data[place] = Math.random() * 2 - 1; });
  }

  // The response of a small hall: noise that dies away.
  hall(seconds) {
    const rate = this.context.sampleRate, length = Math.round(seconds * rate);
    const buffer = this.context.createBuffer(2, length, rate);
    for (let channel = 0; channel < 2; channel++) {
      const data = buffer.getChannelData(channel);
      for (let frame = 0; frame < length; frame++) data[frame] = (Math.random() * 2 - 1) * Math.exp((-6 * frame) / length);
    }
    return buffer;
  }

  setVolume(volume) {
    this.volume = volume;
    this.output?.gain.setTargetAtTime(volume, this.context.currentTime, 0.02);
  }

  // Reads where the device is, on every beat of the worker. The median of the readings is what notes are scheduled by.
  calibrate() {
    if (!this.running) return;
    const context = this.context, now = pageNow(), ahead = context.currentTime - now;
    const { contextTime = 0, performanceTime = 0 } = context.getOutputTimestamp?.() ?? {};
    let difference = contextTime - performanceTime / 1000;
    const latency = ahead - difference;
    // The time stamp is zero until sound has come out, and some browsers' are wrong.
    if (!(contextTime > 0 && performanceTime > 0 && latency > -0.02 && latency < 0.5)) {
      difference = ahead - (context.outputLatency || context.baseLatency || 0);
    }
    this.readings.push({ difference, latency: ahead - difference });
    if (this.readings.length > READINGS) this.readings.shift();
    const middle = (name) => this.readings.map((each) => each[name]).sort((a, b) => a - b)[this.readings.length >> 1];
    this.latency = Math.max(middle("latency"), 0);
    this.difference = middle("difference") + Math.max(this.latency - MAX_LATENCY, 0);
  }

  // The context's time at which sound must start so that it comes out of the device at page second `seconds`.
  contextTime(seconds) {
    if (this.difference === undefined) this.calibrate();
    return seconds + (this.difference ?? 0);
  }

  // The player's own note: at once.
  playNow(name, program, pitch, velocity) {
    if (this.running) this.begin(name, program, pitch, velocity, this.context.currentTime);
  }

  stopNow(name) {
    if (this.context) this.end(name, this.context.currentTime);
  }

  // A note of the model, that is to come out at page second `seconds`.
  schedule(name, program, pitch, velocity, seconds) {
    if (!this.running) return;
    const when = this.contextTime(seconds), late = this.context.currentTime - when;
    if (late > LATE) {
      this.counts.skipped++;
      return;
    }
    if (late > COUNTED) this.counts.late++;
    this.counts.scheduled++;
    this.begin(name, program, pitch, velocity, Math.max(when, this.context.currentTime));
  }

  scheduleEnd(name, seconds) {
    if (this.context) this.end(name, Math.max(this.contextTime(seconds), this.context.currentTime));
  }

  begin(name, program, pitch, velocity, when) {
    this.end(name, when);
    if (program === DRUMS && (pitch === 42 || pitch === 44)) this.choke(when);
    if (this.voices.size >= VOICES) this.cut(this.voices.keys().next().value);
    const gain = this.context.createGain();
    gain.connect(this.mix);
    const found = this.samples.find(program, pitch);
    const sources = found ? this.sampled(found, gain, velocity, when) : this.simple(program, pitch, gain, velocity, when);
    const voice = { sources, gain, program, pitch, release: program === DRUMS ? 0.25 : program >= 16 && program < 112 ? 0.07 : 0.1 };
    this.voices.set(name, voice);
    sources[0].onended = () => {
      gain.disconnect();
      if (this.voices.get(name) === voice) this.voices.delete(name);
    };
  }

  sampled({ buffer, note, gain: balance, rate }, gain, velocity, when) {
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.playbackRate.value = rate;
    gain.gain.value = LEVEL * balance * (velocity / 100) ** 2;
    source.connect(gain);
    if (note.loop) {
      source.loop = true;
      [source.loopStart, source.loopEnd] = note.loop;
      source.start(when, note.start);
      source.stop(when + LONGEST);
    } else {
      source.start(when, note.start, note.seconds);
    }
    return [source];
  }

  // A plain tone or a burst of noise, until the samples are there.
  simple(program, pitch, gain, velocity, when) {
    const level = 0.22 * (velocity / 100) ** 2, context = this.context;
    const decay = program === DRUMS ? 0.06 : program < 16 || (program >= 24 && program < 40) ? 0.7 : 4;
    gain.gain.setValueAtTime(0, when);
    gain.gain.linearRampToValueAtTime(level, when + 0.005);
    gain.gain.setTargetAtTime(0, when + 0.005, decay);
    let source;
    if (program === DRUMS) {
      source = context.createBufferSource();
      source.buffer = this.noise;
      const filter = context.createBiquadFilter();
      filter.type = pitch < 38 ? "lowpass" : "bandpass";
      filter.frequency.value = pitch < 38 ? 150 : pitch < 42 ? 1800 : 7000;
      source.connect(filter).connect(gain);
    } else {
      source = context.createOscillator();
      source.type = "triangle";
      source.frequency.value = 440 * 2 ** ((pitch - 69) / 12);
      source.connect(gain);
    }
    source.start(when);
    source.stop(when + Math.min(decay * 6, LONGEST));
    return [source];
  }

  // An open hi-hat ends with the next closed one.
  choke(when) {
    for (const [name, voice] of this.voices) if (voice.program === DRUMS && voice.pitch === 46) this.end(name, when, 0.02);
  }

  end(name, when, release) {
    const voice = this.voices.get(name);
    if (!voice || (voice.program === DRUMS && release === undefined)) return; // drums ring
    this.voices.delete(name);
    const tau = release ?? voice.release;
    voice.gain.gain.setTargetAtTime(0, when, tau);
    for (const source of voice.sources) source.stop(when + 7 * tau);
    this.ending.add(voice);
    voice.sources[0].onended = () => {
      voice.gain.disconnect();
      this.ending.delete(voice);
    };
  }

  cut(name) {
    this.end(name, this.context.currentTime, 0.01);
  }

  // Everything ends now, also what is scheduled for later.
  silence() {
    if (!this.context) return;
    const now = this.context.currentTime;
    for (const voice of [...this.voices.values(), ...this.ending]) {
      voice.gain.gain.cancelScheduledValues(now);
      voice.gain.gain.setTargetAtTime(0, now, 0.01);
      for (const source of voice.sources) source.stop(now + 0.1);
    }
    this.voices.clear();
    this.ending.clear();
  }

  click(seconds, isFirst) {
    if (!this.running) return;
    const when = Math.max(this.contextTime(seconds), this.context.currentTime);
    const source = this.context.createOscillator(), gain = this.context.createGain();
    source.frequency.value = isFirst ? 1760 : 1320;
    gain.gain.setValueAtTime(0.12, when);
    gain.gain.exponentialRampToValueAtTime(0.0001, when + 0.06);
    source.connect(gain).connect(this.output);
    source.start(when);
    source.stop(when + 0.08);
  }

  // The loudest sample of the last moment, 1 being full scale.
  level() {
    if (!this.analyser) return 0;
    const data = new Float32Array(this.analyser.fftSize);
    this.analyser.getFloatTimeDomainData(data);
    return data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  }
}

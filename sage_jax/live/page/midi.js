// MIDI keyboards, where the browser has Web MIDI.

const PEDAL = 64, ALL_SOUND_OFF = 120, ALL_NOTES_OFF = 123;

export class MidiInputs {
  // press, release: as those of Keyboard. say(text): the state in words.
  constructor(press, release, say) {
    Object.assign(this, { press, release, say, access: null, pedals: new Map(), waiting: new Set(), held: new Set() });
  }

  async connect() {
    if (!navigator.requestMIDIAccess) {
      return this.say(isSecureContext
        ? "This browser has no Web MIDI. Use Chromium or Firefox, or start launch.live with --midi-in."
        : "Web MIDI needs https or localhost. Play with the mouse or the computer's keys.");
    }
    this.say("waiting for your permission ...");
    try {
      this.access ??= await navigator.requestMIDIAccess({ sysex: false });
    } catch {
      return this.say("The browser refused. Allow MIDI for this site in the address bar, then connect again.");
    }
    this.access.onstatechange = () => this.listen();
    this.listen();
  }

  listen() {
    const names = [];
    for (const input of this.access.inputs.values()) {
      if (input.state === "disconnected") {
        this.releaseAll(input.id);
        continue;
      }
      names.push(input.name || "MIDI keyboard");
      input.onmidimessage = (event) => this.message(input.id, event);
    }
    this.say(names.length ? names.join(", ") : "no keyboard yet; plug one in");
  }

  message(port, { data, timeStamp }) {
    if (data.length < 3) return;
    const kind = data[0] & 0xf0, channel = data[0] & 0x0f, source = `${port} ${channel} ${data[1]}`, pedal = `${port} ${channel}`;
    if (kind === 0x90 && data[2] > 0) {
      this.waiting.delete(source);
      this.held.add(source);
      this.press(source, data[1], data[2], timeStamp);
    } else if (kind === 0x80 || kind === 0x90) {
      if (this.pedals.get(pedal)) this.waiting.add(source);
      else this.up(source, timeStamp);
    } else if (kind === 0xb0 && data[1] === PEDAL) {
      this.pedals.set(pedal, data[2] >= 64);
      if (data[2] < 64) for (const each of [...this.waiting]) if (each.startsWith(`${pedal} `)) this.up(each, timeStamp);
    } else if (kind === 0xb0 && (data[1] === ALL_SOUND_OFF || data[1] === ALL_NOTES_OFF)) {
      this.releaseAll(port);
    }
  }

  up(source, timeStamp) {
    this.waiting.delete(source);
    this.held.delete(source);
    this.release(source, timeStamp);
  }

  releaseAll(port) {
    for (const source of [...this.held]) if (source.startsWith(`${port} `)) this.up(source, performance.now());
  }
}

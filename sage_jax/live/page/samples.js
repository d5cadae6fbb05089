// The samples of each program, fetched from the server at first use. Until they are there, `find` returns null.

export class Samples {
  constructor(context, version) {
    this.context = context;
    this.version = version;
    this.programs = new Map(); // program -> { buffer, gain, notes } or null while it comes, or where it can't be made
    this.problem = "";
  }

  // The sample nearest to a pitch: { buffer, note, gain, rate }, or null.
  find(program, pitch) {
    if (!this.programs.has(program)) this.load(program);
    const found = this.programs.get(program);
    if (!found) return null;
    let best = null;
    for (const note of found.notes) {
      if (best === null || Math.abs(note.pitch - pitch) < Math.abs(best.pitch - pitch)) best = note;
    }
    if (program === 128 && best.pitch !== pitch) return null;
    return { buffer: found.buffer, note: best, gain: found.gain, rate: 2 ** ((pitch - best.pitch) / 12) };
  }

  async load(program) {
    if (this.programs.has(program)) return;
    this.programs.set(program, null);
    if (!this.version) return;
    try {
      const base = `sounds/${this.version}/${program}`;
      const [wav, notes] = await Promise.all([this.fetch(`${base}.wav`), this.fetch(`${base}.json`)]);
      const buffer = await this.context.decodeAudioData(await wav.arrayBuffer());
      this.programs.set(program, { buffer, ...(await notes.json()) });
    } catch (error) {
      this.problem = error.message;
    }
  }

  async fetch(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer;
  }
}

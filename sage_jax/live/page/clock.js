// The server's clock as the page sees it: of the last ten pings, the one with the shortest round trip says the offset.

const PINGS = 10;

export const pageNow = () => performance.now() / 1000;

export class ServerClock {
  constructor() {
    this.pings = [];
    this.offset = 0;
    this.trip = Infinity;
  }

  // sent, received: page seconds; now: server seconds when the server answered.
  add(sent, now, received) {
    this.pings.push({ trip: received - sent, offset: now - (sent + received) / 2 });
    if (this.pings.length > PINGS) this.pings.shift();
    const best = this.pings.reduce((a, b) => (b.trip < a.trip ? b : a));
    this.offset = best.offset;
    this.trip = best.trip;
  }

  get known() { return this.pings.length > 0; }
  toPage(seconds) { return seconds - this.offset; }
  toServer(seconds) { return seconds + this.offset; }
}

// Musical time: where a page second lies on the model's grid, from a position that the server reported.
export class MusicalTime {
  constructor(position, clock, ticksPerQuarter) {
    this.at = clock.toPage(position.at);
    this.tick = position.tick;
    this.ticksPerSecond = (position.qpm / 60) * ticksPerQuarter;
    this.bar = position.bar;
    this.barTick = position.bar_tick;
    this.beatTicks = (4 * ticksPerQuarter) / position.meter[1];
    this.beats = position.meter[0];
    this.barTicks = this.beatTicks * this.beats;
  }

  tickAt(seconds) { return this.tick + (seconds - this.at) * this.ticksPerSecond; }
  secondsAt(tick) { return this.at + (tick - this.tick) / this.ticksPerSecond; }

  // The beats from page second `low` up to `high`: their seconds, bar, and number in the bar.
  *beatsIn(low, high) {
    let number = Math.ceil((this.tickAt(low) - this.barTick) / this.beatTicks - 1e-9);
    for (;; number++) {
      const seconds = this.secondsAt(this.barTick + number * this.beatTicks);
      if (seconds >= high) return;
      const bar = Math.floor(number / this.beats);
      yield { seconds, bar: this.bar + bar, beat: number - bar * this.beats };
    }
  }
}

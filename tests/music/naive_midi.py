"""A reference MIDI reader, event by event and without arrays, for comparison with sage_jax.music.reading."""

import collections

DRUMS = 128


def read(data: bytes) -> tuple[list[tuple], list[tuple], list[tuple]]:
    """Notes, tempos and meters of a MIDI file, sorted, in ticks.

    notes: (start, end, program, pitch, velocity). tempos: (tick, microseconds per quarter).
    meters: (tick, numerator, denominator).
    """
    kind, count = int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")
    place, tracks = 14, []
    while len(tracks) < count:
        length = int.from_bytes(data[place + 4 : place + 8], "big")
        if data[place : place + 4] == b"MTrk":
            tracks.append(_events(data[place + 8 : place + 8 + length]))
        place += 8 + length
    begin, shifted, begins = 0, [], []
    for events, end in tracks:
        begins.append(begin)
        shifted.append([(begin + tick, *event) for tick, *event in events])
        begin += end if kind == 2 else 0
    notes = []
    states, ports = collections.defaultdict(list), [_port(events) for events in shifted]
    for number, events in enumerate(shifted):
        for row, (_, status, data) in enumerate(events):
            if status // 16 == 0xC or (status // 16 == 0xB and data[0] == 0) or status == 0xF0:
                states[number, status].append(row)
    for number, (events, (_, end)) in enumerate(zip(shifted, tracks, strict=True)):
        for start, row, channel, pitch, velocity, stop in _notes(events, begins[number] + end):
            program = _program(shifted, ports if kind != 2 else list(range(len(ports))), states, number, row, start, channel)
            notes.append((start, max(stop, start + 1), program, pitch, velocity))
    everything = sorted((event for events in shifted for event in events), key=lambda event: event[0])
    tempos, meters = dict.fromkeys(begins, 500000), {at: (4, 4) for at in begins if at}
    for tick, status, content in everything:
        if status == 0x151 and int.from_bytes(content[:3], "big") and len(content) >= 3:
            tempos[tick] = int.from_bytes(content[:3], "big")
        if status == 0x158 and len(content) >= 2 and content[0] and content[1] <= 6:
            meters[tick] = (content[0], 2 ** content[1])
    changes = []
    for tick, value in sorted(tempos.items()):
        if not changes or changes[-1][1] != value:
            changes.append((tick, value))
    return sorted(notes), changes, [(tick, *value) for tick, value in sorted(meters.items())]


def _number(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    while data[place] > 127:
        value, place = value * 128 + data[place] - 128, place + 1
    return value * 128 + data[place], place + 1


def _events(data: bytes) -> tuple[list[tuple[int, int, bytes]], int]:
    """(tick, status, data) of each event of a track, and its last tick. The status of a meta event is 256 + its type."""
    events, place, now, running, packets = [], 0, 0, 0, b""
    while place < len(data):
        delta, place = _number(data, place)
        now += delta
        status = data[place] if data[place] > 127 else running
        place += data[place] > 127
        if status == 0xFF:
            kind = 256 + data[place]
            length, place = _number(data, place + 1)
            events.append((now, kind, data[place : place + length]))
            place += length
            if kind == 0x12F:
                break
        elif status in (0xF0, 0xF7):
            length, place = _number(data, place)
            content, place = data[place : place + length], place + length
            packets = content if status == 0xF0 else packets + content if packets else b""
            if packets[-1:] == b"\xf7":
                events.append((now, 0xF0, packets))
                packets = b""
        else:
            running, length = status, 1 if status // 16 in (0xC, 0xD) else 2
            events.append((now, status, data[place : place + length]))
            place += length
    return events, now


def _notes(events, end):
    """(start, event index, channel, pitch, velocity, end) of each note, matched first in, first out."""
    open_notes, found = {}, []
    for row, (tick, status, data) in enumerate(events):
        channel = status % 16
        if status // 16 == 9 and data[1] > 0:
            found.append([tick, row, channel, data[0], data[1], end])
            open_notes.setdefault((channel, data[0]), []).append(found[-1])
        elif status // 16 in (8, 9) and open_notes.get((channel, data[0])):
            open_notes[channel, data[0]].pop(0)[5] = tick
    return found


def _port(events):
    return next((data[0] for _, status, data in events if status == 0x121 and data), 0)


def _program(tracks, ports, states, number, row, start, channel):
    """The program of a note. states: (track, status) -> indices of program changes, banks and system-exclusive messages."""
    same = [t for t in range(len(tracks)) if ports[t] == ports[number]]

    def last(status, number, until, at):
        """(track, index) of the last event before index `until` of the track, else of any track until the tick `at`."""
        own = [r for r in states[number, status] if r < until]
        if own:
            return number, own[-1]
        others = [(tracks[t][r][0], t, r) for t in same for r in states[t, status] if tracks[t][r][0] <= at]
        return max(others)[1:] if others else None

    drums, program = channel == 9, 0
    change = last(0xC0 | channel, number, row, start)
    if change:
        there, place = change
        program = tracks[there][place][2][0]
        bank = last(0xB0 | channel, there, place, tracks[there][place][0])
        drums = drums or (bool(bank) and tracks[bank[0]][bank[1]][2][1] in (120, 126, 127))
    usual = drums
    messages = sorted((tracks[t][r][0], t, r, tracks[t][r][2]) for t in same for r in states[t, 0xF0])
    for tick, _, _, data in messages:
        if tick > start:
            break
        if data[0] == 0x41 and data[2:5] == b"\x42\x12\x40" and data[5] // 16 == 1 and data[6] == 0x15:
            block = data[5] % 16
            if (9 if block == 0 else block - 1 if block <= 9 else block) == channel:
                drums = data[7] > 0
        if data[0] == 0x43 and data[2:4] == b"\x4c\x08" and data[4] == channel and data[5] == 7:
            drums = data[6] > 0
        if data[0] == 0x7E and data[2] == 9:
            drums = usual
    return DRUMS if drums else program

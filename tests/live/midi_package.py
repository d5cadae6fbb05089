"""A stand-in for rtmidi2: ports in memory, which can come and go."""

import time


class MidiPackage:
    """inputs, outputs: names of the ports that are there. sent: (seconds, bytes) of all messages to outputs."""

    def __init__(self, inputs=(), outputs=()):
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.sent: list[tuple[float, tuple[int, ...]]] = []
        self.opened: list[_Port] = []
        self.MidiIn = lambda: _Port(self, self.inputs)
        self.MidiOut = lambda: _Port(self, self.outputs)

    def play(self, name: str, *message: int) -> None:
        """The instrument at the input `name` sends a message."""
        for port in self.opened:
            if port.name == name and port.callback is not None:
                port.callback(list(message), 0.0)

    def notes(self) -> list[tuple[int, ...]]:
        """The note messages that were sent."""
        return [message for _, message in self.sent if message[0] & 0xE0 == 0x80]


class _Port:
    def __init__(self, package: MidiPackage, names: list[str]):
        self.package, self.ports, self.name, self.callback = package, names, "", None

    def ignore_types(self, *kinds: bool) -> None:
        assert kinds == (True, True, True)

    def open_port(self, number: int) -> None:
        self.name = self.ports[number]
        if self.name.startswith("busy"):
            raise RuntimeError("the device is in use")
        self.package.opened.append(self)

    def close_port(self) -> None:
        self.package.opened.remove(self)

    def send_raw(self, *message: int) -> None:
        assert all(0 <= byte < 256 for byte in message)
        if self.name not in self.ports:
            raise RuntimeError("the device is gone")
        self.package.sent.append((time.monotonic(), message))

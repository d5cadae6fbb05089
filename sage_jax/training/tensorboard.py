"""The metrics of a run as TensorBoard reads them, and pictures: event files in `tensorboard` in its workdir."""

import importlib.util
import os
import pathlib
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sage_jax.errors import UserError

FOLDER = "tensorboard"
FORMAT = "brain.Event:2"  # since which TensorBoard forgets what the start of a session says is void
RGBA = 4


def check_installed() -> None:
    """Raises UserError where the package is missing that writes event files."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "config.train.tensorboard is True, but tensorboardX is not installed: pip install -e '.[tensorboard]' brings it, "
            "or leave the field False"
        )


class EventFile:
    """The event file of one start of a run, which goes on from `step`: what earlier ones tell of later steps is void.

    A record is in the file when its method returns. TensorBoard reads the files of a folder by their names, which are numbers
    here. Raises UserError where the folder can't be written.
    """

    def __init__(self, workdir: str | os.PathLike, step: int):
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import masked_crc32c

        self._Event, self._Summary, self._checksum = event_pb2.Event, summary_pb2.Summary, masked_crc32c
        folder = pathlib.Path(workdir) / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            numbers = [path.suffix[1:] for path in folder.glob("events.out.tfevents.*")]
            last = max((int(number) for number in numbers if number.isdecimal()), default=0)
            self._file = (folder / f"events.out.tfevents.{last + 1:06d}").open("xb")
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}; choose another --workdir") from error
        self._write(file_version=FORMAT)
        self._write(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Each of `values` as kind/name."""
        value = self._Summary.Value
        self._summarise(step, [value(tag=f"{kind}/{name}", simple_value=number) for name, number in values.items()])

    def pictures(self, kind: str, step: int, pictures: Iterable[bytes]) -> None:
        """Piano rolls, PNGs as draw_piano_roll makes them, as kind/1, kind/2 ..."""
        value, image = self._Summary.Value, self._Summary.Image
        values = []
        for number, png in enumerate(pictures, 1):
            width, height = struct.unpack(">II", png[16:24])  # as a PNG's header tells them
            picture = image(height=height, width=width, colorspace=RGBA, encoded_image_string=png)
            values.append(value(tag=f"{kind}/{number}", image=picture))
        self._summarise(step, values)

    def close(self) -> None:
        self._file.close()

    def _summarise(self, step: int, values: list[Any]) -> None:
        self._write(step=step, summary=self._Summary(value=values))

    def _write(self, **event: Any) -> None:
        """One record: its length, the event, and a checksum behind either."""
        data = self._Event(wall_time=time.time(), **event).SerializeToString()
        length = struct.pack("<Q", len(data))
        for part in (length, data):
            self._file.write(part + struct.pack("<I", self._checksum(part)))
        self._file.flush()

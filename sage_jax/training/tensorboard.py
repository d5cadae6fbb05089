"""TensorBoard event files of a run, in `tensorboard` in its workdir: scalars and images."""

import importlib
import importlib.util
import os
import pathlib
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sage_jax.errors import UserError

FOLDER = "tensorboard"
FILE_VERSION = "brain.Event:2"  # the first version in which a session start purges later steps
RGBA = 4


def check_installed() -> None:
    """Raises UserError if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "config.train.tensorboard is True, but tensorboardX is not installed: run pip install -e '.[tensorboard]', "
            "or set the field to False"
        )


class EventFile:
    """The event file of one start of a run from `step`; TensorBoard discards later steps of earlier files.

    Each record is in the file when its method returns. Files are numbered, and TensorBoard reads them in that order. (The
    SummaryWriter of tensorboardX writes in the background, and names files by second and host.)
    Raises UserError if the folder can't be written.
    """

    def __init__(self, workdir: str | os.PathLike, step: int):
        from tensorboardX.record_writer import RecordWriter

        # Protobuf modules create their classes at import, so a type checker can't see them in an import statement.
        event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
        self._Event = event_pb2.Event
        self._Summary = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
        folder = pathlib.Path(workdir) / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            numbers = [path.suffix[1:] for path in folder.glob("events.out.tfevents.*")]
            last = max((int(number) for number in numbers if number.isdecimal()), default=0)
            self._writer = RecordWriter(str(folder / f"events.out.tfevents.{last + 1:06d}"))
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}; choose another --workdir") from error
        self._write(file_version=FILE_VERSION)
        self._write(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes each of `values` under the tag kind/name."""
        value = self._Summary.Value
        self._write_summary(step, [value(tag=f"{kind}/{name}", simple_value=number) for name, number in values.items()])

    def images(self, kind: str, step: int, images: Iterable[bytes]) -> None:
        """Writes RGBA PNGs under the tags kind/1, kind/2, ..."""
        value, image = self._Summary.Value, self._Summary.Image
        values = []
        for number, png in enumerate(images, 1):
            width, height = struct.unpack(">II", png[16:24])  # from the header of the PNG
            encoded = image(height=height, width=width, colorspace=RGBA, encoded_image_string=png)
            values.append(value(tag=f"{kind}/{number}", image=encoded))
        self._write_summary(step, values)

    def close(self) -> None:
        self._writer.close()

    def _write_summary(self, step: int, values: list[Any]) -> None:
        self._write(step=step, summary=self._Summary(value=values))

    def _write(self, **event: Any) -> None:
        self._writer.write(self._Event(wall_time=time.time(), **event).SerializeToString())
        self._writer.flush()

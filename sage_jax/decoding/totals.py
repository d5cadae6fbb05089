"""What a scheduler has done."""

import dataclasses


@dataclasses.dataclass
class Totals:
    """Events drawn, event steps of all rows including idle ones, and seconds by phase."""

    events: int = 0
    row_steps: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

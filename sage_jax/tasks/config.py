"""TasksConfig: what a model with roles is trained to do, in shares."""

import dataclasses

from sage_jax.errors import UserError

TASKS = ("plain", "accompany", "infill", "scattered", "live")


@dataclasses.dataclass(frozen=True)
class TasksConfig:
    """The share of each task among the crops; with representation.name = roles. Raises UserError naming the field.

    plain: all events are own, as in continuation. accompany: some tracks are given at once, or one or two bars ahead. infill:
    all but the tracks of 1 to 8 bars is given. scattered: any notes are given, at once or a bar ahead. live: some tracks are
    given at once or up to four quarters late.
    """

    plain: float = 0.2
    accompany: float = 0.3
    infill: float = 0.2
    scattered: float = 0.1
    live: float = 0.2

    def __post_init__(self):
        for task in TASKS:
            if not 0 <= getattr(self, task) <= 1:
                raise UserError(f"tasks.{task} is {getattr(self, task)}; give a share from 0 to 1")
        if abs(sum(self.shares) - 1) > 1e-6:
            raise UserError(f"the shares of tasks add up to {sum(self.shares):g}; change them so that they add up to 1")

    @property
    def shares(self) -> tuple[float, ...]:
        """In the order of TASKS."""
        return tuple(getattr(self, task) for task in TASKS)


PLAIN_ONLY = TasksConfig(1.0, 0.0, 0.0, 0.0, 0.0)

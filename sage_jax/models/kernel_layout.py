"""How the kernels of a model lie in the memory of a device."""

from typing import Any

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import SingleDeviceSharding

TRANSPOSED = ("gpu",)  # platforms


def on_device(params: Any, device: Any) -> Any:
    """`params` for inference in the layouts that are fastest on `device`. Arrays and ShapeDtypeStructs stay what they are.

    On a GPU the inputs of an output lie next to each other. XLA then multiplies a single row and sums in one kernel. Otherwise
    it writes the float32 products, an array of the size of the parameter, and sums in a second kernel.
    """
    if device.platform not in TRANSPOSED:
        return params
    transposed = Format(Layout(major_to_minor=(1, 0)), SingleDeviceSharding(device))

    def place(path: tuple, leaf: Any) -> Any:
        # Rows of an embedding are read whole.
        if leaf.ndim != 2 or "embedding" in jax.tree_util.keystr(path):
            return leaf
        return leaf.update(sharding=transposed) if isinstance(leaf, jax.ShapeDtypeStruct) else jax.device_put(leaf, transposed)

    return jax.tree_util.tree_map_with_path(place, params)

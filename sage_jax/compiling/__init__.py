"""Programs compiled for a device that is not there: their kernels, copies, bytes, memory and collectives."""

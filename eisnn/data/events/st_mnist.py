"""ST-MNIST (`.mat`): digits written by a finger on 10 x 10 tactile sensors; not a camera, but events all the same.

The matrix `spiketrain` has a column for each event: -1 or 1 in the row of its sensor, the time in seconds in row 101.
"""

import io

import numpy as np

from eisnn.libraries import library

from .recording import Decoded, File

MAGIC = b"MATLAB 5.0 MAT-file"
SIDE = 10
LARGEST = 1 << 22  # bytes, compressed to about a fiftieth


def decode(file: File) -> Decoded:
    """Raises: ImportError without SciPy."""
    loadmat = library("scipy.io", "events").loadmat
    if len(file.data) > LARGEST:
        raise file.error(f"it has more bytes than any recording of ST-MNIST ({LARGEST:,})", 0)
    try:
        matrix = loadmat(io.BytesIO(file.data.tobytes()), variable_names="spiketrain")["spiketrain"]
    except KeyError as error:
        raise file.error("it has no matrix 'spiketrain', so it is no ST-MNIST recording", 0) from error
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # what loadmat raises on damaged files is not said anywhere
        raise file.error(f"it is damaged ({type(error).__name__}: {error})", 0) from error
    if matrix.ndim != 2 or len(matrix) != SIDE * SIDE + 1 or matrix.dtype.kind != "f":
        raise file.error(f"its 'spiketrain' is {matrix.dtype} {matrix.shape}, expected 101 rows of float64", 0)
    spikes, time = matrix[:-1], matrix[-1]
    sane = np.isfinite(time).all() and (abs(time) < 1e6).all() and np.isin(spikes, (-1, 0, 1)).all()
    if not sane or (np.count_nonzero(spikes, 0) != 1).any():
        raise file.error("columns of 'spiketrain' are not one spike of -1 or 1 and a time in seconds each", 0)
    sensor = abs(spikes).argmax(0)
    p = spikes.sum(0) > 0
    return Decoded(np.rint(time * 1e6), sensor % SIDE, sensor // SIDE, p, "ST-MNIST", lambda _: 0, (SIDE, SIDE))

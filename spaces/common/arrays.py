"""Types of arrays that several modules use."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

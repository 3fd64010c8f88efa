"""Where AOTInductor packages are compiled; what comes of it is in tests/gpu."""

from __future__ import annotations

import pytest

from vlmc.compile.inductor import device_for
from vlmc.errors import HardwareError


def test_a_target_that_no_gpu_here_has_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"inductor engine for sm61 is compiled on such a GPU"):
        device_for("sm61")

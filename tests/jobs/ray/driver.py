"""A slow job that may be killed: `python -m tests.jobs.ray.driver SOURCE OUT ADDRESS`."""

from __future__ import annotations

import sys

from tests.jobs.ray.jobs import run_ray
from tests.jobs.ray.standin import StandIn

if __name__ == "__main__":
    run_ray(sys.argv[1], sys.argv[2], model=StandIn(wait_s=0.03), address=sys.argv[3])

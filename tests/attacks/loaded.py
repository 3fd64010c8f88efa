"""What the commands under attack import, imported once for all of them."""

from __future__ import annotations

import vlmc.builder.plan.plan
import vlmc.cli.main
import vlmc.jobs.job
import vlmc.recipe.read
import vlmc.runtime.load  # noqa: F401
